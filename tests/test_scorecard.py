"""The scorecard and the corpus table as a user gets them: from files, with what is missing said."""

import json
import math
import re
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from bench.likelihood import Scorer
from bench.metrics import METRICS
from bench.naturalness import detector_auc, encoder, two_sample_auc
from bench.questions import read_questions
from bench.scorecard import Scorecard, language_among, score_termination
from selfplay import app
from selfplay.chat.conversation import Conversation, Turn, conversation_from_pairs
from selfplay.chat.models import load_renderer, locate_model, token_counter
from selfplay.chat.prompted import END_OF_CONVERSATION, with_intent
from selfplay.cli import cli
from selfplay.config import GenerateConfig
from selfplay.console_bench import named
from selfplay.errors import BackendError, ConfigError, DataError, ModelError
from selfplay.scoring import folder_name
from selfplay.serve.backend import Completion, Sampling
from selfplay.serve.scripted import ScriptedBackend
from selfplay.serve.turns import TurnSampler
from selfplay.writing import json_line

NANO = Path(str(locate_model("nano", "simulator"))).parent


def write(path, conversations):
    rows = ({"id": c.id, "messages": c.messages(), "meta": dict(c.meta)} for c in conversations)
    path.write_bytes(b"".join(map(json_line, rows)))
    return str(path)


def run(*arguments):
    return CliRunner().invoke(cli, ["bench", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture(scope="session")
def scored(sample, tmp_path_factory):
    """One scorecard from files and a model's likelihoods; no engine."""
    folder = tmp_path_factory.mktemp("scored")
    simulated = write(folder / "simulated.jsonl", sample[:30])
    people = write(folder / "people.jsonl", sample[30:70])
    result = run("simulator", "--model", "UserGPT=nano", "--prompted", "told=nano", "--temperature", 1, "--temperature",
                 0.5, "--conversations", f"UserGPT, T 1={simulated}", "--conversations", f"UserGPT, T 0.5={simulated}",
                 "--conversations", f"told={simulated}", "--data", people, "--people", people, "--out",
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
    assert card["left_out"]["naturalness_auc"] == {"x.jsonl": "no people to compare with; give --data or --people"}
    assert card["left_out"]["bits_per_byte"] == {"x.jsonl": "conversations only, no model to ask"}


def test_one_conversation_has_no_pairs_and_no_test(sample, tmp_path):
    one = write(tmp_path / "one.jsonl", sample[:1])
    people = write(tmp_path / "people.jsonl", sample[1:9])
    run("simulator", "--conversations", f"one={one}", "--people", people, "--out", tmp_path / "out")
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
    assert named(["a=x/y", "models/one", "runs/a=b"]) == {"a": "x/y", "one": "models/one", "a=b": "runs/a=b"}


def test_missing_packages_leave_out_their_metric(sample, tmp_path, monkeypatch):
    import builtins

    from bench import habits

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


# A model told to play the user


def test_a_prompted_user_sees_the_talk_turned_around(sample):
    renderer = load_renderer(NANO / "assistant", "user", prompted=True)
    conversation = sample[0]
    ids, mask = renderer.render(conversation)
    said = renderer.decode([id for id, on in zip(ids, mask, strict=True) if on and id != renderer.end_of_turn_id])
    assert said == "".join([*conversation.of("user"), END_OF_CONVERSATION])
    for number, turn in enumerate(conversation.turns):
        if turn.role == "user":
            prompt = renderer.prompt_ids(conversation.turns[:number], "user")
            assert ids[: len(prompt)] == prompt
            assert mask[len(prompt)] == 1
    assert sum(mask) == sum(mask[len(renderer.prompt_ids([], "user")) :])


def test_an_intent_is_what_the_user_sees_first(sample):
    renderer = load_renderer(NANO / "assistant", "user", prompted=True)
    told = Conversation("x", sample[0].turns, meta={"intent": "a dentist, today"})
    assert "What you want: a dentist, today" in renderer.decode(renderer.render(with_intent(told)).input_ids)
    trained = load_renderer(NANO / "simulator", "user")
    assert trained.decode(trained.render(with_intent(told)).input_ids).startswith("a dentist, today")


def test_words_that_end_the_talk_end_it():
    renderer = load_renderer(NANO / "assistant", "user", prompted=True)
    assert renderer.said(END_OF_CONVERSATION) == ("", True)
    assert renderer.said(f"thanks {END_OF_CONVERSATION} x") == ("thanks", True)
    assert renderer.said("thanks") == ("thanks", False)
    assert renderer.end_of_conversation_id is None
    assert renderer.decode(renderer.end_ids()) == END_OF_CONVERSATION


def test_context_is_not_learned_by_a_prompted_user_either(sample):
    renderer = load_renderer(NANO / "assistant", "user", prompted=True)
    whole = sample[0]
    piece = replace(whole, context=2)
    assert sum(renderer.render(piece).loss_mask) < sum(renderer.render(whole).loss_mask)
    scores = [Scorer(NANO / kind, prompted=told).score([piece], "user") for kind, told in
              (("simulator", False), ("assistant", True))]  # fmt: skip
    learned = sum(len(turn.content.encode()) for turn in whole.turns[2:] if turn.role == "user")
    assert [score.bytes for score in scores] == [[learned], [learned]]


def test_a_system_prompt_is_not_what_the_user_wants(sample, tmp_path):
    told = [replace(c, turns=(Turn("system", "You are Bob."), *c.turns)) for c in sample[:10]]
    cards = []
    for name, rows in (("with", told), ("without", sample[:10])):
        data = write(tmp_path / f"{name}.jsonl", rows)
        simulated = write(tmp_path / "simulated.jsonl", sample[:10])
        run("simulator", "--prompted", "told=nano", "--conversations", f"told={simulated}", "--data", data, "--people",
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


def test_a_simulator_cannot_be_told_to_be_one():
    with pytest.raises(ModelError, match="does not open an assistant turn"):
        load_renderer(NANO / "simulator", "user", prompted=True)
    with pytest.raises(ModelError, match="set prompted_user"):
        load_renderer(NANO / "assistant", "user")
    assert GenerateConfig().prompted_user is False


def test_a_prompted_users_end_is_its_words(monkeypatch):
    """p(end) of several tokens is the product of their probabilities, as one whole rendering has them."""
    from bench import likelihood

    monkeypatch.setattr(likelihood, "_WORTH_A_LOOK", 0.0)
    scorer = Scorer(NANO / "assistant", prompted=True)
    turns = (Turn("user", "a table for two"), Turn("assistant", "booked"))
    whole = scorer.score([Conversation("x", turns)], "user", [Sampling()])
    cut = scorer.score([Conversation("x", turns, complete=False)], "user")
    (p,) = whole.ends[0][0]
    assert whole.bits == pytest.approx(cut.bits)
    renderer = scorer.renderer("user")
    ids = [*renderer.prompt_ids(turns, "user"), *renderer.end_ids()]
    with torch.inference_mode():
        logs = torch.log_softmax(scorer._model(torch.tensor([ids])).logits[0], -1)
    before = len(ids) - len(renderer.end_ids())
    expected = sum(float(logs[at - 1, ids[at]]) for at in range(before, len(ids)))
    assert math.log(p) == pytest.approx(expected, rel=1e-3)


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    import shutil

    shutil.copytree(NANO / "simulator", tmp_path / "m")
    path = tmp_path / "m" / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    token = {**tokenizer["added_tokens"][-1], "id": 6144, "content": "<|new|>"}
    tokenizer["added_tokens"].append(token)
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(ModelError, match="6,145 tokens and the model 6,144 embeddings"):
        Scorer(tmp_path / "m").score([], "user")


def test_turns_longer_than_the_context_are_scored_up_to_it():
    scorer = Scorer(NANO / "simulator")
    long = conversation_from_pairs("x", [("user", "a room " * 900), ("assistant", "ok")])
    score = scorer.score([long], "user", [Sampling()])
    assert score.cut == 1
    assert 0 < score.tokens[0] < 1024
    assert score.ends[0] == [[]]


# Judges beside the n-grams


def sides(n=30):
    return [
        [conversation_from_pairs(f"{name}{k}", [("user", f"{word} {k % 7}"), ("assistant", "ok")]) for k in range(n)]
        for name, word in (("p", "please book"), ("s", "kindly reserve"))
    ]


def test_an_encoder_is_fine_tuned_on_each_fold():
    people, simulated = sides(20)
    estimate = two_sample_auc(people, simulated, classifier=encoder(NANO / "base", epochs=8))
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


# Corpora


@pytest.fixture(scope="session")
def embeddings(tmp_path_factory):
    """A sentence-transformers model of our own base: mean of its states."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    folder = tmp_path_factory.mktemp("embeddings")
    words = Transformer(str(NANO / "base"), processor_kwargs={"pad_token": "<|pad|>"})
    SentenceTransformer(modules=[words, Pooling(words.get_embedding_dimension())], device="cpu").save(str(folder))
    return str(folder)


def test_corpora_side_by_side(sample, embeddings, tmp_path):
    question = tmp_path / "question.jsonl"
    opening = sample[3].of("user")[0]
    lines = [{"question_id": 1, "category": "x", "turns": [opening, {"content": "short"}]}]
    question.write_bytes(b"".join(map(json_line, lines)))
    one = write(tmp_path / "one.jsonl", [*sample[:20], sample[3]])
    result = run("corpus", f"one={one}", "all=sample", "--embeddings", embeddings, "--benchmark", question, "--out",
                 tmp_path / "out")  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out" / "corpus.json").read_text(encoding="utf-8"))["corpora"]
    assert (found["one"]["dialogues"], found["all"]["dialogues"]) == (21, 120)
    assert found["one"]["repeated dialogues"]["value"] == pytest.approx(1 / 21)
    rounds = [c.rounds for c in [*sample[:20], sample[3]]]
    assert found["one"]["rounds"]["value"] == pytest.approx(sum(rounds) / 21)
    assert found["all"]["language en"]["value"] > 0.9
    for figure in ("topic diversity", "coherence", "MTLD", "tokens per user turn", "tokens per dialogue"):
        assert found["all"][figure]["low"] < found["all"][figure]["value"] < found["all"][figure]["high"]
    assert re.search(r"\| dialogues \| 21 \| 120 \|", (tmp_path / "out" / "corpus.md").read_text(encoding="utf-8"))


def test_tokens_of_a_corpus_are_those_of_its_texts(sample):
    renderer = load_renderer(NANO / "simulator", "user")
    texts = [turn.content for turn in sample[0].turns]
    assert token_counter("nano")(texts) == [len(ids) for ids in renderer.encode_texts(texts)]
    ((described,), _) = app.describe_corpora({"sample": "sample"})
    expected = [len(renderer.encode_text(text)) for c in sample for text in c.of("user")]
    assert described.figures["tokens per user turn"].value == pytest.approx(sum(expected) / len(expected))


def test_an_empty_corpus_is_told(tmp_path):
    (tmp_path / "empty.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="no conversation in it"):
        app.describe_corpora({"empty": str(tmp_path / "empty.jsonl")})
    found, notes = app.describe_corpora({"empty": str(tmp_path / "empty.jsonl"), "sample": "sample"})
    assert [corpus.name for corpus in found] == ["sample"]
    assert any(note.startswith("empty is left out: ") for note in notes)
    with pytest.raises(ConfigError, match="nothing to describe"):
        app.describe_corpora({})


def test_a_file_that_holds_no_questions_is_told(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text('{"question_id": 1}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"q.jsonl:1: no question"):
        read_questions(path)
    path.write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="holds no question"):
        read_questions(path)


async def test_a_prompted_user_ends_by_words_and_is_remembered_without_them():
    renderer = load_renderer(NANO / "assistant", "user", prompted=True)
    replies = ["thank you", END_OF_CONVERSATION, f"thanks {END_OF_CONVERSATION}"]

    def script(request):
        ids = tuple(renderer.encode_text(replies[len(asked)]))
        asked.append(request)
        return Completion(ids, "stop", renderer.end_of_turn_id)

    asked = []
    sampler = TurnSampler(ScriptedBackend(script), renderer, "user", Sampling())
    turns = (Turn("user", "a table"), Turn("assistant", "booked"))
    plain, ended, both = [await sampler.sample(turns, 0, n) for n in range(3)]
    assert (plain.turn.content, plain.ends, plain.turn.token_ids is None) == ("thank you", False, False)
    assert (ended.turn.content, ended.ends) == ("", True)
    assert (both.turn.content, both.ends, both.turn.token_ids) == ("thanks", True, None)
    assert asked[0].prompt_ids == renderer.prompt_ids(turns, "user")
    forbidden = {id for id, bias in asked[0].logit_bias if bias < 0}
    assert renderer.tokenizer.convert_tokens_to_ids(END_OF_CONVERSATION) in forbidden


@pytest.mark.engine
def test_a_model_without_conversations_plays_freely_and_the_run_is_kept(sample, tmp_path):
    people = write(tmp_path / "people.jsonl", sample[:12])
    arguments = ["simulator", "--prompted", "told=nano", "-n", 4, "--set", "max_rounds=2", "--data", people,
                 "--people", people, "--out", tmp_path / "out"]  # fmt: skip
    assert run(*arguments).exit_code == 0
    first = json.loads((tmp_path / "out" / "scorecard.json").read_text(encoding="utf-8"))
    assert first["rounds"]["rows"]["told"]["n"] == 4
    assert first["bits_per_byte"]["value"] > 0
    assert f"people: {people}, 12 conversations" in first["notes"]
    run(*arguments)
    again = json.loads((tmp_path / "out" / "scorecard.json").read_text(encoding="utf-8"))
    assert again == first
