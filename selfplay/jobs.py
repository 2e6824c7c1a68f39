"""The stages of a loop as jobs: what each is made from, by content, what it writes, and the work."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfplay.chat.models import content_hash, locate_model
from selfplay.config import GenerateConfig, load_recipe
from selfplay.curating import Sources, curate
from selfplay.data.mixing import load_mixture
from selfplay.errors import DataError, SelfplayError
from selfplay.generation import generate, open_run
from selfplay.inputs import conversations_hash, data_hash, files_hash, unweighted
from selfplay.loop.config import CurateConfig
from selfplay.loop.stages import LoopConfig, Stage
from selfplay.loop.stopping import TOKENS
from selfplay.measuring import HELD_OUT, Measured, measure
from selfplay.seeds import derive_seed
from selfplay.settings import flat
from selfplay.store.store import DATABASE
from selfplay.store.summary import summarise
from selfplay.training import located, merge_adapters, train, train_recipe

if TYPE_CHECKING:
    from selfplay.train.config import TrainConfig

Say = Callable[[str], None]
RUN, KEPT, SIMULATOR, ASSISTANT, BENCH = "run", "kept.jsonl", "simulator", "assistant", "bench"
ADAPTERS = ".adapters"
"""Ends the name of the folder where a stage's adapters lie that its model was made with."""
_NOT_COMPARED = {
    "out", "description", "report", "simulator", "assistant", "base", "max_in_flight", "kv_cache_gib", "max_hours",
    "max_tokens_total",
}  # fmt: skip
"""Settings that change nothing, or stand among the inputs by content."""
_EXAMPLES = "examples played"
"""The settings of that self-play among those of the bench."""
_WHO_SERVES = ("model", "tokenizer", "protocol", "max_context")
"""Of a server's settings, those that change what is said."""


@dataclass(frozen=True, slots=True)
class Job:
    """One stage of one iteration: what it is made from, what it writes, and the work."""

    iteration: int
    stage: Stage
    made_from: dict[str, Any]
    output: Path
    work: Callable[[], dict[str, Any]]
    """Does it, or finishes it; returns its figures."""


class Plan:
    """Jobs out of a recipe, for the iterations of one folder."""

    def __init__(self, config: LoopConfig, folder: Path, say: Say) -> None:
        self._config = config
        self._folder = folder
        self._say = say

    def job(self, iteration: int, stage: Stage) -> Job | None:
        """A stage's job; None where an iteration has none. Iteration 0 is the first assistant, measured."""
        if not iteration and stage != "bench":
            return None
        make = {
            "simulator": self._simulator,
            "generate": self._generate,
            "curate": self._curate,
            "assistant": self._assistant,
            "bench": self._bench,
        }[stage]
        return make(iteration)

    def at(self, iteration: int, name: str) -> Path:
        """Where something of an iteration lies."""
        return self._folder / f"{iteration:03d}" / name

    def simulator(self, iteration: int) -> Path:
        """UserGPT of an iteration: the last one trained, or the one given."""
        trained = self._config.simulator.train
        last = {"never": 0, "first": min(1, iteration), "every": iteration}[trained]
        return self.at(last, SIMULATOR) if last else locate_model(self._config.simulator.model, "simulator")

    def assistant(self, iteration: int) -> Path:
        """The assistant after an iteration; of none the first one."""
        return self.at(iteration, ASSISTANT) if iteration else locate_model(self._config.assistant.first, "assistant")

    def _simulator(self, iteration: int) -> Job | None:
        stage = self._config.simulator
        if stage.train == "never" or (stage.train == "first" and iteration > 1):
            return None
        config = self.simulator_training(iteration)
        out, base = Path(config.out), located(config).base
        inputs = {"data": data_hash(config.data.datasets)}
        if base is not None and Path(base).is_dir():
            inputs["base"] = content_hash(Path(base))
        made = self._made(config.model_dump(mode="json"), **inputs)
        return Job(iteration, "simulator", made, out, lambda: self._train(config))

    def simulator_training(self, iteration: int) -> TrainConfig:
        """The training of an iteration's UserGPT."""
        stage, out = self._config.simulator, str(self.at(iteration, SIMULATOR))
        seed = {"optim.seed": self._config.seed + iteration - 1}
        return train_recipe("simulator", stage.recipe, {}, {**seed, **flat(stage.settings), "out": out})

    def self_play(self, iteration: int) -> GenerateConfig:
        """The run of an iteration."""
        out, user, assistant = self.at(iteration, RUN), self.simulator(iteration), self.assistant(iteration - 1)
        seed = derive_seed(self._config.seed, iteration) % 2**31
        return self._self_play({"seed": seed}, {"simulator": str(user), "assistant": str(assistant), "out": str(out)})

    def _generate(self, iteration: int) -> Job:
        config = self.self_play(iteration)
        models = {side: content_hash(Path(getattr(config, side))) for side in ("simulator", "assistant")}
        made = self._made(config.model_dump(mode="json"), **models)
        return Job(iteration, "generate", made, Path(str(config.out)), lambda: self._play(config))

    def _self_play(self, overrides: Mapping[str, Any], given: Mapping[str, Any]) -> GenerateConfig:
        """The recipe of self-play: `overrides` below the stage's settings, `given` above them."""
        stage = self._config.generate
        return load_recipe(stage.recipe, GenerateConfig, overrides, {**flat(stage.settings), **given})

    def _curate(self, iteration: int) -> Job:
        out, run = self.at(iteration, KEPT), self.at(iteration, RUN)
        earlier = [str(self.at(before, KEPT)) for before in range(1, iteration)]
        stage = self._config.curate
        config = load_recipe(stage.recipe, CurateConfig, {}, flat(stage.settings))
        made = self._made(config.model_dump(mode="json"), run=conversations_hash(run), earlier=files_hash(earlier))
        config = config.model_copy(update={"against": (*config.against, *earlier)})
        return Job(iteration, "curate", made, out, lambda: self._keep(run, out, config))

    def _assistant(self, iteration: int) -> Job:
        stage, kept = self._config.assistant, self.at(iteration, KEPT)
        config = self.assistant_training(iteration)
        out, base = Path(config.out), Path(str(config.base))
        settings = {**config.model_dump(mode="json"), "human": stage.human, "human_share": stage.human_share}
        inputs = {"base": content_hash(base), "kept": files_hash([str(kept)]), "human": data_hash(stage.human)}
        made = self._made(settings, **inputs)
        config = self.with_mixture(config, kept)
        return Job(iteration, "assistant", made, out, lambda: self._learn(config, kept))

    def _bench(self, iteration: int) -> Job:
        """Iteration 0 has the first assistant and no run: what every later score is compared with."""
        out, assistant = self.at(iteration, BENCH), self.assistant(iteration)
        run = self.at(iteration, RUN) if iteration else None
        before = tuple(self.at(earlier, BENCH) / HELD_OUT for earlier in range(iteration))
        stage = self._config.bench
        inputs = {"assistant": content_hash(assistant), "people": data_hash(stage.people)}
        inputs |= {"run": conversations_hash(run), "before": files_hash(list(map(str, before)))} if run else {}
        examples, settings = None, stage.model_dump(mode="json")
        if stage.examples and (iteration or self._config.simulator.train == "never"):
            user = self.simulator(iteration)
            given = {"simulator": str(user), "assistant": str(assistant), "seed": self._config.seed}
            examples = self._self_play({}, given)
            inputs["simulator"] = content_hash(user)
            settings[_EXAMPLES] = {**examples.model_dump(mode="json"), "conversations": stage.examples}
        measured = Measured(iteration, assistant, run, examples, before)
        made = self._made(settings, **inputs)
        return Job(iteration, "bench", made, out, lambda: measure(measured, stage, out, self._say))

    def _made(self, settings: Mapping[str, Any], **inputs: str) -> dict[str, Any]:
        """Settings that change what comes out, and inputs by content; files that settings name are inputs too."""
        told = {key: value for key, value in flat(settings).items() if not _not_compared(key)}
        files = [str(v) for value in told.values() for v in (value if isinstance(value, list) else [value])]
        named = {file: files_hash([file]) for file in files if file and Path(file).is_file()}
        return {"settings": told, "inputs": {**inputs, **named}, "version": version("selfplay")}

    def assistant_training(self, iteration: int) -> TrainConfig:
        """The training of an iteration's assistant, before it has its data."""
        stage = self._config.assistant
        base = self.assistant(iteration - 1 if stage.start == "last" else 0)
        given = {"base": str(base), "out": str(self.at(iteration, ASSISTANT))}
        return train_recipe("assistant", stage.recipe, {}, {**flat(stage.settings), **given})

    def with_mixture(self, config: TrainConfig, kept: Path, often: float = 1) -> TrainConfig:
        """With generated conversations `often`, human ones as often as gives them their share of what is trained on."""
        stage, held_out = self._config.assistant, config.data.held_out
        human = len(load_mixture(stage.human, held_out=held_out).train)
        generated = sum(1 for _ in Sources([str(kept)])) * (1 - held_out) * often
        if not generated:
            raise DataError(f"{kept}: curation kept nothing to learn from; loosen it, or generate more")
        weight = stage.human_share / (1 - stage.human_share) * generated / human
        names = (unweighted(name) for name in stage.human)
        mixture = (*(f"{plain}={own * weight:.6g}" for plain, own in names), f"{kept}={often:g}")
        return config.model_copy(update={"data": config.data.model_copy(update={"datasets": mixture})})

    def _train(self, config: TrainConfig) -> dict[str, Any]:
        """Train, or go on; a model that is there already was finished just before a kill. Adapters are merged."""
        out = Path(config.out)
        if not (out / "config.json").exists():
            trained = out if config.lora is None else out.with_name(out.name + ADAPTERS)
            if not (trained / "training.json").exists():
                resume = (trained / "checkpoints" / "run.json").exists()
                train(config.model_copy(update={"out": str(trained)}), resume=resume, say=self._say)
            if trained != out:
                merge_adapters(trained, out)
        record = json.loads((out / "training.json").read_text(encoding="utf-8"))
        epochs = record["log"][-1].get("epoch", 1.0) if record["log"] else 1.0
        told = {"trained_on": record["conversations"], "steps": record["steps"], "eval_loss": record["eval_loss"]}
        return {**told, TOKENS: round(record["supervised_tokens"] * epochs)}

    def _learn(self, config: TrainConfig, kept: Path) -> dict[str, Any]:
        """Train the assistant, and count whose conversations it learned from."""
        figures = self._train(config)
        generated = len(load_mixture([str(kept)], held_out=config.data.held_out).train)
        return {**figures, "human_share": round(1 - generated / figures["trained_on"], 6)}

    def _play(self, config: GenerateConfig) -> dict[str, Any]:
        out = Path(str(config.out))
        stopped = generate(config, resume=(out / DATABASE).exists()).stopped
        if stopped is not None:
            raise SelfplayError(f"generating stopped: {stopped}; the same command goes on with it")
        run = open_run(out)
        try:
            summary, totals = summarise(run.conversations(), run.totals(), {}), run.totals()
        finally:
            run.close()
        sampled = sum(usage.sampled_tokens for usage in totals.by_role.values())
        return {"conversations": summary.conversations, "rounds": summary.rounds.mean, TOKENS: sampled}

    def _keep(self, run: Path, out: Path, config: CurateConfig) -> dict[str, Any]:
        curated = curate([str(run)], out, config, self._say)
        copied = {} if curated.copies is None else {"copied": curated.copies.share}
        return {"conversations": curated.tally.conversations, "kept": curated.kept, **copied}


def _not_compared(key: str) -> bool:
    """Whether a setting changes nothing of what comes out: where engines lie, how a server is asked."""
    *groups, name = key.split(".")
    if any(group.endswith("_engine") for group in groups):
        return True
    own = not groups or groups == [_EXAMPLES]
    return (own and name in _NOT_COMPARED) or (
        any(group.endswith("endpoint") for group in groups) and name not in _WHO_SERVES
    )
