"""A small model trained through the real trainer: what is saved, and that a killed run resumes to the same losses."""

import json
import math
import signal
import subprocess
import sys
import time

import pytest
import yaml

from selfplay.app import train
from selfplay.chat.models import load_renderer
from selfplay.errors import ConfigError, ModelError, SelfplayError
from selfplay.train.config import TrainConfig

pytestmark = pytest.mark.training

RECIPE = {
    "role": "all",
    "scratch": {"vocab_size": 600, "hidden_size": 64, "intermediate_size": 128, "layers": 2, "heads": 2},
    "data": {"datasets": ["sample"], "held_out": 0.1, "max_tokens": 512},
    "optim": {
        "epochs": 6,
        "max_tokens_per_batch": 2048,
        "learning_rate": 5e-3,
        "warmup_steps": 5,
        "precision": "float32",
    },
    "log_steps": 1,
    "eval_steps": 20,
    "save_steps": 10,
}


def recipe(out, **changes):
    return TrainConfig.model_validate({**RECIPE, "output_dir": str(out), **changes})


def losses(folder):
    log = json.loads((folder / "training.json").read_text())["log"]
    return {entry["step"]: entry["loss"] for entry in log if "loss" in entry}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "base"
    train(recipe(out), say=lambda line: None)
    return out


def test_the_loss_falls_and_the_folder_tells_how_it_was_made(base):
    curve = list(losses(base).values())
    assert curve[-1] < curve[0] - 1
    record = json.loads((base / "training.json").read_text())
    assert record["recipe"]["data"]["datasets"] == ["sample"]
    assert len(record["data_fingerprint"]) == 32
    assert (base / "loss.png").stat().st_size > 5000
    assert not list(base.glob("*.bin"))
    assert not (base / "checkpoints").exists()
    assert json.loads((base / "config.json").read_text())["use_cache"] is True


@pytest.mark.parametrize(("role", "kind"), [("user", "simulator"), ("assistant", "assistant")])
def test_a_role_is_trained_from_the_base_and_loads_as_it_is(base, tmp_path, role, kind):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / kind
    start = {"scratch": None, "base": str(base)}
    train(recipe(out, role=role, **start, optim={**RECIPE["optim"], "epochs": 1}), say=lambda line: None)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    opened = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert opened.endswith(f"<|{role}|>")
    assert load_renderer(out, role).opens_turn_of(role)
    stops = {tokenizer.convert_tokens_to_ids(t) for t in ["<|im_end|>", *["<|endconversation|>"] * (role == "user")]}
    assert set(model.generation_config.eos_token_id) == stops
    other = "assistant" if role == "user" else "user"
    with pytest.raises(ModelError, match=f"does not open a {other} turn"):
        load_renderer(out, other)


def test_a_killed_run_resumes_to_the_same_losses(base, tmp_path):
    out = tmp_path / "base"
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe(out).model_dump(mode="json", exclude_none=True)))
    command = [sys.executable, "-m", "selfplay.cli", "train", "base", str(file)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (out / "checkpoints/checkpoint-20/trainer_state.json").exists() and time.monotonic() < deadline:
        assert process.poll() is None, "training ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "config.json").exists()
    train(recipe(out), resume=True, say=lambda line: None)
    expected, resumed = losses(base), losses(out)
    assert len(expected) == len(resumed) > 25
    assert resumed == pytest.approx(expected, abs=0)


def test_a_run_is_resumed_only_with_its_own_settings(base, tmp_path):
    out = tmp_path / "base"
    with pytest.raises(SelfplayError, match=r"loss is nan at step \d+"):
        train(recipe(out, optim={**RECIPE["optim"], "learning_rate": 1e30}), say=lambda line: None)
    assert not (out / "config.json").exists()
    with pytest.raises(ConfigError, match="unfinished run"):
        train(recipe(out), say=lambda line: None)
    with pytest.raises(ConfigError, match=r"optim.learning_rate: 1e\+30 → 0.005"):
        train(recipe(out), resume=True, say=lambda line: None)


def test_the_held_out_loss_is_the_mean_over_tokens(base):
    from bench.metrics.likelihood import Scorer
    from selfplay.data.loading import load
    from selfplay.serve.config import Sampling

    people = load(["sample"], split="held_out", held_out=0.1).conversations
    scorer = Scorer(base)
    nats = tokens = 0.0
    for conversation in people:
        user, assistant = (
            scorer.score([conversation], role, [Sampling()] * (role == "user")) for role in ("user", "assistant")
        )
        nats += (user.bits[0] + assistant.bits[0]) * math.log(2) - math.log(user.ends[0][0][-1])
        tokens += user.tokens[0] + assistant.tokens[0] + 1  # the end of the conversation is a token of its own
    log = json.loads((base / "training.json").read_text())["log"]
    measured = [entry["eval_loss"] for entry in log if "eval_loss" in entry][-1]
    assert measured == pytest.approx(nats / tokens, rel=2e-3)  # the saved weights are rounded to bfloat16


def test_what_cannot_be_trained_is_refused_before_any_model_is_loaded(base, tmp_path):
    with pytest.raises(ConfigError, match="already holds a model"):
        train(recipe(base))
    with pytest.raises(ConfigError, match="holds no checkpoint"):
        train(recipe(tmp_path / "new"), resume=True, say=lambda line: None)
    with pytest.raises(ModelError, match=r"a folder without config\.json"):
        train(recipe(tmp_path / "new", scratch=None, base=str(tmp_path)), say=lambda line: None)


def test_a_base_without_the_templates_tokens_is_refused(base, tmp_path):
    import shutil

    from transformers import PreTrainedTokenizerFast

    other = tmp_path / "other"
    shutil.copytree(base, other, ignore=shutil.ignore_patterns("tokenizer*"))
    from tokenizers import Tokenizer, models

    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), eos_token="</s>", pad_token="<pad>")
    plain.save_pretrained(other)
    with pytest.raises(ModelError, match=r"lacks <\|im_end\|>.*<\|assistant\|>"):
        train(recipe(tmp_path / "new", scratch=None, base=str(other), role="user"), say=lambda line: None)
