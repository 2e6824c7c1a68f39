"""The scheduler of conversations: it decides which of them run, and on which engine.

Pure: states and KV tokens in, decisions out; no clock, no IO, no await.

A conversation in flight keeps its history in the prefix cache of the engine of either side (two histories; on one
engine they share its budget). The cache pays only while everything in flight fits, so

- a waiting conversation starts when its expected footprint fits beside those in flight,
- a conversation that goes on does so at once, unless histories have outgrown the cache: then the one that was
  admitted last on that engine is preempted at its next turn boundary, until there is room again,
- preempted conversations are resumed before new ones of their engines are admitted, first come first served; the
  longest-running conversation of an engine is never preempted for it, so there is no starvation.

Each decision costs O(1) in conversations in flight (amortised); engines and preempted conversations are few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from selfplay.chat.conversation import Role
from selfplay.generate.lengths import LengthEstimate


@dataclass(slots=True)
class EngineBudget:
    """One engine as the scheduler sees it. `capacity` in KV tokens; None: it does not say (an endpoint, a person)."""

    capacity: int | None = None
    block: int = 1
    max_context: int = 0
    """Longest history the engine takes, in tokens."""
    held: int = field(default=0, init=False)
    """Tokens of the histories in flight, in whole blocks."""
    reserved: int = field(default=0, init=False)
    """The same with short histories counted at what they are expected to become."""
    in_flight: dict[InFlight, None] = field(default_factory=dict, init=False)
    """Conversations with a history here, in the order they were admitted."""
    preempted: int = field(default=0, init=False)
    """Histories of preempted conversations that will come back here."""

    def fits(self, tokens: int) -> bool:
        """Whether a history of this footprint fits beside the reserved ones; one alone always does."""
        return self.capacity is None or not self.in_flight or self.reserved + tokens <= self.capacity

    @property
    def has_preempted(self) -> bool:
        """Whether room that comes free belongs to a preempted conversation."""
        return self.capacity is not None and self.preempted > 0

    @property
    def over_capacity(self) -> bool:
        """Whether the histories in flight have outgrown the cache."""
        return self.capacity is not None and self.held > self.capacity


@dataclass(slots=True)
class SideHistory:
    """One side's history of a conversation: where it lives and what it holds there."""

    engine: int
    tokens: int = 0
    held: int = 0
    reserved: int = 0


@dataclass(slots=True, eq=False)
class InFlight:
    """A conversation's place among those in flight."""

    histories: dict[Role, SideHistory]


class Scheduler:
    """Keeps what is in flight within every engine's KV cache. Call order is the only time it knows."""

    def __init__(
        self, engines: Sequence[EngineBudget], engines_by_role: Mapping[Role, Sequence[int]], max_in_flight: int
    ) -> None:
        """Start empty.

        Args:
            engines: the budget of every engine.
            engines_by_role: for each side, the engines that serve it (replicas; sides may share).
            max_in_flight: bound on conversations in flight, whatever fits.
        """
        self.engines = list(engines)
        self._engines_by_role = {role: tuple(numbers) for role, numbers in engines_by_role.items()}
        self._max_in_flight = max_in_flight
        self._lengths = {
            role: LengthEstimate(max(self.engines[number].max_context for number in numbers))
            for role, numbers in self._engines_by_role.items()
        }
        self._in_flight = 0
        self._preempted: dict[InFlight, None] = {}

    @property
    def in_flight(self) -> int:
        """Conversations that may speak now."""
        return self._in_flight

    @property
    def preempted(self) -> int:
        """Conversations waiting for room to go on."""
        return len(self._preempted)

    def admit(self, tokens: Mapping[Role, int]) -> InFlight | None:
        """Admit the next waiting conversation, or None while it has to wait.

        Args:
            tokens: what each side's history holds already (resumed conversations); missing means nothing.
        """
        if self._in_flight >= self._max_in_flight:
            return None
        histories = {
            role: SideHistory(self._least_loaded(numbers), tokens.get(role, 0))
            for role, numbers in self._engines_by_role.items()
        }
        conversation = InFlight(histories)
        if any(self.engines[history.engine].has_preempted for history in histories.values()) or not self._fits(
            conversation
        ):
            return None
        self._allocate(conversation)
        return conversation

    def resume_preempted(self) -> InFlight | None:
        """The conversation that was preempted first, once it fits again.

        Conversations that share no engine do not wait for each other.
        """
        blocked: set[int] = set()
        for conversation in self._preempted:
            engines = {
                history.engine
                for history in conversation.histories.values()
                if self.engines[history.engine].capacity is not None
            }
            if not engines & blocked and self._fits(conversation):
                self._unpreempt(conversation)
                self._allocate(conversation)
                return conversation
            blocked |= engines
        return None

    def on_turn(self, conversation: InFlight, role: Role, tokens: int) -> bool:
        """A side's history now holds `tokens`. Whether the conversation may go on; otherwise it is preempted."""
        history = conversation.histories[role]
        self._lengths[role].grew(max(0, tokens - history.tokens))
        self._release(history)
        history.tokens = tokens
        self._claim(role, history)
        if any(
            self._must_preempt(conversation, self.engines[history.engine])
            for history in conversation.histories.values()
        ):
            self._free(conversation)
            self._preempted[conversation] = None
            for history in conversation.histories.values():
                self.engines[history.engine].preempted += 1
            return False
        return True

    def finish(self, conversation: InFlight) -> None:
        """The conversation has ended."""
        for role in conversation.histories:
            self._lengths[role].ended()
        self._free(conversation)

    def _least_loaded(self, numbers: Sequence[int]) -> int:
        def load(number: int) -> tuple[bool, int, int]:
            engine = self.engines[number]
            return engine.has_preempted, engine.reserved, len(engine.in_flight)

        return numbers[0] if len(numbers) == 1 else min(numbers, key=load)

    def _fits(self, conversation: InFlight) -> bool:
        demands: dict[int, int] = {}
        for role, history in conversation.histories.items():
            demands[history.engine] = demands.get(history.engine, 0) + self._footprint(role, history)
        return all(self.engines[number].fits(tokens) for number, tokens in demands.items())

    def _footprint(self, role: Role, history: SideHistory) -> int:
        """What a history takes up on average from now on: at least half of the final length, as it grows up to it."""
        engine = self.engines[history.engine]
        expected = min(self._lengths[role].final / 2, engine.max_context)
        return _blocks(max(history.tokens, int(expected)), engine.block)

    def _claim(self, role: Role, history: SideHistory) -> None:
        engine = self.engines[history.engine]
        history.held = _blocks(history.tokens, engine.block)
        history.reserved = self._footprint(role, history)
        engine.held += history.held
        engine.reserved += history.reserved

    def _release(self, history: SideHistory) -> None:
        engine = self.engines[history.engine]
        engine.held -= history.held
        engine.reserved -= history.reserved

    def _allocate(self, conversation: InFlight) -> None:
        for role, history in conversation.histories.items():
            self._claim(role, history)
            self.engines[history.engine].in_flight[conversation] = None
        self._in_flight += 1

    def _free(self, conversation: InFlight) -> None:
        for history in conversation.histories.values():
            self._release(history)
            self.engines[history.engine].in_flight.pop(conversation, None)
        self._in_flight -= 1

    def _unpreempt(self, conversation: InFlight) -> None:
        del self._preempted[conversation]
        for history in conversation.histories.values():
            self.engines[history.engine].preempted -= 1

    def _must_preempt(self, conversation: InFlight, engine: EngineBudget) -> bool:
        """Whether an engine's histories have outgrown it and `conversation` was admitted there last, and not alone."""
        return engine.over_capacity and len(engine.in_flight) > 1 and next(reversed(engine.in_flight)) is conversation


def _blocks(tokens: int, block: int) -> int:
    return -(-tokens // block) * block
