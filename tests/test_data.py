import gzip
import json

import pytest

from selfplay.data.catalogue import CATALOGUE, locate
from selfplay.data.formats import FORMATS, recognise
from selfplay.data.loading import is_held_out, load
from selfplay.errors import BadRow, ConfigError, DataError, InvalidConversation

HH = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: bye\n\nAssistant: see you"
OASST = {
    "message_tree_id": "t",
    "prompt": {
        "role": "prompter",
        "text": "q",
        "replies": [
            {"role": "assistant", "text": "worse", "rank": 1, "replies": []},
            {"role": "assistant", "text": "better", "rank": 0, "replies": [{"role": "prompter", "text": "thanks"}]},
        ],
    },
}
GOOD = {
    "messages": {"id": "a", "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]},
    "sharegpt": {"id": "abc", "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes"}]},
    "oasst": OASST,
    "hh_rlhf": {"chosen": HH, "rejected": HH},
    "sgd": {
        "dialogue_id": "1_0",
        "services": ["Hotels_1"],
        "turns": [{"speaker": "USER", "utterance": "hi"}, {"speaker": "SYSTEM", "utterance": "yes"}],
    },
    "taskmaster": {
        "conversation_id": "d",
        "utterances": [{"speaker": "USER", "text": "hi"}, {"speaker": "assistant", "text": "yes"}],
    },
    "camrest": {"dial": [{"usr": {"transcript": "hi"}, "sys": {"sent": "yes"}}]},
}


def only(name, row):
    (conversation,) = FORMATS[name].convert(row)
    return conversation


@pytest.mark.parametrize("name", FORMATS)
def test_rows_are_recognised_by_their_keys_and_converted(name):
    assert recognise(GOOD[name]).name == name
    conversation = only(name, GOOD[name])
    assert conversation.turns[0].role == "user"
    assert conversation.turns[0].origin == "human"


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("broken", [{}, {"messages": 3, "dial": 3, "turns": "x", "prompt": 1, "chosen": None}])
def test_rows_with_missing_or_mistyped_fields_are_bad_rows(name, broken):
    row = {"id": "a", "dialogue_id": "a", "conversation_id": "a", "message_tree_id": "a", **broken}
    with pytest.raises((BadRow, InvalidConversation)):
        only(name, row)


def test_cut_sources_are_marked_as_showing_no_ending():
    assert not only("hh_rlhf", GOOD["hh_rlhf"]).complete
    assert only("sharegpt", GOOD["sharegpt"]).complete
    assert not only("sharegpt", {**GOOD["sharegpt"], "id": "abc_0"}).complete
    with pytest.raises(BadRow, match="continues a longer conversation"):
        only("sharegpt", {**GOOD["sharegpt"], "id": "abc_3"})
    assert only("sgd", GOOD["sgd"]).complete


def test_sharegpt_rows_that_say_they_are_incomplete_are_believed():
    assert not only("sharegpt", {**GOOD["sharegpt"], "complete": False}).complete


def test_half_a_surrogate_pair_is_a_bad_row(tmp_path):
    row = {"messages": [{"role": "user", "content": "hi \ud83d"}, {"role": "assistant", "content": "yes"}]}
    loaded = load([str(write_lines(tmp_path / "a.jsonl", [GOOD["messages"], row]))])
    assert len(loaded.conversations) == 1
    assert any("lone surrogate" in reason for reason in loaded.skipped)


def test_a_share_that_comes_out_empty_says_so(tmp_path):
    file = write_lines(tmp_path / "a.jsonl", [GOOD["messages"]])
    with pytest.raises(DataError, match="none of 1 conversations falls into the held-out half"):
        load([str(file)], split="held_out", held_out=1e-9)


def test_exported_messages_are_complete_only_when_the_user_ended_them():
    assert only("messages", {**GOOD["messages"], "ended": "user_ended"}).complete
    assert not only("messages", {**GOOD["messages"], "ended": "max_rounds"}).complete
    assert not only("messages", {**GOOD["messages"], "complete": False}).complete


def test_oasst_follows_the_best_ranked_replies_and_refuses_machine_prompts():
    assert [turn.content for turn in only("oasst", OASST).turns] == ["q", "better", "thanks"]
    machine = {**OASST, "prompt": {**OASST["prompt"], "synthetic": True}}
    with pytest.raises(BadRow, match="written by a model"):
        only("oasst", machine)


def test_taskmaster_utterances_of_one_speaker_are_one_turn():
    row = {"conversation_id": "d", "utterances": [{"speaker": "user", "text": t} for t in ("a latte", "please")]}
    assert only("taskmaster", row).of("user") == ["a latte please"]


def test_the_same_human_side_has_one_name_in_hh_rlhf():
    other = HH.replace("see you", "goodbye then")
    assert only("hh_rlhf", {"chosen": HH}).id == only("hh_rlhf", {"chosen": other}).id


def write_lines(path, rows):
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def test_bad_rows_are_counted_by_reason_and_place(tmp_path):
    file = write_lines(tmp_path / "a.jsonl", [GOOD["messages"], "{oops\n", "3\n", {"messages": []}, {"messages": []}])
    loaded = load([str(file)])
    assert len(loaded.conversations) == 1
    assert loaded.rows == 5
    assert sum(loaded.skipped.values()) == 4
    assert loaded.examples[next(reason for reason in loaded.skipped if "not JSON" in reason)] == "a.jsonl:2"
    assert max(loaded.skipped.values()) == 2


def test_strict_stops_at_the_first_bad_row_with_file_and_line(tmp_path):
    file = write_lines(tmp_path / "a.jsonl", [GOOD["messages"], "{oops\n"])
    with pytest.raises(DataError, match=r"a\.jsonl:2: not JSON"):
        load([str(file)], strict=True)


def test_gzip_arrays_and_bom_are_read(tmp_path):
    file = tmp_path / "a.json.gz"
    file.write_bytes(gzip.compress(b"\xef\xbb\xbf" + json.dumps([GOOD["camrest"]]).encode()))
    assert len(load([str(file)]).conversations) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "no usable conversation"),
        ("a.jsonl", b'{"what": 1}\n', "found keys what"),
        ("a.json", b"{}", "expected an array"),
        ("a.json", b"[", "not JSON"),
        ("a.txt", b"hi", "cannot read .txt"),
        ("a.jsonl.gz", gzip.compress(b"{}" * 500)[:-9], "is the file whole"),
    ],
)
def test_unusable_files_say_what_was_found_and_expected(tmp_path, name, content, message):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        load([str(file)])


def test_an_unknown_name_lists_the_known_ones(outside_data):
    with pytest.raises(DataError, match="known names: sample, sgd_train"):
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
    assert all(conversation.complete and conversation.shows_an_ending for conversation in sample)


@pytest.mark.data
@pytest.mark.parametrize("name", CATALOGUE)
def test_catalogue_files_convert_nearly_whole(name):
    loaded = load([name])
    expected = ("continues a longer", "written by a model")
    refused = sum(n for reason, n in loaded.skipped.items() if not any(part in reason for part in expected))
    assert refused <= 0.01 * loaded.rows
    assert len(loaded.conversations) + sum(loaded.skipped.values()) == loaded.rows
