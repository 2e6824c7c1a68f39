"""The four proofs every template in use has to pass, and that text never acts as control."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay.chat.conversation import Conversation, Turn, conversation_from_pairs
from selfplay.chat.families import FAMILIES
from selfplay.chat.rendering import ChatRenderer
from selfplay.errors import ModelError

SPECIAL = ["<|im_end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|endconversation|>", "<|pad|>"]
AWKWARD = ["a", " ", "\n", "{% generation %}", "{{ 1 }}", "\ue0000\ue001"]
ROLES = ["user", "assistant", "all"]


def test_the_property_below_covers_every_special_token(tiny_tokenizer):
    assert set(SPECIAL) == set(tiny_tokenizer.all_special_tokens)


def conversation(system=True, rounds=2, last_user=False, complete=True, text="some text {n}"):
    pairs = [("system", "be brief")] if system else []
    for n in range(rounds):
        pairs += [("user", text.format(n=2 * n)), ("assistant", text.format(n=2 * n + 1))]
    if last_user:
        pairs.append(("user", "and one more"))
    return conversation_from_pairs("x", pairs, complete=complete)


@pytest.mark.parametrize("role", ROLES)
def test_every_variant_renders_the_family_text(renderers, role):
    for item in (conversation(), conversation(system=False), conversation(last_user=True, complete=False)):
        assert renderers[role].render(item).input_ids == renderers[None].render(item).input_ids


@pytest.mark.parametrize("role", ROLES)
def test_appending_a_turn_changes_nothing_before_it(renderers, role):
    item = conversation(rounds=3, complete=False)
    full = renderers[role].render(item)
    for count in range(1, len(item.turns)):
        part = renderers[role].render(Conversation("x", item.turns[:count], complete=False))
        assert full.input_ids[: len(part.input_ids)] == part.input_ids
        assert full.loss_mask[: len(part.loss_mask)] == part.loss_mask


@pytest.mark.parametrize("role", ["user", "assistant"])
@pytest.mark.parametrize("complete", [True, False])
def test_the_mask_is_the_roles_text_and_its_end_tokens_and_nothing_else(renderers, role, complete):
    renderer = renderers[role]
    item = conversation(complete=complete)
    ids, mask = renderer.render(item)
    expected = []
    for text in item.of(role):
        expected += [*renderer.encode_text(text), renderer.end_of_turn_id]
    if role == "user" and complete:
        expected.append(renderer.end_of_conversation_id)
    assert [id for id, on in zip(ids, mask, strict=True) if on] == expected


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("system", [False, True])
def test_turns_that_are_context_are_shown_and_carry_no_loss(renderers, role, system):
    whole = conversation(system, rounds=3)
    everything = renderers[role].render(whole)
    for context in range(1, len(whole.turns)):
        shown = renderers[role].render(replace(whole, context=context))
        length = len(renderers[role].render(Conversation("x", whole.turns[:context], complete=False)).input_ids)
        assert shown.input_ids == everything.input_ids
        assert shown.loss_mask == [0] * length + everything.loss_mask[length:]


def test_a_base_learns_both_sides_and_the_end(renderers):
    sides = [renderers[role].render(conversation()).loss_mask for role in ("user", "assistant")]
    assert renderers["all"].render(conversation()).loss_mask == [u | a for u, a in zip(*sides, strict=True)]


def test_whole_conversations_of_k_rounds_give_k_plus_one_user_targets_and_cut_ones_k(renderers):
    def targets(complete):
        ids, mask = renderers["user"].render(conversation(rounds=4, complete=complete))
        ends = (renderers["user"].end_of_turn_id, renderers["user"].end_of_conversation_id)
        return sum(on and id in ends for id, on in zip(ids, mask, strict=True))

    assert targets(complete=True) == 5
    assert targets(complete=False) == 4


@pytest.mark.parametrize(("role", "opened"), [("user", "<|user|>"), ("assistant", "<|assistant|>")])
def test_a_variant_opens_its_own_roles_turn(renderers, role, opened, tiny_tokenizer):
    renderer = renderers[role]
    assert renderer.opens(role)
    assert not renderer.opens("assistant" if role == "user" else "user")
    history = [Turn("user", "hi")] if role == "assistant" else []
    assert renderer.prompt_ids(history, role)[-1] == tiny_tokenizer.convert_tokens_to_ids(opened)


def test_the_tokenizers_own_apply_chat_template_gives_the_same_ids(renderers, tiny_tokenizer):
    item = conversation()
    text = tiny_tokenizer.apply_chat_template(
        item.messages(), chat_template=renderers[None].template, tokenize=False, end_of_conversation=True
    )
    assert tiny_tokenizer(text, add_special_tokens=False)["input_ids"] == renderers[None].render(item).input_ids


@pytest.mark.parametrize("role", ["user", "assistant"])
@given(parts=st.lists(st.sampled_from([*SPECIAL, *AWKWARD]), min_size=1))
@settings(max_examples=60, deadline=None)
def test_special_tokens_inside_text_stay_text(renderers, role, parts):
    renderer, text = renderers[role], "".join(parts)
    ids = renderer.encode_text(text)
    assert not set(ids) & set(renderer.tokenizer.all_special_ids)
    assert renderer.decode(ids) == text
    turns = (Turn("user", text), Turn("assistant", text))
    rendered = renderer.render(Conversation("x", turns, complete=False)).input_ids
    assert rendered.count(renderer.end_of_turn_id) == 2
    assert renderer.end_of_conversation_id not in rendered


def test_sampled_ids_are_kept_and_not_tokenised_again(renderers):
    renderer = renderers["user"]
    odd = tuple(id for letter in "hello" for id in renderer.encode_text(letter))
    assert list(odd) != renderer.encode_text("hello")
    turns = [Turn("user", "hello", "sampled", odd), Turn("assistant", "hello", "sampled", odd)]
    prompt = renderer.prompt_ids(turns, "user")
    first = renderer.prompt_ids([], "user")
    assert prompt[: len(first) + len(odd)] == [*first, *odd]
    # The other side may use another tokenizer, so its ids are not ours to keep.
    assert prompt[len(first) + len(odd) + 2 :][: len(renderer.encode_text("hello"))] == renderer.encode_text("hello")


def test_every_prompt_extends_the_one_before_it(renderers):
    renderer = renderers["user"]
    turns, before = [], renderer.prompt_ids([], "user")
    for n in range(4):
        ids = tuple(renderer.encode_text(f"turn {n}"))
        turns += [Turn("user", f"turn {n}", "sampled", ids), Turn("assistant", f"answer {n}")]
        prompt = renderer.prompt_ids(turns, "user")
        assert prompt[: len(before) + len(ids)] == [*before, *ids]
        before = prompt


def test_a_tokenizer_without_template_or_end_token_is_refused(tiny_tokenizer):
    from transformers import PreTrainedTokenizerFast

    with pytest.raises(ModelError, match="no chat template"):
        ChatRenderer(tiny_tokenizer)
    bare = PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer.backend_tokenizer)
    with pytest.raises(ModelError, match="eos_token"):
        ChatRenderer(bare, FAMILIES["nano"].template("user"))
