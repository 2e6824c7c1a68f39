"""Which engine runs where: models and machines as tables, nothing is started."""

from pathlib import Path

import pytest

from selfplay.errors import ConfigError
from selfplay.generate.config import GenerateConfig
from selfplay.generate.participants import engine_specs, resolve_sides
from selfplay.serve.config import Placement
from selfplay.serve.placement import Machine, PlacedModel, place
from selfplay.serve.vllm_backend import EngineSpec, _environment

GIB = 2**30
CPU = Machine(cores=(0, 1, 2, 3, 4))


def gpus(count, memory=80 * GIB):
    return Machine(cores=(0, 1, 2, 3), gpus=(memory,) * count)


def model(name, weights=8 * GIB, **placement):
    return PlacedModel(name, Path(name), Placement(**placement), weights)


def placed(machine, *models):
    groups = place(models, machine, Path("logs"), max_num_seqs=64, kv_gib=1)
    return {spec.name: spec for group in groups.values() for spec in group}


def test_cores_are_dealt_out_evenly():
    specs = placed(CPU, model("simulator", replicas=2), model("assistant"))
    assert {name: spec.cores for name, spec in specs.items()} == {
        "simulator-0": (0, 3), "simulator-1": (1, 4), "assistant-0": (2,),
    }  # fmt: skip
    assert len({spec.log for spec in specs.values()}) == 3


def test_more_engines_than_cores_share_them():
    specs = placed(Machine(cores=(5,)), model("simulator"), model("assistant"))
    assert [spec.cores for spec in specs.values()] == [(5,), (5,)]


def test_each_model_gets_devices_of_its_own_where_there_are_enough():
    specs = placed(gpus(4), model("simulator"), model("assistant", replicas=3))
    assert [spec.devices for spec in specs.values()] == [(0,), (1,), (2,), (3,)]
    assert {spec.memory_share for spec in specs.values()} == {0.9}


def test_devices_that_others_name_are_left_to_them():
    specs = placed(gpus(2), model("simulator", devices=(0,)), model("assistant"))
    assert [spec.devices for spec in specs.values()] == [(0,), (1,)]


def test_unequal_models_share_a_device_by_the_size_of_their_weights():
    specs = placed(gpus(1), model("simulator", weights=8 * GIB), model("assistant", weights=40 * GIB))
    small, large = specs["simulator-0"].memory_share, specs["assistant-0"].memory_share
    assert small + large == pytest.approx(0.9, abs=0.002)
    assert large - small == pytest.approx(32 / 80, abs=0.002), "the same room for KV cache on either side"


def test_tensor_parallel_replicas_take_their_devices_in_order():
    specs = placed(gpus(4), model("assistant", replicas=2, tensor_parallel_size=2, devices=(3, 2, 1, 0)))
    assert [spec.devices for spec in specs.values()] == [(3, 2), (1, 0)]


def test_named_memory_is_kept_and_the_rest_is_shared():
    specs = placed(gpus(1), model("simulator", memory_share=0.3), model("assistant"))
    assert [spec.memory_share for spec in specs.values()] == [0.3, 0.6]


@pytest.mark.parametrize(
    ("machine", "models", "message"),
    [
        (CPU, [model("assistant", tensor_parallel_size=2)], "need GPUs; this machine shows none"),
        (gpus(2), [model("assistant", devices=(2,))], "GPU 2 is not there; this machine shows 0 to 1"),
        (gpus(2), [model("assistant", replicas=2, devices=(0,))], "need 2 devices, found 1"),
        (gpus(2), [model("assistant", tensor_parallel_size=4)], "tensor_parallel_size 4, but this machine shows 2"),
        (gpus(1), [model("a", weights=50 * GIB), model("b", weights=50 * GIB)], "do not fit beside"),
        (gpus(1), [model("a", memory_share=0.7), model("b", memory_share=0.7)], "more than its memory together"),
    ],
)
def test_what_cannot_be_placed_is_told(machine, models, message):
    with pytest.raises(ConfigError, match=message):
        placed(machine, *models)


def test_an_engine_sees_only_its_devices(monkeypatch):
    spec = EngineSpec("a", Path("a"), Path("log"), (0,), devices=(1, 0))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert _environment(spec)["CUDA_VISIBLE_DEVICES"] == "1,0"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert _environment(spec)["CUDA_VISIBLE_DEVICES"] == "7,4"


def test_engines_are_named_for_what_they_serve(tmp_path):
    config = GenerateConfig.model_validate({"simulator": {"engine": {"replicas": 2}}})
    sides = resolve_sides(config)
    names = [spec.name for group in engine_specs(config, sides, tmp_path).values() for spec in group]
    assert names == ["simulator-0", "simulator-1", "assistant-0"]
    url = GenerateConfig.model_validate({"assistant": {"model": "http://127.0.0.1:1/v1"}})
    assert list(engine_specs(url, resolve_sides(url), tmp_path)) == ["simulator"]
    with pytest.raises(ConfigError, match="--simulator-tokenizer"):
        resolve_sides(GenerateConfig.model_validate({"simulator": {"model": "http://127.0.0.1:1/v1"}}), ["user"])
