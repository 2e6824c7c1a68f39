"""Disks, folders and files that do not do what a run needs: a clear error, and what is committed stays readable."""

import os
import resource
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from selfplay.chat.conversation import Turn
from selfplay.errors import StoreError
from selfplay.store.records import ConversationSpec, TurnCommit
from selfplay.store.store import DATABASE, RunReader, RunStore

PLANS = [ConversationSpec(number, f"c{number}", number) for number in range(50)]


async def filled(folder, conversations=20):
    store = RunStore.create(folder, {"config": {"conversations": 50}}, PLANS)
    async with store:
        for number in range(conversations):
            turns = (Turn("user", "hello " * 40, "sampled", (1, 2)), Turn("assistant", "hi " * 40, "sampled", (3,)))
            await store.commit(TurnCommit(number, 0, turns, ended="user_ended"))
    store.close()


def texts(folder):
    run = RunReader(folder)
    found = {conversation.id: len(conversation.turns) for conversation in run.conversations()}
    run.close()
    return found


async def write_on(store):
    for number in range(20, 50):
        await store.commit(TurnCommit(number, 0, (Turn("user", "more " * 4000),)))


async def test_a_full_disk_stops_the_run_and_keeps_what_was_written(tmp_path):
    await filled(tmp_path / "run")
    before = texts(tmp_path / "run")
    store = RunStore(tmp_path / "run")
    size = max(file.stat().st_size for file in (tmp_path / "run").iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 8192, limits[1]))
        try:
            with pytest.raises(StoreError, match="what was committed before stays readable"):
                await write_on(store)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    store.close()
    assert before.items() <= texts(tmp_path / "run").items()
    again = RunStore(tmp_path / "run")
    async with again:
        pending = next(again.unfinished())
        await again.commit(TurnCommit(pending.spec.number, len(pending.turns), (), ended="user_ended"))
    again.close()


async def test_a_damaged_file_is_told_and_never_written_on(tmp_path):
    await filled(tmp_path / "run")
    path = tmp_path / "run" / DATABASE
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4096] = b"\xff" * 4096
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        RunStore(tmp_path / "run")
    path.write_bytes(content[: len(content) // 3])
    with pytest.raises(StoreError, match=r"damaged|not a readable run"):
        RunStore(tmp_path / "run")


@contextmanager
def nobody():
    """Without the rights of root, which opens everything."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="changing users needs root")
async def test_a_read_only_folder_can_be_read_and_says_why_it_cannot_be_written():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        await filled(folder)
        for path in (folder.parent, folder, *folder.iterdir()):
            path.chmod(0o555 if path.is_dir() else 0o444)
        with nobody():
            assert len(texts(folder)) == 20
            with pytest.raises(StoreError, match="cannot be written"):
                RunStore(folder)
            with pytest.raises(StoreError, match="cannot be created"):
                RunStore.create(folder.parent / "new", {}, [])


async def test_a_copy_without_its_log_is_still_a_run(tmp_path):
    await filled(tmp_path / "run")
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "run" / DATABASE, tmp_path / "copy")
    assert texts(tmp_path / "copy") == texts(tmp_path / "run")


async def test_appending_is_all_or_nothing(tmp_path):
    await filled(tmp_path / "run")
    store = RunStore(tmp_path / "run")

    def plans():
        yield ConversationSpec(50, "c50", 50)
        yield ConversationSpec(0, "c0", 0)

    with pytest.raises(StoreError, match="nothing was appended"):
        store.append({"config": {"conversations": 52}}, plans())
    assert store.counts() == (50, 20)
    assert store.facts() == {"config": {"conversations": 50}}
    store.append({"config": {"conversations": 51}}, [ConversationSpec(50, "c50", 50)])
    assert store.counts() == (51, 20)
    store.close()
