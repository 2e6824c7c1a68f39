"""The scheduler as tables and as properties. It knows no clock: a test is a list of calls."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay.generate.lengths import LengthEstimate
from selfplay.generate.scheduler import Lane, Scheduler

PLACES = {"user": [0], "assistant": [1]}


def scheduler(capacity, *, longest=100, block=1, cap=1000, places=PLACES, lanes=2):
    return Scheduler([Lane(capacity, block, longest) for _ in range(lanes)], places, cap)


def admit_all(scheduler, tokens=None):
    seats = []
    while (seat := scheduler.admit(tokens or {})) is not None:
        seats.append(seat)
        assert len(seats) < 10_000, "nothing bounds admission"
    return seats


@pytest.mark.parametrize(
    ("capacity", "cap", "admitted"),
    [
        (1000, 1000, 20),  # half of the longest history (100) is expected of each on average
        (1000, 7, 7),
        (99, 1000, 1),
        (10, 1000, 1),  # one alone always runs; the engine bounds its length
        (None, 30, 30),  # an engine that does not tell
    ],
)
def test_as_many_start_as_are_expected_to_fit(capacity, cap, admitted):
    assert len(admit_all(scheduler(capacity, cap=cap))) == admitted


def test_both_sides_on_one_engine_share_its_budget():
    one = scheduler(1000, lanes=1, places={"user": [0], "assistant": [0]})
    assert len(admit_all(one)) == 10


def test_memory_is_counted_in_whole_blocks():
    assert len(admit_all(scheduler(1024, longest=34, block=16))) == 1024 // 32


def test_the_smaller_engine_decides():
    lanes = [Lane(1000, 1, 100), Lane(200, 1, 100)]
    assert len(admit_all(Scheduler(lanes, PLACES, 1000))) == 4


def test_replicas_fill_evenly():
    spread = scheduler(1000, lanes=3, places={"user": [0, 1], "assistant": [2]}, cap=8)
    lanes = [seat.chains["user"].lane for seat in admit_all(spread)]
    assert lanes == [0, 1] * 4


def test_a_conversation_taken_up_again_counts_what_it_holds():
    assert len(admit_all(scheduler(1000), {"user": 90, "assistant": 90})) == 11


def test_what_was_learned_from_short_conversations_lets_more_start():
    plan = scheduler(1000)
    for _ in range(50):
        (seat, *_) = admit_all(plan)
        plan.spoke(seat, "user", 10)
        plan.spoke(seat, "assistant", 12)
        for held in list(plan.lanes[0].seats):
            plan.leave(held)
    assert len(admit_all(plan)) > 100


def test_lengths_count_conversations_that_still_go_on():
    estimate = LengthEstimate(longest=1000)
    assert estimate.final == 1000
    estimate.grew(400)
    assert estimate.final == 1400, "tokens without an ending make the expected length longer"
    for _ in range(13):
        estimate.ended()
    assert estimate.final == 100


def test_the_last_seated_is_set_aside_when_histories_outgrow_the_cache():
    plan = scheduler(100, longest=50)
    old, middle, young = (plan.admit({}) for _ in range(3))
    assert plan.spoke(old, "user", 40)
    assert plan.spoke(middle, "user", 40)
    assert plan.spoke(young, "user", 20)
    assert plan.spoke(old, "user", 45), "who sits longest goes on, though the cache is too full now"
    assert not plan.spoke(young, "user", 21)
    assert (plan.in_flight, plan.set_aside) == (2, 1)
    assert plan.admit({}) is None, "nobody new before those set aside"
    assert plan.take_back() is None
    plan.leave(old)
    assert plan.take_back() is young


def test_those_set_aside_come_back_in_their_order_before_new_ones():
    plan = scheduler(100, longest=20)
    seats = [plan.admit({}) for _ in range(8)]
    for seat in seats[:4]:
        plan.spoke(seat, "user", 20)
    assert [plan.spoke(seat, "user", 30) for seat in reversed(seats)][:4] == [False] * 4
    for seat in seats[:4]:
        plan.leave(seat)
    assert [plan.take_back() for _ in range(4)] == [seats[7], seats[6], seats[5], None]
    assert plan.admit({}) is None
    plan.leave(seats[7])
    assert plan.take_back() is seats[4]
    plan.leave(seats[6])
    assert plan.admit({}) is not None


def test_one_replica_that_is_overfull_does_not_hold_up_the_other():
    plan = scheduler(100, longest=50, lanes=3, places={"user": [0, 1], "assistant": [2]})
    plan.lanes[2].capacity = None
    seats = [plan.admit({}) for _ in range(4)]
    by_lane = {number: [seat for seat in seats if seat.chains["user"].lane == number] for number in (0, 1)}
    first, last = by_lane[0]
    assert plan.spoke(first, "user", 90)
    assert not plan.spoke(last, "user", 30), "seated last on its replica, though not of all"
    more = plan.admit({})
    assert more.chains["user"].lane == 1
    plan.leave(first)
    assert plan.take_back() is last


class Model:
    """Conversations with given lengths per turn, played against the scheduler in any order of turns."""

    def __init__(self, plan, lengths):
        self.plan, self.waiting, self.seats, self.peak = plan, list(lengths), {}, 0
        self.finished = 0

    def fill(self):
        while (seat := self.plan.take_back()) is not None:
            self.seats[seat]["aside"] = False
        while self.waiting and (seat := self.plan.admit({})) is not None:
            self.check()
            self.seats[seat] = {"left": self.waiting.pop(0), "at": [0, 0], "aside": False}

    def check(self):
        for lane in self.plan.lanes:
            assert lane.reserved <= lane.capacity or len(lane.seats) <= 1, "admitted more than is expected to fit"

    def step(self, pick):
        running = [seat for seat, state in self.seats.items() if not state["aside"]]
        assert running, "nothing runs while something waits"
        seat = running[pick % len(running)]
        state = self.seats[seat]
        state["at"] = [tokens + state["left"][0] for tokens in state["at"]]
        state["left"] = state["left"][1:]
        if not state["left"]:
            self.plan.leave(seat)
            del self.seats[seat]
            self.finished += 1
        else:
            for side, role in enumerate(("user", "assistant")):
                if not state["aside"]:
                    state["aside"] = not self.plan.spoke(seat, role, state["at"][side])
        self.fill()


LENGTHS = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=8), min_size=1, max_size=60)


@settings(max_examples=150, deadline=None)
@given(lengths=LENGTHS, capacity=st.integers(1, 600), block=st.sampled_from([1, 16]), data=st.data())
def test_never_admits_more_than_fits_and_never_starves(lengths, capacity, block, data):
    plan = scheduler(capacity, longest=320, block=block)
    model = Model(plan, lengths)
    model.fill()
    for _ in range(sum(map(len, lengths))):
        model.step(data.draw(st.integers(0, 1000)))
    assert model.finished == len(lengths)
    assert all(lane.held == lane.reserved == len(lane.seats) == lane.aside == 0 for lane in plan.lanes)
