"""What `selfplay curate` does: conversations of runs or files, judged, written, and counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfplay.chat.conversation import Conversation
from selfplay.chat.models import locate_model, token_counter
from selfplay.curate.config import CurateConfig, Perplexity
from selfplay.data.catalogue import locate
from selfplay.data.loading import Loaded, stream
from selfplay.data.rows import parquet_schema, row_of
from selfplay.errors import ConfigError, DataError, StoreError
from selfplay.files import check_name, json_line, write_lines, write_rows
from selfplay.store.decisions import keep_verdicts
from selfplay.store.export import answered
from selfplay.store.store import is_run, open_run

if TYPE_CHECKING:
    import pyarrow as pa

    from selfplay.curate.memorised import Copies, Memorised
    from selfplay.curate.scores import Reasons
    from selfplay.curate.selection import Verdicts
    from selfplay.data.cleaning.report import Tally

SELF_PLAY = "self-play"
"""The dataset of conversations that are of none: what is held out of a file must not depend on where it lies."""
Made = Callable[[Iterable[Conversation]], "Reasons"]
"""What is still in, to why each conversation is left out."""


@dataclass(frozen=True, slots=True)
class Curated:
    """What came of a curation."""

    tally: Tally
    kept: int
    copies: Copies | None


def curate(
    sources: Sequence[str], out: str | Path, config: CurateConfig, say: Callable[[str], None] = print
) -> Curated:
    """Write the conversations that are fit to be learned from, and why the others are not.

    Writes `OUT` (messages rows), `OUT.dropped.jsonl` ({id, step, reason}) and `OUT.report.json` and `.md` (the funnel).
    The sources stay as they are.

    Args:
        sources: run folders, files or catalogue names.

    Raises:
        SelfplayError: a source, model, list or output that cannot be used, or nothing to curate.
    """
    from selfplay.curate.filters import filters_of
    from selfplay.curate.selection import judge, leave_out_by, rows_left_out

    path = Path(out)
    check_name(path)
    if any(Path(source).exists() and path.exists() and Path(source).samefile(path) for source in sources):
        raise ConfigError(f"{path} is a source itself; name another file")
    filters = filters_of(config, token_counter(config.tokenizer), _benchmarks(config.benchmarks))
    told = set(config.memorised_from) <= set(config.against)  # what is no conversation among them is said once
    memorised = _memorised(config.memorised_from, (lambda line: None) if told else say)
    read = Sources(sources, say)
    verdicts = judge(read, filters, config, Sources(config.against, say))
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
    return Curated(verdicts.tally, len(kept), copies)


class Sources:
    """Conversations of runs (ended ones), files and catalogue names; the same ones each time they are gone through."""

    def __init__(self, names: Sequence[str], say: Callable[[str], None] = lambda line: None) -> None:
        self._names = names
        self._say = say
        self._ended: dict[str, set[str]] = {}
        """By run what had ended the first time: one that still goes on must not move between two passes."""
        self._told = False
        self.loaded = Loaded()
        """What the last pass read and refused."""
        self.runs: list[tuple[str, int, int]] = []
        """The runs among them: folder, place of the first conversation, number of them; of the last pass."""

    def __iter__(self) -> Iterator[Conversation]:
        """One source after the other.

        Raises:
            SelfplayError: a source that is not there or cannot be read.
        """
        self.loaded, self.runs = Loaded(), []
        read = 0
        for name in self._names:
            first, from_run = read, is_run(name)
            for conversation in self._of_run(name) if from_run else stream(locate(name), self.loaded):
                read += 1
                yield conversation
            if from_run:
                self.runs.append((name, first, read - first))
        if (refused := self.loaded.refused.counts.total()) and not self._told:
            self._told = True
            self._say(f"{', '.join(self._names)}: {refused:,} rows are no conversation and are left out")

    def _of_run(self, name: str) -> Iterator[Conversation]:
        with open_run(name) as run:
            first = name not in self._ended
            known = self._ended.setdefault(name, set())
            planned, ended = run.counts()
            if first and ended < planned:
                self._say(f"{name}: UNFINISHED, {planned - ended:,} of {planned:,} conversations still go on")
            for conversation in run.conversations():
                if conversation.ended is not None and (first or conversation.id in known):
                    known.add(conversation.id)
                    self.loaded.rows += 1
                    yield answered(conversation)


def _keep_in_runs(read: Sources, verdicts: Verdicts, out: Path, say: Callable[[str], None]) -> None:
    """Write into each run what became of its conversations; a run that cannot be written is as good a source."""
    name = str(out.resolve())
    for run, first, number in read.runs:
        places = range(first, first + number)
        try:
            keep_verdicts(Path(run), name, ((verdicts.ids[n], *(verdicts.left_out[n] or (None, None))) for n in places))
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


def _by_models(config: CurateConfig, out: Path, say: Callable[[str], None]) -> Iterator[tuple[str, Made]]:
    """The steps that take a model or its scores, the cheap ones first. Each is made when its turn has come."""
    from selfplay.curate.scores import by_file, by_judge, by_reward

    perplexity, scores, reward, judge = config.perplexity, config.scores, config.reward, config.judge
    if scores is not None:
        yield "score", lambda left: by_file(scores)
    if perplexity is not None:
        yield "perplexity", lambda left: _within(perplexity, locate_model(perplexity.model, "assistant"))
    if reward is not None:
        yield "reward", lambda left: by_reward(reward)
    if judge is not None:
        yield "judge", lambda left: by_judge(judge, left, out.with_name(f"{out.name}.judged"), say)


def _still_in(conversations: Iterable[Conversation], verdicts: Verdicts) -> Iterator[Conversation]:
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
