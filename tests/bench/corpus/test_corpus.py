"""The table of corpora as a user gets it."""

import json
import re

import pytest
from score_files import NANO, run, write

from bench.questions import read_questions
from selfplay import app
from selfplay.chat.models import load_renderer, token_counter
from selfplay.errors import ConfigError, DataError
from selfplay.files import json_line


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
    assert found["one"]["repeated_dialogues"]["value"] == pytest.approx(1 / 21)
    rounds = [c.rounds for c in [*sample[:20], sample[3]]]
    assert found["one"]["rounds"]["value"] == pytest.approx(sum(rounds) / 21)
    assert found["all"]["language_en"]["value"] > 0.9
    for figure in ("topic_diversity", "coherence", "mtld", "tokens_per_user_turn", "tokens_per_dialogue"):
        assert found["all"][figure]["low"] < found["all"][figure]["value"] < found["all"][figure]["high"]
    assert re.search(r"\| dialogues \| 21 \| 120 \|", (tmp_path / "out" / "corpus.md").read_text(encoding="utf-8"))


def test_tokens_of_a_corpus_are_those_of_its_texts(sample):
    renderer = load_renderer(NANO / "simulator", "user")
    texts = [turn.content for turn in sample[0].turns]
    assert token_counter("nano")(texts) == [len(ids) for ids in renderer.encode_texts(texts)]
    ((described,), _) = app.describe_corpora({"sample": "sample"})
    expected = [len(renderer.encode_text(text)) for c in sample for text in c.of("user")]
    assert described.figures["tokens_per_user_turn"].value == pytest.approx(sum(expected) / len(expected))


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
