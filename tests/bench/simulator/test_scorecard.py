"""The scorecard as a user gets it: from files, runs and models, with what is missing said."""

import json
import re
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from score_files import NANO, run, write
from typer.testing import CliRunner

from bench.metrics.naturalness import detector_auc, encoder, two_sample_auc
from bench.simulator.registry import METRICS
from bench.simulator.run import folder_name
from bench.simulator.scorecard import Scorecard, language_among, score_termination
from selfplay import app
from selfplay.chat.conversation import Turn, conversation_from_pairs
from selfplay.cli.main import cli
from selfplay.cli.options import parse_names
from selfplay.errors import BackendError, ConfigError, DataError, ModelError
from selfplay.files import json_line


@pytest.fixture(scope="session")
def scored(sample, tmp_path_factory):
    """One scorecard from files and a model's likelihoods; no engine."""
    folder = tmp_path_factory.mktemp("scored")
    simulated = write(folder / "simulated.jsonl", sample[:30])
    people = write(folder / "people.jsonl", sample[30:70])
    result = run("simulator", "--model", "UserGPT=nano", "--prompted", "told=nano", "--temperature", 1, "--temperature",
                 0.5, "--conversations", f"UserGPT, T 1={simulated}", "--conversations", f"UserGPT, T 0.5={simulated}",
                 "--conversations", f"told={simulated}", "--data", people, "--human", people, "--out",
                 folder / "out")  # fmt: skip
    assert result.exit_code == 0, result.output
    return folder / "out", json.loads((folder / "out" / "scorecard.json").read_text(encoding="utf-8")), result


def test_a_scorecard_has_value_interval_and_number_for_every_row(scored):
    _, card, _ = scored
    names = {metric.name for metric in METRICS}
    figures = {name: entry for name, entry in card.items() if name in names}
    assert card["subject"] == "UserGPT, T 1"
    assert {"bits_per_byte", "end_f1", "naturalness_auc", "distinct_2", "rounds_distance"} <= figures.keys()
    for name, entry in figures.items():
        for row, estimate in entry["rows"].items():
            assert estimate["low"] <= estimate["value"] + 1e-9, (name, row)
            assert estimate["value"] <= estimate["high"] + 1e-9, (name, row)
            assert estimate["n"] > 0
    assert figures["end_f1"]["value"] == figures["end_f1"]["rows"]["UserGPT, T 1"]["value"]
    assert "people" in figures["rounds"]["rows"]
    assert "goodbye rule" in figures["end_f1"]["rows"]


def test_rows_are_told_how_far_they_are_behind_the_first_on_the_same_conversations(scored):
    _, card, _ = scored
    behind, own = card["bits_per_byte_behind"]["rows"], card["bits_per_byte"]["rows"]
    assert behind.keys() == {"UserGPT, T 0.5", "told"}
    assert behind["told"]["value"] == pytest.approx(own["told"]["value"] - own["UserGPT, T 1"]["value"])
    assert behind["UserGPT, T 0.5"]["high"] == 0
    f1 = card["end_f1"]["rows"]
    for row, estimate in card["end_f1_behind"]["rows"].items():
        assert estimate["value"] == pytest.approx(f1["UserGPT, T 1"]["value"] - f1[row]["value"])
    assert "goodbye rule" in card["end_f1_behind"]["rows"]


def test_one_model_is_asked_once_for_all_temperatures(scored):
    _, card, result = scored
    assert card["bits_per_byte"]["rows"]["UserGPT, T 1"] == card["bits_per_byte"]["rows"]["UserGPT, T 0.5"]
    assert card["end_brier"]["rows"]["UserGPT, T 1"] != card["end_brier"]["rows"]["UserGPT, T 0.5"]
    assert result.stderr.count("likelihood of") == 2


def test_what_is_left_out_says_why(scored):
    out, card, _ = scored
    assert "--intents" in card["left_out"]["bits_per_byte_intent"]["UserGPT, T 1"]
    assert "no intent" in card["left_out"]["bits_per_byte_intent"]["told"]
    assert "without an intent" in card["left_out"]["intent_overlap"]["people"]
    assert "## left out" in (out / "scorecard.md").read_text(encoding="utf-8")


def test_the_panel_is_a_picture(scored):
    from PIL import Image

    with Image.open(scored[0] / "panel.png") as panel:
        assert panel.size[0] > 1200
        assert len(set(panel.convert("L").resize((64, 64)).tobytes())) > 20


def test_conversations_alone_need_no_model_and_no_people(sample, tmp_path):
    result = run("simulator", "--conversations", write(tmp_path / "x.jsonl", sample[:8]), "--out", tmp_path / "out")
    card = json.loads((tmp_path / "out" / "scorecard.json").read_text(encoding="utf-8"))
    assert result.exit_code == 0
    assert card["subject"] == "x.jsonl"
    assert "naturalness_auc" not in card
    assert card["left_out"]["naturalness_auc"] == {"x.jsonl": "no people to compare with; give --data or --human"}
    assert card["left_out"]["bits_per_byte"] == {"x.jsonl": "conversations only, no model to ask"}


def test_one_conversation_has_no_pairs_and_no_test(sample, tmp_path):
    one = write(tmp_path / "one.jsonl", sample[:1])
    people = write(tmp_path / "people.jsonl", sample[1:9])
    run("simulator", "--conversations", f"one={one}", "--human", people, "--out", tmp_path / "out")
    card = json.loads((tmp_path / "out" / "scorecard.json").read_text(encoding="utf-8"))
    assert card["left_out"]["first_turn_diversity"] == {"one": "1 texts; pairs need two"}
    assert "the test needs 10" in card["left_out"]["naturalness_auc"]["one"]
    assert card["rounds"]["value"] > 0


def test_chinese_is_counted_by_character_and_english_metrics_say_no(tmp_path):
    turns = ["我想预订一个明天晚上在市中心的便宜中国餐馆", "好的,几位?", "四位,谢谢,我们七点到", "已经订好了"]
    rows = [conversation_from_pairs(f"z{n}", zip(["user", "assistant"] * 2, turns, strict=True)) for n in range(12)]
    run("simulator", "--conversations", f"zh={write(tmp_path / 'zh.jsonl', rows)}", "--out", tmp_path / "out")
    card = json.loads((tmp_path / "out" / "scorecard.json").read_text(encoding="utf-8"))
    assert card["words_per_turn"]["value"] == (21 + 9) / 2
    assert card["left_out"]["typos"] == {"zh": "knows English only; the texts are zh"}
    assert any("Chinese characters" in note for note in card["notes"])
    assert language_among(rows) == "zh"


def test_cut_conversations_have_no_termination_row():
    card = Scorecard("x")
    cut = conversation_from_pairs("a", [("user", "a"), ("assistant", "b")], complete=False)
    score_termination(card, "row", [cut], [[0.5]])
    assert "cut at their source" in card.left_out["end_f1"]["row"]
    assert card.rows == {"row": {}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to score"),
        (["--model", "nowhere"], "no such folder"),
        (["--conversations", "nowhere.jsonl"], "no file and no dataset"),
        (["--conversations", "sample", "--data", "nowhere.jsonl"], "no file and no dataset"),
        (["--conversations", "a=sample", "--conversations", "a=sample"], "two rows are called 'a'"),
        (["--model", "a=nano", "--prompted", "a=nano"], "named by --model and --prompted"),
        (["--conversations", "people=sample"], "people: rows of that name are there already"),
        (["--conversations", "x="], "names no path"),
        (["--model", "nano", "--temperature", "-1"], "greater than or equal to 0"),
        (["--conversations", "sample", "--tokenizer", "nowhere"], "no tokenizer that can be read"),
        (["--conversations", "sample", "--embeddings", "nowhere/at-all"], "no sentence-transformers model"),
    ],
)
def test_bad_input_is_told(arguments, message, tmp_path):
    result = CliRunner().invoke(cli, ["bench", "simulator", *arguments, "--out", str(tmp_path)])
    assert isinstance(result.exception, ConfigError | DataError | ModelError)
    assert message in str(result.exception)


def test_names_of_rows():
    assert parse_names(["a=x/y", "models/one", "runs/a=b"]) == {"a": "x/y", "one": "models/one", "a=b": "runs/a=b"}


def test_missing_packages_leave_out_their_metric(sample, tmp_path, monkeypatch):
    import builtins

    from bench.metrics import habits

    real = builtins.__import__

    def without(name, *rest):
        if name in ("spellchecker", "sentence_transformers"):
            raise ImportError(name)
        return real(name, *rest)

    habits._known_words.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    run("simulator", "--conversations", f"x={write(tmp_path / 'x.jsonl', sample[:8])}", "--embeddings", "any",
        "--out", tmp_path / "out")  # fmt: skip
    habits._known_words.cache_clear()
    card = json.loads((tmp_path / "out" / "scorecard.json").read_text(encoding="utf-8"))
    assert "pip install 'selfplay[bench]'" in card["left_out"]["typos"]["x"]
    assert "pip install 'selfplay[bench]'" in card["left_out"]["topic_diversity"]["x"]
    assert "questions" in card
    monkeypatch.setattr(builtins, "__import__", without)
    described = app.describe_corpora({"sample": "sample"}, embeddings="any")
    assert any("coherence are left out: embeddings need sentence-transformers" in note for note in described.notes)


def test_a_system_prompt_is_not_what_the_user_wants(sample, tmp_path):
    told = [replace(c, turns=(Turn("system", "You are Bob."), *c.turns)) for c in sample[:10]]
    cards = []
    for name, rows in (("with", told), ("without", sample[:10])):
        data = write(tmp_path / f"{name}.jsonl", rows)
        simulated = write(tmp_path / "simulated.jsonl", sample[:10])
        run("simulator", "--prompted", "told=nano", "--conversations", f"told={simulated}", "--data", data, "--human",
            data, "--out", tmp_path / name)  # fmt: skip
        cards.append(json.loads((tmp_path / name / "scorecard.json").read_text(encoding="utf-8")))
    assert cards[0]["bits_per_byte"]["value"] == cards[1]["bits_per_byte"]["value"]


def test_runs_have_folders_of_their_own():
    names = ["UserGPT", "UserGPT, T 1", "..", "+++", "a b", "a-b", "a/b"]
    folders = [folder_name(name) for name in names]
    assert folders[0] == "UserGPT"
    assert len(set(folders)) == len(names)
    assert all(re.fullmatch(r"[\w-]+", folder) for folder in folders)


@pytest.mark.parametrize("name", ["x[b]", "cost$5^$", "a|b", "[a]x"])
def test_names_of_rows_are_text(name, sample, tmp_path):
    path = write(tmp_path / "x.jsonl", sample[:6])
    result = run("simulator", "--conversations", f"row {name}={path}", "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert json.loads((tmp_path / "out" / "scorecard.json").read_text(encoding="utf-8"))["subject"] == f"row {name}"


def test_conversations_cut_at_their_source_have_no_rounds_and_a_panel(sample, tmp_path):
    rows = [{"messages": c.messages(), "complete": False} for c in sample[:12]]
    (tmp_path / "cut.jsonl").write_bytes(b"".join(map(json_line, rows)))
    run("simulator", "--conversations", f"cut={tmp_path / 'cut.jsonl'}", "--out", tmp_path / "out")
    card = json.loads((tmp_path / "out" / "scorecard.json").read_text(encoding="utf-8"))
    assert card["left_out"]["rounds"] == {"cut": "every conversation was cut at its source"}
    assert (tmp_path / "out" / "panel.png").exists()


def test_exported_conversations_score_as_their_run_does(sample, tmp_path):
    rows = [
        {"messages": c.messages(), "ended": reason}
        for c, reason in zip(sample, ["user_ended", "max_rounds"] * 5, strict=False)
    ]
    (tmp_path / "x.jsonl").write_bytes(b"".join(map(json_line, rows)))
    run("simulator", "--conversations", f"x={tmp_path / 'x.jsonl'}", "--out", tmp_path / "out")
    card = json.loads((tmp_path / "out" / "scorecard.json").read_text(encoding="utf-8"))
    assert card["rounds"]["n"] == 10
    assert card["ended_by_user"]["value"] == 0.5


def sides(n=30):
    return [
        [conversation_from_pairs(f"{name}{k}", [("user", f"{word} {k % 7}"), ("assistant", "ok")]) for k in range(n)]
        for name, word in (("p", "please book"), ("s", "kindly reserve"))
    ]


def test_an_encoder_is_fine_tuned_on_each_fold():
    people, simulated = sides(20)
    estimate = two_sample_auc(people, simulated, classifier=encoder(NANO / "base", epochs=8), repeats=1)
    assert estimate.value > 0.7
    assert estimate.n == 40
    with pytest.raises(ModelError, match="no model folder"):
        encoder(NANO / "nothing")


@pytest.fixture
def detector():
    """A server that takes "kindly" for machine-written."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            text = json.loads(self.rfile.read(int(self.headers["content-length"])))["text"]
            seen.append((text, self.headers.get("x-api-key")))
            body = json.dumps({"ai_likelihood": 2 if "broken" in self.path else 0.9 if "kindly" in text else 0.2})
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # a client that has seen enough goes away
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", seen
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_detector_is_asked_about_every_turn(detector, monkeypatch):
    url, seen = detector
    monkeypatch.setenv("SELFPLAY_DETECTOR_KEY", "secret")
    people, simulated = sides(10)
    assert detector_auc(people, simulated, url).value == 1.0
    assert len(seen) == 20
    assert {key for _, key in seen} == {"secret"}
    with pytest.raises(BackendError, match=r"ai_likelihood 2\.0 is not between"):
        detector_auc(people, simulated, f"{url}broken")
    with pytest.raises(BackendError, match="expected"):
        detector_auc(people, simulated, "http://127.0.0.1:9/")


@pytest.mark.engine
def test_a_model_without_conversations_plays_freely_and_the_run_is_kept(sample, tmp_path):
    people = write(tmp_path / "people.jsonl", sample[:12])
    arguments = ["simulator", "--prompted", "told=nano", "-n", 4, "--set", "max_rounds=2", "--data", people,
                 "--human", people, "--out", tmp_path / "out"]  # fmt: skip
    assert run(*arguments).exit_code == 0
    first = json.loads((tmp_path / "out" / "scorecard.json").read_text(encoding="utf-8"))
    assert first["rounds"]["rows"]["told"]["n"] == 4
    assert first["bits_per_byte"]["value"] > 0
    assert f"people: {people}, 12 conversations" in first["notes"]
    run(*arguments)
    again = json.loads((tmp_path / "out" / "scorecard.json").read_text(encoding="utf-8"))
    assert again == first
