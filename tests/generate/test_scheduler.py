"""The scheduler as tables and as properties. It knows no clock: a test is a list of calls."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay.generate.lengths import LengthEstimate
from selfplay.generate.scheduler import EngineBudget, Scheduler

PLACES = {"user": [0], "assistant": [1]}


def scheduler(capacity, *, max_context=100, block=1, cap=1000, engines_by_role=PLACES, engines=2):
    return Scheduler([EngineBudget(capacity, block, max_context) for _ in range(engines)], engines_by_role, cap)


def admit_all(scheduler, tokens=None):
    in_flight = []
    while (conversation := scheduler.admit(tokens or {})) is not None:
        in_flight.append(conversation)
        assert len(in_flight) < 10_000, "nothing bounds admission"
    return in_flight


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
    one = scheduler(1000, engines=1, engines_by_role={"user": [0], "assistant": [0]})
    assert len(admit_all(one)) == 10


def test_memory_is_counted_in_whole_blocks():
    assert len(admit_all(scheduler(1024, max_context=34, block=16))) == 1024 // 32


def test_the_smaller_engine_decides():
    engines = [EngineBudget(1000, 1, 100), EngineBudget(200, 1, 100)]
    assert len(admit_all(Scheduler(engines, PLACES, 1000))) == 4


def test_replicas_fill_evenly():
    spread = scheduler(1000, engines=3, engines_by_role={"user": [0, 1], "assistant": [2]}, cap=8)
    engines = [conversation.histories["user"].engine for conversation in admit_all(spread)]
    assert engines == [0, 1] * 4


def test_a_conversation_taken_up_again_counts_what_it_holds():
    assert len(admit_all(scheduler(1000), {"user": 90, "assistant": 90})) == 11


def test_what_was_learned_from_short_conversations_lets_more_start():
    plan = scheduler(1000)
    for _ in range(50):
        (conversation, *_) = admit_all(plan)
        plan.on_turn(conversation, "user", 10)
        plan.on_turn(conversation, "assistant", 12)
        for held in list(plan.engines[0].in_flight):
            plan.finish(held)
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
    plan = scheduler(100, max_context=50)
    old, middle, young = (plan.admit({}) for _ in range(3))
    assert plan.on_turn(old, "user", 40)
    assert plan.on_turn(middle, "user", 40)
    assert plan.on_turn(young, "user", 20)
    assert plan.on_turn(old, "user", 45), "who sits longest goes on, though the cache is too full now"
    assert not plan.on_turn(young, "user", 21)
    assert (plan.in_flight, plan.preempted) == (2, 1)
    assert plan.admit({}) is None, "nobody new before those set aside"
    assert plan.resume_preempted() is None
    plan.finish(old)
    assert plan.resume_preempted() is young


def test_those_set_aside_come_back_in_their_order_before_new_ones():
    plan = scheduler(100, max_context=20)
    in_flight = [plan.admit({}) for _ in range(8)]
    for conversation in in_flight[:4]:
        plan.on_turn(conversation, "user", 20)
    assert [plan.on_turn(conversation, "user", 30) for conversation in reversed(in_flight)][:4] == [False] * 4
    for conversation in in_flight[:4]:
        plan.finish(conversation)
    assert [plan.resume_preempted() for _ in range(4)] == [
        in_flight[7],
        in_flight[6],
        in_flight[5],
        None,
    ]
    assert plan.admit({}) is None
    plan.finish(in_flight[7])
    assert plan.resume_preempted() is in_flight[4]
    plan.finish(in_flight[6])
    assert plan.admit({}) is not None


def test_one_replica_that_is_overfull_does_not_hold_up_the_other():
    plan = scheduler(100, max_context=50, engines=3, engines_by_role={"user": [0, 1], "assistant": [2]})
    plan.engines[2].capacity = None
    in_flight = [plan.admit({}) for _ in range(4)]
    by_lane = {
        number: [conversation for conversation in in_flight if conversation.histories["user"].engine == number]
        for number in (0, 1)
    }
    first, last = by_lane[0]
    assert plan.on_turn(first, "user", 90)
    assert not plan.on_turn(last, "user", 30), "seated last on its replica, though not of all"
    more = plan.admit({})
    assert more.histories["user"].engine == 1
    plan.finish(first)
    assert plan.resume_preempted() is last


class Model:
    """Conversations with given lengths per turn, played against the scheduler in any order of turns."""

    def __init__(self, plan, lengths):
        self.plan, self.waiting, self.in_flight, self.peak = plan, list(lengths), {}, 0
        self.finished = 0

    def fill(self):
        while (conversation := self.plan.resume_preempted()) is not None:
            self.in_flight[conversation]["aside"] = False
        while self.waiting and (conversation := self.plan.admit({})) is not None:
            self.check()
            self.in_flight[conversation] = {"left": self.waiting.pop(0), "at": [0, 0], "aside": False}

    def check(self):
        for engine in self.plan.engines:
            assert engine.reserved <= engine.capacity or len(engine.in_flight) <= 1, (
                "admitted more than is expected to fit"
            )

    def step(self, pick):
        running = [conversation for conversation, state in self.in_flight.items() if not state["aside"]]
        assert running, "nothing runs while something waits"
        conversation = running[pick % len(running)]
        state = self.in_flight[conversation]
        state["at"] = [tokens + state["left"][0] for tokens in state["at"]]
        state["left"] = state["left"][1:]
        if not state["left"]:
            self.plan.finish(conversation)
            del self.in_flight[conversation]
            self.finished += 1
        else:
            for side, role in enumerate(("user", "assistant")):
                if not state["aside"]:
                    state["aside"] = not self.plan.on_turn(conversation, role, state["at"][side])
        self.fill()


LENGTHS = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=8), min_size=1, max_size=60)


@settings(max_examples=150, deadline=None)
@given(lengths=LENGTHS, capacity=st.integers(1, 600), block=st.sampled_from([1, 16]), data=st.data())
def test_never_admits_more_than_fits_and_never_starves(lengths, capacity, block, data):
    plan = scheduler(capacity, max_context=320, block=block)
    model = Model(plan, lengths)
    model.fill()
    for _ in range(sum(map(len, lengths))):
        model.step(data.draw(st.integers(0, 1000)))
    assert model.finished == len(lengths)
    assert all(
        engine.held == engine.reserved == len(engine.in_flight) == engine.preempted == 0 for engine in plan.engines
    )
