"""Runs of self-play as data sources like any other."""

import asyncio
import json

import pytest
from held_runs import hold

from selfplay.app import clean
from selfplay.chat.conversation import Turn
from selfplay.data.catalogue import locate
from selfplay.data.loading import LoadResult, load, stream
from selfplay.data.mixing import load_mixture
from selfplay.data.sources import Sources
from selfplay.errors import DataError
from selfplay.store.records import ConversationSpec, TurnCommit
from selfplay.store.store import RunStore


@pytest.fixture
def run(tmp_path):
    """Four conversations: answered to its end, with an unanswered last turn, failed, and one that still goes on."""

    async def write():
        store = RunStore.create(tmp_path / "run", {}, [ConversationSpec(n, f"c{n}", n) for n in range(4)])
        user, reply = Turn("user", "hi there", "sampled", (1, 2)), Turn("assistant", "hello", "sampled", (3,))
        async with store:
            await store.commit(TurnCommit(0, 0, (user, reply), ended="user_ended"))
            await store.commit(TurnCommit(1, 0, (user, reply, user), ended="context_full"))
            await store.commit(TurnCommit(2, 0, (user,), ended="failed:http_500"))
        store.close()

    asyncio.run(write())
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("view", "turns", "refused"),
    [
        ("trainable", {"c0": 2, "c1": 2}, {"ended failed:http_500": 1}),
        ("scored", {"c0": 2, "c1": 3}, {"ended failed:http_500": 1}),
        ("ended", {"c0": 2, "c1": 2, "c2": 0}, {}),
    ],
)
def test_what_is_read_of_a_run_depends_on_what_for(run, view, turns, refused):
    result = LoadResult()
    conversations = list(stream(locate(str(run)), result, view=view))
    assert {c.id: len(c.turns) for c in conversations} == turns
    assert dict(result.refused.counts) == refused
    assert result.unfinished == {str(run): (1, 4)}
    assert result.rows == 3
    assert conversations[0].turns[0].token_ids == (1, 2)
    assert {c.meta["dataset"] for c in conversations} == {"self-play"}


def test_a_run_is_cleaned_into_rows_like_a_file(run, tmp_path):
    tally = clean([str(run)], tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["id"], row["dataset"], row["complete"], len(row["messages"])) for row in rows] == [
        ("c0", "self-play", True, 2)
    ]
    assert tally.steps["exact duplicates"].reasons == {"repeats an earlier one": 1}
    assert dict(tally.refused.counts) == {"ended failed:http_500": 1}


def test_a_run_is_trained_on_like_a_file(tmp_path):
    hold(tmp_path / "run", {f"c{n}": [f"question {n}", f"answer {n}"] for n in range(40)})
    mixture = load_mixture([f"{tmp_path / 'run'}=2"], held_out=0.2)
    assert len({c.id for c in mixture.train}) * 2 == len(mixture.train)
    assert len({c.id for c in (*mixture.train, *mixture.held_out)}) == 40
    assert not {c.id for c in mixture.train} & {c.id for c in mixture.held_out}
    moved = (tmp_path / "run").rename(tmp_path / "elsewhere")
    assert {c.id for c in load_mixture([str(moved)], held_out=0.2).held_out} == {c.id for c in mixture.held_out}


def test_a_run_that_goes_on_is_the_same_source_in_every_pass(run):
    lines = []
    sources = Sources([str(run)], lines.append)
    first = [c.id for c in sources]
    store = RunStore(run)

    async def finish():
        async with store:
            await store.commit(TurnCommit(3, 0, (Turn("user", "late", "sampled"),), ended="user_ended"))
        store.close()

    asyncio.run(finish())
    assert [c.id for c in sources] == first == ["c0", "c1", "c2"]
    assert lines == [f"{run}: UNFINISHED, 1 of 4 conversations still go on"]


def test_a_run_without_an_answered_conversation_is_no_data(tmp_path):
    hold(tmp_path / "run", {"c0": ["hi"]})
    with pytest.raises(DataError, match="no answered round"):
        load([str(tmp_path / "run")])
