import json
import shutil
import subprocess
import sys
from collections import Counter

import pytest
from typer.testing import CliRunner

from selfplay.chat.conversation import Turn
from selfplay.chat.models import content_hash, load_renderer, locate_model
from selfplay.chat.speakers import Usage
from selfplay.cli.main import cli
from selfplay.console import generate as console
from selfplay.errors import ModelError
from selfplay.generate.events import Admitted, Asked, ConversationEnded, EngineRestarted, RunOpened, Sampled
from selfplay.generate.telemetry import RunMetrics
from selfplay.store.records import ConversationSpec, TurnCommit
from selfplay.store.store import RunStore


def selfplay(*arguments):
    """The command as a user runs it; returns the finished process."""
    command = [sys.executable, "-m", "selfplay.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture
async def run(tmp_path):
    store = RunStore.create(tmp_path / "run", {}, [ConversationSpec(0, "c0", 1), ConversationSpec(1, "c1", 2)])
    turns = (Turn("user", "a [bold]room[/bold]", "sampled", (5,)), Turn("assistant", "which night?", "sampled", (6,)))
    async with store:
        await store.commit(TurnCommit(0, 0, turns, Usage(10, 5, 4), ended="user_ended"))
        await store.commit(TurnCommit(1, 0, turns[:1], ended="failed:scripted"))
    store.close()
    return tmp_path / "run"


def test_help_lists_the_commands_without_loading_models():
    done = selfplay("--help")
    for command in ("generate", "show", "export", "train", "recipes", "chat", "bench"):
        assert command in done.stdout
    code = "import sys, selfplay.cli.main; sys.exit(any(m in sys.modules for m in ('torch', 'vllm', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    code = code.replace("selfplay.cli.main", "selfplay.app")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_show_prints_a_summary_and_a_conversation_with_markup_left_alone(run):
    summary = CliRunner().invoke(cli, ["show", str(run)])
    assert "user_ended" in summary.output
    assert "failed:scripted" in summary.output
    one = CliRunner().invoke(cli, ["show", str(run), "c0"])
    assert "a [bold]room[/bold]" in one.output
    assert "which night?" in one.output


def test_export_says_what_was_written_and_left_out(run, tmp_path):
    out = tmp_path / "a.jsonl"
    done = selfplay("export", run, "--out", out, "--format", "sharegpt")
    assert "1 conversations written" in done.stdout
    assert "left out: 1 failed:scripted" in done.stdout
    assert json.loads(out.read_text())["conversations"][1] == {"from": "gpt", "value": "which night?"}


def test_recipes_lists_and_prints():
    assert "nano/generate" in selfplay("recipes").stdout
    assert "max_rounds" in selfplay("recipes", "nano/generate").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "--simulator", "/no/such", "--out", "{tmp}/x"], "no such folder"),
        (["generate", "no/recipe"], "see `selfplay recipes`"),
        (["generate", "--openings", "{tmp}/none.txt", "--out", "{tmp}/x"], "cannot be read"),
        (["generate", "--resume", "--out", "{tmp}/x"], "no run to go on with"),
        (["show", "{tmp}"], "holds no run"),
        (["train", "assistant", "nano/simulator"], "trains role 'user'"),
        (["train", "simulator", "nano/simulator", "--data", "{tmp}/none.jsonl"], "no file and no dataset"),
    ],
)
def test_what_a_user_can_get_wrong_is_told_in_a_sentence(tmp_path, arguments, message):
    done = selfplay(*(argument.format(tmp=tmp_path) for argument in arguments))
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x").exists()


def test_an_out_folder_with_another_run_lists_the_differing_keys(run):
    store_facts = {"config": {"seed": 5}, "models": {k: {"content_hash": "x"} for k in ("simulator", "assistant")}}
    shutil.rmtree(run)
    RunStore.create(run, store_facts, [ConversationSpec(0, "c0", 1)]).close()
    done = selfplay("generate", "--out", run, "--seed", "6", "--resume")
    assert done.returncode == 1
    assert "seed: 5 → 6" in done.stderr
    assert "simulator weights" in done.stderr


def test_strict_training_stops_at_the_first_bad_row_with_file_and_line(tmp_path):
    file = tmp_path / "rows.jsonl"
    good = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]}
    bad = {"messages": [{"role": "assistant", "content": "hi"}]}
    file.write_text("".join(json.dumps(row) + "\n" for row in (good, bad)))
    done = selfplay("train", "simulator", "nano/simulator", "--data", file, "--strict", "--out", tmp_path / "x")
    assert done.returncode == 1
    assert "rows.jsonl:2" in done.stderr
    assert "starts with 'assistant'" in done.stderr


def test_sides_that_are_swapped_are_noticed():
    with pytest.raises(ModelError, match="does not open a user turn"):
        load_renderer(locate_model("nano", "assistant"), "user")


def test_a_model_trained_on_both_sides_speaks_for_either():
    base = locate_model("nano", "base")
    assert load_renderer(base, "user").opens_turn_of("user")
    assert load_renderer(base, "assistant").opens_turn_of("assistant")


def test_the_embedded_models_are_small_safetensors_with_a_card():
    folders = [locate_model("nano", kind) for kind in ("base", "simulator", "assistant")]
    files = [file for folder in folders for file in folder.iterdir()]
    assert sum(file.stat().st_size for file in files) <= 48e6
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".jinja", ".png"}
    assert len({content_hash(folder) for folder in folders}) == 3
    card = (folders[0].parent / "MODEL_CARD.md").read_text()
    assert "SGD" in card
    assert "CC BY-SA" in card
    for folder in folders:
        assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"


def test_progress_shows_the_figures_of_the_run(capsys):
    metrics = RunMetrics(lambda: {"simulator-0": 0.5}, lambda: {"http_429": 2})
    for event in (
        RunOpened(3, 1),
        Admitted(1),
        Asked("user"),
        Sampled("user", Usage(10, 5, 20), True, Counter(empty=1)),
        Asked("user"),
        Sampled("user", Usage(10, 10, 1), False, Counter()),
        Asked("assistant"),
        ConversationEnded("user_ended", 1, 0),
    ):
        metrics(event)
    now = metrics.snapshot()
    assert (now.planned, now.finished, now.turns, now.tokens, now.cache_hit) == (3, 2, 1, 21, 0.75)
    assert (now.asked, now.reasons, now.resampled) == ({"user": 0, "assistant": 1}, {"user_ended": 1}, {"empty": 1})
    with console.RunProgress() as progress:
        progress(RunOpened(3, 1))
        progress(now)
        progress(EngineRestarted("assistant-0", 1, "the engine process ended; its log"))
    shown = capsys.readouterr().err
    assert "cache hit  75%" in shown
    assert "sampling 0 user + 1 assistant · KV free 50% · resampled 1 · faults 2" in shown
    assert "engine assistant-0 died" in shown
    assert "2/3" in shown


def test_the_data_commands_print_what_they_say(tmp_path):
    listed = selfplay("data", "list", "--generation", "HG").stdout
    assert "oasst1 " in listed
    assert "ultrachat" not in listed
    assert "not tried on real rows" in selfplay("data", "formats").stdout
    assert "sharegpt_1k" in selfplay("data", "list", "sharegpt").stdout
    shown = selfplay("data", "show", "lima").stdout
    assert "GAIR/lima" in shown
    mixed = selfplay("data", "mix", "sample=2", "--out", tmp_path / "mix", "--held-out", "0.1")
    assert "validation" in mixed.stdout
    assert (tmp_path / "mix/train.jsonl").exists()


def test_data_clean_prints_its_table_and_reasons(tmp_path):
    file = tmp_path / "in.jsonl"
    good = {"messages": [{"role": "user", "content": "hi\n1 / 1"}, {"role": "assistant", "content": "yes"}]}
    file.write_text(json.dumps(good) + "\n{oops\n")
    done = selfplay("data", "clean", file, "--out", tmp_path / "out.jsonl", "--no-duplicates", "--min-rounds", "1")
    assert done.returncode == 0
    assert "page artefacts" in done.stdout
    assert "exact duplicates" not in done.stdout
    assert "left out 1 row, read: not JSON" in done.stdout
    assert json.loads((tmp_path / "out.jsonl").read_text())["messages"][0]["content"] == "hi"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["clean", "{tmp}", "--out", "{tmp}/o.jsonl"], "a folder; give the files in it one by one"),
        (["clean", "sampel", "--out", "{tmp}/o.jsonl"], "no file and no dataset named 'sampel'"),
        (["clean", "sample", "--out", "{tmp}/o.txt"], "name the file .jsonl or .parquet"),
        (["clean", "sample", "--out", "{tmp}/o.jsonl", "--language", "English"], "is no ISO 639 code"),
        (
            ["clean", "sample", "--out", "{tmp}/o.jsonl", "--max-tokens", "64", "--tokenizer", "{tmp}"],
            "no tokenizer.json",
        ),
        (["clean", "sample", "--out", "{tmp}/o.jsonl", "--recipe", "nano/generate"], "unknown key"),
        (["mix", "sample=x", "--out", "{tmp}/m"], "expected NAME or NAME=WEIGHT"),
        (["show", "oasst"], "did you mean"),
    ],
)
def test_wrong_data_commands_say_what_to_do(tmp_path, words, message):
    done = selfplay("data", *(word.format(tmp=tmp_path) for word in words))
    assert done.returncode == 1
    assert message in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
