"""Placement of engines on devices: models and a machine in, one `EngineSpec` per engine out.

Pure, so `--dry-run` can show it.

On a CPU the cores are dealt out evenly. On GPUs each replica takes `tensor_parallel_size` devices; models that name no
devices get their own where there are enough, and share otherwise. Models that share a device and name no memory share
get room for their weights and an equal part of what is left for KV cache, so unequal sizes fit side by side.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from selfplay.errors import ConfigError
from selfplay.serve.config import Placement
from selfplay.serve.vllm_backend import EngineSpec, on_cpu

USABLE = 0.9
"""Part of a GPU's memory that is dealt out; the rest is for what the driver and other processes hold."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What can be dealt out: CPU cores, and the memory of each GPU in bytes (none: engines compute on the CPU)."""

    cores: tuple[int, ...]
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PlacedModel:
    """A model to place. `name` is what its engines are called; `weights` its size in bytes."""

    name: str
    folder: Path
    placement: Placement
    weights: int


def this_machine() -> Machine:
    """The cores this process may use, and the GPUs it sees where the installed vLLM computes on them."""
    cores = tuple(sorted(os.sched_getaffinity(0)))
    if on_cpu():
        return Machine(cores)
    import torch

    count = torch.cuda.device_count()
    return Machine(cores, tuple(torch.cuda.get_device_properties(number).total_memory for number in range(count)))


def place(
    models: Sequence[PlacedModel], machine: Machine, logs: Path, *, max_num_seqs: int, kv_gib: int
) -> dict[str, list[EngineSpec]]:
    """The engines of every model, by its name.

    Raises:
        ConfigError: devices that are not there, too few for the replicas, or promised more than once.
    """
    draft = [
        (model, EngineSpec(f"{model.name}-{number}", model.folder, logs / f"engine-{model.name}-{number}.log", (),
                           max_num_seqs=max_num_seqs, kv_gib=kv_gib))
        for model in models
        for number in range(model.placement.replicas)
    ]  # fmt: skip
    specs = _on_gpus(draft, machine) if machine.gpus else _on_cores(draft, machine)
    placed: dict[str, list[EngineSpec]] = {model.name: [] for model in models}
    for (model, _), spec in zip(draft, specs, strict=True):
        placed[model.name].append(spec)
    return placed


def _on_cores(draft: Sequence[tuple[PlacedModel, EngineSpec]], machine: Machine) -> list[EngineSpec]:
    for model, _ in draft:
        if model.placement.devices or model.placement.tensor_parallel_size > 1:
            raise ConfigError(f"{model.name}: devices and tensor_parallel_size need GPUs; this machine shows none")
    cores, engines = machine.cores, len(draft)
    return [
        replace(spec, cores=cores[number::engines] or (cores[number % len(cores)],))
        for number, (_, spec) in enumerate(draft)
    ]


def _on_gpus(draft: Sequence[tuple[PlacedModel, EngineSpec]], machine: Machine) -> list[EngineSpec]:
    devices = list(_devices(draft, len(machine.gpus)))
    sharing: dict[int, list[int]] = defaultdict(list)
    for number, used in enumerate(devices):
        for device in used:
            sharing[device].append(number)
    shares = [
        min(_share(draft, number, sharing[device], machine.gpus[device]) for device in used)
        for number, used in enumerate(devices)
    ]
    for device, numbers in sharing.items():
        if sum(shares[number] for number in numbers) > 1:
            names = ", ".join(draft[number][1].name for number in numbers)
            raise ConfigError(f"GPU {device}: {names} ask for more than its memory together; lower memory_share")
    return [
        replace(spec, devices=used, memory_share=share, cores=machine.cores)
        for (_, spec), used, share in zip(draft, devices, shares, strict=True)
    ]


def _devices(draft: Sequence[tuple[PlacedModel, EngineSpec]], count: int) -> Iterator[tuple[int, ...]]:
    """GPUs of each engine: those named, else the next ones in turn."""
    taken = {device for model, _ in draft for device in model.placement.devices or ()}
    wanted_elsewhere = sum(model.placement.tensor_parallel_size for model, _ in draft if not model.placement.devices)
    untaken = [device for device in range(count) if device not in taken]
    pool = untaken if len(untaken) >= wanted_elsewhere else list(range(count))
    cursor = 0
    named: dict[str, list[int]] = {}
    for model, _ in draft:
        wanted = model.placement.tensor_parallel_size
        given = model.placement.devices
        if wanted > count:
            raise ConfigError(f"{model.name}: tensor_parallel_size {wanted}, but this machine shows {count} GPUs")
        if given is None:
            yield tuple(pool[(cursor + offset) % len(pool)] for offset in range(wanted))
            cursor += wanted
            continue
        if unknown := [device for device in given if not 0 <= device < count]:
            raise ConfigError(f"{model.name}: GPU {unknown[0]} is not there; this machine shows 0 to {count - 1}")
        needed = wanted * model.placement.replicas
        if len(given) != needed:
            raise ConfigError(
                f"{model.name}: {model.placement.replicas} replicas of {wanted} GPUs need {needed} devices, "
                f"found {len(given)}; name a device once for every replica on it"
            )
        left = named.setdefault(model.name, list(given))
        yield tuple(left.pop(0) for _ in range(wanted))


def _share(draft: Sequence[tuple[PlacedModel, EngineSpec]], number: int, beside: Sequence[int], memory: int) -> float:
    """The part of a GPU of `memory` bytes that engine `number` gets beside the others on it."""

    def weights(other: int) -> float:
        model = draft[other][0]
        return model.weights / model.placement.tensor_parallel_size / memory

    own = draft[number][0].placement.memory_share
    if own is not None:
        return own
    open_ended = [other for other in beside if draft[other][0].placement.memory_share is None]
    promised = sum(draft[other][0].placement.memory_share or 0.0 for other in beside)
    for_cache = USABLE - promised - sum(map(weights, open_ended))
    if for_cache <= 0:
        raise ConfigError(
            f"{draft[number][0].name}: its weights do not fit beside the other engines of its GPU; "
            "give the models devices of their own"
        )
    return round(weights(number) + for_cache / len(open_ended), 3)


def weight_bytes(folder: Path) -> int:
    """Size of a model's weight files."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
