"""Conversations of runs, files and catalogue names as one thing, gone through as often as needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from selfplay.chat.conversation import Conversation
from selfplay.data.catalogue import locate
from selfplay.data.loading import LoadResult, stream
from selfplay.store.store import is_run


class Sources:
    """Conversations of runs (ended ones), files and catalogue names; the same ones each time they are gone through."""

    def __init__(self, names: Sequence[str], say: Callable[[str], None] = lambda line: None) -> None:
        self._names = names
        self._say = say
        self._ended: dict[str, set[str]] = {}
        """By run what had ended the first time: one that still goes on must not move between two passes."""
        self._warned = False
        self._first_pass = True
        self.loaded = LoadResult()
        """What the last pass read and refused."""
        self.runs: list[tuple[str, int, int]] = []
        """The runs among them: folder, place of the first conversation, number of them; of the last pass."""

    def __iter__(self) -> Iterator[Conversation]:
        """One source after the other.

        Raises:
            SelfplayError: a source that is not there or cannot be read.
        """
        self.loaded, self.runs = LoadResult(), []
        read = 0
        for name in self._names:
            first, from_run = read, is_run(name)
            self._first_pass = name not in self._ended
            for conversation in stream(locate(name), self.loaded, view="ended"):
                if from_run and not self._was_there(name, conversation.id):
                    continue
                read += 1
                yield conversation
            if from_run:
                self.runs.append((name, first, read - first))
                if self._first_pass and name in self.loaded.unfinished:
                    going_on, planned = self.loaded.unfinished[name]
                    self._say(f"{name}: UNFINISHED, {going_on:,} of {planned:,} conversations still go on")
        if (refused := self.loaded.refused.counts.total()) and not self._warned:
            self._warned = True
            self._say(f"{', '.join(self._names)}: {refused:,} rows are no conversation and are left out")

    def _was_there(self, run: str, id: str) -> bool:
        """Whether a conversation had ended when the run was first gone through."""
        known = self._ended.setdefault(run, set())
        if self._first_pass:
            known.add(id)
        return id in known
