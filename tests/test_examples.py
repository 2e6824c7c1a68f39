"""Training examples: labels, batches, and the errors that come before a model is loaded."""

import pytest
import torch

from selfplay.chat.conversation import conversation_from_pairs
from selfplay.chat.rendering import ChatRenderer
from selfplay.errors import EmptyLossMask
from selfplay.train.examples import IGNORED, LengthBatches, build_examples, collate


def test_labels_are_the_trained_roles_tokens_and_every_row_starts_with_the_first_turn(renderers, sample):
    renderer = renderers["user"]
    examples = build_examples(sample, renderer, 512)
    header = renderer.prompt_ids([], "user")
    for conversation, ids, labels in zip(sample, examples.input_ids, examples.labels, strict=True):
        rendered = renderer.render(conversation)
        assert ids == rendered.input_ids
        assert ids[: len(header)] == header
        assert labels == [id if on else IGNORED for id, on in zip(rendered.input_ids, rendered.loss_mask, strict=True)]
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


def test_batches_hold_every_row_once_within_the_budget_and_little_padding():
    lengths = [10 + (n * 7919) % 300 for n in range(1000)]
    batches = LengthBatches(lengths, 2048, seed=1)
    rows = list(batches)
    assert sorted(row for batch in rows for row in batch) == list(range(1000))
    padded = sum(len(batch) * -(-max(lengths[row] for row in batch) // 8) * 8 for batch in rows)
    assert padded / sum(lengths) < 1.1
    assert all(len(batch) * max(lengths[row] for row in batch) <= 2048 for batch in rows)


def test_epochs_differ_in_order_but_not_in_number_and_repeat_exactly():
    lengths = [10 + (n * 7919) % 300 for n in range(500)]
    batches = LengthBatches(lengths, 1024, seed=1)
    first = list(batches)
    batches.set_epoch(1)
    second = list(batches)
    assert first != second
    assert len(first) == len(second) == len(batches)
    batches.set_epoch(0)
    assert list(batches) == first


def test_collation_pads_on_the_right_without_supervision():
    batch = collate([{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}, {"input_ids": [8], "labels": [8]}], pad_id=0)
    assert batch["input_ids"].shape == (2, 8)
    assert batch["input_ids"][1].tolist() == [8, *[0] * 7]
    assert batch["labels"][0].tolist() == [-100, 6, 7, *[IGNORED] * 5]


def test_rows_in_a_batch_do_not_see_each_other(renderers, sample, tiny_tokenizer):
    from selfplay.train.config import ScratchModel
    from selfplay.train.scratch import random_model

    shape = ScratchModel(vocab_size=600, hidden_size=64, intermediate_size=128, layers=2, heads=2)
    model = random_model(shape, tiny_tokenizer, 0).eval()
    rows = [{"input_ids": ids, "labels": ids} for ids in build_examples(sample[:6], renderers["all"], 256).input_ids]
    with torch.no_grad():
        together = model(input_ids=collate(rows, 0)["input_ids"]).logits
        for number, row in enumerate(rows):
            alone = model(input_ids=torch.tensor([row["input_ids"]])).logits[0]
            torch.testing.assert_close(together[number, : len(row["input_ids"])], alone, atol=1e-4, rtol=1e-4)
