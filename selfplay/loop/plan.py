"""The stages of a loop as jobs: what each is made from, by content, what it writes, and the work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.config import JudgeConfig
from selfplay.chat.models import EMBEDDED, content_hash, locate_model
from selfplay.curate.config import CurateConfig
from selfplay.curate.run import Sources
from selfplay.data.loading import is_held_out
from selfplay.errors import ConfigError, DataError
from selfplay.generate.config import GenerateConfig
from selfplay.generate.run import Watch, ignore
from selfplay.loop.config import LoopConfig, Stage
from selfplay.loop.evaluate import HELD_OUT, JUDGED, Measured, measure
from selfplay.loop.inputs import (
    at_hand,
    conversations_hash,
    data_hash,
    files_hash,
    learned_from,
    locate_all,
    named_hash,
    shared,
    unweighted,
)
from selfplay.loop.ledger import as_written
from selfplay.loop.stages.training import curated, learned, played, trained
from selfplay.recipe import load_recipe, with_assigned
from selfplay.seeds import derive_seed
from selfplay.settings import flat
from selfplay.train.inspect import located, train_recipe

if TYPE_CHECKING:
    from selfplay.train.config import TrainConfig

Say = Callable[[str], None]
RUN, KEPT, SIMULATOR, ASSISTANT, BENCH = "run", "kept.jsonl", "simulator", "assistant", "bench"
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
    lasts: Callable[[Mapping[str, Any]], tuple[str, ...]] = lambda before: ()
    """Given what the output was made from before: what in it is still good though it has to be made again."""


class Plan:
    """Jobs out of a recipe, for the iterations of one folder."""

    def __init__(self, config: LoopConfig, folder: Path, say: Say, watch: Watch = lambda: nullcontext(ignore)) -> None:
        self._config = config
        self._folder = folder
        self._say = say
        self._watch = watch

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
        return Job(iteration, "simulator", made, out, lambda: trained(config, self._say))

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
        return Job(iteration, "generate", made, Path(str(config.out)), lambda: played(config, self._watch))

    def _self_play(self, overrides: Mapping[str, Any], given: Mapping[str, Any]) -> GenerateConfig:
        """The recipe of self-play: `overrides` below the stage's settings, `given` above them."""
        stage = self._config.generate
        return load_recipe(stage.recipe, GenerateConfig, overrides, {**flat(stage.settings), **given})

    def _curate(self, iteration: int) -> Job:
        out, run = self.at(iteration, KEPT), self.at(iteration, RUN)
        earlier = [str(self.at(before, KEPT)) for before in range(1, iteration)]
        config = self.curation(iteration)
        known = files_hash(
            [named_hash(name) or data_hash([name]) for name in (*config.against, *config.memorised_from)]
        )
        inputs = {"run": conversations_hash(run), "earlier": files_hash(earlier), "known": known}
        made = self._made(config.model_dump(mode="json"), **inputs)
        config = config.model_copy(update={"against": (*config.against, *earlier)})
        return Job(iteration, "curate", made, out, lambda: curated(run, out, config, self._say))

    def curation(self, iteration: int) -> CurateConfig:
        """The curation of an iteration.

        Where the recipe names nothing else, people's conversations count as earlier ones, what the simulator learned
        from is looked for in its turns, and judged questions are kept out.
        """
        stage = self._config.curate
        config = load_recipe(stage.recipe, CurateConfig, {}, flat(stage.settings))
        if config.scores is not None:
            raise ConfigError("curate.scores: ids are the same in every iteration; name a reward model or a judge")
        given = {
            "against": config.against or at_hand(self._config.assistant.human),
            "memorised_from": config.memorised_from or at_hand(learned_from(self.simulator(iteration))),
            "benchmarks": config.benchmarks or tuple(map(str, self._question_files())),
        }
        return config.model_copy(update=given)

    def judgings(self) -> list[JudgeConfig]:
        """How each question set is judged; none without a judge."""
        stage = self._config.bench
        values: dict[str, Any] = {"models": {"iteration": EMBEDDED}, "judge": stage.judge or EMBEDDED}
        found = [with_assigned(JudgeConfig, {**values, "set": name}, flat(stage.settings), "bench.settings")
                 for name in stage.sets]  # fmt: skip
        return found if stage.judge is not None else []

    def _question_files(self) -> list[Path]:
        from bench.assistant.sets import open_set

        opened = [open_set(config.set, config.data) for config in self.judgings()]
        return [files.find(files.set.questions, "questions") for files in opened]

    def check(self) -> None:
        """Read every recipe and find every model before anything is begun: nothing is worse than a typo after a week.

        Raises:
            SelfplayError: a recipe, setting, model, dataset or question set that cannot be used.
        """
        stage = self._config.simulator
        if stage.train != "never":
            locate_all(located(self.simulator_training(1)).data.datasets)
        self.self_play(1)
        load_recipe(self._config.curate.recipe, CurateConfig, {}, flat(self._config.curate.settings))
        self.assistant_training(1)
        locate_all((*self._config.assistant.human, *self._config.bench.people))
        self._question_files()

    def _assistant(self, iteration: int) -> Job:
        stage, kept = self._config.assistant, self.at(iteration, KEPT)
        config = self.assistant_training(iteration)
        out, base = Path(config.out), Path(str(config.base))
        settings = {**config.model_dump(mode="json"), "human": stage.human, "human_share": stage.human_share}
        inputs = {"base": content_hash(base), "kept": files_hash([str(kept)]), "human": data_hash(stage.human)}
        made = self._made(settings, **inputs)
        return Job(iteration, "assistant", made, out, lambda: learned(self.with_mixture(config, kept), kept, self._say))

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
        overlap = shared(stage.people, self._config.assistant.human)
        held_out = self.assistant_training(max(1, iteration)).data.held_out if overlap else 0.0
        settings["held out of people"] = held_out
        measured = Measured(iteration, assistant, run, examples, before, overlap, held_out)
        made = self._made(settings, **inputs)

        def lasts(before: Mapping[str, Any]) -> tuple[str, ...]:
            """Answers and verdicts, where the same assistant is asked in the same way."""
            same = before.get("inputs", {}).get("assistant") == inputs["assistant"]
            asked = [
                {key: value for key, value in told.get("settings", {}).items() if key.startswith("settings.")}
                for told in (before, as_written(made))
            ]
            return (JUDGED,) if same and asked[0] == asked[1] else ()

        return Job(iteration, "bench", made, out, lambda: measure(measured, stage, out, self._say), lasts)

    def _made(self, settings: Mapping[str, Any], **inputs: str) -> dict[str, Any]:
        """Settings that change what comes out, and inputs by content; files that settings name are inputs too."""
        told = {key: value for key, value in flat(settings).items() if not _not_compared(key)}
        named = [str(v) for value in told.values() for v in (value if isinstance(value, list) else [value])]
        found = {name: content for name in named if (content := named_hash(name)) is not None}
        return {"settings": told, "inputs": {**inputs, **found}}

    def assistant_training(self, iteration: int) -> TrainConfig:
        """The training of an iteration's assistant, before it has its data."""
        stage = self._config.assistant
        base = self.assistant(iteration - 1 if stage.start == "last" else 0)
        given = {"base": str(base), "out": str(self.at(iteration, ASSISTANT))}
        return train_recipe("assistant", stage.recipe, {}, {**flat(stage.settings), **given})

    def with_mixture(self, config: TrainConfig, kept: Path, often: float = 1) -> TrainConfig:
        """With generated conversations `often`, human ones as often as gives them their share of what is trained on."""
        stage, held_out = self._config.assistant, config.data.held_out
        people = Sources([unweighted(name)[0] for name in stage.human])
        human = sum(not is_held_out(one, held_out) for one in people)
        generated = sum(1 for _ in Sources([str(kept)])) * (1 - held_out) * often
        if not generated or not human:
            what = str(kept) if human else ", ".join(stage.human)
            raise DataError(f"{what}: no conversation to learn from; loosen the curation, or give more")
        weight = stage.human_share / (1 - stage.human_share) * generated / human
        names = (unweighted(name) for name in stage.human)
        mixture = (*(f"{plain}={own * weight:.6g}" for plain, own in names), f"{kept}={often:g}")
        return config.model_copy(update={"data": config.data.model_copy(update={"datasets": mixture})})


def _not_compared(key: str) -> bool:
    """Whether a setting changes nothing of what comes out: where engines lie, how a server is asked."""
    *groups, name = key.split(".")
    if any(group.endswith("_engine") for group in groups):
        return True
    own = not groups or groups == [_EXAMPLES]
    return (own and name in _NOT_COMPARED) or (
        any(group.endswith("endpoint") for group in groups) and name not in _WHO_SERVES
    )
