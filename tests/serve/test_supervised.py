"""An engine that dies: started again twice, then the run stops."""

import asyncio

import pytest

from selfplay.errors import BackendError, RequestError
from selfplay.serve.backend import Completion, GenerationRequest
from selfplay.serve.config import Sampling
from selfplay.serve.supervised import SupervisedBackend

ASK = GenerationRequest([1, 2], Sampling(), 0, (1,))


class Mortal:
    """Answers so often, then is dead."""

    max_context, kv = 100, None

    def __init__(self, lives):
        self.lives, self.closed = lives, False

    async def generate(self, request):
        await asyncio.sleep(0)
        if request.seed == 13:
            raise RequestError("unlucky")
        self.lives -= 1
        if self.lives < 0:
            raise BackendError("the engine process ended")
        return Completion((7,), "stop", 1)

    async def close(self):
        self.closed = True


def supervised(*lives):
    engines = [Mortal(count) for count in lives]
    coming, restarts = iter(engines), []

    async def start():
        await asyncio.sleep(0.01)
        return next(coming)

    return SupervisedBackend(next(coming), start, lambda deaths, cause: restarts.append(deaths)), engines, restarts


async def test_whoever_waits_when_an_engine_dies_is_answered_by_the_next_one():
    backend, engines, restarts = supervised(3, 4, 10)
    answers = await asyncio.gather(*(backend.generate(ASK) for _ in range(12)))
    assert all(answer.token_ids == (7,) for answer in answers)
    assert restarts == [1, 2]
    assert [engine.closed for engine in engines] == [True, True, False]


async def test_the_third_death_is_the_last():
    backend, _, restarts = supervised(1, 1, 1)
    outcomes = await asyncio.gather(*(backend.generate(ASK) for _ in range(9)), return_exceptions=True)
    failures = [outcome for outcome in outcomes if isinstance(outcome, BackendError)]
    assert len(failures) == 6
    assert "died 3 times" in str(failures[0])
    assert restarts == [1, 2]


async def test_a_refused_request_is_no_death():
    backend, engines, restarts = supervised(5)
    with pytest.raises(RequestError):
        await backend.generate(GenerationRequest([1], Sampling(), 13, (1,)))
    assert (restarts, engines[0].closed) == ([], False)


async def test_an_engine_that_was_closed_is_not_started_again():
    backend, _, restarts = supervised(0, 5)
    await backend.close()
    with pytest.raises(BackendError):
        await backend.generate(ASK)
    assert restarts == []


async def test_an_engine_that_does_not_come_up_again_counts_as_dead():
    dead = Mortal(0)

    async def start():
        raise BackendError("no memory left")

    backend = SupervisedBackend(dead, start, lambda deaths, cause: None)
    with pytest.raises(BackendError, match="died 3 times, the last time: no memory left"):
        await backend.generate(ASK)
