import gzip
import json

import pytest
from source_rows import ROWS

from selfplay.data.catalogue import locate
from selfplay.data.loading import is_held_out, load, split_conversations
from selfplay.errors import ConfigError, DataError

GOOD = {name: row for name, (row, _, _) in ROWS.items()}


def test_half_a_surrogate_pair_is_a_bad_row(tmp_path):
    row = {"messages": [{"role": "user", "content": "hi \ud83d"}, {"role": "assistant", "content": "yes"}]}
    loaded = load([str(write_lines(tmp_path / "a.jsonl", [GOOD["messages"], row]))])
    assert len(loaded.conversations) == 1
    assert any("lone surrogate" in reason for reason in loaded.refused.counts)


def test_a_share_that_comes_out_empty_says_so(tmp_path):
    file = write_lines(tmp_path / "a.jsonl", [GOOD["messages"]])
    with pytest.raises(DataError, match="none of 1 conversations falls into the held-out half"):
        load([str(file)], split="held_out", held_out=1e-9)


def write_lines(path, rows):
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def test_bad_rows_are_counted_by_reason_and_place(tmp_path):
    file = write_lines(tmp_path / "a.jsonl", [GOOD["messages"], "{oops\n", "3\n", {"messages": []}, {"messages": []}])
    loaded = load([str(file)])
    assert len(loaded.conversations) == 1
    assert loaded.rows == 5
    assert loaded.refused.counts.total() == 4
    assert (
        loaded.refused.examples[next(reason for reason in loaded.refused.counts if "not JSON" in reason)] == "a.jsonl:2"
    )
    assert max(loaded.refused.counts.values()) == 2


def test_strict_stops_at_the_first_bad_row_with_file_and_line(tmp_path):
    file = write_lines(tmp_path / "a.jsonl", [GOOD["messages"], "{oops\n"])
    with pytest.raises(DataError, match=r"a\.jsonl:2: not JSON"):
        load([str(file)], strict=True)


def test_gzip_arrays_and_bom_are_read(tmp_path):
    file = tmp_path / "a.json.gz"
    file.write_bytes(gzip.compress(b"\xef\xbb\xbf" + json.dumps([GOOD["camrest"]]).encode()))
    assert len(load([str(file)]).conversations) == 1


def test_an_unknown_name_lists_the_known_ones(outside_data):
    with pytest.raises(DataError, match="known names: `selfplay data list`"):
        load(["no-such-set"])
    with pytest.raises(DataError, match="SELFPLAY_DATA"):
        locate("sgd_train")
    with pytest.raises(ConfigError, match="unknown data format"):
        load(["sample"], format="csv")


def test_the_held_out_share_is_disjoint_and_stays_the_same(sample):
    train, held_out = (load(["sample"], split=split, held_out=0.2).conversations for split in ("train", "held_out"))
    assert len(train) + len(held_out) == len(sample)
    assert 0.08 < len(held_out) / len(sample) < 0.35
    assert not {c.id for c in train} & {c.id for c in held_out}
    assert all(is_held_out(conversation, 0.2) for conversation in held_out)


def test_the_shipped_sample_is_a_hundred_distinct_whole_conversations(sample):
    assert len(sample) >= 100
    assert len({conversation.turns[0].content for conversation in sample}) == len(sample)
    assert all(conversation.complete and conversation.has_end_target for conversation in sample)


def test_one_group_is_never_in_both_halves(tmp_path):
    rows = [{**GOOD["wildchat"], "conversation_hash": str(n), "hashed_ip": f"person{n // 10}"} for n in range(400)]
    loaded = load([str(write_lines(tmp_path / "a.jsonl", rows))])
    train, held_out = split_conversations(loaded.conversations, 0.3)
    people = [{conversation.meta["group"] for conversation in half} for half in (train, held_out)]
    assert not people[0] & people[1]
    assert len(people[0] | people[1]) == 40


def test_cleaned_rows_fall_into_the_same_half_as_raw_ones(tmp_path, sample):
    from selfplay.data.rows import row_of

    file = write_lines(tmp_path / "cleaned.jsonl", [row_of(conversation) for conversation in sample])
    again = load([str(file)]).conversations
    assert [is_held_out(c, 0.3) for c in again] == [is_held_out(c, 0.3) for c in sample]
    assert [(c.id, c.turns, c.complete, c.meta) for c in again] == [(c.id, c.turns, c.complete, c.meta) for c in sample]
