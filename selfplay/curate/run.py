"""Curation run (`selfplay curate`): it reads the sources, runs every curation step, and writes output and report.

It knows neither the rules of a filter (`selfplay.curate.filters`) nor how a model scores (`selfplay.curate.scores`).
Trap: the sources are read several times, once for each pass, so they must yield the same conversations in the same
order; `Sources` guarantees that also for runs that are still going on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfplay.chat.conversation import Conversation
from selfplay.chat.models import locate_model, token_counter
from selfplay.curate.config import CurateConfig, Perplexity
from selfplay.data.rows import parquet_schema, row_of
from selfplay.data.sources import Sources
from selfplay.errors import ConfigError, DataError, StoreError
from selfplay.files import check_name, json_line, write_lines, write_rows
from selfplay.store.decisions import keep_decisions

if TYPE_CHECKING:
    import pyarrow as pa

    from selfplay.curate.memorised import Copies, Memorised
    from selfplay.curate.scores import Reasons
    from selfplay.curate.selection import Selection
    from selfplay.data.cleaning.report import Tally

SELF_PLAY = "self-play"
"""Dataset name of conversations without one: which ones are held out must not depend on where the file is stored."""
ReasonFactory = Callable[[Iterable[Conversation]], "Reasons"]
"""Builds a scoring step from an iterable of the conversations that are still kept."""


@dataclass(frozen=True, slots=True)
class CurationResult:
    """The result of a curation: the counts of each step, the number of kept conversations, and the copies."""

    tally: Tally
    kept: int
    copies: Copies | None


def curate(
    sources: Sequence[str], out: str | Path, config: CurateConfig, say: Callable[[str], None] = print
) -> CurationResult:
    """Write the conversations that pass every curation step, and the reason for each that does not.

    Writes `OUT` (messages rows), `OUT.dropped.jsonl` ({id, step, reason}) and `OUT.report.json` and `.md` (the funnel).
    The texts of the sources stay unchanged; a source that is a run also stores the decision on each conversation.

    Args:
        sources: run folders, files or catalogue names.

    Raises:
        SelfplayError: a source, model, word list or output cannot be used, or there is nothing to curate.
    """
    from selfplay.curate.filters import filters_of
    from selfplay.curate.selection import leave_out_by, rows_left_out, select

    path = Path(out)
    check_name(path)
    if any(Path(source).exists() and path.exists() and Path(source).samefile(path) for source in sources):
        raise ConfigError(f"{path} is a source itself; name another file")
    filters = filters_of(config, token_counter(config.tokenizer), _benchmarks(config.decontaminate_against))
    # Sources that are read for deduplication too report their refused rows there; they are not reported twice.
    reported = set(config.memorization_reference) <= set(config.dedup_against)
    memorised = _memorised(config.memorization_reference, (lambda line: None) if reported else say)
    read = Sources(sources, say)
    verdicts = select(read, filters, config, Sources(config.dedup_against, say))
    if not verdicts.ids:
        why = read.loaded.refused.summary()
        raise DataError(f"{', '.join(sources)}: there is no conversation to curate{f' ({why})' if why else ''}")
    verdicts.tally.rows, verdicts.tally.refused = read.loaded.rows, read.loaded.refused
    for name, build_step in _by_models(config, path, say):
        leave_out_by(verdicts, name, build_step(_still_in(read, verdicts)), read)
    kept = set(verdicts.kept)
    try:
        write_lines(map(json_line, _rows(read, kept, memorised)), path, _columns())
        write_rows(rows_left_out(verdicts), path.with_name(f"{path.name}.dropped.jsonl"))
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error
    _keep_in_runs(read, verdicts, path, say)
    copies = memorised.finished() if memorised is not None else None
    about: dict[str, Any] = {"sources": list(sources), "config": config.model_dump(mode="json"), "kept": len(kept)}
    if copies is not None:
        about["memorised"] = {**asdict(copies), "share": copies.share}
    verdicts.tally.save(path, about)
    return CurationResult(verdicts.tally, len(kept), copies)


def _keep_in_runs(read: Sources, verdicts: Selection, out: Path, say: Callable[[str], None]) -> None:
    """Write the decisions into each run that is a source.

    A run that cannot be written to is reported and is no error: the decisions are in the dropped file as well.
    """
    name = str(out.resolve())
    for run, first, number in read.runs:
        places = range(first, first + number)
        try:
            keep_decisions(
                Path(run), name, ((verdicts.ids[n], *(verdicts.left_out[n] or (None, None))) for n in places)
            )
        except StoreError as error:
            say(f"{error}; they stand in {out}.dropped.jsonl alone")


def _columns() -> pa.Schema:
    """The columns of the Parquet output: those of cleaned rows, and the end reason of simulated conversations."""
    import pyarrow as pa

    return parquet_schema().append(pa.field("ended", pa.string()))


def _rows(
    conversations: Iterable[Conversation], kept: set[int], memorised: Memorised | None
) -> Iterator[dict[str, Any]]:
    """Yield the rows of the kept conversations; the memorisation check sees their user turns on the way."""
    for place, conversation in enumerate(conversations):
        if place in kept:
            if memorised is not None:
                memorised.look(conversation.id, conversation.of("user"))
            ended = {"ended": conversation.ended} if conversation.ended is not None else {}
            # SELF_PLAY comes first: a conversation with a dataset of its own overwrites it.
            yield {"dataset": SELF_PLAY, **row_of(conversation), **ended}


def _benchmarks(files: Sequence[str]) -> dict[str, Callable[[str], bool]]:
    """Build for each file a function that returns whether a text shares a long run of words with a question of it."""
    from bench.metrics.overlap import Overlap
    from bench.questions import read_questions
    from bench.words import words

    benchmarks: dict[str, Callable[[str], bool]] = {}
    for file in files:
        overlap = Overlap(turn for question in read_questions(Path(file)) for turn in question.turns)
        # The default argument binds this overlap; a plain closure would see the last file's alone.
        benchmarks[file] = lambda text, overlap=overlap: overlap.holds(words(text))  # type: ignore[misc]
    return benchmarks


def _by_models(config: CurateConfig, out: Path, say: Callable[[str], None]) -> Iterator[tuple[str, ReasonFactory]]:
    """Yield the curation steps that need a model or its scores, the cheap ones first.

    A step is built when its turn comes, so that no model is loaded before it is needed and a later step sees only
    what the earlier ones have kept.
    """
    from selfplay.curate.scores import score_by_judge, score_by_reward_model, score_from_file

    perplexity, scores, reward, judge = config.perplexity, config.scores, config.reward, config.judge
    if scores is not None:
        yield "score", lambda left: score_from_file(scores)
    if perplexity is not None:
        yield "perplexity", lambda left: _within(perplexity, locate_model(perplexity.model, "assistant"))
    if reward is not None:
        yield "reward", lambda left: score_by_reward_model(reward)
    if judge is not None:
        yield "judge", lambda left: score_by_judge(judge, left, out.with_name(f"{out.name}.judged"), say)


def _still_in(conversations: Iterable[Conversation], verdicts: Selection) -> Iterator[Conversation]:
    """The conversations that no step has dropped so far."""
    kept = set(verdicts.kept)
    return (conversation for place, conversation in enumerate(conversations) if place in kept)


def _memorised(names: Sequence[str], say: Callable[[str], None]) -> Memorised | None:
    """The index of the simulator's training turns; None where the recipe names no training data."""
    from selfplay.curate.memorised import Memorised

    if not names:
        return None
    return Memorised(text for conversation in Sources(names, say) for text in conversation.of("user"))


def _within(bounds: Perplexity, folder: Path) -> Reasons:
    """Build the step that drops conversations by the perplexity of their assistant's turns."""
    from bench.metrics.likelihood import Scorer

    scorer = Scorer(folder)

    def reasons(conversations: Sequence[Conversation]) -> list[str | None]:
        score = scorer.score(conversations, "assistant")
        dropped: list[str | None] = []
        for bits, tokens in zip(score.bits, score.tokens, strict=True):
            # Conversations without a scored token get the lowest perplexity there is.
            value = 2 ** (bits / tokens) if tokens else 1.0
            low, high = value < bounds.lowest, value > bounds.highest
            dropped.append(f"below {bounds.lowest:g}" if low else f"above {bounds.highest:g}" if high else None)
        return dropped

    return reasons
