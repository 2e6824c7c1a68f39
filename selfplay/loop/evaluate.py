"""The evaluation of an iteration: held-out human conversations, simulated users beside people, judged questions.

In the iteration's `bench/`: `people.jsonl` (a sample of held-out people, whom all is held against), `held_out.json`
(bits and bytes of each of their conversations), `scorecard.*`, `panel.png`, `corpus.*`, `judged/` (answers,
judgments, reports), `examples/` (a run from their openings).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.assistant.run import judge_questions
from bench.config import JudgeConfig, ScorecardConfig
from bench.corpus.run import describe_corpora
from bench.simulator.run import score_simulators
from selfplay.chat.conversation import Conversation
from selfplay.data.cleaning.duplicates import text_digest
from selfplay.data.loading import is_held_out
from selfplay.data.rows import row_of
from selfplay.data.sources import Sources
from selfplay.errors import BackendError, DataError
from selfplay.files import replacing, write_rows
from selfplay.generate.config import GenerateConfig
from selfplay.generate.run import finish_run
from selfplay.loop.config import BenchStage
from selfplay.loop.metrics import CORPUS, HUMAN, USERS
from selfplay.recipe import flat, with_assigned

if TYPE_CHECKING:
    from bench.intervals import Measurement

Say = Callable[[str], None]
HUMAN_FILE, HELD_OUT, EXAMPLES, OPENINGS, JUDGED = (
    "people.jsonl",
    "held_out.json",
    "examples",
    "openings.jsonl",
    "judged",
)
_SIMULATED = "simulated"
_FEW = 30
_DIGITS = 6
"""Of a figure in the ledger."""


@dataclass(frozen=True, slots=True)
class EvalSpec:
    """What an iteration is measured on. Without `run` (before the first one) only the assistant is."""

    iteration: int
    assistant: Path
    run: Path | None
    examples: GenerateConfig | None
    """Self-play that goes on from people's openings."""
    before: tuple[Path, ...] = ()
    """Held-out scores of the assistants before."""
    learned_from: frozenset[str] = frozenset()
    """Of people's datasets those that the assistant learns from too: only what is held out of its training counts."""
    held_out: float = 0.0
    """Share of a dataset that its training holds out."""


def evaluate(what: EvalSpec, stage: BenchStage, out: Path, say: Say) -> dict[str, Any]:
    """Measure an iteration; judged answers that are there already are kept.

    Returns:
        Figures: {name: number or [value, low, high]}, those of people under `people`.

    Raises:
        SelfplayError: data, models or judges that cannot be used.
    """
    out.mkdir(parents=True, exist_ok=True)
    people = _people(what, stage)
    if not people:
        raise DataError(
            f"{', '.join(stage.human)}: no conversation of people to measure by; name others in bench.human"
        )
    if len(people) < _FEW:
        say(f"WARNING: only {len(people)} conversations of held-out people to measure by; name more in bench.human")
    write_rows(map(row_of, people), out / HUMAN_FILE)
    figures = _held_out(what, people, out)
    if what.run is not None:
        figures |= _simulated(what.run, out / HUMAN_FILE, out, say)
    if stage.judge is not None:
        figures |= _judged(what, stage, out, say)
    if what.examples is not None and stage.examples:
        _play_examples(what.examples, people, stage.examples, out)
    return figures


def _people(what: EvalSpec, stage: BenchStage) -> list[Conversation]:
    """A sample over all of people's datasets, the same one in every iteration: the smallest hashes, in order."""
    found = (
        conversation
        for name in stage.human
        for conversation in Sources([name])
        if name not in what.learned_from or is_held_out(conversation, what.held_out)
    )
    return nsmallest(stage.max_conversations, found, key=text_digest)


def _held_out(what: EvalSpec, people: Sequence[Conversation], out: Path) -> dict[str, Any]:
    """Bits per byte of people's assistants, and what is gained over the best assistant before (paired)."""
    import numpy as np

    from bench.intervals import bootstrap, ratio
    from bench.metrics.likelihood import Scorer

    scores = Scorer(what.assistant).score(people, "assistant")
    with replacing(out / HELD_OUT) as partial:
        partial.write_text(json.dumps({"bits": scores.bits, "bytes": scores.bytes}) + "\n", encoding="utf-8")
    bits, size = np.array(scores.bits, dtype=float), np.array(scores.bytes, dtype=float)
    found = {"bits_per_byte": _told(ratio(bits, size))}
    known = [json.loads(path.read_text(encoding="utf-8")) for path in what.before if path.exists()]
    earlier = [np.array(told["bits"], dtype=float) for told in known if told["bytes"] == scores.bytes]
    if earlier:
        best = min(earlier, key=lambda told: float(told.sum()))
        gain = bootstrap(len(bits), lambda rows: float((best - bits)[rows].sum() / max(size[rows].sum(), 1e-9)))
        found["gain"] = _told(gain)
    return found


def _simulated(run: Path, people: Path, out: Path, say: Say) -> dict[str, Any]:
    """Simulated users and whole conversations beside people's: scorecard and corpus statistics."""
    wanted = ScorecardConfig(conversations={_SIMULATED: str(run)}, human=(str(people),))
    card = score_simulators(wanted, out, say=say)
    corpora = {_SIMULATED: str(run), HUMAN: str(people)}
    described = {corpus.name: corpus for corpus in describe_corpora(corpora, out=out).found}

    def measured(row: str) -> dict[str, list[float]]:
        sources = ((USERS, card.rows.get(row, {})), (CORPUS, described[row].figures))
        return {f.name: _told(found[f.name]) for figures, found in sources for f in figures if f.name in found}

    return {**measured(_SIMULATED), HUMAN: measured(HUMAN)}


def _judged(what: EvalSpec, stage: BenchStage, out: Path, say: Say) -> dict[str, Any]:
    """Scores of question sets, by the name of the set."""
    found = {}
    name = f"iteration-{what.iteration}"
    for chosen in stage.sets:
        asked = {"set": chosen, "models": {name: str(what.assistant)}, "judge": stage.judge}
        config = with_assigned(JudgeConfig, asked, flat(stage.settings), "bench.settings")
        for report in judge_questions(config, out / JUDGED, say=say):
            failed = sum(count for cause, count in report.unjudged.items() if cause.startswith("failed:"))
            if failed:
                raise BackendError(
                    f"{chosen}: {failed:,} of {report.judgments:,} judgments failed ({', '.join(report.unjudged)}); "
                    "the same command asks for them again"
                )
            graded = [one.overall for one in report.graded if one.model == name]
            compared = [one.adjusted for one in report.compared if one.model == name]
            if (score := next(iter([*graded, *compared]), None)) is not None:
                found[Path(chosen).stem] = _told(score)
    return found


def _play_examples(config: GenerateConfig, people: Sequence[Conversation], number: int, out: Path) -> None:
    """Let this iteration's models go on from people's first turns, the same ones in every iteration."""
    opened = {turns[0]: None for conversation in people if (turns := conversation.of("user"))}
    chosen = list(opened)[:: max(1, len(opened) // number)][:number]
    with replacing(out / OPENINGS) as partial:
        rows = ([{"role": "user", "content": text}] for text in chosen)
        partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    folder = out / EXAMPLES
    given = {"openings": str(out / OPENINGS), "conversations": len(chosen), "out": str(folder)}
    finish_run(config.model_copy(update=given), "playing the examples")


def _told(figure: Measurement) -> list[float]:
    return [round(value, _DIGITS) for value in (figure.value, figure.low, figure.high)]
