import json
import re

import pytest
from recipe_kinds import recipe_kind

from assistant.train import ASSISTANT
from selfplay.app import with_folder
from selfplay.chat.models import locate_model
from selfplay.curate.config import CurateConfig
from selfplay.data.cleaning.config import CleanConfig
from selfplay.errors import ConfigError, DataError, StoreError
from selfplay.generate import participants, plan
from selfplay.generate.config import GenerateConfig
from selfplay.generate.identity import changed_keys, check_folder
from selfplay.generate.plan import conversation_specs
from selfplay.generate.run import prepare
from selfplay.loop.config import LoopConfig
from selfplay.recipe import differences, identity, load_recipe, recipe_text, shipped_recipes, validated
from selfplay.store.store import RunStore
from selfplay.train.config import TrainConfig
from selfplay.train.roles import load_training_recipe
from simulator.opening import read_openings
from simulator.train import SIMULATOR


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_parses_and_says_what_it_does(name):
    recipe = load_recipe(name, recipe_kind(name))
    assert recipe.description
    kinds = {GenerateConfig: "generate", CleanConfig: "data clean", TrainConfig: "train"}
    kinds |= {CurateConfig: "curate", LoopConfig: "loop"}
    command = kinds[recipe_kind(name)]
    assert recipe_text(name).startswith(f"# selfplay {command} ")


def test_all_problems_of_a_recipe_are_reported_together(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("max_round: 3\nseed: x\nsimulator: {sampling: {top_p: 2}}\n")
    with pytest.raises(ConfigError) as error:
        load_recipe(str(recipe), GenerateConfig)
    for part in ("max_round: unknown key", "seed:", "simulator.sampling.top_p:", "found 2"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("- a\n", "expected keys and values"), ("a: [", "not readable as YAML"), ("", "found NoneType")],
)
def test_files_that_are_no_recipe_are_refused(tmp_path, text, message):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_recipe(str(recipe), GenerateConfig)
    with pytest.raises(ConfigError, match="see `selfplay recipes`"):
        load_recipe("no/such", GenerateConfig)


def test_overrides_reach_nested_settings_and_none_is_no_override():
    recipe = load_recipe("nano/base", TrainConfig, {"optim.max_steps": 7, "output_dir": None})
    assert recipe.optim.max_steps == 7
    assert recipe.output_dir == "models/nano/base"


def test_a_recipe_trains_only_the_role_that_was_asked_for():
    assert load_training_recipe(SIMULATOR, "nano/simulator", {}).role == "user"
    with pytest.raises(ConfigError, match="trains role 'user'"):
        load_training_recipe(ASSISTANT, "nano/simulator", {})


def test_a_training_recipe_starts_from_exactly_one_place():
    with pytest.raises(ConfigError, match="exactly one of 'base'"):
        load_recipe("nano/base", TrainConfig, {"base": "x"})


def test_openings_come_one_per_line_or_as_messages(tmp_path):
    plain, lines = tmp_path / "a.txt", tmp_path / "a.jsonl"
    plain.write_text("a room please\n\n  a table \n")
    assert [opening[0].content for opening in read_openings(plain)] == ["a room please", "a table"]
    turns = [{"role": role, "content": role} for role in ("system", "user", "assistant", "user")]
    lines.write_text(json.dumps(turns) + "\n" + json.dumps({"messages": turns[1:2]}) + "\n")
    assert [len(opening) for opening in read_openings(lines)] == [4, 1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", r"a\.jsonl:1: not JSON"),
        ("3", "expected a list of messages"),
        ('[{"role": "human", "content": "x"}]', "role of system, user or assistant"),
        ('[{"role": "user"}]', "needs text"),
        ('[{"role": "assistant", "content": "x"}]', "starts with 'assistant'"),
        ('[{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]', "ends with a assistant"),
        ('[{"role": "user", "content": "x\\ud83d"}]', "lone surrogate"),
        ("", "holds no opening"),
    ],
)
def test_bad_openings_name_file_and_line(tmp_path, line, message):
    file = tmp_path / "a.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(DataError, match=message):
        read_openings(file)


def test_unusual_line_separators_stay_inside_an_opening(tmp_path):
    file = tmp_path / "a.jsonl"
    turns = [{"role": "user", "content": "one\u2028two\x0c"}]
    file.write_text(json.dumps(turns, ensure_ascii=False) + "\n")
    assert read_openings(file)[0][0].content == "one\u2028two"


def test_each_opening_is_held_per_opening_times(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("one\ntwo\n")
    config = GenerateConfig.model_validate(
        {"simulator": {"openings": str(file), "conversations_per_opening": 3}, "assistant": {"system": "be brief"}}
    )
    plans = list(conversation_specs(config))
    assert [plan.opening[-1].content for plan in plans] == ["one"] * 3 + ["two"] * 3
    assert plans[0].opening[0].content == "be brief"
    assert len({plan.seed for plan in plans}) == 6
    with pytest.raises(ConfigError, match="gives 6"):
        conversation_specs(config.model_copy(update={"conversations": 7}))


def test_a_run_folder_comes_from_the_recipe_or_the_time_of_day():
    assert with_folder(GenerateConfig(out="runs/x")).out == "runs/x"
    assert with_folder(GenerateConfig()).out.startswith("runs/20")
    with pytest.raises(ConfigError, match="--append need --out"):
        with_folder(GenerateConfig(), existing=True)


def test_a_longer_run_starts_with_the_same_plans():
    assert list(conversation_specs(GenerateConfig(conversations=40)))[:32] == list(conversation_specs(GenerateConfig()))


def test_a_folder_with_another_run_is_refused_with_the_keys_that_differ(tmp_path):
    config = GenerateConfig(conversations=2, seed=1, out=str(tmp_path))
    facts = prepare(config).facts()
    check_folder(tmp_path, facts, resume=False)
    RunStore.create(tmp_path, facts, conversation_specs(config)).close()
    other = prepare(config.model_copy(update={"seed": 2, "max_in_flight": 3})).facts()
    assert changed_keys(facts, other) == ["seed: 1 → 2"]
    with pytest.raises(StoreError, match="seed: 1 → 2"):
        check_folder(tmp_path, other, resume=True)
    with pytest.raises(StoreError, match="--resume"):
        check_folder(tmp_path, facts, resume=False)
    check_folder(tmp_path, facts, resume=True)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (GenerateConfig, {"prompted_user": True}, "prompted_user: is called simulator.prompted now"),
        (GenerateConfig, {"simulator": "nano"}, "simulator: is called simulator.model now"),
        (GenerateConfig, {"system": "x"}, "system: is called assistant.system now"),
        (TrainConfig, {"optim": {"batch": 8}}, "optim.batch: is called optim.global_batch_size now"),
        (CurateConfig, {"endings": ["user_ended"]}, "endings: is called end_reasons now"),
        (CleanConfig, {"personal": "mask"}, "personal: is called pii now"),
        (LoopConfig, {"bench": {"most": 10}}, "bench.most: is called bench.max_conversations now"),
        (LoopConfig, {"health": [{"figure": "rounds"}]}, "health.0.figure: is called health.metric now"),
    ],
)
def test_a_key_of_an_older_version_is_answered_with_its_name_now(kind, values, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        validated(kind, values, "recipe")


def test_operational_settings_are_no_part_of_what_a_recipe_is():
    plain = GenerateConfig()
    moved = GenerateConfig.model_validate(
        {
            "out": "elsewhere", "max_hours": 1, "kv_cache_gib": 2, "description": "x",
            "simulator": {"engine": {"replicas": 2}, "endpoint": {"timeout": 1, "input_price": 3}},
            "assistant": {"endpoint": {"attempts": 2}},
        }
    )  # fmt: skip
    assert identity(plain) == identity(moved)
    other = GenerateConfig.model_validate({"simulator": {"endpoint": {"protocol": "text"}}, "seed": 1})
    assert differences(identity(plain), identity(other)) == [
        "seed: 0 → 1",
        "simulator.endpoint.protocol: token_ids → text",
    ]


def test_a_run_loads_each_tokenizer_and_reads_the_openings_once(tmp_path, monkeypatch):
    """Both sides on one folder share its tokenizer; two folders are two."""
    file, loads, reads = tmp_path / "openings.txt", [], []
    file.write_text("a room please\n")
    base = str(locate_model("nano", "base"))
    load, read = participants.load_tokenizer, plan.read_openings
    monkeypatch.setattr(participants, "load_tokenizer", lambda folder: loads.append(folder) or load(folder))
    monkeypatch.setattr(plan, "read_openings", lambda path: reads.append(path) or read(path))
    sides = ({"simulator": {"model": base}, "assistant": {"model": base}}, {"simulator": {}, "assistant": {}})
    for values in sides:
        values["simulator"]["openings"] = str(file)
        run = prepare(GenerateConfig.model_validate(values))
        assert len(list(run.specs())) == 1
        assert run.facts()["openings"]
    assert len(loads) == 1 + 2
    assert len(reads) == 2
