"""What a breaking run says: the step, the conversations, the last good checkpoint, the knobs that free memory."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from selfplay.errors import SelfplayError
from selfplay.train.config import TrainConfig
from selfplay.train.methods.callbacks import Watch, last_good_checkpoint, memory_advice


def checkpoint(folder, step, value):
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    save_file({"w": torch.tensor([1.0, value])}, path / "model.safetensors")
    return path


def moment(folder, step):
    arguments = SimpleNamespace(output_dir=str(folder), world_size=1)
    return arguments, SimpleNamespace(global_step=step, max_steps=40, is_world_process_zero=True), None


def logged(watch, folder, step, loss):
    watch.on_log(*moment(folder, step), {"loss": loss, "learning_rate": 1e-3})


def test_a_loss_that_is_no_number_names_step_conversations_and_the_last_good_checkpoint(tmp_path):
    good, _ = checkpoint(tmp_path, 4, 2.0), checkpoint(tmp_path, 6, float("nan"))
    assert last_good_checkpoint(tmp_path) == good
    watch = Watch()
    for batch in range(6):  # three steps of two batches since the last log
        watch.saw(6 + batch // 2, [f"c{batch}", "d"], 10, torch.tensor(float("nan") if batch >= 3 else 1.0))
    with pytest.raises(
        SelfplayError, match=r"loss is nan at step 7 of 40, in the batch of conversations c3, d"
    ) as error:
        logged(watch, tmp_path, 8, float("nan"))
    assert f"Last good checkpoint: {good}" in str(error.value)


def test_a_run_without_any_checkpoint_says_so(tmp_path):
    watch = Watch()
    watch.saw(1, ["c0"], 10, torch.tensor(float("inf")))
    with pytest.raises(SelfplayError, match="Last good checkpoint: none yet"):
        logged(watch, tmp_path, 1, float("inf"))


def test_a_run_that_breaks_after_its_last_log_is_stopped_before_it_is_saved(tmp_path):
    watch = Watch()
    watch.saw(40, ["c0"], 10, torch.tensor(float("nan")))
    with pytest.raises(SelfplayError, match="loss is nan at step 40 of 40"):
        watch.on_train_end(*moment(tmp_path, 40))
    with pytest.raises(SelfplayError, match="held-out loss is nan at step 20"):
        Watch().on_log(*moment(tmp_path, 20), {"eval_loss": float("nan")})


def test_a_log_line_tells_how_it_goes(tmp_path):
    lines = []
    watch = Watch(lines.append)
    watch.on_train_begin(None, SimpleNamespace(global_step=0), None)
    watch.saw(5, ["c0"], 1000, torch.tensor(2.0))
    logged(watch, tmp_path, 5, 1.25)
    assert lines[0].startswith("step  5/40  loss 1.2500 · ")
    assert "tokens/s · learning rate 1.0e-03" in lines[0]


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_running_out_of_memory_names_the_knobs_in_order(error):
    values = {
        "role": "user",
        "base": "x",
        "data": {"datasets": ["sample"]},
        "output_dir": "o",
        "processes": 2,
        "zero": 2,
    }
    with pytest.raises(SelfplayError) as told, memory_advice(TrainConfig.model_validate(values)):
        raise error
    text = str(told.value)
    order = [
        "max_tokens_per_batch 3072",
        "gradient_checkpointing",
        "--zero 3",
        "--offload",
        "--lora",
        "max_tokens below 768",
    ]
    assert [text.index(knob) for knob in order] == sorted(text.index(knob) for knob in order)


def test_knobs_that_are_turned_already_are_not_named():
    values = {
        "role": "user",
        "base": "x",
        "data": {"datasets": ["sample"]},
        "output_dir": "o",
        "zero": 3,
        "offload": True,
    }
    values |= {"compute": {"gradient_checkpointing": True}, "lora": {}, "optim": {"max_tokens_per_batch": 768}}
    with pytest.raises(SelfplayError) as told, memory_advice(TrainConfig.model_validate(values)):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
    assert str(told.value).endswith("with another --out: 1. lora.load_in_4bit true; 2. data.max_tokens below 768")
    with pytest.raises(RuntimeError, match="something else"), memory_advice(TrainConfig.model_validate(values)):
        raise RuntimeError("something else")
