"""`selfplay loop`: the stages of every iteration; what is done is skipped, what was interrupted is finished."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.settings import ScorecardConfig
from selfplay.chat.models import content_hash, locate_model
from selfplay.config import GenerateConfig, load_recipe
from selfplay.curating import Sources, curate
from selfplay.data.mixing import load_mixture
from selfplay.errors import ConfigError, DataError, SelfplayError
from selfplay.generation import generate, open_run
from selfplay.inputs import conversations_hash, data_hash, files_hash, unweighted, with_data
from selfplay.loop.config import CurateConfig
from selfplay.loop.ledger import Entry, Ledger, alone
from selfplay.loop.stages import STAGES, LoopConfig, Stage
from selfplay.seeds import derive_seed
from selfplay.settings import flat
from selfplay.store.store import DATABASE
from selfplay.store.summary import summarise
from selfplay.training import located, train, train_recipe

if TYPE_CHECKING:
    from selfplay.train.config import TrainConfig

Say = Callable[[str], None]
RUN, KEPT, SIMULATOR, ASSISTANT, BENCH = "run", "kept.jsonl", "simulator", "assistant", "bench"
_NOT_COMPARED = {
    "out", "description", "report", "simulator", "assistant", "base", "max_in_flight", "kv_cache_gib", "max_hours",
    "max_tokens_total",
}  # fmt: skip
"""Settings that change nothing, or stand among the inputs by content."""


@dataclass(frozen=True, slots=True)
class Job:
    """One stage of one iteration: what it is made from, what it writes, and the work."""

    iteration: int
    stage: Stage
    made_from: dict[str, Any]
    output: Path | None
    work: Callable[[], dict[str, Any]]
    """Does it, or finishes it; returns its figures."""


def loop(config: LoopConfig, out: str | Path, say: Say = print) -> Ledger:
    """Run every iteration; a stage that is done and unchanged is skipped.

    Raises:
        SelfplayError: a stage failed (the ledger says which, the same command goes on), or another loop runs there.
    """
    folder = Path(out)
    with alone(folder):
        ledger = Ledger(folder)
        plan = _Plan(with_data(config, folder, bool(ledger.entries()), say), folder, say)
        for iteration in range(1, config.iterations + 1):
            for stage in STAGES:
                job = plan.job(iteration, stage)
                if job is not None:
                    _run(ledger, job, say)
    return ledger


def loop_status(folder: str | Path) -> list[Entry]:
    """What a loop has done so far.

    Raises:
        ConfigError: there is none.
    """
    entries = Ledger(Path(folder)).entries()
    if not entries:
        raise ConfigError(f"{folder}: no loop in it; start one with `selfplay loop RECIPE --out {folder}`")
    return entries


def _run(ledger: Ledger, job: Job, say: Say) -> None:
    """Skip, finish or do one stage, and keep the ledger."""
    name = f"iteration {job.iteration}, {job.stage}"
    changed = ledger.changed(job.iteration, job.stage, job.made_from)
    if changed == [] and (job.output is None or job.output.exists()):
        say(f"{name}: done before")
        return
    if changed:
        say(f"{name}: made again, since {'; '.join(changed)}")
    before = ledger.entry(job.iteration, job.stage)
    if job.output is not None and (before is None or before.made_from != _plain(job.made_from)):
        _put_aside(job.output)
    entry = Entry(job.iteration, job.stage, _plain(job.made_from))
    ledger.write(entry)
    say(f"{name}: begins")
    try:
        entry.figures = job.work()
        entry.state = "done"
    except BaseException as error:
        entry.state, entry.error = "failed", f"{type(error).__name__}: {error}"
        raise
    finally:
        entry.ended = time.time()
        entry.outputs = {} if job.output is None else {job.output.name: str(job.output)}
        ledger.write(entry)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return plain


def _put_aside(output: Path) -> None:
    """Keep what another making left, and the reports beside it, under other names."""
    stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{time.monotonic_ns() % 10**6:06d}"
    for path in sorted(output.parent.glob(f"{output.name}*")):
        if path == output or (path.name.startswith(f"{output.name}.") and ".aside-" not in path.name):
            path.rename(path.with_name(f"{path.name}.aside-{stamp}"))


class _Plan:
    """Jobs out of a recipe, for the iterations of one folder."""

    def __init__(self, config: LoopConfig, folder: Path, say: Say) -> None:
        self._config = config
        self._folder = folder
        self._say = say

    def job(self, iteration: int, stage: Stage) -> Job | None:
        """A stage's job; None where an iteration has none."""
        make = {
            "simulator": self._simulator,
            "generate": self._generate,
            "curate": self._curate,
            "assistant": self._assistant,
            "bench": self._bench,
        }[stage]
        return make(iteration)

    def _at(self, iteration: int, name: str) -> Path:
        return self._folder / f"{iteration:03d}" / name

    def simulator(self, iteration: int) -> Path:
        """UserGPT of an iteration: the last one trained, or the one given."""
        trained = self._config.simulator.train
        last = {"never": 0, "first": min(1, iteration), "every": iteration}[trained]
        return self._at(last, SIMULATOR) if last else locate_model(self._config.simulator.model, "simulator")

    def assistant(self, iteration: int) -> Path:
        """The assistant after an iteration; of none the first one."""
        return self._at(iteration, ASSISTANT) if iteration else locate_model(self._config.assistant.first, "assistant")

    def _simulator(self, iteration: int) -> Job | None:
        stage, out = self._config.simulator, self._at(iteration, SIMULATOR)
        if stage.train == "never" or (stage.train == "first" and iteration > 1):
            return None
        given = {"out": str(out), "optim.seed": self._config.seed + iteration - 1}
        config = _whole(train_recipe("simulator", stage.recipe, {}, {**given, **flat(stage.settings), "out": str(out)}))
        base = located(config).base
        inputs = {"data": data_hash(config.data.datasets)}
        if base is not None and Path(base).is_dir():
            inputs["base"] = content_hash(Path(base))
        made = self._made(config.model_dump(mode="json"), **inputs)
        return Job(iteration, "simulator", made, out, lambda: self._train(config))

    def _generate(self, iteration: int) -> Job:
        out, user, assistant = self._at(iteration, RUN), self.simulator(iteration), self.assistant(iteration - 1)
        given = {"simulator": str(user), "assistant": str(assistant), "out": str(out)}
        stage, seed = self._config.generate, derive_seed(self._config.seed, iteration) % 2**31
        config = load_recipe(stage.recipe, GenerateConfig, {"seed": seed}, {**flat(stage.settings), **given})
        made = self._made(
            config.model_dump(mode="json"), simulator=content_hash(user), assistant=content_hash(assistant)
        )
        return Job(iteration, "generate", made, out, lambda: self._play(config, out))

    def _curate(self, iteration: int) -> Job:
        out, run = self._at(iteration, KEPT), self._at(iteration, RUN)
        earlier = [str(self._at(before, KEPT)) for before in range(1, iteration)]
        stage = self._config.curate
        config = load_recipe(stage.recipe, CurateConfig, {}, flat(stage.settings))
        made = self._made(config.model_dump(mode="json"), run=conversations_hash(run), earlier=files_hash(earlier))
        config = config.model_copy(update={"against": (*config.against, *earlier)})
        return Job(iteration, "curate", made, out, lambda: self._keep(run, out, config))

    def _assistant(self, iteration: int) -> Job:
        stage, out, kept = self._config.assistant, self._at(iteration, ASSISTANT), self._at(iteration, KEPT)
        base = self.assistant(iteration - 1 if stage.start == "last" else 0)
        given = {"base": str(base), "out": str(out)}
        config = _whole(train_recipe("assistant", stage.recipe, {}, {**flat(stage.settings), **given}))
        settings = {**config.model_dump(mode="json"), "human": stage.human, "human_share": stage.human_share}
        inputs = {"base": content_hash(base), "kept": files_hash([str(kept)]), "human": data_hash(stage.human)}
        made = self._made(settings, **inputs)
        mixture = self._mixture(kept, config.data.held_out)
        config = config.model_copy(update={"data": config.data.model_copy(update={"datasets": tuple(mixture)})})
        return Job(iteration, "assistant", made, out, lambda: self._train(config))

    def _bench(self, iteration: int) -> Job:
        out = self._at(iteration, BENCH)
        made = self._made(
            self._config.bench.model_dump(mode="json"),
            run=conversations_hash(self._at(iteration, RUN)),
            assistant=content_hash(self.assistant(iteration)),
            people=data_hash(self._config.bench.people),
        )
        return Job(iteration, "bench", made, out, lambda: self._measure(iteration, out))

    def _made(self, settings: Mapping[str, Any], **inputs: str) -> dict[str, Any]:
        """Settings that change what comes out, and inputs by content; files that settings name are inputs too."""
        told = {key: value for key, value in flat(settings).items() if not _not_compared(key)}
        files = [str(v) for value in told.values() for v in (value if isinstance(value, list) else [value])]
        named = {file: files_hash([file]) for file in files if file and Path(file).is_file()}
        return {"settings": told, "inputs": {**inputs, **named}, "version": version("selfplay")}

    def _mixture(self, kept: Path, held_out: float) -> list[str]:
        """Generated conversations once, human ones as often as gives them their share of what is trained on."""
        stage = self._config.assistant
        human = len(load_mixture(stage.human, held_out=held_out).train)
        generated = sum(1 for _ in Sources([str(kept)])) * (1 - held_out)
        if not generated:
            raise DataError(f"{kept}: curation kept nothing to learn from; loosen it, or generate more")
        weight = stage.human_share / (1 - stage.human_share) * generated / human
        names = (unweighted(name) for name in stage.human)
        return [*(f"{plain}={own * weight:.6g}" for plain, own in names), f"{kept}=1"]

    def _train(self, config: TrainConfig) -> dict[str, Any]:
        """Train, or go on; a model that is there already was finished just before a kill."""
        out = Path(config.out)
        if not (out / "config.json").exists():
            resume = (out / "checkpoints" / "run.json").exists()
            train(config, resume=resume, say=self._say)
        record = json.loads((out / "training.json").read_text(encoding="utf-8"))
        return {key: record[key] for key in ("conversations", "steps", "eval_loss")}

    def _play(self, config: GenerateConfig, out: Path) -> dict[str, Any]:
        stopped = generate(config, resume=(out / DATABASE).exists()).stopped
        if stopped is not None:
            raise SelfplayError(f"generating stopped: {stopped}; the same command goes on with it")
        run = open_run(out)
        try:
            summary = summarise(run.conversations(), run.totals(), {})
        finally:
            run.close()
        return {"conversations": summary.conversations, "rounds": summary.rounds.mean}

    def _keep(self, run: Path, out: Path, config: CurateConfig) -> dict[str, Any]:
        curated = curate([str(run)], out, config, self._say)
        return {"conversations": curated.tally.conversations, "kept": curated.kept}

    def _measure(self, iteration: int, out: Path) -> dict[str, Any]:
        """Bits per byte of held-out people's assistants, and how the simulated users differ from people."""
        import numpy as np

        from bench.intervals import ratio
        from bench.likelihood import Scorer
        from selfplay.scoring import bench_simulator

        stage = self._config.bench
        people = list(Sources(stage.people))[: stage.most]
        scores = Scorer(self.assistant(iteration)).score(people, "assistant")
        loss = ratio(np.array(scores.bits, dtype=float), np.array(scores.bytes, dtype=float))
        wanted = ScorecardConfig(conversations={"simulated": str(self._at(iteration, RUN))}, people=stage.people)
        shutil.rmtree(out, ignore_errors=True)
        bench_simulator(wanted, GenerateConfig(), out, self._say)
        card = json.loads((out / "scorecard.json").read_text(encoding="utf-8"))
        wanted_figures = ("naturalness_auc", "distinct_2", "rounds")
        figures = {name: card[name]["value"] for name in wanted_figures if card.get(name, {}).get("value") is not None}
        return {"bits_per_byte": [loss.value, loss.low, loss.high], **figures}


def _not_compared(key: str) -> bool:
    return key in _NOT_COMPARED or key.partition(".")[0] in ("simulator_engine", "assistant_engine")


def _whole(config: TrainConfig) -> TrainConfig:
    """A recipe that trains all weights: adapters would have to be merged before the next stage could serve them."""
    if config.lora is not None:
        raise ConfigError("a loop trains whole models; set lora to null in the stage's settings")
    return config
