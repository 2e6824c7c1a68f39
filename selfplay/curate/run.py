"""What `selfplay curate` does: conversations of runs or files, judged, written, and counted."""

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
"""The dataset of conversations that are of none: what is held out of a file must not depend on where it lies."""
ReasonFactory = Callable[[Iterable[Conversation]], "Reasons"]
"""What is still in, to why each conversation is left out."""


@dataclass(frozen=True, slots=True)
class CurationResult:
    """What came of a curation."""

    tally: Tally
    kept: int
    copies: Copies | None


def curate(
    sources: Sequence[str], out: str | Path, config: CurateConfig, say: Callable[[str], None] = print
) -> CurationResult:
    """Write the conversations that are fit to be learned from, and why the others are not.

    Writes `OUT` (messages rows), `OUT.dropped.jsonl` ({id, step, reason}) and `OUT.report.json` and `.md` (the funnel).
    The sources stay as they are.

    Args:
        sources: run folders, files or catalogue names.

    Raises:
        SelfplayError: a source, model, list or output that cannot be used, or nothing to curate.
    """
    from selfplay.curate.filters import filters_of
    from selfplay.curate.selection import leave_out_by, rows_left_out, select

    path = Path(out)
    check_name(path)
    if any(Path(source).exists() and path.exists() and Path(source).samefile(path) for source in sources):
        raise ConfigError(f"{path} is a source itself; name another file")
    filters = filters_of(config, token_counter(config.tokenizer), _benchmarks(config.decontaminate_against))
    told = set(config.memorization_reference) <= set(
        config.dedup_against
    )  # what is no conversation among them is said once
    memorised = _memorised(config.memorization_reference, (lambda line: None) if told else say)
    read = Sources(sources, say)
    verdicts = select(read, filters, config, Sources(config.dedup_against, say))
    if not verdicts.ids:
        why = read.loaded.refused.summary()
        raise DataError(f"{', '.join(sources)}: there is no conversation to curate{f' ({why})' if why else ''}")
    verdicts.tally.rows, verdicts.tally.refused = read.loaded.rows, read.loaded.refused
    for name, made in _by_models(config, path, say):
        leave_out_by(verdicts, name, made(_still_in(read, verdicts)), read)
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
    """Write into each run what became of its conversations; a run that cannot be written is as good a source."""
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
    """The columns of Parquet: those of cleaned rows, and why simulated ones ended."""
    import pyarrow as pa

    return parquet_schema().append(pa.field("ended", pa.string()))


def _rows(
    conversations: Iterable[Conversation], kept: set[int], memorised: Memorised | None
) -> Iterator[dict[str, Any]]:
    """The rows of what is kept; their user turns are looked up on the way."""
    for place, conversation in enumerate(conversations):
        if place in kept:
            if memorised is not None:
                memorised.look(conversation.id, conversation.of("user"))
            ended = {"ended": conversation.ended} if conversation.ended is not None else {}
            yield {"dataset": SELF_PLAY, **row_of(conversation), **ended}


def _benchmarks(files: Sequence[str]) -> dict[str, Callable[[str], bool]]:
    """By file, whether a text shares a long run of words with one of its questions."""
    from bench.metrics.overlap import Overlap
    from bench.questions import read_questions
    from bench.words import words

    found: dict[str, Callable[[str], bool]] = {}
    for file in files:
        overlap = Overlap(turn for question in read_questions(Path(file)) for turn in question.turns)
        found[file] = lambda text, overlap=overlap: overlap.holds(words(text))  # type: ignore[misc]
    return found


def _by_models(config: CurateConfig, out: Path, say: Callable[[str], None]) -> Iterator[tuple[str, ReasonFactory]]:
    """The steps that take a model or its scores, the cheap ones first. Each is made when its turn has come."""
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
    kept = set(verdicts.kept)
    return (conversation for place, conversation in enumerate(conversations) if place in kept)


def _memorised(names: Sequence[str], say: Callable[[str], None]) -> Memorised | None:
    from selfplay.curate.memorised import Memorised

    if not names:
        return None
    return Memorised(text for conversation in Sources(names, say) for text in conversation.of("user"))


def _within(bounds: Perplexity, folder: Path) -> Reasons:
    """Why conversations are out of bounds, by the perplexity of their assistant's turns."""
    from bench.metrics.likelihood import Scorer

    scorer = Scorer(folder)

    def reasons(conversations: Sequence[Conversation]) -> list[str | None]:
        score = scorer.score(conversations, "assistant")
        found: list[str | None] = []
        for bits, tokens in zip(score.bits, score.tokens, strict=True):
            value = 2 ** (bits / tokens) if tokens else 1.0
            low, high = value < bounds.lowest, value > bounds.highest
            found.append(f"below {bounds.lowest:g}" if low else f"above {bounds.highest:g}" if high else None)
        return found

    return reasons
