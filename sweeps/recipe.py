"""A recipe from its file: read, overridden, checked whole, before anything runs. A recipe is data only."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from blocks import BLOCKS
from blocks.base import Block
from blocks.notation import suggest
from sweeps import yamlmarks
from sweeps.bounds import FORM
from sweeps.check import problems
from sweeps.form import ConstraintsPart, MatchPart, Recipe, ShapePart, TaskPart, TrainPart

__all__ = ["Recipe", "RecipeError", "find", "load", "shipped"]

SHIPPED = Path(__file__).parent / "recipes"


class RecipeError(ValueError):
    """A recipe cannot be found, read or run. One line per problem: ``file:line:col: key: what``."""


@dataclass(frozen=True)
class _Source:
    """Where each value of a recipe was written: in the file, or in one of the overrides."""

    name: str
    document: yamlmarks.Document
    overrides: Mapping[tuple[Any, ...], str]

    def place(self, path: Sequence[Any], at_key: bool) -> str:
        for length in range(len(path), 0, -1):
            if tuple(path[:length]) in self.overrides:
                return self.overrides[tuple(path[:length])]
        below = [flag for at, flag in self.overrides.items() if path and at[: len(path)] == tuple(path)]
        if below:
            return below[-1]
        for length in range(len(path), -1, -1):
            short = tuple(path[:length])
            marks = self.document.keys if at_key and length == len(path) else self.document.values
            if mark := marks.get(short):
                return f"{self.name}:{mark.line}:{mark.column}"
        return self.name


def shipped() -> dict[str, Path]:
    """The recipes that come with the lab, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def find(name: str | Path) -> Path:
    """The file of a recipe: ``name`` as a path, else the shipped recipe of that name (``.yaml`` or not)."""
    path = Path(name)
    known = shipped()
    try:
        if path.is_file():
            return path
        if str(name).removesuffix(".yaml") in known:
            return known[str(name).removesuffix(".yaml")]
        if path.is_dir():
            raise RecipeError(f"{name}: this is a directory; a recipe is a YAML file")
        if path.exists():
            raise RecipeError(f"{name}: this is no ordinary file; a recipe is a YAML file")
    except (OSError, ValueError) as exc:
        if isinstance(exc, RecipeError):
            raise
        raise RecipeError(f"{str(name)!r}: this is no path of a recipe ({exc})") from None
    raise RecipeError(f"{name}: no such file, and no shipped recipe of that name{suggest(path.stem, known)}")


def load(
    name: str | Path, overrides: Iterable[str] = (), blocks: Mapping[str, type[Block]] = BLOCKS
) -> Recipe:
    """The recipe ``name`` (see ``find``) with ``key=value`` overrides put in, checked whole.

    A key is dotted (``train.steps=20``), a value is YAML (``search.r=[3:1, 4:1]``). Raises RecipeError that
    lists everything wrong with it.
    """
    path = find(name)
    try:
        text = path.read_bytes()
    except OSError as exc:
        raise RecipeError(f"{path}: cannot be read ({exc.strerror})") from None
    return loads(text, str(path), overrides, blocks)


def loads(
    text: str | bytes,
    name: str = "<text>",
    overrides: Iterable[str] = (),
    blocks: Mapping[str, type[Block]] = BLOCKS,
) -> Recipe:
    """``load`` for a text; ``name`` stands in its errors."""
    document = _read(text, name)
    if not isinstance(document.value, dict):
        kind = "empty" if document.value is None else f"a {type(document.value).__name__}"
        raise RecipeError(f"{name}: a recipe is a mapping (key: value); this is {kind}")
    given: dict[tuple[Any, ...], str] = {}
    data = document.value
    for override in overrides:
        data = _override(data, override, given)
    source = _Source(name, document, given)
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as exc:
        raise RecipeError("\n".join(_form_problems(exc, data, source))) from None
    if wrong := problems(recipe, blocks):
        raise RecipeError("\n".join(_line(source, path, message) for path, message in wrong))
    recipe._text = text.decode() if isinstance(text, bytes) else text
    if given:
        recipe._text = f"# {name} with {' '.join(given.values())}\n" + yamlmarks.dump(data)
    return recipe


def _read(text: str | bytes, name: str) -> yamlmarks.Document:
    try:
        return yamlmarks.read(text)
    except yamlmarks.YamlError as exc:
        place = f"{name}:{exc.mark.line}:{exc.mark.column}" if exc.mark else name
        raise RecipeError(f"{place}: {exc.message}") from None


def _override(data: dict[Any, Any], override: str, given: dict[tuple[Any, ...], str]) -> dict[Any, Any]:
    """``data`` with one ``key=value`` put in; its path is noted in ``given``."""
    flag = f"--set {override}"
    key, equals, value = override.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path):
        raise RecipeError(f"{flag}: an override is written key=value, such as train.steps=20")
    if len(path) > yamlmarks.MAX_DEPTH:
        most = yamlmarks.MAX_DEPTH
        raise RecipeError(f"--set {key[:60]}...: nested {len(path)} deep; no recipe goes below {most} levels")
    data = copy.deepcopy(data)
    part = data
    for name in path[:-1]:
        if part.get(name) is None:
            part[name] = {}
        part = part[name]
        if not isinstance(part, dict):
            raise RecipeError(f"{flag}: {name} is no mapping, so nothing below it can be set")
    part[path[-1]] = _read(value, flag).value
    given[path] = flag
    return data


def _line(source: _Source, path: Sequence[Any], message: str, at_key: bool = False) -> str:
    key = ".".join(map(str, path))
    return f"{source.place(path, at_key)}: {key + ': ' if key else ''}{message}"


def _form_problems(exc: ValidationError, data: Any, source: _Source) -> Iterable[str]:
    for error in exc.errors(include_url=False):
        path = _real_path(error["loc"], data, error["type"])
        about_key = error["type"] == "extra_forbidden" or error["loc"][-1] == "[key]"
        yield _line(source, path, _sentence(error, path), about_key)


def _real_path(location: Sequence[Any], data: Any, kind: str) -> tuple[Any, ...]:
    """pydantic's location without the names of union members that it puts between keys."""
    path: list[Any] = []
    for i, step in enumerate(location):
        inside = isinstance(data, dict) and step in data
        inside = inside or (isinstance(data, list) and isinstance(step, int) and step < len(data))
        if inside:
            path.append(step)
            data = data[step]
        elif kind == "missing" and i == len(location) - 1:
            path.append(step)
    return tuple(path)


_MUST = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a text",
    "plain": "a number, a text, true, false or null",
    "finite_number": "a finite number",
    "model_type": "a mapping (key: value)",
    "dict_type": "a mapping (key: value)",
    "tuple_type": "a list, such as [1, 2]",
    "greater_than": "above {gt:g}",
    "greater_than_equal": "at least {ge:,g}",
    "less_than_equal": "at most {le:,g}",
    "string_pattern_mismatch": "letters, digits, '.', '_' or '-', at most 64, the first a letter or digit",
    "string_too_long": "at most {max_length:,} characters long",
    "literal_error": "{expected}",
}


def _sentence(error: Any, path: Sequence[Any]) -> str:
    """One sentence for one of pydantic's errors: what was given and what is allowed."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return f"is no key here{suggest(str(path[-1]), _known_keys(path[:-1]))}"
    if kind in ("too_short", "string_too_short"):
        return "is empty; give at least one"
    if kind == "too_long":
        return f"has {context['actual_length']} entries; give at most {context['max_length']}"
    if kind not in _MUST:
        return error["msg"]
    shown = repr(error["input"])
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    if error["loc"][-1] == "[key]":
        return f"the key {shown} must be {_MUST[kind].format(**context)}; put it in quotes"
    hint = ""
    if kind == "literal_error" and isinstance(error["input"], str):
        words = [word.strip("'") for word in context["expected"].replace(" or ", ", ").split(", ")]
        hint = suggest(error["input"], words).partition("?")[0]
        hint = f"{hint}?" if "did you mean" in hint else ""
    if path == ("trials",):
        return f"is {shown}; it must be all, or a whole number of at least 1"
    if path == ("pruning",):
        return f"is {shown}; it must be a p-value above 0 and at most 0.5, or null for none"
    if tuple(path) in (("match", "params"), ("match", "state")):
        return f"is {shown}; it must be baseline, or a number above 0"
    if path[0] == "constraints" and kind == "string_type":
        return f"is {shown}; it must be a bound: {FORM}"
    return f"is {shown}; it must be {_MUST[kind].format(**context)}{hint}"


def _known_keys(path: Sequence[Any]) -> Iterable[str]:
    if len(path) == 2 and path[0] == "tasks":
        return TaskPart.model_fields
    parts = {
        ("shape",): ShapePart,
        ("train",): TrainPart,
        ("match",): MatchPart,
        ("constraints",): ConstraintsPart,
    }
    return parts.get(tuple(path), Recipe).model_fields
