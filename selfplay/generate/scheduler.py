"""Decides which conversations run and where. Pure: states and KV tokens in, decisions out; no clock, no IO, no await.

A conversation in flight keeps its history in the prefix cache of the engine of either side (two chains; on one engine
they share its budget). The cache pays only while everything in flight fits, so

- a waiting conversation starts when its expected footprint fits beside those in flight,
- a conversation that goes on does so at once, unless histories have outgrown the cache: then the one that was seated
  last on that engine is set aside at its next turn boundary, until there is room again,
- those set aside go before new ones of their engines, in the order they were; who has been seated longest on an engine
  is never set aside for it.

Each decision costs O(1) in conversations in flight (amortised); engines and conversations set aside are few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from selfplay.chat.conversation import Role
from selfplay.generate.lengths import LengthEstimate


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
    seats: dict[Seat, None] = field(default_factory=dict, init=False)
    """Conversations with a history here, in the order they were seated."""
    aside: int = field(default=0, init=False)
    """Chains of conversations set aside that will come back here."""

    def fits(self, tokens: int) -> bool:
        """Whether a history of this footprint fits beside the reserved ones; one alone always does."""
        return self.capacity is None or not self.seats or self.reserved + tokens <= self.capacity

    @property
    def spoken_for(self) -> bool:
        """Whether room that comes free belongs to somebody set aside."""
        return self.capacity is not None and self.aside > 0

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
        self._in_flight = 0
        self._aside: dict[Seat, None] = {}

    @property
    def in_flight(self) -> int:
        """Conversations that may speak now."""
        return self._in_flight

    @property
    def set_aside(self) -> int:
        """Conversations waiting for room to go on."""
        return len(self._aside)

    def admit(self, tokens: Mapping[Role, int]) -> Seat | None:
        """A seat for the next waiting conversation, or None while it has to wait.

        Args:
            tokens: what each side's history holds already (resumed conversations); missing means nothing.
        """
        if self._in_flight >= self._max_in_flight:
            return None
        chains = {role: Chain(self._emptiest(numbers), tokens.get(role, 0)) for role, numbers in self._places.items()}
        seat = Seat(chains)
        if any(self.lanes[chain.lane].spoken_for for chain in chains.values()) or not self._fits(seat):
            return None
        self._sit(seat)
        return seat

    def take_back(self) -> Seat | None:
        """Who was set aside first, once it fits again. Those that share no engine do not wait for each other."""
        blocked: set[int] = set()
        for seat in self._aside:
            lanes = {chain.lane for chain in seat.chains.values() if self.lanes[chain.lane].capacity is not None}
            if not lanes & blocked and self._fits(seat):
                self._leave_aside(seat)
                self._sit(seat)
                return seat
            blocked |= lanes
        return None

    def spoke(self, seat: Seat, role: Role, tokens: int) -> bool:
        """A side's history now holds `tokens`. Whether the conversation may go on; otherwise it is set aside."""
        chain = seat.chains[role]
        self._lengths[role].grew(max(0, tokens - chain.tokens))
        self._release(chain)
        chain.tokens = tokens
        self._claim(role, chain)
        if any(self._must_go(seat, self.lanes[chain.lane]) for chain in seat.chains.values()):
            self._stand(seat)
            self._aside[seat] = None
            for chain in seat.chains.values():
                self.lanes[chain.lane].aside += 1
            return False
        return True

    def leave(self, seat: Seat) -> None:
        """The conversation has ended."""
        for role in seat.chains:
            self._lengths[role].ended()
        self._stand(seat)

    def _emptiest(self, numbers: Sequence[int]) -> int:
        def load(number: int) -> tuple[bool, int, int]:
            lane = self.lanes[number]
            return lane.spoken_for, lane.reserved, len(lane.seats)

        return numbers[0] if len(numbers) == 1 else min(numbers, key=load)

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

    def _release(self, chain: Chain) -> None:
        lane = self.lanes[chain.lane]
        lane.held -= chain.held
        lane.reserved -= chain.reserved

    def _sit(self, seat: Seat) -> None:
        for role, chain in seat.chains.items():
            self._claim(role, chain)
            self.lanes[chain.lane].seats[seat] = None
        self._in_flight += 1

    def _stand(self, seat: Seat) -> None:
        for chain in seat.chains.values():
            self._release(chain)
            self.lanes[chain.lane].seats.pop(seat, None)
        self._in_flight -= 1

    def _leave_aside(self, seat: Seat) -> None:
        del self._aside[seat]
        for chain in seat.chains.values():
            self.lanes[chain.lane].aside -= 1

    def _must_go(self, seat: Seat, lane: Lane) -> bool:
        """Whether the lane's histories have outgrown it and `seat` was seated there last, and not alone."""
        return lane.overfull and len(lane.seats) > 1 and next(reversed(lane.seats)) is seat


def _blocks(tokens: int, block: int) -> int:
    return -(-tokens // block) * block
