import asyncio
import json
import sqlite3
from collections import Counter
from contextlib import closing
from types import SimpleNamespace

import pytest

from selfplay.chat.conversation import Turn
from selfplay.chat.speakers import Usage
from selfplay.errors import StoreError
from selfplay.store.export import export
from selfplay.store.records import ConversationSpec, ForkPoint, TurnCommit
from selfplay.store.schema import MIGRATIONS, migrate
from selfplay.store.store import DATABASE, RunReader, RunStore, open_run

PLANS = [
    ConversationSpec(0, "c0", 11, (Turn("system", "be brief", "fixed"),)),
    ConversationSpec(1, "c1", 12),
    ConversationSpec(2, "c2", 13),
]
USER = Turn("user", "hi <|im_end|> é", "sampled", (5, 6))
REPLY = Turn("assistant", "hello", "sampled", (7,))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


async def fill(folder):
    store = RunStore.create(folder, {"config": {"seed": 1}}, PLANS)
    async with store:
        await store.commit(TurnCommit(0, 0, (*PLANS[0].opening, USER), Usage(10, 4, 3), Counter(empty=2)))
        await store.commit(TurnCommit(0, 2, (REPLY,), Usage(20, 16, 2)))
        await store.commit(TurnCommit(0, 3, (), Usage(30, 24, 1), ended="user_ended"))
        await store.commit(TurnCommit(1, 0, (USER,)))
        await store.commit(TurnCommit(2, 0, (USER,), ended="failed:scripted"))
    store.close()


async def test_what_was_committed_is_read_back_as_it_was(folder):
    await fill(folder)
    run = RunReader(folder)
    first, failed = run.conversations()
    assert first.turns == (*PLANS[0].opening, USER, REPLY)
    assert (first.ended, first.complete, first.rounds) == ("user_ended", True, 1)
    assert (failed.id, failed.ended, failed.complete) == ("c2", "failed:scripted", False)
    assert run.facts() == {"config": {"seed": 1}}
    totals = run.totals()
    assert totals.reasons == {"user_ended": 1, "failed:scripted": 1, None: 1}
    assert totals.usage == Usage(60, 44, 6)
    assert totals.rejected == {"empty": 2}
    run.close()


def test_two_processes_that_bring_one_file_up_at_the_same_moment(tmp_path, monkeypatch):
    """Both have read the old version; the second one finds the work done."""
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as first, closing(sqlite3.connect(path)) as second:
        monkeypatch.setattr("selfplay.store.schema.MIGRATIONS", MIGRATIONS[:1])
        migrate(first)
        monkeypatch.undo()

        class Late:
            """A connection whose first look was before the other's work."""

            looked = False

            def execute(self, query):
                if not self.looked:
                    self.looked = True
                    found = second.execute(query).fetchone()
                    migrate(first)
                    return SimpleNamespace(fetchone=lambda: found)
                return second.execute(query)

            def __getattr__(self, name):
                return getattr(second, name)

        migrate(Late())
        assert second.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


async def test_unfinished_conversations_come_back_with_their_turns_and_sampled_ids(folder):
    await fill(folder)
    run = RunReader(folder)
    (owed,) = run.unfinished()
    assert owed.spec == PLANS[1]
    assert owed.turns == (USER,)
    run.close()


async def test_tokens_of_a_step_that_ended_before_its_first_turn_count_for_the_side_that_was_asked(folder):
    opening = (Turn("user", "a table please", "fixed"),)
    store = RunStore.create(
        folder, {}, [ConversationSpec(0, "c0", 1, opening), ConversationSpec(1, "c1", 2, PLANS[0].opening)]
    )
    async with store:
        await store.commit(TurnCommit(0, 0, opening, Usage(10, 0, 3), ended="failed:empty_reply"))
        await store.commit(
            TurnCommit(1, 0, PLANS[0].opening, Usage(7, 0, 2), Counter(early_end=5), "guardrail:early_end")
        )
    assert store.totals().by_role == {"assistant": Usage(10, 0, 3), "user": Usage(7, 0, 2)}
    store.close()


async def test_many_commits_share_a_transaction(folder):
    store = RunStore.create(folder, {}, [ConversationSpec(n, f"c{n}", n) for n in range(200)])
    async with store:
        flushes = []
        store._writing.set_trace_callback(
            lambda statement: flushes.append(statement) if "COMMIT" in statement else None
        )
        await asyncio.gather(*(store.commit(TurnCommit(n, 0, (USER,))) for n in range(200)))
    assert 1 <= len(flushes) <= 3
    assert len(list(store.unfinished())) == 200
    store.close()


async def test_a_turn_is_never_stored_twice(folder):
    store = RunStore.create(folder, {}, PLANS)
    async with store:
        await store.commit(TurnCommit(1, 0, (USER,)))
        with pytest.raises(StoreError, match="what was committed before stays readable"):
            await store.commit(TurnCommit(1, 0, (USER,)))
        await store.commit(TurnCommit(1, 1, (REPLY,)))
    assert store.conversation("c1").turns == (USER, REPLY)
    store.close()


async def test_an_entry_that_cannot_be_written_is_told_and_the_writer_goes_on(folder):
    store = RunStore.create(folder, {}, PLANS)
    async with store:
        with pytest.raises(StoreError, match="cannot write"):
            await store.commit(TurnCommit(1, 0, (Turn("user", "half a pair \ud83d"),)))
        await store.commit(TurnCommit(1, 0, (USER,)))
    assert store.conversation("c1").turns == (USER,)
    store.close()


async def test_turns_the_token_limit_ended_are_counted(folder):
    store = RunStore.create(folder, {}, PLANS)
    async with store:
        await store.commit(TurnCommit(0, 0, (*PLANS[0].opening, USER), cut=True))
        await store.commit(TurnCommit(0, 2, (REPLY,)))
    assert store.totals().cut == 1
    store.close()


def test_the_journal_is_flushed_to_disk_at_every_commit(folder):
    store = RunStore.create(folder, {}, PLANS)
    assert store._database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._database.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    store.close()


def test_one_process_writes_a_run_at_a_time(folder):
    store = RunStore.create(folder, {}, PLANS)
    with pytest.raises(StoreError, match="another process is writing"):
        RunStore(folder)
    with pytest.raises(StoreError, match="another process is writing"):
        RunStore.create(folder, {}, PLANS)
    store.close()
    with pytest.raises(StoreError, match="already holds a run"):
        RunStore.create(folder, {}, PLANS)
    RunStore(folder).close()


def test_unusable_folders_say_what_to_do(folder, tmp_path):
    with pytest.raises(StoreError, match="holds no run"):
        RunReader(folder)
    store = RunStore.create(folder, {}, PLANS)
    with pytest.raises(StoreError, match="ids look like c0, c1, c2"):
        store.conversation("nope")
    store.close()
    with sqlite3.connect(folder / DATABASE) as database:
        database.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    database.close()
    with pytest.raises(StoreError, match="newer version"):
        RunReader(folder)
    (folder / DATABASE).write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match="not a readable run"):
        RunReader(folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be created"):
        RunStore.create(tmp_path / "file" / "run", {}, PLANS)


async def exported(folder, format, out):
    if not folder.exists():
        await fill(folder)
    run = RunReader(folder)
    result = export(run.conversations(), format, out)
    run.close()
    return result


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
async def test_exports_open_with_datasets(folder, tmp_path, suffix):
    from datasets import load_dataset

    await fill(folder)
    for format in ("messages", "sharegpt"):
        out = tmp_path / f"{format}{suffix}"
        result = await exported(folder, format, out)
        assert result.rows == 1
        assert result.left_out == {"failed:scripted": 1}
        kind = "json" if suffix == ".jsonl" else "parquet"
        (row,) = load_dataset(kind, data_files=str(out), split="train", cache_dir=str(tmp_path / "cache"))
        if format == "messages":
            assert row["messages"][1] == {"role": "user", "content": "hi <|im_end|> é"}
            assert (row["id"], row["ended"], row["meta"]["rounds"]) == ("c0", "user_ended", 1)
        else:
            assert [turn["from"] for turn in row["conversations"]] == ["system", "human", "gpt"]
            assert row["complete"] is True
    assert not list(tmp_path.glob("*.partial"))


async def test_an_unanswered_last_user_turn_is_never_written(folder, tmp_path):
    store = RunStore.create(folder, {}, PLANS)
    async with store:
        await store.commit(TurnCommit(0, 0, (USER, REPLY, USER), ended="context_full"))
        await store.commit(TurnCommit(1, 0, (USER,), ended="context_full"))
    store.close()
    result = await exported(folder, "messages", tmp_path / "a.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [[message["role"] for message in row["messages"]] for row in rows] == [["user", "assistant"]]
    assert result.left_out == {"no answered round": 1}


async def test_everything_known_of_a_conversation_before_its_first_turn_is_kept(folder):
    spec = ConversationSpec(
        0, "c0", 7, (Turn("user", "hi", "fixed"),), "prompted", "wants a room", "is a clerk",
        {"rounds": 3, "words": [10, 20]}, {"prompt": "3fe1"}, ForkPoint("runs/a", "c000003", 4),
    )  # fmt: skip
    RunStore.create(folder, {}, [spec, ConversationSpec(1, "c1", 8)]).close()
    with open_run(folder) as run:
        whole, plain = (pending.spec for pending in run.unfinished())
    assert whole == spec
    assert (plain.way, plain.user_context, plain.plan, plain.parent) == ("usergpt", None, None, None)


def test_a_reader_closes_itself(folder):
    RunStore.create(folder, {}, PLANS).close()
    with open_run(folder) as run:
        assert run.counts() == (3, 0)
    with pytest.raises(StoreError, match="not readable"):
        run.counts()


def test_a_run_of_the_version_before_ways_is_brought_up(folder):
    RunStore.create(folder, {}, PLANS).close()
    columns = ("way", "user_context", "assistant_context", "plan", "details", "parent")
    with closing(sqlite3.connect(folder / DATABASE)) as database:
        database.executescript(
            "ALTER TABLE decisions RENAME TO verdicts; PRAGMA user_version = 2;"
            + "".join(f"ALTER TABLE conversations DROP COLUMN {name};" for name in columns)
        )
    with open_run(folder) as run:
        assert [pending.spec for pending in run.unfinished()] == PLANS
