"""Recipes: YAML files of typed settings, shipped ones by name. Reading one loads no model code.

Unknown keys are refused, and all problems of a file are reported together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from selfplay.errors import ConfigError

Config = TypeVar("Config", bound=BaseModel)


def load_recipe(
    name: str, kind: type[Config], overrides: Mapping[str, Any] | None = None, assigned: Mapping[str, Any] | None = None
) -> Config:
    """A recipe by shipped name or path, with overrides on top.

    Args:
        overrides: dotted keys, `{"optim.max_steps": 20}`; None values are ignored.
        assigned: the same, set last, None included; see `assignments`.

    Raises:
        ConfigError: not found, not YAML, or settings that do not fit (all of them listed).
    """
    values = _read(_find(name), name)
    for key, value in (overrides or {}).items():
        if value is not None:
            _set(values, key, value)
    for key, value in (assigned or {}).items():
        _set(values, key, value)
    return validated(kind, values, name)


def with_assigned(kind: type[Config], values: Mapping[str, Any], assigned: Mapping[str, Any], source: str) -> Config:
    """Settings with dotted keys on top; see `assignments`.

    Raises:
        ConfigError: settings that do not fit, all of them listed.
    """
    merged = dict(values)
    for key, value in assigned.items():
        _set(merged, key, value)
    return validated(kind, merged, source)


def assignments(texts: Sequence[str]) -> dict[str, Any]:
    """`key.key=value` texts as overrides; values are read as YAML.

    Raises:
        ConfigError: a text that assigns nothing, or a value that is not YAML.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {text}: expected key=value, like assistant_engine.replicas=2")
        try:
            found[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {text}: the value is not YAML ({error})") from error
    return found


def validated(kind: type[Config], values: Mapping[str, Any], source: str) -> Config:
    """Settings as a typed config.

    Raises:
        ConfigError: the problems, one a line.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError("\n".join([f"{source} cannot be used:", *map(_problem, error.errors())])) from error


def shipped_recipes() -> dict[str, str]:
    """Names of the shipped recipes and their one-line descriptions."""
    root = Path(str(files("selfplay.recipes")))
    found = sorted(root.rglob("*.yaml"))
    names = [str(path.relative_to(root).with_suffix("")) for path in found]
    return {name: str(_read(path, name).get("description", "")) for name, path in zip(names, found, strict=True)}


def recipe_text(name: str) -> str:
    """A recipe as written."""
    return _find(name).read_text(encoding="utf-8")


def _find(name: str) -> Path:
    shipped = Path(str(files("selfplay.recipes"))) / f"{name}.yaml"
    for path in (Path(name), shipped):
        if path.is_file():
            return path
    raise ConfigError(f"no recipe {name!r}: neither a file nor a shipped one; see `selfplay recipes`")


def _read(path: Path, name: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}: not readable as YAML ({error})") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{name}: expected keys and values, found {type(values).__name__}")
    return values


def _set(values: dict[str, Any], dotted: str, value: Any) -> None:
    *path, last = dotted.split(".")
    for key in path:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{dotted}: {key} is a value and has no parts")
    values[last] = value


def _problem(error: Any) -> str:
    key = ".".join(map(str, error["loc"])) or "recipe"
    if error["type"] == "extra_forbidden":
        return f"  {key}: unknown key"
    return f"  {key}: {error['msg']} (found {error['input']!r})" if error["loc"] else f"  {error['msg']}"
