"""Weights averaged with the base's: every weight goes its share of the way back, new rows and ZeRO's parts included."""

import json
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from family_tokenizers import save_base
from peft import LoraConfig, get_peft_model
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from selfplay import app
from selfplay.recipe import load_recipe
from selfplay.train.average import average_with_base
from selfplay.train.config import TrainConfig


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("bases") / "vicuna", "vicuna")


def loaded(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def averaged(model, base, share, **changes):
    config = load_recipe(
        "nano/simulator", TrainConfig, {"base": str(base), "optim.average_with_base": share, **changes}
    )
    average_with_base(SimpleNamespace(accelerator=Accelerator(cpu=True), model=model), config)


def test_every_weight_moves_its_share_and_new_tokens_keep_what_they_learned(base):
    before, model = loaded(base), loaded(base)
    rows = model.get_input_embeddings().num_embeddings
    model.resize_token_embeddings(rows + 1, mean_resizing=False)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 1
    new_row = model.get_input_embeddings().weight[rows].clone()
    averaged(model, base, 0.25)
    for ours, theirs in zip(model.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(ours[: len(theirs)], theirs + 0.75)
    assert torch.equal(model.get_input_embeddings().weight[rows], new_row)


def test_adapters_add_that_much_less(base):
    model = get_peft_model(loaded(base), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    whole = get_peft_model(loaded(base), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    whole.load_state_dict(model.state_dict())
    averaged(model, base, 0.25, lora={"rank": 2})
    for ours, full, start in zip(
        model.merge_and_unload().parameters(),
        whole.merge_and_unload().parameters(),
        loaded(base).parameters(),
        strict=True,
    ):
        torch.testing.assert_close(ours, start + 0.75 * (full - start), atol=1e-5, rtol=1e-4)


@pytest.mark.training
def test_a_recipe_with_half_of_its_base_saves_the_mean_and_says_so(base, tmp_path):
    changes = {"base": str(base), "template": "vicuna", "data": {"datasets": ["sample"]}}
    optim = {
        "max_steps": 3,
        "max_tokens_per_batch": 2048,
        "precision": "float32",
        "warmup_steps": 0,
        "learning_rate": 0.01,
    }
    results = {
        share: app.train(
            load_recipe(
                "nano/simulator",
                TrainConfig,
                {**changes, "output_dir": str(tmp_path / str(share)), "optim": {**optim, "average_with_base": share}},
            ),
            say=lambda line: None,
        )
        for share in (0.0, 0.5)
    }
    rows = loaded(base).get_input_embeddings().num_embeddings
    weights = [loaded(results[share].out).model.layers[0].mlp.up_proj.weight for share in (0.0, 0.5)]
    start = loaded(base).model.layers[0].mlp.up_proj.weight
    torch.testing.assert_close(weights[1], (weights[0] + start) / 2, atol=2e-3, rtol=2e-2)
    assert not torch.allclose(weights[1], weights[0], atol=2e-3)
    assert loaded(results[0.5].out).get_input_embeddings().num_embeddings == rows + 1
    assert results[0.5].eval_loss != results[0.0].eval_loss
    assert json.loads((tmp_path / "0.5/training.json").read_text())["recipe"]["optim"]["average_with_base"] == 0.5
    assert json.loads((tmp_path / "0.5/config.json").read_text())["dtype"] == "bfloat16"  # as they are stored
    assert "0.5 of the weights are the base's" in (tmp_path / "0.5/README.md").read_text()
    assert "of the weights are the base's" not in (tmp_path / "0.0/README.md").read_text()


def test_a_new_model_has_no_base_to_be_averaged_with():
    with pytest.raises(ValidationError, match="average_with_base needs a 'base'"):
        TrainConfig.model_validate(
            {
                "role": "all",
                "scratch": {},
                "data": {"datasets": ["sample"]},
                "output_dir": "x",
                "optim": {"average_with_base": 0.5},
            }
        )
