"""Rows of datasets on the Hugging Face hub: named files are downloaded, everything else is streamed.

No code of a dataset is ever run: repositories that need their own loading script are refused by the library.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from selfplay.data.raw_rows import Batch, batched
from selfplay.data.reading import read_batches
from selfplay.errors import DataError


@dataclass(frozen=True, slots=True)
class HubDataset:
    """A dataset repository: `organisation/name`, and which of its files or which configuration and split."""

    repository: str
    files: tuple[str, ...] = ()
    config: str | None = None
    split: str = "train"

    def batches(self) -> Iterator[Batch]:
        """All rows, in order.

        Raises:
            DataError: the hub cannot be reached, or the repository cannot be read.
        """
        if self.files:
            for file in self.files:
                yield from read_batches(self._download(file))
        else:
            yield from self._stream()

    def _download(self, file: str) -> Path:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            return Path(hf_hub_download(self.repository, file, repo_type="dataset"))
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
            raise self._unreadable(error, file) from error

    def _stream(self) -> Iterator[Batch]:
        import datasets

        try:
            rows = datasets.load_dataset(self.repository, self.config, split=self.split, streaming=True)
            items = ((number, dict(row), 1000) for number, row in enumerate(rows))
            for numbers, batch in batched(items):
                yield Batch(self.repository, numbers, batch)
        except (OSError, ValueError, RuntimeError, LookupError, datasets.exceptions.DatasetsError) as error:
            raise self._unreadable(error, f"split {self.split!r}") from error

    def _unreadable(self, error: Exception, what: str) -> DataError:
        first = str(error).partition("\n")[0][:200]
        return DataError(
            f"{self.repository}, {what}: cannot be read from the hub ({type(error).__name__}: {first}); check the name "
            "and the connection, or download it and give the path of its file"
        )
