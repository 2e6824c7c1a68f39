"""What the README shows is run."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from selfplay.cli.main import cli

README = (Path(__file__).parents[2] / "README.md").read_text()
COMMANDS = re.findall(r"^\$ selfplay ([^#\n]*)", README, re.MULTILINE)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_shown_is_one_the_program_takes(line):
    words = shlex.split(line)
    command = get_command(cli)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context(command.name, words)


@pytest.mark.engine
def test_the_python_example_runs_as_shown(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    script = tmp_path / "example.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 9
    assert re.fullmatch(r"[1-8] conversations written", lines[-1])
    assert (tmp_path / "first.jsonl").exists()
