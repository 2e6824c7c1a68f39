"""The proofs every template in use has to pass, for every family, and that text never acts as control.

1. same text: what the family publishes (fastchat's conversation, or the template TRL stores of it)
2. same ids: those of the whole text, as any server encodes it
3. appending a turn changes nothing before it
4. the mask is the trained role's text and its end, nothing else
5. the generation prompt opens the trained role's turn
"""

from dataclasses import replace
from importlib.resources import files

import pytest
from family_tokenizers import SENTENCEPIECE, tokenizer_for
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay.chat.conversation import Conversation, Turn, conversation_from_pairs
from selfplay.chat.families import FAMILIES, FASTCHAT, family
from selfplay.chat.rendering import ChatRenderer
from selfplay.errors import ConfigError, ModelError

SPECIAL = ["<|im_end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|endconversation|>", "<|pad|>"]
AWKWARD = ["a", " ", "\n", "{% generation %}", "{{ 1 }}", "\ue0000\ue001"]
ROLES = ["user", "assistant", "all"]
TOKENIZERS = [*((name, "prepend") for name in FAMILIES), *((name, "first") for name in SENTENCEPIECE)]
PUBLISHED = {"qwen2.5": "qwen2_5", "qwen3": "qwen3_instruct_2507", "llama3": "llama3", "llama3.1": "llama3_1"}
PUBLISHED |= {"gemma": "gemma3", "chatml": "qwen3_instruct_2507"}
TEXT = "(So many) words: it's {n}!"


def test_the_property_below_covers_every_special_token(tiny_tokenizer):
    assert set(SPECIAL) == set(tiny_tokenizer.all_special_tokens)


def conversation(system=True, rounds=2, last_user=False, complete=True, text=TEXT):
    pairs = [("system", "be brief")] if system else []
    for n in range(rounds):
        pairs += [("user", text.format(n=2 * n)), ("assistant", text.format(n=2 * n + 1))]
    if last_user:
        pairs.append(("user", "and one more"))
    return conversation_from_pairs("x", pairs, complete=complete)


def of_family(name, **options):
    """A conversation the family can render."""
    return conversation(system=False, rounds=1, **options) if family(name).single_turn else conversation(**options)


@pytest.fixture(params=TOKENIZERS, ids=lambda pair: "-".join(pair))
def case(request):
    """Family name and its renderers by role, None for the family's own template."""
    name, prefix = request.param
    tokenizer = tokenizer_for(name, prefix)
    return name, {role: ChatRenderer(tokenizer, family(name).template(role)) for role in (None, *ROLES)}


def text_of(renderer, item, **switches):
    return renderer.tokenizer.apply_chat_template(
        item.messages(), chat_template=renderer.template, tokenize=False, **switches
    )


# 1. Same text.


@pytest.mark.parametrize("system", [False, True])
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_family_has_the_text_it_publishes(name, system):
    tokenizer = tokenizer_for(name)
    tokenizer.bos_token = {"llama3": "<|begin_of_text|>", "gemma": "<bos>"}.get(name[:6].rstrip("."))
    published = files("trl.chat_templates").joinpath(f"{PUBLISHED[name]}.jinja").read_text("utf-8")
    for item in (conversation(system), conversation(system, last_user=True)):
        own, theirs = ChatRenderer(tokenizer, family(name).template()), ChatRenderer(tokenizer, published)
        assert text_of(own, item) == text_of(theirs, item)
        assert text_of(own, item, add_generation_prompt=True) == text_of(theirs, item, add_generation_prompt=True)


@pytest.mark.parametrize("system", [False, True])
@pytest.mark.parametrize("theirs", FASTCHAT)
def test_a_family_has_the_text_of_fastchats_conversation(theirs, system):
    from fastchat.conversation import get_conv_template

    known = family(theirs)
    item, template = conversation(system), get_conv_template(theirs)
    if system:
        template.set_system_message("be brief" + "\n\n" * (theirs == "ReaLM-7b-v1"))
    for turn in item.turns[system:]:
        template.append_message(template.roles[turn.role == "assistant"], turn.content)
    expected = ("<s>" if "<s>" in known.needs else "") + template.get_prompt()
    own = text_of(ChatRenderer(tokenizer_for(theirs), known.template()), item)
    assert own + "<s>" * (theirs == "llama-2") == expected  # fastchat's begins the next turn


@pytest.mark.parametrize(("name", "after"), [("alpaca", ""), ("alpaca_lora", "\n")])
def test_alpaca_has_the_prompt_it_was_trained_with(name, after):
    renderer = ChatRenderer(tokenizer_for(name), family(name).template())
    expected = (
        "<s>Below is an instruction that describes a task. Write a response that appropriately completes the request."
        f"\n\n### Instruction:\nAdd 1 and 1.\n\n### Response:{after}2</s>"
    )
    assert text_of(renderer, conversation_from_pairs("x", [("user", "Add 1 and 1."), ("assistant", "2")])) == expected
    with pytest.raises(Exception, match="single-turn"):
        text_of(renderer, conversation(system=False))


def test_ultralm_has_the_format_of_its_card():
    renderer = ChatRenderer(tokenizer_for("ultralm"), family("ultralm").template())
    expected = "<s>User: a</s>\nAssistant: b</s>\nUser: c</s>\nAssistant: d</s>\n"
    pairs = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    assert text_of(renderer, conversation_from_pairs("x", pairs)) == expected


def test_every_variant_has_the_familys_text_but_for_ends_the_family_lacks(case):
    name, renderers = case
    for item in (of_family(name), of_family(name, last_user=False, complete=False)):
        own = text_of(renderers[None], item)
        assert text_of(renderers["assistant"], item) == own
        for role in ("user", "all"):
            text = text_of(renderers[role], item)
            if not family(name).ends_user_turns:
                for said in item.of("user"):
                    text = text.replace(f"{said}</s>", said, 1)
            assert text == own


def test_an_unknown_family_is_refused_with_the_names_there_are():
    with pytest.raises(ConfigError, match=r"unknown template family 'zephyr'.*vicuna.*fastchat's vicuna_v1.1"):
        family("zephyr")


# 2. Same ids.


@pytest.mark.parametrize("role", [None, *ROLES])
def test_the_ids_are_those_of_the_whole_text(case, role):
    name, renderers = case
    renderer = renderers[role]
    for item in (of_family(name), of_family(name, text="Hi")):
        text = text_of(renderer, item, end_of_conversation=True)
        assert renderer.tokenizer(text, add_special_tokens=False)["input_ids"] == renderer.render(item).input_ids
        assert renderer.render(item).input_ids.count(renderer.end_of_conversation_id) == 1


# 3. Appending changes nothing.


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("system", [False, True])
def test_appending_a_turn_changes_nothing_before_it(case, role, system):
    name, renderers = case
    item = of_family(name, complete=False) if family(name).single_turn else conversation(system, 3, complete=False)
    full = renderers[role].render(item)
    for count in range(1, len(item.turns)):
        part = renderers[role].render(Conversation("x", item.turns[:count], complete=False))
        assert full.input_ids[: len(part.input_ids)] == part.input_ids
        assert full.loss_mask[: len(part.loss_mask)] == part.loss_mask


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_every_prompt_extends_what_was_prompted_and_sampled_before(case, role):
    name, renderers = case
    renderer = renderers[role]
    rounds = 1 if family(name).single_turn else 3
    turns, before = [], []
    for n in range(rounds):
        for speaker in ("user", "assistant"):
            prompt = renderer.prompt_ids(turns, role)
            assert prompt[: len(before)] == before
            sampled = None
            if speaker == role:
                sampled = tuple(renderer.encode_text(f"turn {n}"))
                before = [*prompt, *sampled]
            turns.append(Turn(speaker, f"turn {n}", "sampled", sampled))


# 4. The mask.


@pytest.mark.parametrize("role", ["user", "assistant"])
@pytest.mark.parametrize("complete", [True, False])
def test_the_mask_is_the_roles_text_and_its_end_tokens_and_nothing_else(case, role, complete):
    name, renderers = case
    renderer = renderers[role]
    item = of_family(name, complete=complete)
    ids, mask = renderer.render(item)
    runs, run = [], []
    for id, on in zip([*ids, None], [*mask, 0], strict=True):
        if on:
            run.append(id)
        elif run:
            runs, run = [*runs, run], []
    ends = [renderer.end_of_conversation_id] if role == "user" and complete else []
    texts = [renderer.tokenizer.decode(run[:-1]).strip() for run in runs[: len(item.of(role))]]
    assert texts == item.of(role)
    assert [run[-1] for run in runs] == [renderer.end_of_turn_id] * len(texts) + ends
    assert len(runs) == len(texts) + len(ends)
    assert not any({*run[:-1]} & {*renderer.special_tokens} for run in runs)


def test_llama_2_learns_the_space_before_its_end_and_does_not_say_it_twice():
    renderer = ChatRenderer(tokenizer_for("llama2"), family("llama2").template("assistant"))
    item = conversation(system=False, complete=False)
    ids, mask = renderer.render(item)
    trained = [id for id, on in zip(ids, mask, strict=True) if on]
    first = trained[: trained.index(renderer.end_of_turn_id)]
    assert renderer.tokenizer.convert_ids_to_tokens(first[-1]) == "▁"
    turns = [item.turns[0], Turn("assistant", item.turns[1].content, "sampled", tuple(first)), item.turns[2]]
    assert renderer.prompt_ids(turns, "assistant") == ids[: len(renderer.prompt_ids(turns, "assistant"))]


# 5. The opening.


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_the_generation_prompt_is_the_beginning_of_the_trained_roles_turn(case, role):
    name, renderers = case
    renderer = renderers[role]
    assert renderer.opens_turn_of(role)
    assert not renderer.opens_turn_of("assistant" if role == "user" else "user")
    item = of_family(name)
    ids, mask = renderer.render(item)
    turns = list(item.turns)
    first = [turn.role for turn in turns].index(role)
    prompt = renderer.prompt_ids(turns[:first], role)
    assert prompt == ids[: len(prompt)]
    assert mask.index(1) == len(prompt)
    later = turns[: first + 2] if role == "user" else turns[:first]  # of an empty history servers make no prompt
    prompt = renderer.prompt_ids(later, role)
    assert prompt == ids[: len(prompt)]
    opened = text_of(renderer, Conversation("x", tuple(later)), add_generation_prompt=True)
    assert renderer.tokenizer(opened, add_special_tokens=False)["input_ids"] == prompt


def test_text_that_looks_like_the_familys_tokens_stays_text(case):
    name, renderers = case
    known = family(name)
    for role in ("user", "assistant"):
        renderer = renderers[role]
        text = "".join((*known.special_tokens, "x"))
        item = of_family(name, complete=False)
        hostile = replace(item, turns=tuple(replace(turn, content=text) for turn in item.turns))
        found = renderer.render(hostile).input_ids
        for id in renderer.special_tokens:
            assert found.count(id) == renderer.render(item).input_ids.count(id)


# What else holds for a renderer, on the embedded pair's family.


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


def test_a_tokenizer_without_template_or_end_token_is_refused(tiny_tokenizer):
    from transformers import PreTrainedTokenizerFast

    with pytest.raises(ModelError, match="no chat template"):
        ChatRenderer(tiny_tokenizer)
    bare = PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer.backend_tokenizer)
    with pytest.raises(ModelError, match="eos_token"):
        ChatRenderer(bare, FAMILIES["nano"].template("user"))
