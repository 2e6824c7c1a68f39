"""`selfplay bench simulator`: models and conversations are found, played where they have to be, and scored."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from bench.config import ScorecardConfig
from selfplay.chat.conversation import Conversation, Role, hide_system_prompt
from selfplay.chat.models import load_renderer, locate_model, token_counter
from selfplay.chat.rendering import ChatRenderer
from selfplay.data.catalogue import locate
from selfplay.data.loading import LoadResult, load, stream
from selfplay.data.mixing import parse_weights
from selfplay.errors import ConfigError, DataError, MissingPackage, SelfplayError
from selfplay.serve.config import Sampling
from selfplay.store.store import is_run
from selfplay.train.record import trained_on

if TYPE_CHECKING:
    from bench.metrics.likelihood import RoleScore, Scorer
    from bench.simulator.scorecard import Decisions, Scorecard, Tools

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row of the scorecard that a model stands behind, and how it is sampled."""

    row: str
    folder: Path
    prompted: bool
    sampling: Sampling


Play = Callable[[Candidate, Path], None]
"""Holds a candidate's free conversations in a run folder, or finishes those that are there."""


def score_simulators(
    config: ScorecardConfig,
    out: str | Path,
    *,
    sampling: Sampling | None = None,
    play: Play | None = None,
    prompted_renderer: Callable[[Path, Role], ChatRenderer] = load_renderer,
    seed: int = 0,
    say: Say = print,
) -> Scorecard:
    """Score simulated users beside people: `scorecard.json`, `scorecard.md` and `panel.png` in a folder.

    Args:
        sampling: how the models are sampled; left out, the defaults.
        play: holds the free conversations of each model that has none yet, in `out/runs`; left out, every row has to
            come with its conversations.
        prompted_renderer: the renderer of an assistant that is prompted to play the user.
        seed: of samples drawn from conversations.

    Raises:
        SelfplayError: nothing to score, or models, data or runs that cannot be used.
    """
    from bench.simulator.panel import write_panel
    from bench.simulator.report import write_scorecard
    from bench.simulator.scorecard import GOODBYE_RULE, PEOPLE, Scorecard, score_texts

    candidates = candidates_of(config, sampling or Sampling())
    if not candidates and not config.conversations:
        raise ConfigError("nothing to score: give --model, --prompted or --conversations")
    if taken := {*config.models, *config.prompted, *config.conversations} & {PEOPLE, GOODBYE_RULE}:
        raise ConfigError(f"{', '.join(sorted(taken))}: rows of that name are there already; give another, NAME=PATH")
    tools = _tools(config, seed)
    data = _people(config.data, say) if config.data else []
    people, whose = _compared_with(config, data, candidates, say)
    card = Scorecard("User simulator scorecard")
    if people:
        card.rows[PEOPLE] = {}
        card.notes.append(f"people: {whose}, {len(people):,} conversations")
    existing = {row: _existing(row, source, card.notes) for row, source in config.conversations.items()}
    _score_models(card, candidates, data, config, prompted_renderer, say)
    sides: dict[str, Sequence[Conversation]] = {PEOPLE: people} if people else {}
    for candidate in candidates:
        conversations = existing.pop(candidate.row, None)
        sides[candidate.row] = conversations or _free_play(candidate, play, Path(out) / "runs", card.notes, say)
    sides |= existing
    for row in existing:
        for metric in ("bits_per_byte", "end_f1"):
            card.leave_out(row, metric, "conversations only, no model to ask")
    card.notes += _stood_on(config, tools.tokenizer)
    score_texts(card, sides, tools, say)
    write_scorecard(Path(out), card)
    write_panel(Path(out) / "panel.png", card, sides)
    return card


def candidates_of(config: ScorecardConfig, sampling: Sampling) -> list[Candidate]:
    """The rows that have a model: the first simulator once per temperature, then the others, then the prompted ones.

    Raises:
        ModelError: a folder is missing or holds no model.
        ConfigError: a row named twice.
    """
    if twice := config.models.keys() & config.prompted.keys():
        raise ConfigError(f"row {', '.join(sorted(twice))} is named by --model and --prompted; give each its own name")
    candidates = []
    for number, (row, name) in enumerate(config.models.items()):
        folder = locate_model(name, "simulator")
        for temperature in (config.temperatures if number == 0 else ()) or (None,):
            title = row if temperature is None else f"{row}, T {temperature:g}"
            heat = sampling.temperature if temperature is None else temperature
            candidates.append(Candidate(title, folder, False, sampling.model_copy(update={"temperature": heat})))
    for row, name in config.prompted.items():
        candidates.append(Candidate(row, locate_model(name, "assistant"), True, sampling))
    return candidates


def _score_models(
    card: Scorecard,
    candidates: Sequence[Candidate],
    data: Sequence[Conversation],
    config: ScorecardConfig,
    prompted_renderer: Callable[[Path, Role], ChatRenderer],
    say: Say,
) -> None:
    """Likelihood of people's turns and the end decision; one pass a model, whatever its temperatures."""
    from bench.metrics.likelihood import Scorer
    from bench.simulator.scorecard import GOODBYE_RULE, score_behind, score_likelihoods, score_termination

    if not data:
        for candidate in candidates:
            for metric in ("bits_per_byte", "end_f1"):
                card.leave_out(candidate.row, metric, "no held-out people; give --data")
        return
    heard = [hide_system_prompt(conversation) for conversation in data]
    scores: dict[str, RoleScore] = {}
    decisions: dict[str, Decisions] = {}
    for folder, prompted in dict.fromkeys((c.folder, c.prompted) for c in candidates):
        rows = [c for c in candidates if (c.folder, c.prompted) == (folder, prompted)]
        say(f"{rows[0].row}: likelihood of {len(data):,} conversations")
        scorer = Scorer(folder, prompted_renderer if prompted else load_renderer)
        score = scorer.score(heard, "user", [c.sampling for c in rows])
        for number, candidate in enumerate(rows):
            scores[candidate.row] = score
            decisions[candidate.row] = score_termination(card, candidate.row, heard, score.ends[number])
        if prompted or config.intents:
            _score_with_intents(card, [c.row for c in rows], scorer, data)
        else:
            for candidate in rows:
                card.leave_out(candidate.row, "bits_per_byte_intent", "not said to be trained with intents (--intents)")
    if candidates:
        score_likelihoods(card, scores)
        decisions[GOODBYE_RULE] = score_termination(card, GOODBYE_RULE, heard, None)
        score_behind(card, heard, scores, decisions)


def _score_with_intents(card: Scorecard, rows: Sequence[str], scorer: Scorer, data: Sequence[Conversation]) -> None:
    from bench.simulator.scorecard import score_likelihoods
    from selfplay.chat.conversation import with_intent

    having = [with_intent(conversation) for conversation in data if conversation.meta.get("intent")]
    if not having:
        for row in rows:
            card.leave_out(row, "bits_per_byte_intent", "people's conversations carry no intent")
        return
    score = scorer.score(having, "user")
    score_likelihoods(card, dict.fromkeys(rows, score), "_intent")


def _compared_with(
    config: ScorecardConfig, data: list[Conversation], candidates: Sequence[Candidate], say: Say
) -> tuple[list[Conversation], str]:
    """The people beside free self-play, and whose they are."""
    if config.human:
        return _openers(_people(config.human, say)), ", ".join(config.human)
    if candidates and (mixture := trained_on(candidates[0].folder)) is not None:
        names, share = mixture
        try:
            loaded = load(parse_weights(names), split="held_out", held_out=share)
        except SelfplayError as error:
            say(f"what {candidates[0].row} was trained on is not here ({error}); self-play is compared with --data")
        else:
            return _openers(loaded.conversations), f"held-out share of {', '.join(names)}"
    return _openers(data), ", ".join(config.data)


def _openers(conversations: Sequence[Conversation]) -> list[Conversation]:
    """Without later pieces of longer talks, which do not open as free conversations do."""
    return [conversation for conversation in conversations if not conversation.context]


def _people(names: Sequence[str], say: Say) -> list[Conversation]:
    """People's conversations by catalogue name or path; what is no conversation is counted."""
    loaded = load(names)
    if refused := loaded.refused.counts.total():
        say(f"{', '.join(names)}: {refused:,} rows are no conversation and are left out")
    return loaded.conversations


def _existing(row: str, source: str, notes: list[str]) -> list[Conversation]:
    """Conversations of a run or a file; what is not among them goes into the notes.

    Raises:
        DataError: there are none.
    """
    loaded = LoadResult()
    kept = list(stream(locate(source), loaded, view="scored"))
    refused = loaded.refused.counts.total()
    going_on, planned = next(iter(loaded.unfinished.values()), (0, loaded.rows))
    if not kept and is_run(source):
        raise DataError(
            f"{source}: of {planned:,} conversations {loaded.rows:,} have ended, {refused:,} of them failed; there is "
            "none to score"
        )
    if not kept:
        raise DataError(f"no usable conversation in {source}: {loaded.refused.summary() or 'no rows'}")
    if refused:
        what = "failed conversations are left out" if is_run(source) else "rows are no conversation and are left out"
        notes.append(f"{row}: {refused:,} {what}")
    if going_on:
        notes.append(f"{row}: UNFINISHED, {going_on:,} of {planned:,} still go on; short ones end first")
    return kept


def _free_play(candidate: Candidate, play: Play | None, runs: Path, notes: list[str], say: Say) -> list[Conversation]:
    """The candidate's free conversations with the assistant."""
    if play is None:
        raise ConfigError(f"{candidate.row}: has no conversations; give them with --conversations {candidate.row}=RUN")
    folder = runs / folder_name(candidate.row)
    say(f"{candidate.row}: free self-play in {folder}")
    play(candidate, folder)
    return _existing(candidate.row, str(folder), notes)


def folder_name(row: str) -> str:
    """A row's name as a folder's; names that had to be changed get a hash, so that no two share one."""
    plain = re.sub(r"[^\w-]+", "-", row).strip("-")
    return plain if plain == row else f"{plain}-{blake2b(row.encode(), digest_size=3).hexdigest()}".lstrip("-")


def _tools(config: ScorecardConfig, seed: int) -> Tools:
    from bench.metrics.embeddings import Embedder
    from bench.simulator.scorecard import Tools

    count_tokens = token_counter(config.tokenizer)
    embedder, missing = None, ""
    try:
        embedder = Embedder(config.embeddings) if config.embeddings else None
    except MissingPackage as error:
        missing = str(error)
    return Tools(
        lambda text: count_tokens([text])[0],
        config.tokenizer,
        embedder,
        missing,
        Path(config.encoder) if config.encoder else None,
        config.detector,
        seed,
    )


def _stood_on(config: ScorecardConfig, tokenizer: str) -> list[str]:
    from bench.words import COUNTED_AS

    notes = [COUNTED_AS, f"tokens per turn: tokenizer of {tokenizer}"]
    if config.data:
        notes.append(f"predicted: user turns and endings of {', '.join(config.data)}")
    if config.embeddings:
        notes.append(f"topics: {config.embeddings}")
    return notes
