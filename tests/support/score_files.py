"""Conversations as files and `selfplay bench` as a command, for tests of scores."""

from pathlib import Path

from typer.testing import CliRunner

from selfplay.chat.models import locate_model
from selfplay.cli.main import cli
from selfplay.files import json_line

NANO = Path(str(locate_model("nano", "simulator"))).parent


def write(path, conversations):
    rows = ({"id": c.id, "messages": c.messages(), "meta": dict(c.meta)} for c in conversations)
    path.write_bytes(b"".join(map(json_line, rows)))
    return str(path)


def run(*arguments):
    return CliRunner().invoke(cli, ["bench", *map(str, arguments)], catch_exceptions=False)
