"""Question sets: the files of a set, the temperatures of its answers and the judge prompts it uses.

The module does not parse questions (`bench.questions`).

A set is a YAML file; a shipped one is given by its name. Its files are looked for beside it (a set of one's own), in
the data folder (`--data` or $SELFPLAY_BENCH_DATA: FastChat's `data/`, or one that names its files as the set does),
then on the hub.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from bench.questions import Question, read_questions, rows_of
from selfplay.errors import ConfigError, DataError
from selfplay.recipe import Settings

DATA_VARIABLE = "SELFPLAY_BENCH_DATA"
JUDGE_PROMPTS = "judge_prompts.jsonl"
DEFAULT_TEMPERATURE = 0.7
"""Temperature of the categories that a set does not name, as in FastChat."""


class Hub(Settings):
    """Where on the hub the files are."""

    repository: str
    kind: Literal["dataset", "space", "model"] = "dataset"
    folder: str = ""
    """Folder in the repository that the set's first names are relative to."""


class PromptNames(Settings):
    """Names in `judge_prompts.jsonl`: of a first or only turn, of a second one, and both with reference answers."""

    first: str
    second: str
    first_reference: str
    second_reference: str


class QuestionSet(Settings):
    """A benchmark of questions."""

    name: str = Field(pattern=r"^\w[\w.-]*$")
    """Folder of its answers and judgments; FastChat's --bench-name."""
    title: str
    questions: tuple[str, ...] = Field(min_length=1)
    """Names of the question file; the first that is found is taken."""
    references: tuple[str, ...] = ()
    """Names of the file of reference answers."""
    needs_reference: tuple[str, ...] = ()
    """Categories whose judge sees the reference answer."""
    temperatures: dict[str, Annotated[float, Field(ge=0)]] = Field(default={})
    """What answers are drawn at, by category."""
    answers: dict[str, str] = Field(default={})
    """Published answers by model, to compare with."""
    baseline: str | None = None
    """The model of --mode pairwise-baseline."""
    single: PromptNames = PromptNames(
        first="single-v1",
        second="single-v1-multi-turn",
        first_reference="single-math-v1",
        second_reference="single-math-v1-multi-turn",
    )
    """Judge prompts that grade one answer."""
    pairwise: PromptNames = PromptNames(
        first="pair-v2",
        second="pair-v2-multi-turn",
        first_reference="pair-math-v1",
        second_reference="pair-math-v1-multi-turn",
    )
    """Judge prompts that compare two."""
    hub: Hub | None = None

    def temperature(self, question: Question) -> float:
        """The temperature of the answers to a question: its own, that of its category, or 0.7."""
        if question.temperature is not None:
            return question.temperature
        return self.temperatures.get(question.category, DEFAULT_TEMPERATURE)


class SetFiles:
    """A question set and the folders in which its files are looked for."""

    def __init__(self, chosen: QuestionSet, folders: Sequence[Path]) -> None:
        """Bind a set to its folders. Use `open_set`."""
        self.set = chosen
        self.folders = folders

    def questions(self) -> list[Question]:
        """Read the questions of the set.

        Raises:
            DataError: there is no file or it is malformed, or a question has more turns than judge prompts support.
        """
        questions = read_questions(self.find(self.set.questions, "questions"))
        for question in questions:
            if len(question.turns) > 2:
                raise DataError(
                    f"question {question.id}: {len(question.turns)} turns; judge prompts know one or two. "
                    "Give earlier rounds as MT-Bench-101 does ({task, id, history: [{user, bot} ...]})"
                )
        return questions

    def judge_prompts(self) -> dict[str, dict[str, Any]]:
        """Read FastChat's judge prompts, by name.

        Raises:
            DataError: there is no file, or a prompt lacks a key.
        """
        path = self.find((JUDGE_PROMPTS,), "judge prompts")
        prompts = {}
        for place, row in rows_of(path):
            if not isinstance(row, dict) or not {"name", "system_prompt", "prompt_template", "output_format"} <= {*row}:
                raise DataError(
                    f"{place}: no judge prompt; expected {{name, system_prompt, prompt_template, output_format}}"
                )
            prompts[str(row["name"])] = row
        return prompts

    def find(self, names: Sequence[str], what: str) -> Path:
        """Find the first of some file names that exists, plain or compressed; the hub knows only the first name.

        Args:
            names: file names, the preferred one first.
            what: what the file contains, for the error message.

        Raises:
            DataError: the file exists nowhere; the message lists the places that were searched.
        """
        for folder in self.folders:
            for name in names:
                for path in (folder / name, folder / f"{name}.gz", folder / f"{name}.zst"):
                    if path.is_file():
                        return path
        downloaded = self._downloaded(names[0]) if self.set.hub is not None else None
        if downloaded is not None:
            return downloaded
        looked = ", ".join(map(str, self.folders)) or "no folder given"
        hub = f", nor on the hub ({self.set.hub.repository})" if self.set.hub else ""
        raise DataError(
            f"{self.set.title}: no {what} ({' or '.join(names)}) in {looked}{hub}; name FastChat's data folder with "
            f"--data or ${DATA_VARIABLE}"
        )

    def _downloaded(self, name: str) -> Path | None:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        hub = self.set.hub
        assert hub is not None
        file = f"{hub.folder}/{name}" if hub.folder else name
        try:
            return Path(hf_hub_download(hub.repository, file, repo_type=hub.kind))
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError):  # not on the hub, or no connection
            return None


def open_set(name: str, data: str | None = None) -> SetFiles:
    """Open a question set by its shipped name or by the path of its YAML file.

    Args:
        data: the folder of its files; if omitted, $SELFPLAY_BENCH_DATA.

    Raises:
        ConfigError: there is no such set, or its settings are invalid.
        DataError: the data folder does not exist.
    """
    shipped = Path(str(files("bench.sets"))) / f"{name}.yaml"
    own = Path(name)
    path = own if own.is_file() else shipped
    if not path.is_file():
        raise ConfigError(f"no question set {name!r}: neither a YAML file nor one of {', '.join(shipped_sets())}")
    try:
        chosen = QuestionSet.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as YAML ({error})") from error
    except ValidationError as error:
        problems = "\n".join(f"  {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{path} cannot be used:\n{problems}") from error
    folders = [own.parent] if path is own else []
    data_folder = data or os.environ.get(DATA_VARIABLE)
    if data_folder and not Path(data_folder).is_dir():
        raise DataError(f"{data_folder}: no such folder; name FastChat's data folder with --data or ${DATA_VARIABLE}")
    return SetFiles(chosen, [*folders, *([Path(data_folder)] if data_folder else [])])


def shipped_sets() -> list[str]:
    """The names of the question sets that are shipped with the package."""
    return sorted(path.stem for path in Path(str(files("bench.sets"))).glob("*.yaml"))
