import json
import re
from collections import Counter
from pathlib import Path

import pytest
from source_rows import ROWS

from selfplay.data.catalogue import catalogue, dataset_named, local_file, locate
from selfplay.data.formats import FORMATS
from selfplay.data.hub import HubDataset
from selfplay.data.loading import LoadResult, load, split_conversations, stream
from selfplay.data.mixing import load_mixture, mix, parse_weights
from selfplay.errors import ConfigError, DataError

NAMED_IN_THE_COLLECTIONS = """
    guanaco alpaca_zh_hikariming alpaca_zh_carbonz0 luotuo_trans_chinese_alpaca gpt_4_llm_en gpt_4_llm_zh
    belle_train_0.5M_CN belle_train_1M_CN belle_train_2M_CN belle_school_math_0.25M belle_multiturn_chat_0.8M
    belle_generated_chat_0.4M chain_of_thought gpt4all_j gpteacher_general gpteacher_roleplay gpteacher_codegen
    gpteacher_toolformer hc3 hc3_chinese alpaca alpaca_cleaned chinese_llama_alpaca_51k natural_instructions belle_cn
    ultrachat sharegpt90k wildchat_1m lmsys_chat_1m oasst1 oasst2 webgpt_comparisons shp rlhf_reward_datasets
    full_hh_rlhf synthetic_instruct_gptj_pairwise rm_static hh_rlhf gpt_4_llm_ranked safety_prompts
"""


def test_every_set_of_the_collections_is_listed():
    missing = set(NAMED_IN_THE_COLLECTIONS.split()) - catalogue().keys()
    assert not missing
    for part in ("refgpt_fact", "refgpt_code_ds", "refgpt_code_cr", "refgpt_code_bg"):
        assert {f"{part}_en", f"{part}_cn"} <= catalogue().keys()


def test_entries_name_a_format_a_licence_and_a_place():
    for entry in catalogue().values():
        assert entry.format in FORMATS
        assert entry.licence
        assert entry.hub or entry.file or entry.source.count("/") >= 1
        for file in entry.hub_files:
            assert re.search(r"\.(jsonl?|csv|tsv|parquet)(\.gz|\.zst)?$", file)


def test_sets_kept_for_scoring_say_so():
    held = {name for name, entry in catalogue().items() if entry.holdout}
    assert held >= {"sgd_dev", "sgd_test", "multiwoz21_val", "hh_rlhf_helpful_base"}


@pytest.mark.data
@pytest.mark.parametrize("name", [name for name, entry in catalogue().items() if entry.file])
def test_entries_with_a_file_load_from_the_data_folder(name):
    entry = dataset_named(name)
    assert local_file(entry) is not None
    loaded = LoadResult()
    first = next(stream(locate(name), loaded))
    assert first.turns[0].role in ("user", "system")
    assert first.meta["dataset"] == name


def test_an_unknown_name_shows_the_nearest():
    with pytest.raises(DataError, match=r"did you mean sharegpt_1k"):
        locate("sharegpt_1K")
    with pytest.raises(DataError, match=r"no dataset named 'no'.*selfplay data list"):
        dataset_named("no")


def test_a_set_that_is_nowhere_says_where_to_get_it(outside_data):
    with pytest.raises(
        DataError, match=r"expected task/sgd_train.jsonl.gz in the folder \$SELFPLAY_DATA .* get it from"
    ):
        locate("sgd_train")


def test_names_with_a_slash_are_sought_on_the_hub(outside_data):
    assert locate("tatsu-lab/alpaca").hub == HubDataset("tatsu-lab/alpaca")
    assert locate("alpaca").hub == HubDataset(catalogue()["alpaca"].hub, catalogue()["alpaca"].hub_files)
    with pytest.raises(DataError, match="no file and no dataset"):
        locate("missing/folder/file.jsonl")


def test_a_hub_that_cannot_be_reached_is_a_clear_error(outside_data):
    for name in ("tatsu-lab/no-such-set", "hh_rlhf_helpful_rejection_sampled"):
        with pytest.raises(DataError, match="cannot be read from the hub"):
            load([name])


def test_a_dataset_repository_is_streamed(tmp_path):
    """A folder stands for the repository: the same library reads both."""
    rows = [{**ROWS["alpaca"][0], "output": str(number)} for number in range(300)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    batches = list(HubDataset(str(tmp_path)).batches())
    assert [row.value()["output"] for batch in batches for row in batch.rows()] == [str(n) for n in range(300)]


# Mixtures


def talks(path, count, **rest):
    rows = [{"id": f"{path.stem}{n}", "messages": [{"role": "user", "content": f"{n}"}], **rest} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def ids(path):
    return [json.loads(line)["id"] for line in Path(path).read_text().splitlines()]


def test_a_weight_is_how_often_a_conversation_is_there(tmp_path):
    half, once, twice = (talks(tmp_path / f"{name}.jsonl", 1000) for name in ("half", "once", "twice"))
    mixed = mix([f"{half}=0.5", f"{once}=1.0", f"{twice}=2.5"], tmp_path / "out", held_out=0.1, seed=0)
    found = ids(tmp_path / "out/train.jsonl")
    assert len(found) == mixed.train.total()
    held = {name: mixed.validation[name] for name in (half, once, twice)}
    assert mixed.train[once] == 1000 - held[once]
    assert mixed.train[half] == pytest.approx((1000 - held[half]) * 0.5, abs=60)
    assert mixed.train[twice] == pytest.approx((1000 - held[twice]) * 2.5, abs=60)
    assert not set(found) & set(ids(tmp_path / "out/validation.jsonl"))


def test_the_same_seed_gives_the_same_files_and_more_weight_only_adds(tmp_path):
    name = talks(tmp_path / "a.jsonl", 500)
    for out, weight, seed in (("one", 0.3, 1), ("two", 0.3, 1), ("more", 0.6, 1), ("other", 0.3, 2)):
        mix([f"{name}={weight}"], tmp_path / out, held_out=0.1, seed=seed)
    one, two, more, other = (ids(tmp_path / out / "train.jsonl") for out in ("one", "two", "more", "other"))
    assert one == two != other
    assert set(one) < set(more)
    assert one != sorted(one)
    assert len({tuple(ids(tmp_path / out / "validation.jsonl")) for out in ("one", "two", "more")}) == 1


def test_the_order_does_not_depend_on_what_else_is_mixed_in(tmp_path):
    one, other = talks(tmp_path / "a.jsonl", 100), talks(tmp_path / "b.jsonl", 100)
    mix([f"{one}=1", f"{other}=1"], tmp_path / "both", held_out=0.1, seed=0)
    mix([f"{one}=1"], tmp_path / "alone", held_out=0.1, seed=0)
    both = [id for id in ids(tmp_path / "both/train.jsonl") if id.startswith("a")]
    assert both == ids(tmp_path / "alone/train.jsonl")


def test_an_empty_half_is_refused_and_leaves_no_file(tmp_path):
    name = talks(tmp_path / "a.jsonl", 3)
    with pytest.raises(DataError, match="no conversation to validate on"):
        mix([f"{name}=1"], tmp_path / "out", held_out=0.0001, seed=0)
    assert list((tmp_path / "out").iterdir()) == []


def test_training_sees_conversations_as_often_as_their_weight_says(tmp_path):
    once, twice = talks(tmp_path / "a.jsonl", 200), talks(tmp_path / "b.jsonl", 200)
    mixture = load_mixture([once, f"{twice}=2"], held_out=0.1)
    found = Counter(conversation.id for conversation in mixture.train)
    assert {found[id] for id in found if id.startswith("a")} == {1}
    assert {found[id] for id in found if id.startswith("b")} == {2}
    assert len({c.id for c in mixture.held_out} | found.keys()) == len(mixture.held_out) + len(found) == 400


def test_sets_kept_for_scoring_are_never_trained_on(tmp_path):
    name = talks(tmp_path / "a.jsonl", 50, dataset="sgd_test")
    with pytest.raises(DataError, match="sgd_test is kept for scoring"):
        load_mixture([name], held_out=0.1)
    with pytest.raises(DataError, match="sgd_test is kept for scoring"):
        mix([f"{name}=1"], tmp_path / "out", held_out=0.1, seed=0)


def test_a_mixture_is_never_written_over_and_every_source_has_to_give_something(tmp_path):
    good, typo = talks(tmp_path / "a.jsonl", 50), tmp_path / "typo.jsonl"
    typo.write_text('{"instructions": "a", "outputs": "b"}\n')
    with pytest.raises(DataError, match=r"no usable conversation in .*typo.jsonl: unknown row format"):
        mix([f"{good}=1", f"{typo}=1"], tmp_path / "out", held_out=0.2, seed=0)
    mix([f"{good}=1"], tmp_path / "out", held_out=0.2, seed=0)
    with pytest.raises(ConfigError, match=r"already holds train.jsonl"):
        mix([f"{good}=1"], tmp_path / "out", held_out=0.2, seed=0)


def test_a_mixture_can_be_trained_on_in_its_own_halves(tmp_path):
    mix([f"{talks(tmp_path / 'a.jsonl', 300)}=1.5"], tmp_path / "mix", held_out=0.1, seed=0)
    files = [str(tmp_path / "mix" / f"{half}.jsonl") for half in ("train", "validation")]
    mixture = load_mixture(files, held_out=0.05)
    assert [c.id for c in mixture.train] == ids(files[0])
    assert [c.id for c in mixture.held_out] == ids(files[1])
    with pytest.raises(DataError, match=r"both train\.jsonl and validation\.jsonl"):
        load_mixture(files[:1], held_out=0.05)


@pytest.mark.data
def test_a_file_of_the_catalogue_is_that_dataset_by_any_path(data_folder, tmp_path):
    (tmp_path / "link.jsonl.gz").symlink_to(data_folder / "task/sgd_dev.jsonl.gz")
    assert locate(str(tmp_path / "link.jsonl.gz")).name == "sgd_dev"
    with pytest.raises(DataError, match="sgd_dev is kept for scoring"):
        load_mixture([str(data_folder / "task/sgd_dev.jsonl.gz")], held_out=0.1)


@pytest.mark.data
@pytest.mark.parametrize("name", ["taskmaster3_reward", "taskmaster4_reward", "oasst1_zh_sft"])
def test_no_opening_of_real_talks_is_in_both_halves(name):
    train, held_out = split_conversations(load([name]).conversations, 0.05)
    assert not {c.turns[0].content for c in train} & {c.turns[0].content for c in held_out}


def test_a_name_longer_than_a_path_can_be_is_just_unknown():
    with pytest.raises(DataError, match="no file and no dataset"):
        locate("x" * 5000)


def test_weights_are_read_and_wrong_ones_refused():
    assert parse_weights(["a", "b=0.5", "x=y.jsonl=2"]) == {"a": 1.0, "b": 0.5, "x=y.jsonl": 2.0}
    for wrong in ("a=0", "a=-1", "a=lots", "=1", "a=1e9", "a=nan"):
        with pytest.raises(ConfigError, match="expected NAME or NAME=WEIGHT"):
            parse_weights([wrong])
    with pytest.raises(ConfigError, match="given twice"):
        parse_weights(["a", "a=2"])
