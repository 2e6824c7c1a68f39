"""`selfplay train` as a user meets it: plans, masks shown, adapters merged, input refused. No weights but tiny ones."""

import json
import shutil

import pytest
from family_tokenizers import save_base
from typer.testing import CliRunner

from selfplay import app
from selfplay.cli.main import cli
from selfplay.errors import ConfigError, DataError, ModelError
from selfplay.recipe import load_recipe, shipped_recipes
from selfplay.train.config import TrainConfig
from selfplay.train.launch.deepspeed_config import deepspeed_config
from simulator.train import SIMULATOR

PAPERS = [name for name in shipped_recipes() if name.startswith("papers/")]
TINY = ["--data", "sample", "--set", "optim.max_tokens_per_batch=2048", "--set", "optim.max_steps=2"]


def command(*arguments):
    return CliRunner().invoke(cli, ["train", *map(str, arguments)])


@pytest.fixture(scope="module")
def vicuna_base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("bases") / "vicuna", "vicuna")


def silent(line):
    """Says nothing."""


@pytest.mark.parametrize("processes", [1, 4, 8])
@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_recipes_carry_a_deepspeed_configuration_for_1_4_and_8_gpus(name, processes):
    config = load_recipe(name, TrainConfig, {"processes": processes})
    zero = deepspeed_config(config, 1)["zero_optimization"]
    assert zero["stage"] == config.layout.zero > 0
    assert ("offload_optimizer" in zero) == config.layout.offload
    assert config.optim.global_batch_size % processes == 0


def test_no_two_shipped_recipes_name_one_output():
    outs = [load_recipe(name, TrainConfig).output_dir for name in shipped_recipes() if "output_dir" in _keys(name)]
    assert len(outs) == len(set(outs)) == 3 + len(PAPERS)


def _keys(name):
    return (
        TrainConfig.model_fields.keys()
        if name.startswith(("papers", "nano")) and name not in ("nano/generate", "nano/loop")
        else ()
    )


def test_the_paper_of_usergpt_is_followed():
    config = load_recipe("papers/usergpt-7b", TrainConfig)
    assert (config.role, config.optim.epochs, config.optim.global_batch_size, config.data.max_tokens) == (
        "user",
        3,
        128,
        2048,
    )
    assert (config.optim.learning_rate, config.optim.schedule, config.optim.warmup_steps) == (2e-5, "cosine", 0.03)
    assert app.load_training_recipe(SIMULATOR, "papers/userlm-8b", {}).generation.top_p == 0.8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offload": True}, "offload needs zero"),
        ({"processes": 3, "optim.global_batch_size": 128}, "128 does not share out over 3 processes"),
        ({"lora": {"load_in_4bit": True}, "zero": 3}, "ZeRO-3 cannot split 4-bit weights"),
        ({"layouts": {"1": {"zero": 0, "offload": True}}}, "offload needs zero 1, 2 or 3"),
        ({"compute.packng": True}, "unknown key"),
        ({"compute.attention": "flash"}, "compute.attention"),
        ({"optim.max_steps": 0}, "max_steps 0 trains nothing"),
        (
            {"optim.global_batch_size": 128, "optim.gradient_accumulation_steps": 4},
            "gradient_accumulation_steps follows from global_batch_size",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe("nano/simulator", TrainConfig, changes)


def test_a_layout_is_that_of_the_next_lower_number_of_processes():
    layouts = {"layouts": {1: {"zero": 2, "offload": True}, 4: {"zero": 3}}}
    config = load_recipe("nano/simulator", TrainConfig, {**layouts, "processes": 2})
    assert (config.layout.zero, config.layout.offload, config.launched) == (2, True, True)
    assert load_recipe("nano/simulator", TrainConfig, {**layouts, "processes": 6}).layout.zero == 3
    assert load_recipe("nano/simulator", TrainConfig, {**layouts, "zero": 0}).launched is False


def test_a_dry_run_shows_line_configuration_counts_memory_and_steps_and_leaves_nothing(tmp_path):
    out = tmp_path / "model"
    done = command("simulator", "nano/simulator", *TINY, "--out", out, "--zero", 3, "--processes", 2, "--dry-run")
    assert done.exit_code == 0, done.output
    words = " ".join(done.output.split())
    assert f"torchrun --standalone --nproc-per-node 2 -m selfplay.train.launch.worker {out}/checkpoints" in words
    for part in ('"stage": 3', "parameters 5,835,520", "supervised", "steps 2", "MiB ZeRO-3, bfloat16"):
        assert part in words
    assert not out.exists()


def test_a_dry_run_with_adapters_counts_what_is_trained(tmp_path):
    done = command("simulator", "nano/simulator", *TINY, "--out", tmp_path / "x", "--lora", "--dry-run")
    assert "trained" in done.output
    assert "LoRA rank 16" in done.output
    assert "no launcher" in done.output


def test_inspect_shows_tokens_with_the_supervised_ones_marked():
    done = command("inspect", "sample", "--template", "vicuna_v1.1", "--role", "user")
    assert "USER:⟦ I need to see a dentist, my tooth is killing me</s>⟧ ASSISTANT: I'm sorry" in done.output
    assert "USER:⟦<|endconversation|>⟧" in done.output
    assert "42 supervised" in done.output
    done = command("inspect", "sample", "--template", "llama2", "--role", "assistant", "--number", 2)
    assert "[/INST]⟦ " in done.output


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("sample", "vicuna", "user", "nano", 999), DataError, "no conversation number 999"),
        (("sample", "vicuna", "user", "nano", 1, "none"), DataError, "no conversation with id 'none'"),
        (("sample", "alpaca", "user", "nano", 1), ConfigError, "takes one user turn and one answer"),
        (("sample", "zephyr", "user", "nano", 1), ConfigError, "unknown template family"),
        (("sample", "vicuna", "user", "no/model", 1), ModelError, "no tokenizer that can be read"),
    ],
)
def test_what_cannot_be_inspected_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        app.inspect(*arguments)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"base": "no/such/folder"}, ModelError, "no model folder .no such folder"),
        ({"base": "no/such"}, ModelError, "no tokenizer that can be read"),
        ({"data.datasets": ["alpaca_rows.jsonl"], "template": "vicuna"}, DataError, "no usable conversation"),
        ({"template": "zephyr"}, ConfigError, "unknown template family"),
        ({"compute.liger": True}, (ModelError, ConfigError), "liger"),
        ({"report_to": ["wandb"]}, ModelError, "pip install wandb"),
        ({"lora": {"targets": ["qproj"]}, "template": "vicuna"}, ConfigError, "lora.targets: .*qproj"),
        (
            {"lora": {}, "zero": 3, "template": "vicuna"},
            ConfigError,
            "new to the base .<.endconversation.>.; use --zero 2",
        ),
        ({"compute.attention": "flash_attention_2"}, ModelError, "pip install flash-attn"),
    ],
)
def test_wrong_input_is_refused_before_any_model_is_loaded_and_leaves_nothing(
    vicuna_base, tmp_path, monkeypatch, changes, error, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("selfplay.train.model.load_base", None)
    (tmp_path / "alpaca_rows.jsonl").write_text('{"instruction": "", "output": ""}\n' * 3)
    base = {"base": str(vicuna_base), "data.datasets": ["sample"], "output_dir": "made/model", "compute.liger": False}
    config = load_recipe("nano/simulator", TrainConfig, {**base, **changes})
    with pytest.raises(error, match=message):
        app.train(config, say=silent)
    assert not (tmp_path / "made/model").exists()


def test_two_runs_into_one_folder_are_refused(vicuna_base, tmp_path):
    import fcntl

    out = tmp_path / "model"
    (out / "checkpoints").mkdir(parents=True)
    config = load_recipe("nano/simulator", TrainConfig, {"base": str(vicuna_base), "output_dir": str(out)})
    with (out / "checkpoints/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another run is training into"):
            app.train(config, say=silent)


@pytest.mark.training
@pytest.mark.parametrize("load_in_4bit", [False, True])
def test_adapters_of_a_vicuna_simulator_merge_into_a_model_that_serves(vicuna_base, tmp_path, load_in_4bit):
    import torch
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from selfplay.chat.models import load_renderer

    out, merged = tmp_path / "adapters", tmp_path / "merged"
    changes = {"base": str(vicuna_base), "data.datasets": ["sample"], "template": "vicuna_v1.1", "output_dir": str(out)}
    changes |= {"optim": {"max_steps": 6, "max_tokens_per_batch": 2048, "learning_rate": 0.02, "warmup_steps": 0.2}}
    config = load_recipe("nano/simulator", TrainConfig, {**changes, "lora": {"rank": 4, "load_in_4bit": load_in_4bit}})
    app.train(config, say=silent)
    assert not (out / "config.json").exists()
    with pytest.raises(ModelError, match="selfplay train merge"):
        app.generate(
            app.GenerateConfig.model_validate(
                {"simulator": {"model": str(out)}, "out": str(tmp_path / "run"), "conversations": 1}
            )
        )
    app.merge(out, merged)
    assert load_renderer(merged, "user").opens_turn_of("user")
    tokenizer = AutoTokenizer.from_pretrained(merged)
    end = tokenizer.convert_tokens_to_ids("<|endconversation|>")
    whole, adapted = AutoModelForCausalLM.from_pretrained(merged), AutoPeftModelForCausalLM.from_pretrained(out)
    assert set(whole.generation_config.eos_token_id) == {tokenizer.eos_token_id, end}
    ids = torch.tensor([[5, 6, 7, end]])
    with torch.no_grad():
        torch.testing.assert_close(
            whole(ids).logits.float(), adapted(ids).logits.float(), atol=0.06, rtol=0.02
        )  # merged weights are bfloat16
        # The end was never in the base; its row of the head has to be learned for it to be said.
        base = AutoModelForCausalLM.from_pretrained(vicuna_base)
    assert whole.lm_head.weight.shape[0] == base.lm_head.weight.shape[0] + 1
    with pytest.raises(ConfigError, match="already holds a model"):
        app.merge(out, merged)
    with pytest.raises(ConfigError, match="already holds a model"):
        app.merge(out, out)
    assert "merged into the base" in (merged / "README.md").read_text()
    with pytest.raises(ModelError, match="no adapters"):
        app.merge(merged, tmp_path / "again")


@pytest.mark.training
def test_a_run_that_gets_worse_stops_and_keeps_its_best_weights(vicuna_base, tmp_path):
    out = tmp_path / "model"
    changes = {"base": str(vicuna_base), "data.datasets": ["sample"], "template": "vicuna", "output_dir": str(out)}
    changes |= {
        "optim": {
            "max_steps": 60,
            "global_batch_size": 16,
            "max_tokens_per_batch": 2048,
            "learning_rate": 0.2,
            "patience": 2,
        }
    }
    changes |= {"eval_steps": 2, "log_steps": 2, "report_to": ["tensorboard"], "compute": {"packing": True}}
    result = app.train(load_recipe("nano/simulator", TrainConfig, changes), say=silent)
    log = json.loads((out / "training.json").read_text())["log"]
    evaluations = [entry["eval_loss"] for entry in log if "eval_loss" in entry]
    assert result.steps < 60
    assert result.eval_loss == pytest.approx(min(evaluations), abs=1e-3)
    assert list((out / "tensorboard").rglob("events.*"))
    shutil.rmtree(out)
