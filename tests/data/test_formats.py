import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from source_rows import ASKED_FOR, HH, OASST, ROWS, SHAREGPT, read_rows

from selfplay.data.formats import FORMATS, format_named, recognise, recognise_any
from selfplay.data.loading import load
from selfplay.data.rejects import Rejects
from selfplay.data.rows import row_of
from selfplay.errors import BadRow, ConfigError, DataError, InvalidConversation
from selfplay.files import json_line
from selfplay.seeds import derive_seed


def converted(name, row):
    return list(FORMATS[name].convert(row))


def only(name, row):
    (conversation,) = converted(name, row)
    return conversation


def texts(conversation):
    return [turn.content for turn in conversation.turns]


def test_every_format_has_an_example_here():
    assert ROWS.keys() | ASKED_FOR.keys() == FORMATS.keys()


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_recognised_by_their_keys(name):
    assert recognise(ROWS[name][0]).name == name


@pytest.mark.parametrize("name", ROWS)
def test_rows_become_the_conversation_they_hold(name):
    row, expected, complete = ROWS[name]
    conversation = only(name, row)
    assert texts(conversation) == expected
    assert [turn.role for turn in conversation.turns] == ["user", "assistant", "user", "assistant"][: len(expected)]
    assert all(turn.origin == "human" for turn in conversation.turns)
    assert conversation.complete is complete
    assert conversation.context == 0


@pytest.mark.parametrize("name", ASKED_FOR)
def test_formats_that_look_like_others_are_used_when_named(name):
    row, expected, complete = ASKED_FOR[name]
    found = converted(name, row)
    assert [texts(conversation) for conversation in found] == expected
    assert all(conversation.complete is complete for conversation in found)


NAMED = {"oasst", "sgd", "taskmaster", "taskmaster_reward"}
"""Formats whose rows always have a name."""


@pytest.mark.parametrize("name", ROWS.keys() - NAMED)
def test_ids_depend_on_the_text_where_the_row_has_none(name):
    row = {key: value for key, value in ROWS[name][0].items() if not re.search("id$|_hash$|column_3", key)}
    other = json.loads(re.sub(r"\bhi\b", "hey", json.dumps(row, ensure_ascii=False)))
    assert only(name, row).id == only(name, json.loads(json.dumps(row))).id != only(name, other).id


# What a source may do to any of its values.
junk = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([-1, 0, 3, 10**400]),
    st.floats(),
    st.text(max_size=8),
    st.just("\ud800"),
    st.just("x" * 10_000_000),
    st.just([]),
    st.just({}),
    st.just([[[[]]]]),
    st.just([None, 1, "a", {}]),
    st.just({"role": "user"}),
)


def places(value, path=()):
    """Every place in a row where something else may stand."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def with_junk(value, path, new, drop):
    if not path:
        return new
    copy = value.copy()
    if len(path) == 1 and drop:
        del copy[path[0]]
    else:
        copy[path[0]] = with_junk(value[path[0]], path[1:], new, drop)
    return copy


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_damaged_row_is_a_conversation_or_a_bad_row_and_nothing_else(name, data):
    row = {**ROWS, **ASKED_FOR}[name][0]
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from([path for path in places(row) if path]))
        row = with_junk(row, path, data.draw(junk), data.draw(st.booleans()))
        if not row:
            break
    try:
        for conversation in FORMATS[name].convert(row):
            assert json.loads(json_line(row_of(conversation)))["messages"] == conversation.messages()
            derive_seed(conversation.id, str(conversation.meta.get("group", "")))
            assert conversation.turns[0].role in ("user", "system")
    except (BadRow, InvalidConversation):
        pass


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted({key for f in FORMATS.values() for key in f.keys})), junk, max_size=4))
def test_any_row_is_recognised_or_refused_with_its_keys(row):
    fitting = [format for format in FORMATS.values() if format.fits(row)]
    if fitting:
        assert recognise(row) in fitting
    else:
        with pytest.raises(BadRow, match="found keys"):
            recognise(row)


def test_an_unknown_row_shows_its_keys_and_the_nearest_formats():
    with pytest.raises(BadRow, match=r"found keys instructions, outputs; nearest: .*alpaca \(instruction, output\)"):
        recognise({"instructions": "a", "outputs": "b"})
    with pytest.raises(DataError, match=r"a\.jsonl: unknown row format: found keys what"):
        recognise_any([{"what": 1}], "a.jsonl")
    with pytest.raises(ConfigError, match=r"unknown data format 'csv'; did you mean"):
        format_named("csv")


def test_a_benchmark_problem_with_a_prompt_is_no_opening():
    with pytest.raises(BadRow):
        recognise({"task_id": "x", "prompt": "def f():", "canonical_solution": "", "test": ""})


# ShareGPT


def test_parts_of_a_longer_talk_share_a_group_and_show_no_ending():
    whole, first, later = (
        only("sharegpt", {"id": id, "conversations": SHAREGPT}) for id in ("abcdefg", "abcdefg_0", "abcdefg_3")
    )
    assert (whole.complete, first.complete, later.complete) == (True, False, False)
    assert first.meta["group"] == later.meta["group"] == "abcdefg_0"


def test_the_first_human_turn_of_a_later_part_is_context():
    later = {"id": "abcdefg_3", "conversations": SHAREGPT * 2}
    starts_with_a_reply = {"conversations": [SHAREGPT[1], *SHAREGPT]}
    assert only("sharegpt", later).context == 1
    assert only("sharegpt", starts_with_a_reply).context == 1
    assert texts(only("sharegpt", starts_with_a_reply)) == ["hi", "hello"]
    assert only("sharegpt", {"id": "abcdefg_0", "conversations": SHAREGPT}).context == 0


def test_a_system_turn_is_kept_and_counts_as_context_of_a_later_part():
    turns = [{"from": "system", "value": "Be brief."}, *SHAREGPT]
    assert only("sharegpt", {"id": "x", "conversations": turns}).turns[0].role == "system"
    assert only("sharegpt", {"id": "abcdefg_2", "conversations": turns}).context == 2


def test_numbered_ids_of_other_sources_are_whole_talks():
    conversation = only("sharegpt", {"id": "identity_3", "conversations": SHAREGPT})
    assert (conversation.complete, conversation.context, conversation.meta) == (True, 0, {})


def test_replies_alone_are_no_conversation():
    with pytest.raises(BadRow, match="replies alone"):
        only("sharegpt", {"id": "x_2", "conversations": [SHAREGPT[1]]})


def test_calls_of_functions_are_not_part_of_what_the_person_saw():
    calls = [{"from": "function_call", "value": "{}"}, {"from": "observation", "value": "{}"}]
    assert texts(only("sharegpt", {"conversations": [SHAREGPT[0], *calls, SHAREGPT[1]]})) == ["hi", "hello"]


def test_sharegpt_rows_that_say_they_are_incomplete_are_believed():
    assert not only("sharegpt", {"id": "abc", "conversations": SHAREGPT, "complete": False}).complete


# Messages


def test_messages_are_complete_only_when_the_user_ended_them():
    row = ROWS["messages"][0]
    assert only("messages", {**row, "ended": "user_ended"}).complete
    assert not only("messages", {**row, "ended": "max_rounds"}).complete
    assert not only("messages", {**row, "complete": False}).complete


def test_messages_in_a_table_cell_are_read_and_run_nothing():
    cell = "[{'content': 'hi', 'role': 'user'}, {'content': 'hello', 'role': 'assistant'}]"
    assert texts(only("messages", {"prompt_id": "p", "messages": cell})) == ["hi", "hello"]
    with pytest.raises(BadRow, match="holds no list"):
        only("messages", {"messages": "__import__('os').getcwd()"})


def test_calls_of_tools_are_left_out_of_messages():
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    result = {"role": "tool", "content": "42"}
    user, reply = ROWS["messages"][0]["messages"]
    assert texts(only("messages", {"messages": [user, call, result, reply]})) == ["hi", "hello"]


def test_replies_that_people_judged_bad_are_refused():
    with pytest.raises(BadRow, match="judged bad"):
        only("messages", {**ROWS["messages"][0], "label": False})
    with pytest.raises(InvalidConversation):
        only("taskmaster_reward", {**ROWS["taskmaster_reward"][0], "context": "[]", "reward": 0.0})
    assert texts(only("taskmaster_reward", {**ROWS["taskmaster_reward"][0], "reward": 0.0})) == ["hi"]


def test_people_are_groups_where_the_data_knows_them():
    assert only("wildchat", ROWS["wildchat"][0]).meta["group"] == "p"
    assert only("shp", ROWS["shp"][0]).meta["group"] == "p"


@pytest.mark.parametrize("name", ["alpaca", "prompt_chosen", "webgpt", "sharegpt_preference", "taskmaster_reward"])
def test_rows_made_from_one_talk_share_a_group(name):
    row = ROWS[name][0]
    other = {**row, "output": "another", "chosen": "another", "answer_1": "another", "generation": "null"}
    assert only(name, row).meta["group"] == only(name, other).meta["group"]


@pytest.mark.parametrize(
    ("row", "shown"),
    [({"context": "some passage"}, 0), ({"context": True}, 1), ({"context": 99}, 0), ({"meta": "x", "group": None}, 0)],
)
def test_columns_of_other_sources_do_not_pass_for_ours(row, shown):
    conversation = only("messages", {**ROWS["messages"][0], **row})
    assert conversation.context == shown
    assert "group" not in conversation.meta


def test_what_tables_say_about_completeness_is_text():
    assert not only("messages", {**ROWS["messages"][0], "complete": "False"}).complete
    assert only("messages", {**ROWS["messages"][0], "complete": "True", "group": 7}).meta["group"] == "7"


def test_an_instruction_about_a_marker_is_no_transcript():
    assert recognise({"instruction": "What does 'Human: hi' do?", "input": "", "output": "x"}).name == "alpaca"


# Trees and transcripts


def test_a_path_with_a_prompt_by_a_machine_is_refused():
    machine = {**OASST, "prompt": {**OASST["prompt"], "synthetic": True}}
    for name in ("oasst", "oasst_paths"):
        with pytest.raises(BadRow, match="written by a model"):
            converted(name, machine)


def test_paths_by_people_are_kept_beside_refused_ones():
    replies = OASST["prompt"]["replies"]
    answered = {**replies[1], "replies": [{"role": "prompter", "text": "thanks", "synthetic": True}]}
    tree = {**OASST, "prompt": {**OASST["prompt"], "replies": [replies[0], answered]}}
    assert [texts(path) for path in converted("oasst_paths", tree)] == [["q", "worse"]]
    assert converted("oasst_paths", tree)[0].meta["paths_left_out"] == 1
    assert {path.meta["group"] for path in converted("oasst_paths", OASST)} == {"t"}


def test_the_same_human_side_has_one_name_in_hh_rlhf():
    other = HH.replace("see you", "goodbye then")
    assert only("hh_rlhf", {"chosen": HH}).id == only("hh_rlhf", {"chosen": other}).id


def test_a_greeting_is_kept_apart_from_the_turns():
    assert only("taskmaster", ROWS["taskmaster"][0]).meta["greeting"] == "how can I help?"


def test_refgpt_dialogues_are_read_as_their_generator_writes_them():
    text = "<start_chat><Human 1>:(word count: 20 words) hi\n<Assistant 1>:(word count: 9 words)hello <end_chat>"
    assert recognise({"dialogue": text}).name == "refgpt"
    assert texts(only("refgpt", {"dialogue": text})) == ["hi", "hello"]


def test_words_that_look_like_a_marker_inside_a_turn_are_text():
    row = {"chosen": "\n\nHuman: what does Human: mean?\n\nAssistant: A marker.", "rejected": ""}
    assert texts(only("hh_rlhf", row)) == ["what does Human: mean?", "A marker."]


def test_what_stands_before_the_first_user_marker_is_the_system_prompt():
    conversation = only("vicuna_text", {"text": "A chat. USER: hi ASSISTANT: hello</s>"})
    assert [turn.role for turn in conversation.turns] == ["system", "user", "assistant"]


# Real rows


@dataclass(frozen=True)
class Real:
    format: str
    rows: int
    conversations: int


REAL = {
    "chat/dolly_15k_sample.csv.gz": Real("dolly", 121, 121),
    "chat/hh_rlhf_harmless_base_test.jsonl.gz": Real("hh_rlhf", 2312, 2300),
    "chat/hh_rlhf_helpful_base_test.jsonl.gz": Real("hh_rlhf", 2354, 2344),
    "chat/hh_rlhf_helpful_rejection_sampled_test.jsonl.gz": Real("hh_rlhf", 2749, 2748),
    "chat/lima.json.gz": Real("alpaca", 1029, 1029),
    "chat/no_robots_sample.csv.gz": Real("messages", 319, 319),
    "chat/oasst1_zh_sft.json.gz": Real("alpaca", 766, 766),
    "chat/oasst_en_100_trees.jsonl.gz": Real("oasst", 100, 95),
    "chat/oasst_prompt_lottery_en_250.jsonl": Real("prompts", 250, 250),
    "chat/sharegpt_1k.jsonl.gz": Real("sharegpt", 970, 957),
    "chat/sharegpt_zh_1k.jsonl.gz": Real("sharegpt", 992, 991),
    "task/abcd_sample.json": Real("abcd", 3, 3),
    "task/camrest676_test.json.gz": Real("camrest", 135, 135),
    "task/camrest676_train.json.gz": Real("camrest", 406, 406),
    "task/camrest676_val.json.gz": Real("camrest", 135, 135),
    "task/crosswoz_test.json.gz": Real("crosswoz", 500, 500),
    "task/crosswoz_val.json.gz": Real("crosswoz", 500, 500),
    "task/dailydialog_unified.jsonl.gz": Real("sgd", 13118, 13118),
    "task/multiwoz21_val.json.gz": Real("multiwoz", 999, 999),
    "task/sgd_dev.jsonl.gz": Real("sgd", 2098, 2098),
    "task/sgd_test.jsonl.gz": Real("sgd", 2921, 2919),
    "task/sgd_train.jsonl.gz": Real("sgd", 12174, 12174),
    "task/taskmaster1_examples.json": Real("taskmaster", 5, 5),
    "task/taskmaster2_examples.json": Real("taskmaster", 5, 5),
    "task/taskmaster3_examples.json": Real("taskmaster", 5, 5),
    "task/taskmaster3_train_bc.tsv.gz": Real("taskmaster3_tsv", 1517, 1514),
    "task/taskmaster4_coffee.jsonl.gz": Real("taskmaster", 3710, 3710),
    "task/topical_chat_test_freq.json.gz": Real("topical_chat", 539, 539),
    "task/topical_chat_test_rare.json.gz": Real("topical_chat", 539, 539),
    "task/topical_chat_valid_freq.json.gz": Real("topical_chat", 539, 539),
    "task/topical_chat_valid_rare.json.gz": Real("topical_chat", 539, 539),
    "instruct/alpaca_cleaned_first1000.json.gz": Real("alpaca", 1000, 1000),
    "instruct/alpaca_cot_aqua_train_first300.json.gz": Real("alpaca", 300, 300),
    "instruct/alpaca_cot_ecqa_train_first300.json.gz": Real("alpaca", 300, 300),
    "instruct/alpaca_cot_strategyqa_train_first300.json.gz": Real("alpaca", 300, 300),
    "instruct/alpaca_en_0_3252.json.gz": Real("alpaca", 3252, 3248),
    "instruct/alpaca_zh_carbonz0_first1000.json.gz": Real("alpaca", 1000, 999),
    "instruct/alpaca_zh_hikariming_0_3252.json.gz": Real("alpaca", 3247, 3243),
    "instruct/belle_0_5m_1k.jsonl.gz": Real("alpaca", 1000, 1000),
    "instruct/belle_dev_1k.jsonl.gz": Real("alpaca", 1000, 1000),
    "instruct/belle_zh_seed_tasks.json": Real("self_instruct", 175, 175),
    "instruct/chinese_vicuna_chat_sample.jsonl": Real("chinese_vicuna", 3, 3),
    "instruct/code_alpaca_first500.json.gz": Real("alpaca", 500, 499),
    "instruct/fastchat_dummy_conversation.json.gz": Real("sharegpt", 500, 500),
    "instruct/firefly_dummy_dpo.jsonl.gz": Real("prompt_chosen", 16, 16),
    "instruct/gpteacher_codegen_first500.json.gz": Real("gpteacher", 500, 500),
    "instruct/gpteacher_roleplay_first500.json.gz": Real("gpteacher", 500, 500),
    "instruct/gpteacher_toolformer_first300.json.gz": Real("gpteacher", 300, 300),
    "instruct/hikariming_zh_extra_jianyi.json.gz": Real("alpaca", 23, 23),
    "instruct/hikariming_zh_extra_mingci.json.gz": Real("alpaca", 152, 151),
    "instruct/hikariming_zh_extra_xueshu.json.gz": Real("alpaca", 213, 213),
    "instruct/instructionwild_seed_prompts_ch.jsonl": Real("instruction_prompts", 429, 429),
    "instruct/instructionwild_seed_prompts_en.jsonl": Real("instruction_prompts", 429, 429),
    "instruct/llamafactory_alpaca_en_demo.json.gz": Real("alpaca", 999, 999),
    "instruct/llamafactory_alpaca_zh_demo.json.gz": Real("alpaca", 1000, 1000),
    "instruct/llamafactory_glaive_toolcall_en_demo.json.gz": Real("sharegpt", 300, 300),
    "instruct/llamafactory_identity.json.gz": Real("alpaca", 91, 91),
    "instruct/luotuo_developer_instruction.json": Real("alpaca", 48, 48),
    "instruct/self_instruct_seed_tasks.jsonl.gz": Real("self_instruct", 175, 175),
    "instruct/smilechat_zh_sample.jsonl.gz": Real("messages", 307, 306),
    "preference/dpo_zh_500.jsonl.gz": Real("sharegpt_preference", 500, 500),
    "preference/llamafactory_dpo_en_demo.json.gz": Real("sharegpt_preference", 300, 300),
    "preference/llamafactory_dpo_zh_demo.json.gz": Real("sharegpt_preference", 300, 300),
    "preference/llamafactory_kto_en_demo.json.gz": Real("messages", 300, 150),
    "preference/oasst1_zh_rm.json.gz": Real("alpaca", 775, 775),
    "preference/taskmaster3_reward.jsonl.gz": Real("taskmaster_reward", 3667, 3667),
    "preference/taskmaster4_reward.jsonl.gz": Real("taskmaster_reward", 3228, 3222),
}
NO_CONVERSATIONS = [
    "task/sgd_train_schema.json",
    "task/tau2_airline_user_tasks.json.gz",
    "task/tau2_retail_user_tasks.json.gz",
    "instruct/firefly_dummy_pretrain.jsonl.gz",
    "reference/cmrc2018_zh_dev.json.gz",
    "reference/code_python_stdlib.jsonl.gz",
    "reference/humaneval.jsonl.gz",
    "reference/refgpt_wiki_demo.jsonl",
    "reference/xquad_en.json.gz",
]


@pytest.mark.data
@pytest.mark.parametrize("file", REAL)
def test_real_rows_are_recognised_and_converted(data_folder, file):
    rows = list(read_rows(data_folder / file))
    format = recognise_any((row.data for row in rows if row.data is not None), file)
    conversations, refused = 0, Rejects()
    for row in rows:
        try:
            conversations += len(list(format.convert(row.value())))
        except (BadRow, InvalidConversation) as error:
            refused.add(row.place, error)
    assert (format.name, len(rows), conversations) == (REAL[file].format, REAL[file].rows, REAL[file].conversations)
    assert format.tried
    assert conversations + refused.counts.total() == len(rows)


@pytest.mark.data
@pytest.mark.parametrize("file", NO_CONVERSATIONS)
def test_files_without_conversations_are_refused_with_their_keys(data_folder, file):
    with pytest.raises(DataError, match="unknown row format: found keys"):
        recognise_any((row.data for row in read_rows(data_folder / file) if row.data is not None), file)


@pytest.mark.data
def test_every_file_with_conversations_is_tried(data_folder):
    folders = ("chat", "task", "instruct", "preference")
    found = {f"{folder}/{path.name}" for folder in folders for path in Path(data_folder, folder).iterdir()}
    assert found <= REAL.keys() | set(NO_CONVERSATIONS)
    assert {real.format for real in REAL.values()} == {f.name for f in FORMATS.values() if f.tried} - {"oasst_paths"}


@pytest.mark.data
def test_all_paths_of_real_trees(data_folder):
    loaded = load([str(data_folder / "chat/oasst_en_100_trees.jsonl.gz")], format="oasst_paths")
    assert loaded.refused.counts.total() == 5
    assert len(loaded.conversations) == len({path.id for path in loaded.conversations}) > 400


def test_what_people_were_told_to_get_done_is_kept_as_their_intent():
    frame = {"state": {"active_intent": "FindBus", "slot_values": {"to_city": ["Oslo", "Bergen"], "day": []}}}
    turns = [{"speaker": "USER", "utterance": "a bus", "frames": [frame, 7, {"state": {"active_intent": "NONE"}}]}]
    (sgd,) = format_named("sgd").convert({"dialogue_id": "d", "turns": turns})
    assert sgd.meta["intent"] == "find bus: to city Bergen"
    goal = {"message": ["You want a <span class='emphasis'>train</span>", "on friday"]}
    (woz,) = format_named("multiwoz").convert({"goal": goal, "log": [{"text": "hi"}]})
    assert woz.meta["intent"] == "You want a train\non friday"
    (bare,) = format_named("multiwoz").convert({"goal": {"message": []}, "log": [{"text": "hi"}]})
    assert "intent" not in bare.meta
