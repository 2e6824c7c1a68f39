"""What `selfplay bench` does: models and conversations found, played where they have to be, scored and written down."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from bench.settings import ScorecardConfig
from selfplay.chat.conversation import Conversation, without_system
from selfplay.chat.models import locate_model, token_counter
from selfplay.config import GenerateConfig, load_recipe
from selfplay.data.loading import load
from selfplay.data.mixing import parse_weights
from selfplay.errors import ConfigError, DataError, MissingPackage, SelfplayError
from selfplay.generation import generate, open_run
from selfplay.serve.backend import Sampling
from selfplay.store.store import DATABASE
from selfplay.train.config import TrainConfig
from simulator.guardrails import Guardrails

if TYPE_CHECKING:
    from bench.likelihood import RoleScore, Scorer
    from bench.paper import Table
    from bench.scorecard import Decisions, Scorecard, Tools

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row of the scorecard that a model stands behind, and how it is sampled."""

    row: str
    folder: Path
    prompted: bool
    sampling: Sampling


def bench_simulator(config: ScorecardConfig, play: GenerateConfig, out: str | Path, say: Say = print) -> list[Table]:
    """Score simulated users beside people: `scorecard.json`, `scorecard.md` and `panel.png` in a folder.

    Args:
        play: the free self-play of each model that has no conversations yet, guardrails off; kept in `out/runs` and
            taken up again when it is there.

    Returns:
        Tables to print: title, header, rows.

    Raises:
        SelfplayError: nothing to score, or models, data or runs that cannot be used.
    """
    from bench.panel import write_panel
    from bench.report import reasons_left_out, scorecard_tables, write_scorecard
    from bench.scorecard import GOODBYE_RULE, PEOPLE, Scorecard, score_texts

    candidates = candidates_of(config, play)
    if not candidates and not config.conversations:
        raise ConfigError("nothing to score: give --model, --prompted or --conversations")
    if taken := {*config.models, *config.prompted, *config.conversations} & {PEOPLE, GOODBYE_RULE}:
        raise ConfigError(f"{', '.join(sorted(taken))}: rows of that name are there already; give another, NAME=PATH")
    tools = _tools(config, play.seed)
    data = _people(config.data, say) if config.data else []
    people, whose = _compared_with(config, data, candidates, say)
    card = Scorecard("User simulator scorecard")
    if people:
        card.rows[PEOPLE] = {}
        card.notes.append(f"people: {whose}, {len(people):,} conversations")
    existing = {row: _existing(row, source, card.notes) for row, source in config.conversations.items()}
    _score_models(card, candidates, data, config, say)
    sides: dict[str, Sequence[Conversation]] = {PEOPLE: people} if people else {}
    for candidate in candidates:
        known = existing.pop(candidate.row, None)
        sides[candidate.row] = known or _free_play(candidate, play, Path(out) / "runs", card.notes, say)
    sides |= existing
    for row in existing:
        for metric in ("bits_per_byte", "end_f1"):
            card.leave_out(row, metric, "conversations only, no model to ask")
    card.notes += _stood_on(config, tools.tokenizer)
    score_texts(card, sides, tools, say)
    write_scorecard(Path(out), card)
    write_panel(Path(out) / "panel.png", card, sides)
    left_out = [("left out", ("metric and reason",), [(line,) for line in reasons_left_out(card)])]
    return [*scorecard_tables(card, brief=len(card.rows) > 2), *(left_out if card.left_out else [])]


def candidates_of(config: ScorecardConfig, play: GenerateConfig) -> list[Candidate]:
    """The rows that have a model: the first simulator once per temperature, then the others, then the prompted ones.

    Raises:
        ModelError: a folder is missing or holds no model.
        ConfigError: a row named twice.
    """
    if twice := config.models.keys() & config.prompted.keys():
        raise ConfigError(f"row {', '.join(sorted(twice))} is named by --model and --prompted; give each its own name")
    found = []
    for number, (row, name) in enumerate(config.models.items()):
        folder = locate_model(name, "simulator")
        for temperature in (config.temperatures if number == 0 else ()) or (None,):
            title = row if temperature is None else f"{row}, T {temperature:g}"
            heat = play.user_sampling.temperature if temperature is None else temperature
            found.append(Candidate(title, folder, False, play.user_sampling.model_copy(update={"temperature": heat})))
    for row, name in config.prompted.items():
        found.append(Candidate(row, locate_model(name, "assistant"), True, play.user_sampling))
    return found


def _score_models(
    card: Scorecard, candidates: Sequence[Candidate], data: Sequence[Conversation], config: ScorecardConfig, say: Say
) -> None:
    """Likelihood of people's turns and the end decision; one pass a model, whatever its temperatures."""
    from bench.likelihood import Scorer
    from bench.scorecard import GOODBYE_RULE, score_behind, score_likelihoods, score_termination

    if not data:
        for candidate in candidates:
            for metric in ("bits_per_byte", "end_f1"):
                card.leave_out(candidate.row, metric, "no held-out people; give --data")
        return
    heard = [without_system(conversation) for conversation in data]
    scores: dict[str, RoleScore] = {}
    decisions: dict[str, Decisions] = {}
    for folder, prompted in dict.fromkeys((c.folder, c.prompted) for c in candidates):
        rows = [c for c in candidates if (c.folder, c.prompted) == (folder, prompted)]
        say(f"{rows[0].row}: likelihood of {len(data):,} conversations")
        scorer = Scorer(folder, prompted=prompted)
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
    from bench.scorecard import score_likelihoods
    from selfplay.chat.prompted import with_intent

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
    if config.people:
        return _openers(_people(config.people, say)), ", ".join(config.people)
    if candidates and (mixture := _trained_on(candidates[0].folder)) is not None:
        names, share = mixture
        try:
            found = load(parse_weights(names), split="held_out", held_out=share)
        except SelfplayError as error:
            say(f"what {candidates[0].row} was trained on is not here ({error}); self-play is compared with --data")
        else:
            return _openers(found.conversations), f"held-out share of {', '.join(names)}"
    return _openers(data), ", ".join(config.data)


def _openers(conversations: Sequence[Conversation]) -> list[Conversation]:
    """Without later pieces of longer talks, which do not open as free conversations do."""
    return [conversation for conversation in conversations if not conversation.context]


def _trained_on(folder: Path) -> tuple[list[str], float] | None:
    """The data sets in a model's `training.json` and their held-out share; None where it does not say."""
    try:
        data = json.loads((folder / "training.json").read_text(encoding="utf-8"))["recipe"]["data"]
        return [str(name) for name in data["datasets"]], float(data["held_out"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


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
    if not (Path(source) / DATABASE).exists():
        return _people([source], notes.append)
    run = open_run(source)
    try:
        finished = list(run.conversations())
        planned, ended = run.counts()
    finally:
        run.close()
    kept = [c for c in finished if c.ended is not None and not c.ended.startswith("failed:")]
    if not kept:
        raise DataError(
            f"{source}: of {planned:,} conversations {ended:,} have ended, {len(finished) - len(kept):,} of them "
            "failed; there is none to score"
        )
    if len(kept) < len(finished):
        notes.append(f"{row}: {len(finished) - len(kept):,} failed conversations are left out")
    if ended < planned:
        notes.append(f"{row}: UNFINISHED, {planned - ended:,} of {planned:,} still go on; short ones end first")
    return kept


def _free_play(
    candidate: Candidate, play: GenerateConfig, runs: Path, notes: list[str], say: Say
) -> list[Conversation]:
    """The candidate's free conversations with the assistant, guardrails off: what it says is what is scored."""
    folder = runs / folder_name(candidate.row)
    settings = {
        "simulator": str(candidate.folder),
        "prompted_user": candidate.prompted,
        "user_sampling": candidate.sampling,
        "guardrails": Guardrails.off(),
        "out": str(folder),
    }
    say(f"{candidate.row}: free self-play in {folder}")
    stopped = generate(play.model_copy(update=settings), resume=(folder / DATABASE).exists()).stopped
    if stopped is not None:
        raise SelfplayError(f"free self-play of {candidate.row} stopped: {stopped}; the same command goes on with it")
    return _existing(candidate.row, str(folder), notes)


def folder_name(row: str) -> str:
    """A row's name as a folder's; names that had to be changed get a hash, so that no two share one."""
    plain = re.sub(r"[^\w-]+", "-", row).strip("-")
    return plain if plain == row else f"{plain}-{blake2b(row.encode(), digest_size=3).hexdigest()}".lstrip("-")


def _tools(config: ScorecardConfig, seed: int) -> Tools:
    from bench.embeddings import Embedder
    from bench.scorecard import Tools

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


def bench_nano(
    config: GenerateConfig, base: str, datasets: Sequence[str], out: str | Path, say: Callable[[str], None] = print
) -> list[tuple[str, Sequence[str], Sequence[Sequence[str]]]]:
    """Score a pair on human conversations and in free self-play, guardrails off, sampling as the recipe has it.

    Args:
        config: the run for free self-play; its models are scored.
        base: the model both were fine-tuned from.
        datasets: human sets for likelihood and endings, beside the held-out mixture.
        out: folder of `scores.json`, `scores.md` and the run (`free/`, taken up again when it exists).

    Returns:
        Tables to print: title, header, rows.
    """
    from bench.nano import Pair, score_free, score_humans, tables
    from bench.report import write_report

    pair = Pair(
        locate_model(base, "base"),
        locate_model(config.simulator, "simulator"),
        locate_model(config.assistant, "assistant"),
    )
    mixture = load_recipe("nano/simulator", TrainConfig).data
    held_out = load(parse_weights(mixture.datasets), split="held_out", held_out=mixture.held_out).conversations
    people = [conversation for conversation in held_out if not conversation.context]
    trained = load(["sgd_train"], split="train", held_out=mixture.held_out).conversations
    seen = frozenset(service for conversation in trained for service in conversation.meta["services"])
    sampling = config.user_sampling
    sheets = [score_humans("held-out mixture", people, pair, sampling, None, say)]
    for name in datasets:
        loaded = load([name])
        sheet = score_humans(name, loaded.conversations, pair, sampling, seen, say)
        sheet.left_out["rows that are no conversation"] = loaded.refused.counts.total()
        sheets.append(sheet)
    free = Path(out) / "free"
    free_config = config.model_copy(update={"guardrails": Guardrails.off(), "out": str(free)})
    say(f"free self-play: {config.conversations} conversations")
    if (stopped := generate(free_config, resume=(free / DATABASE).exists()).stopped) is not None:
        raise SelfplayError(f"free self-play stopped: {stopped}; the same command goes on with it")
    run = open_run(free)
    simulated = list(run.conversations())
    run.close()
    scores = score_free(people, simulated)
    write_report(Path(out), sheets, scores, simulated)
    return tables(sheets, scores)
