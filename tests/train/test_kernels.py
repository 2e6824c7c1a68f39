"""Locks of torch's extension cache: a killed build's is removed, a living one's is not."""

import subprocess
import sys

import pytest

from selfplay.train.launch.kernels import drop_dead_locks


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    return tmp_path


def locked(cache, name):
    folder = cache / name
    folder.mkdir(parents=True)
    (folder / "lock").touch()
    return folder


def test_the_lock_of_a_build_that_was_killed_is_removed(cache):
    dead, deep = locked(cache, "cpu_adam"), locked(cache, "py311_cpu/shm")
    assert set(drop_dead_locks(quiet=0)) == {dead / "lock", deep / "lock"}
    assert not (dead / "lock").exists()
    assert drop_dead_locks(quiet=0) == []


def test_the_lock_of_a_build_that_goes_on_stays(cache):
    busy, dead = locked(cache, "busy"), locked(cache, "dead")
    compiler = subprocess.Popen([sys.executable, "-c", "input()"], cwd=busy, stdin=subprocess.PIPE)
    try:
        assert drop_dead_locks(quiet=0) == [dead / "lock"]
    finally:
        compiler.communicate(b"\n")
