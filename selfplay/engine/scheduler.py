"""Decides which conversations run and where. Pure: states and KV tokens in, decisions out; no clock, no IO, no await.

A conversation in flight keeps its history in the prefix cache of the engine of either side (two chains; on one engine
they share its budget). The cache pays only while everything in flight fits, so

- a waiting conversation starts when its expected footprint fits beside those in flight,
- a conversation that goes on does so at once, unless histories have outgrown the cache: then the one that was seated
  last is set aside at its next turn boundary, until there is room again,
- those set aside go before new ones, in the order they were; who has been seated longest is never set aside.

Each decision costs O(1) in conversations in flight (amortised).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from selfplay.chat.conversation import Role
from selfplay.engine.lengths import LengthEstimate


@dataclass(slots=True)
class Lane:
    """One engine as the scheduler sees it. `capacity` in KV tokens; None: it does not say (an endpoint, a person)."""

    capacity: int | None = None
    block: int = 1
    longest: int = 0
    """Longest history the engine takes, in tokens."""
    held: int = field(default=0, init=False)
    """Tokens of the histories in flight, in whole blocks."""
    reserved: int = field(default=0, init=False)
    """The same with short histories counted at what they are expected to become."""
    seats: int = field(default=0, init=False)

    def fits(self, tokens: int) -> bool:
        """Whether a history of this footprint fits beside the reserved ones; one alone always does."""
        return self.capacity is None or self.seats == 0 or self.reserved + tokens <= self.capacity

    @property
    def overfull(self) -> bool:
        """Whether the histories in flight have outgrown the cache."""
        return self.capacity is not None and self.held > self.capacity


@dataclass(slots=True)
class Chain:
    """One side's history of a conversation: where it lives and what it holds there."""

    lane: int
    tokens: int = 0
    held: int = 0
    reserved: int = 0


@dataclass(slots=True, eq=False)
class Seat:
    """A conversation's place among those in flight."""

    chains: dict[Role, Chain]


class Scheduler:
    """Keeps what is in flight within every engine's KV cache. Call order is the only time it knows."""

    def __init__(self, lanes: Sequence[Lane], places: Mapping[Role, Sequence[int]], max_in_flight: int) -> None:
        """Start empty.

        Args:
            lanes: every engine.
            places: for each side, the lanes that serve it (replicas; sides may share).
            max_in_flight: bound on conversations in flight, whatever fits.
        """
        self.lanes = list(lanes)
        self._places = {role: tuple(numbers) for role, numbers in places.items()}
        self._max_in_flight = max_in_flight
        self._lengths = {
            role: LengthEstimate(max(self.lanes[number].longest for number in numbers))
            for role, numbers in self._places.items()
        }
        self._seated: dict[Seat, None] = {}
        self._aside: deque[Seat] = deque()

    @property
    def in_flight(self) -> int:
        """Conversations that may speak now."""
        return len(self._seated)

    @property
    def set_aside(self) -> int:
        """Conversations waiting for room to go on."""
        return len(self._aside)

    def admit(self, tokens: Mapping[Role, int]) -> Seat | None:
        """A seat for the next waiting conversation, or None while it has to wait.

        Args:
            tokens: what each side's history holds already (resumed conversations); missing means nothing.
        """
        if self._aside or len(self._seated) >= self._max_in_flight:
            return None
        chains = {role: Chain(self._emptiest(numbers), tokens.get(role, 0)) for role, numbers in self._places.items()}
        seat = Seat(chains)
        if not self._fits(seat):
            return None
        self._sit(seat)
        return seat

    def take_back(self) -> Seat | None:
        """The conversation set aside first, once it fits again."""
        if not self._aside or not self._fits(self._aside[0]):
            return None
        seat = self._aside.popleft()
        self._sit(seat)
        return seat

    def spoke(self, seat: Seat, role: Role, tokens: int) -> bool:
        """A side's history now holds `tokens`. Whether the conversation may go on; otherwise it is set aside."""
        chain = seat.chains[role]
        self._lengths[role].grew(max(0, tokens - chain.tokens))
        self._release(chain)
        chain.tokens = tokens
        self._claim(role, chain)
        if any(self.lanes[chain.lane].overfull for chain in seat.chains.values()) and self._is_last(seat):
            self._stand(seat)
            self._aside.append(seat)
            return False
        return True

    def leave(self, seat: Seat) -> None:
        """The conversation has ended."""
        for role in seat.chains:
            self._lengths[role].ended()
        self._stand(seat)

    def _emptiest(self, numbers: Sequence[int]) -> int:
        return min(numbers, key=lambda number: (self.lanes[number].reserved, self.lanes[number].seats))

    def _fits(self, seat: Seat) -> bool:
        demands: dict[int, int] = {}
        for role, chain in seat.chains.items():
            demands[chain.lane] = demands.get(chain.lane, 0) + self._footprint(role, chain)
        return all(self.lanes[number].fits(tokens) for number, tokens in demands.items())

    def _footprint(self, role: Role, chain: Chain) -> int:
        """What a history takes up on average from now on: at least half of the final length, as it grows up to it."""
        lane = self.lanes[chain.lane]
        expected = min(self._lengths[role].final / 2, lane.longest)
        return _blocks(max(chain.tokens, int(expected)), lane.block)

    def _claim(self, role: Role, chain: Chain) -> None:
        lane = self.lanes[chain.lane]
        chain.held = _blocks(chain.tokens, lane.block)
        chain.reserved = self._footprint(role, chain)
        lane.held += chain.held
        lane.reserved += chain.reserved
        lane.seats += 1

    def _release(self, chain: Chain) -> None:
        lane = self.lanes[chain.lane]
        lane.held -= chain.held
        lane.reserved -= chain.reserved
        lane.seats -= 1

    def _sit(self, seat: Seat) -> None:
        for role, chain in seat.chains.items():
            self._claim(role, chain)
        self._seated[seat] = None

    def _stand(self, seat: Seat) -> None:
        for chain in seat.chains.values():
            self._release(chain)
        del self._seated[seat]

    def _is_last(self, seat: Seat) -> bool:
        """Whether `seat` was seated last and is not the only one."""
        return len(self._seated) > 1 and next(reversed(self._seated)) is seat


def _blocks(tokens: int, block: int) -> int:
    return -(-tokens // block) * block
