"""The printed result of `selfplay curate`: the funnel, and what the simulator copied."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from selfplay.console.data import print_cleaning
from selfplay.console.terminal import out

if TYPE_CHECKING:
    from selfplay.curate.run import CurationResult


def print_curation(curated: CurationResult, path: Path) -> None:
    """The funnel, and what the simulator said by heart."""
    print_cleaning(curated.tally, path)
    out.print(
        f"{curated.kept:,} conversations are kept; why of the others: {path}.dropped.jsonl",
        markup=False,
        soft_wrap=True,
    )
    if (copies := curated.copies) is not None:
        share = f"{copies.copying:,} of {copies.turns:,} user turns ({copies.share:.2%})"
        out.print(f"{share} copy 50 characters of training turns", markup=False, soft_wrap=True)
        for id, text in copies.worst[:3]:
            out.print(f"  {id}: {text[:200]!r}", style="dim", markup=False, soft_wrap=True)
