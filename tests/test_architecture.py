"""The picture of the packages follows the code."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_picture_of_the_packages_is_the_one_the_code_gives():
    drawn = runpy.run_path(str(ROOT / "docs/architecture.py"))["picture"]()
    assert drawn == (ROOT / "docs/architecture.svg").read_text(), "run `python docs/architecture.py`"


def test_there_are_at_most_ten_rungs():
    assert len(runpy.run_path(str(ROOT / "docs/architecture.py"))["layers"]()) <= 10
