"""Training examples: labels, batches, and the errors that come before a model is loaded."""

import pytest
import torch

from assistant.train import ASSISTANT
from selfplay.chat.conversation import conversation_from_pairs
from selfplay.chat.rendering import ChatRenderer
from selfplay.errors import EmptyLossMask
from selfplay.train.examples import IGNORED, build_examples, collate
from simulator.train import SIMULATOR


def test_labels_are_the_trained_roles_tokens_and_every_row_starts_with_the_first_turn(renderers, sample):
    renderer = renderers["user"]
    examples = build_examples(sample, renderer, 512)
    header = renderer.prompt_ids([], "user")
    for conversation, ids, labels in zip(sample, examples.input_ids, examples.labels, strict=True):
        rendered = renderer.render(conversation)
        assert ids.tolist() == rendered.input_ids
        assert ids[: len(header)].tolist() == header
        assert labels.tolist() == [
            id if on else IGNORED for id, on in zip(rendered.input_ids, rendered.loss_mask, strict=True)
        ]
        assert labels[-1] == renderer.end_of_conversation_id
    assert examples.supervised < examples.tokens


def test_long_conversations_are_cut_on_the_right_and_then_show_no_ending(renderers, sample):
    examples = build_examples(sample, renderers["user"], 40)
    assert examples.cut > 0
    assert max(map(len, examples.input_ids)) == 40
    long = [len(renderers["user"].render(conversation).input_ids) > 40 for conversation in sample]
    assert sum(long) == examples.cut
    for was_cut, labels in zip(long, examples.labels, strict=True):
        assert (renderers["user"].end_of_conversation_id in labels) != was_cut


def test_a_template_without_generation_tags_stops_before_training(renderers, sample):
    with pytest.raises(EmptyLossMask, match=r"no \{% generation %\} tags"):
        build_examples(sample, renderers[None], 512)


def test_a_mask_that_trains_nothing_stops_before_training(renderers):
    lonely = conversation_from_pairs("x", [("user", "is anybody there")], complete=False)
    with pytest.raises(EmptyLossMask, match="none of 1 conversations keeps a trained token"):
        build_examples([lonely], renderers["assistant"], 512)


def test_a_template_that_marks_only_absent_turns_trains_nothing(tiny_tokenizer, sample):
    marked = "{% if false %}{% generation %}x{% endgeneration %}{% endif %}"
    template = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}" + marked
    with pytest.raises(EmptyLossMask, match="keeps a trained token"):
        build_examples(sample, ChatRenderer(tiny_tokenizer, template), 512)


def row(id, input_ids, labels):
    return {"id": id, "input_ids": input_ids, "labels": labels}


def test_collation_pads_on_the_right_without_supervision():
    batch = collate([row("a", [5, 6, 7], [-100, 6, 7]), row("b", [8], [8])], pad_id=0)
    assert batch["input_ids"].shape == (2, 8)
    assert batch["input_ids"][1].tolist() == [8, *[0] * 7]
    assert batch["labels"][0].tolist() == [-100, 6, 7, *[IGNORED] * 5]
    assert (batch["ids"], batch["tokens"]) == (["a", "b"], 4)


def test_packed_collation_begins_positions_anew_and_predicts_no_first_token():
    batch = collate([row("a", [5, 6, 7], [5, 6, 7]), row("b", [8, 9], [8, 9])], pad_id=0, packed=True)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    assert batch["labels"].tolist() == [[IGNORED, 6, 7, IGNORED, 9]]


@pytest.mark.parametrize("packed", [False, True])
def test_conversations_in_a_batch_do_not_see_each_other(renderers, sample, tiny_tokenizer, packed):
    from selfplay.train.config import ScratchModel
    from selfplay.train.methods.loss import patch_loss_forward
    from selfplay.train.scratch import random_model

    shape = ScratchModel(vocab_size=600, hidden_size=64, intermediate_size=128, layers=2, heads=2)
    model = random_model(shape, tiny_tokenizer, 0).eval()
    patch_loss_forward(model)
    examples = build_examples(sample[:6], renderers["user"], 256)
    rows = [row(*values) for values in zip(examples.ids, examples.input_ids, examples.labels, strict=True)]

    def nats(some):
        batch = collate(some, 0, packed)
        return model(**{key: value for key, value in batch.items() if isinstance(value, torch.Tensor)}).loss

    with torch.no_grad():
        torch.testing.assert_close(nats(rows), sum(nats([one]) for one in rows), atol=1e-2, rtol=1e-5)


def test_the_loss_is_that_of_all_logits_and_does_not_depend_on_how_many_are_held_at_once(
    renderers, sample, tiny_tokenizer, monkeypatch
):
    from selfplay.train.config import ScratchModel
    from selfplay.train.methods import loss
    from selfplay.train.scratch import random_model

    shape = ScratchModel(vocab_size=600, hidden_size=64, intermediate_size=128, layers=2, heads=2)
    examples = build_examples(sample[:4], renderers["user"], 256)
    rows = [row(*values) for values in zip(examples.ids, examples.input_ids, examples.labels, strict=True)]
    batch = collate(rows, 0)
    inputs, labels = batch["input_ids"], batch["labels"]
    gradients = []
    for chunk in (None, loss.CHUNK, 600 * 7):
        model = random_model(shape, tiny_tokenizer, 0)
        if chunk is None:
            logits = model(input_ids=inputs).logits[:, :-1]
            nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
        else:
            monkeypatch.setattr(loss, "CHUNK", chunk)
            loss.patch_loss_forward(model)
            nats = model(input_ids=inputs, labels=labels).loss
        nats.backward()
        gradients.append((nats.detach(), model.model.layers[0].mlp.up_proj.weight.grad))
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], atol=1e-3, rtol=1e-4)


def test_the_assistants_system_prompt_is_hidden_from_the_user(sample):
    pairs = [("system", "be brief"), ("user", "hi"), ("assistant", "hello"), ("user", "bye")]
    whole = conversation_from_pairs("x", pairs, context=2)
    assert ASSISTANT.view(whole) is whole
    seen = SIMULATOR.view(whole)
    assert [turn.content for turn in seen.turns] == ["hi", "hello", "bye"]
    assert seen.context == 1
