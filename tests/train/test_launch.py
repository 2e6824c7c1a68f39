"""Runs of two processes on gloo: what ZeRO splits changes no loss, a killed run resumes, what fails is said once."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from selfplay.app import train
from selfplay.errors import SelfplayError
from selfplay.train.config import TrainConfig

pytestmark = pytest.mark.training

RECIPE = {
    "role": "user",
    "data": {"datasets": ["sample"], "held_out": 0.1, "max_tokens": 512},
    "optim": {
        "max_steps": 12,
        "global_batch_size": 16,
        "max_tokens_per_batch": 1024,
        "learning_rate": 5e-3,
        "warmup_steps": 2,
    },
    "processes": 2,  # 105 rows: 7 steps an epoch, the last of 9 rows, of which two processes see one twice
    "log_steps": 1,
    "eval_steps": 12,
    "save_steps": 2,
}


def recipe(base, out, **changes):
    values = {**RECIPE, "base": str(base), "output_dir": str(out), **changes}
    optim = {**RECIPE["optim"], "precision": "float32", "average_with_base": 0.5}
    values["optim"] = {**optim, **changes.get("optim", {})}
    return TrainConfig.model_validate(values)


def losses(folder):
    log = json.loads((folder / "training.json").read_text())["log"]
    return [entry["loss"] for entry in log if "loss" in entry]


def silent(line):
    """Says nothing."""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny base with tied embeddings."""
    out = tmp_path_factory.mktemp("models") / "base"
    scratch = {"vocab_size": 600, "hidden_size": 64, "intermediate_size": 128, "layers": 2, "heads": 2}
    changes = {"role": "all", "base": None, "scratch": scratch, "processes": 1, "optim": {"max_steps": 2}}
    train(TrainConfig.model_validate({**RECIPE, "output_dir": str(out), **changes}), say=silent)
    return out


@pytest.fixture(scope="module")
def alone(base, tmp_path_factory):
    """What one process without DeepSpeed learns."""
    out = tmp_path_factory.mktemp("models") / "alone"
    train(recipe(base, out, processes=1), say=silent)
    return out


@pytest.fixture(scope="module")
def zero2(base, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "zero2"
    train(recipe(base, out, zero=2), say=silent)
    return out


def test_two_processes_with_zero_2_learn_what_one_learns(alone, zero2):
    assert losses(zero2)[:6] == pytest.approx(losses(alone)[:6], abs=1e-4)
    same_weights(zero2, alone, atol=5e-3)  # the second epoch has a row twice
    assert json.loads((zero2 / "deepspeed.json").read_text())["zero_optimization"]["stage"] == 2


def test_zero_3_with_offload_ends_in_one_folder_with_tied_embeddings(base, zero2, tmp_path):
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM

    out = tmp_path / "zero3"
    train(recipe(base, out, zero=3, offload=True), say=silent)
    assert losses(out) == pytest.approx(losses(zero2), abs=1e-4)
    with safe_open(out / "model.safetensors", framework="pt") as tensors:
        assert "model.embed_tokens.weight" in tensors.keys()  # noqa: SIM118
        assert "lm_head.weight" not in tensors.keys()  # noqa: SIM118
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    same_weights(out, zero2)


def same_weights(folder, other, atol=2e-3):
    import torch
    from transformers import AutoModelForCausalLM

    sides = [AutoModelForCausalLM.from_pretrained(path).parameters() for path in (folder, other)]
    for ours, theirs in zip(*sides, strict=True):
        torch.testing.assert_close(ours, theirs, atol=atol, rtol=1e-2)


def test_a_run_of_two_processes_killed_in_its_second_epoch_resumes_to_the_same_losses(base, zero2, tmp_path):
    out = tmp_path / "killed"
    file = tmp_path / "recipe.yaml"
    config = recipe(base, out, zero=2)
    file.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_none=True)))
    command = [sys.executable, "-m", "selfplay.cli", "train", "simulator", str(file)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (out / "checkpoints/checkpoint-8/trainer_state.json").exists() and time.monotonic() < deadline:
        assert process.poll() is None, "training ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "config.json").exists()
    while _workers(out):  # killed with the one that launched them
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (out / "checkpoints/checkpoint-999").mkdir()  # as if the kill had come while one was written
    train(config, resume=True, say=silent)
    assert losses(out) == pytest.approx(losses(zero2), abs=1e-5)
    assert len(losses(out)) == 12


def _workers(out):
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline") as file:
                words = file.read().split("\0")
            with open(f"/proc/{pid}/stat") as file:
                state = file.read().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if "selfplay.train.launch.worker" in words and str(out / "checkpoints") in words and state != "Z":
            found.append(pid)
    return found


def test_what_goes_wrong_in_a_process_is_said_by_the_command(base, tmp_path):
    out = tmp_path / "broken"
    with pytest.raises(SelfplayError, match=r"loss is (nan|inf) at step \d+ of 12"):
        train(recipe(base, out, optim={"learning_rate": 1e30}), say=silent)
    assert (out / "checkpoints/logs").is_dir()
