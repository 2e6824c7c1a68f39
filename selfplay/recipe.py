"""Recipes: YAML files of typed settings, and what makes two of them the same.

A recipe is found by path or by the name of a shipped one, takes overrides, and is validated by the settings class of
its command. Unknown keys are refused, all problems are reported together, and a key of an older version is answered
with the name it has now. Reading a recipe loads no model code.

Two recipes describe the same work when their `identity` is equal: fields marked `Operational` (folders, budgets, where
engines run, how a server is called) are left out of it, since they change nothing in what comes out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from selfplay.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class _Marker:
    """Compared by value: pydantic copies what is annotated."""

    name: str


_OPERATIONAL = _Marker("operational")
Operational = Annotated[T, _OPERATIONAL]
"""A setting that changes how the work is done and nothing in what comes out: `out: Operational[str | None] = None`."""


class Settings(BaseModel):
    """Base of everything a recipe may say: immutable, unknown keys refused, docstrings under fields are their help."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    renamed: ClassVar[Mapping[str, str]] = {}
    """Dotted keys of older versions and the keys that took their place; asked of the class of the whole recipe."""


Config = TypeVar("Config", bound=Settings)


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
        problems = [_problem(found, kind.renamed) for found in error.errors()]
        raise ConfigError("\n".join([f"{source} cannot be used:", *problems])) from error


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
        # The C loader is ten times as fast, which `selfplay recipes` shows; both are safe loaders.
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
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


def _problem(error: Any, renamed: Mapping[str, str]) -> str:
    """A validation error as a line; a key that has another name now is answered with that."""
    key = ".".join(map(str, error["loc"])) or "recipe"
    plain = ".".join(part for part in error["loc"] if isinstance(part, str))  # without the numbers of list items
    if plain in renamed and error["type"] in ("extra_forbidden", "model_type", "model_attributes_type"):
        return f"  {key}: is called {renamed[plain]} now"
    if error["type"] == "extra_forbidden":
        return f"  {key}: unknown key"
    return f"  {key}: {error['msg']} (found {error['input']!r})" if error["loc"] else f"  {error['msg']}"


def identity(settings: BaseModel) -> dict[str, Any]:
    """The settings that decide what comes out, as JSON values under dotted keys; operational ones are left out."""
    return flat(_identity(settings, settings.model_dump(mode="json")))


def _identity(settings: BaseModel, values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        if _OPERATIONAL in field.metadata:
            continue
        value = getattr(settings, name)
        found[name] = _identity(value, values[name]) if isinstance(value, BaseModel) else values[name]
    return found


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def differences(stored: Mapping[str, Any], asked: Mapping[str, Any], ignored: tuple[str, ...] = ()) -> list[str]:
    """The keys that differ, as `key: stored → asked`."""
    before, now = flat(stored), flat(asked)
    return [
        f"{key}: {before.get(key)} → {now.get(key)}"
        for key in sorted(before.keys() | now.keys())
        if key not in ignored and before.get(key) != now.get(key)
    ]
