"""The engine with the shipped scripted backend: reasons, order, faults, resuming."""

import itertools
from collections import Counter

import pytest

from assistant.speaker import AssistantSpeaker
from selfplay.chat.conversation import Turn
from selfplay.errors import BackendError, StoreError
from selfplay.generate.events import Admitted, ConversationEnded, Sampled
from selfplay.generate.runner import Runner
from selfplay.generate.scheduler import EngineBudget, Scheduler
from selfplay.seeds import derive_seed
from selfplay.serve.backend import Completion
from selfplay.serve.config import Sampling
from selfplay.serve.scripted import ScriptedBackend, pick_from
from selfplay.serve.turns import TurnSampler
from selfplay.store.records import ConversationSpec, TurnCommit
from selfplay.store.store import RunReader, RunStore
from simulator.guardrails import Guardrails
from simulator.speaker import UserSpeaker

WORDS = ["hello there", "a table for two", "book it", "what is the price", "tomorrow at noon"]


class Recorded(ScriptedBackend):
    """Remembers what it was asked."""

    def __init__(self, script, **options):
        super().__init__(script, **options)
        self.requests = []

    async def generate(self, request):
        self.requests.append(request)
        return await super().generate(request)


class Setup:
    """Two scripted sides and a store; `play` runs until everything has its reason."""

    def __init__(
        self, renderers, folder, *, guardrails=None, user=None, assistant=None, max_rounds=5, plans=None, **sides
    ):
        self.folder, self.max_rounds, self.events = folder, max_rounds, []
        self.plans = plans or [ConversationSpec(n, f"c{n}", derive_seed(0, n)) for n in range(30)]
        rows = [renderers["user"].encode_text(text) for text in WORDS]
        end = renderers["user"].end_of_conversation_id
        self.user = Recorded(user or pick_from(rows, end, 0.2), **sides)
        self.assistant = Recorded(assistant or pick_from(rows), **sides)
        sampling = Sampling(max_tokens=32)
        speakers = {
            "user": UserSpeaker(
                TurnSampler(self.user, renderers["user"], "user", sampling), guardrails or Guardrails.off()
            ),
            "assistant": AssistantSpeaker(TurnSampler(self.assistant, renderers["assistant"], "assistant", sampling)),
        }
        self.speakers = {role: {engine: speaker} for engine, (role, speaker) in enumerate(speakers.items())}

    async def play(self, cap=8, turn_log=None, engines=None):
        fresh = not self.folder.exists()
        store = RunStore.create(self.folder, {}, self.plans) if fresh else RunStore(self.folder)
        try:
            async with store:
                runner = Runner(
                    self.speakers,
                    turn_log(store) if turn_log else store,
                    Scheduler(engines or [EngineBudget(), EngineBudget()], {"user": [0], "assistant": [1]}, cap),
                    self.max_rounds,
                    self.events.append,
                )
                await runner.run(store.unfinished())
        finally:
            store.close()
        return self.finished()

    def finished(self):
        run = RunReader(self.folder)
        found = {c.id: (c.turns, c.ended) for c in run.conversations()}
        run.close()
        return found


@pytest.fixture
def setup(renderers, tmp_path):
    def make(name="run", **options):
        return Setup(renderers, tmp_path / name, **options)

    return make


async def test_every_conversation_gets_a_reason_and_alternates(setup):
    finished = await setup().play()
    assert len(finished) == 30
    for turns, ended in finished.values():
        assert [turn.role for turn in turns] == ["user", "assistant"] * (len(turns) // 2)
        assert ended == ("max_rounds" if len(turns) == 10 else "user_ended")
    assert {ended for _, ended in finished.values()} == {"max_rounds", "user_ended"}


async def test_the_same_seed_gives_the_same_conversations_whatever_runs_beside_them(setup):
    one_by_one = await setup("a").play(cap=1)
    run_all = await setup("b", latency=0.002).play(cap=30)
    assert one_by_one == run_all


async def test_failed_requests_end_their_conversation_with_the_cause_and_no_other(setup):
    clean = await setup("a").play()
    faulty = await setup("b", fault_share=0.1).play()
    assert len(faulty) == 30
    reasons = Counter(ended for _, ended in faulty.values())
    assert 0 < reasons["failed:scripted"] < 30
    untouched = [id for id, (_, ended) in faulty.items() if not ended.startswith("failed")]
    assert all(faulty[id] == clean[id] for id in untouched)


async def test_an_interrupted_run_resumes_to_the_same_conversations(setup):
    class Dies:
        def __init__(self, store):
            self.store, self.left = store, 70

        async def commit(self, entry: TurnCommit):
            self.left -= 1
            if self.left < 0:
                raise StoreError("pulled the plug")
            await self.store.commit(entry)

    expected = await setup("whole").play()
    interrupted = setup("cut")
    with pytest.raises(StoreError, match="pulled the plug"):
        await interrupted.play(turn_log=Dies)
    assert 0 < len(interrupted.finished()) < 30
    assert await interrupted.play(cap=3) == expected


async def test_every_prompt_starts_with_the_prompt_and_the_ids_of_the_turn_before(setup):
    run = setup(plans=[ConversationSpec(0, "c0", 5)], user=pick_from([[300, 301]]))
    await run.play()
    for backend in (run.user, run.assistant):
        prompts = [request.prompt_ids for request in backend.requests]
        assert len(prompts) == 5
        for before, after in itertools.pairwise(prompts):
            assert after[: len(before)] == before


async def test_openings_and_system_prompts_are_stored_and_hidden_from_the_user(setup):
    opening = (Turn("system", "be brief", "fixed"), Turn("user", "a room please", "fixed"))
    run = setup(plans=[ConversationSpec(0, "c0", 5, opening)], max_rounds=2)
    ((turns, ended),) = (await run.play()).values()
    assert turns[:2] == opening
    assert ended in ("max_rounds", "user_ended")
    renderer = run.speakers["user"][0]._sampler._renderer
    hidden = renderer.encode_text("be brief")
    assert hidden == run.assistant.requests[0].prompt_ids[1 : 1 + len(hidden)]
    seen = run.user.requests[0].prompt_ids
    assert hidden != seen[1 : 1 + len(hidden)]


async def test_broken_guardrails_are_resampled_counted_and_then_end_the_conversation(setup, renderers):
    row = renderers["user"].encode_text("the very same words")
    run = setup(guardrails=Guardrails(resamples=3), user=pick_from([row]), plans=[ConversationSpec(0, "c0", 5)])
    ((turns, ended),) = (await run.play()).values()
    assert ended == "guardrail:repeat"
    assert len(turns) == 2
    reader = RunReader(run.folder)
    assert reader.totals().rejected == {"repeat": 4}
    reader.close()
    assert len({request.seed for request in run.user.requests}) == 5


async def test_an_assistant_with_nothing_to_say_fails_the_conversation(setup):
    run = setup(assistant=lambda request: Completion((), "stop", request.stop_ids[0]))
    reasons = Counter(ended for _, ended in (await run.play()).values())
    assert set(reasons) == {"failed:empty_reply", "user_ended"}
    reader = RunReader(run.folder)
    assert reader.totals().rejected == {"empty_reply": 3 * reasons["failed:empty_reply"]}
    reader.close()


async def test_special_tokens_are_never_drawn_inside_a_turn(setup, renderers):
    run = setup(plans=[ConversationSpec(0, "c0", 5)])
    await run.play()
    special = set(renderers["user"].tokenizer.all_special_ids)
    for request in run.user.requests + run.assistant.requests:
        forbidden = {id for id, value in request.logit_bias if value == -100}
        assert forbidden == special - set(request.stop_ids)


async def test_turns_cut_by_the_token_limit_are_counted(setup):
    run = setup(assistant=lambda request: Completion((300,) * request.sampling.max_tokens, "length"))
    finished = await run.play()
    reader = RunReader(run.folder)
    assert reader.totals().cut == sum(turn.role == "assistant" for turns, _ in finished.values() for turn in turns)
    reader.close()


async def test_a_full_context_ends_the_conversation(setup, renderers):
    row = renderers["user"].encode_text("some words that take up room")
    run = setup(user=pick_from([row]), assistant=pick_from([row]), max_context=120, max_rounds=100)
    assert {ended for _, ended in (await run.play()).values()} == {"context_full"}
    assert all(len(request.prompt_ids) + 32 <= 120 for request in run.user.requests + run.assistant.requests)


async def test_a_dead_engine_stops_the_run_and_keeps_what_was_said(setup):
    def dying(request):
        if len(request.prompt_ids) > 20:
            raise BackendError("the engine process ended")
        return Completion((300, 301), "stop", request.stop_ids[0])

    run = setup(user=dying)
    with pytest.raises(BackendError, match="process ended"):
        await run.play()
    reader = RunReader(run.folder)
    assert sum(len(pending.turns) for pending in reader.unfinished()) > 0
    reader.close()


async def test_events_add_up(setup):
    run = setup(latency=0.001)
    finished = await run.play(cap=4)
    kinds = Counter(type(event) for event in run.events)
    assert kinds[Admitted] == kinds[ConversationEnded] == 30
    assert sum(event.turn_taken for event in run.events if isinstance(event, Sampled)) == sum(
        len(turns) for turns, _ in finished.values()
    )
    assert max(event.in_flight for event in run.events if isinstance(event, Admitted)) == 4


def scarce():
    """Engines whose caches hold a few of these conversations (about 60 tokens each)."""
    return [EngineBudget(150, 1, 200), EngineBudget(150, 1, 200)]


async def test_scarce_memory_changes_the_order_and_nothing_else(setup):
    ample = await setup("a", latency=0.002).play(cap=30)
    run = setup("b", latency=0.002)
    assert await run.play(cap=30, engines=scarce()) == ample
    assert max(event.in_flight for event in run.events if isinstance(event, Admitted)) < 15


async def test_histories_that_outgrow_the_cache_are_set_aside_and_taken_back(setup, renderers):
    row = renderers["user"].encode_text("some words that take up room in every turn there is")
    plans = [ConversationSpec(n, f"c{n}", derive_seed(0, n)) for n in range(12)]
    run = setup(user=pick_from([row]), assistant=pick_from([row]), max_rounds=8, plans=plans, latency=0.001)
    engines = [
        EngineBudget(160, 1, 60),
        EngineBudget(160, 1, 60),
    ]  # the longest history is said to be far shorter than they become
    preempted = []

    class Watched(Scheduler):
        def resume_preempted(self):
            in_flight = super().resume_preempted()
            preempted.extend([in_flight] if in_flight else [])
            return in_flight

    store = RunStore.create(run.folder, {}, plans)
    async with store:
        scheduler = Watched(engines, {"user": [0], "assistant": [1]}, 100)
        assert await Runner(run.speakers, store, scheduler, 8, run.events.append).run(store.unfinished())
    store.close()
    assert len(run.finished()) == 12
    assert preempted
    assert (scheduler.in_flight, scheduler.preempted) == (0, 0)


@pytest.mark.parametrize("engines", [None, scarce()])
async def test_a_stop_finishes_the_turns_in_flight_and_the_rest_can_follow(setup, engines):
    expected = await setup("whole").play()
    run = setup("stopped", latency=0.01)
    store = RunStore.create(run.folder, {}, run.plans)
    async with store:
        scheduler = Scheduler(engines or [EngineBudget(), EngineBudget()], {"user": [0], "assistant": [1]}, 12)
        asked = Counter()

        def on_event(event):
            asked.update([type(event).__name__])
            if asked["Sampled"] == 40:
                runner.stop()

        runner = Runner(run.speakers, store, scheduler, run.max_rounds, on_event)
        assert not await runner.run(store.unfinished())
        assert asked["Asked"] == asked["Sampled"], "a turn that was asked for was not waited for"
    store.close()
    assert 0 < len(run.finished()) < 30
    assert await run.play() == expected
