"""An assistant told to play the user: what it sees, how it ends, how it is scored."""

import json
import math
from dataclasses import replace

import pytest
import torch
from score_files import NANO

from bench.metrics.likelihood import Scorer
from selfplay.chat.conversation import Conversation, Turn, conversation_from_pairs, with_intent
from selfplay.chat.models import load_renderer
from selfplay.errors import ModelError
from selfplay.generate.config import GenerateConfig
from selfplay.serve.backend import Completion
from selfplay.serve.config import Sampling
from selfplay.serve.scripted import ScriptedBackend
from selfplay.serve.turns import TurnSampler
from simulator.model import load_prompted_renderer
from simulator.prompted import END_OF_CONVERSATION


def test_a_prompted_user_sees_the_talk_turned_around(sample):
    renderer = load_prompted_renderer(NANO / "assistant", "user")
    conversation = sample[0]
    ids, mask = renderer.render(conversation)
    parse_sampled = renderer.decode(
        [id for id, on in zip(ids, mask, strict=True) if on and id != renderer.end_of_turn_id]
    )
    assert parse_sampled == "".join([*conversation.of("user"), END_OF_CONVERSATION])
    for number, turn in enumerate(conversation.turns):
        if turn.role == "user":
            prompt = renderer.prompt_ids(conversation.turns[:number], "user")
            assert ids[: len(prompt)] == prompt
            assert mask[len(prompt)] == 1
    assert sum(mask) == sum(mask[len(renderer.prompt_ids([], "user")) :])


def test_an_intent_is_what_the_user_sees_first(sample):
    renderer = load_prompted_renderer(NANO / "assistant", "user")
    told = Conversation("x", sample[0].turns, meta={"intent": "a dentist, today"})
    assert "What you want: a dentist, today" in renderer.decode(renderer.render(with_intent(told)).input_ids)
    trained = load_renderer(NANO / "simulator", "user")
    assert trained.decode(trained.render(with_intent(told)).input_ids).startswith("a dentist, today")


def test_words_that_end_the_talk_end_it():
    renderer = load_prompted_renderer(NANO / "assistant", "user")
    assert renderer.parse_sampled(END_OF_CONVERSATION) == ("", True)
    assert renderer.parse_sampled(f"thanks {END_OF_CONVERSATION} x") == ("thanks", True)
    assert renderer.parse_sampled("thanks") == ("thanks", False)
    assert renderer.end_of_conversation_id is None
    assert renderer.decode(renderer.end_ids()) == END_OF_CONVERSATION


def test_context_is_not_learned_by_a_prompted_user_either(sample):
    renderer = load_prompted_renderer(NANO / "assistant", "user")
    whole = sample[0]
    piece = replace(whole, context=2)
    assert sum(renderer.render(piece).loss_mask) < sum(renderer.render(whole).loss_mask)
    loaders = (("simulator", load_renderer), ("assistant", load_prompted_renderer))
    scores = [Scorer(NANO / kind, load).score([piece], "user") for kind, load in loaders]
    learned = sum(len(turn.content.encode()) for turn in whole.turns[2:] if turn.role == "user")
    assert [score.bytes for score in scores] == [[learned], [learned]]


def test_a_simulator_cannot_be_told_to_be_one():
    with pytest.raises(ModelError, match="does not open an assistant turn"):
        load_prompted_renderer(NANO / "simulator", "user")
    with pytest.raises(ModelError, match=r"set simulator\.prompted"):
        load_renderer(NANO / "assistant", "user")
    assert GenerateConfig().simulator.prompted is False


def test_a_prompted_users_end_is_its_words(monkeypatch):
    """p(end) of several tokens is the product of their probabilities, as one whole rendering has them."""
    from bench.metrics import likelihood

    monkeypatch.setattr(likelihood, "_WORTH_A_LOOK", 0.0)
    scorer = Scorer(NANO / "assistant", load_prompted_renderer)
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


async def test_a_prompted_user_ends_by_words_and_is_remembered_without_them():
    renderer = load_prompted_renderer(NANO / "assistant", "user")
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
