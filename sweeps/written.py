"""A checked form out of a YAML text and ``key=value`` overrides; each problem with the place it stands at.

What a person writes (a recipe of a sweep, the specification of a model) is read by ``yamlmarks``, overridden,
and held against a pydantic form. Whatever is wrong comes out as one line each: ``file:line:col: key: what``.
"""

from __future__ import annotations

import copy
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from blocks.notation import suggest
from sweeps import yamlmarks

__all__ = ["Path", "Special", "Written", "WrittenError", "fill", "find", "read"]

Path = tuple[Any, ...]
Special = Callable[[Path, str, str], str | None]
"""(path, kind of pydantic's error, what was given) -> a sentence of the form's own, or None."""

Form = TypeVar("Form", bound=BaseModel)


class WrittenError(ValueError):
    """What was written is no YAML, no mapping, or does not fit the form. One line per problem."""


def find(name: str | File, known: Mapping[str, File], what: str) -> File:
    """The file ``name``, else what ships under that name (``.yaml`` or not). Raises WrittenError.

    what: how errors call it, such as "recipe".
    """
    path, stem = File(name), str(name).removesuffix(".yaml")
    try:
        if path.is_file():
            return path
        if stem in known:
            return known[stem]
        kind = "directory" if path.is_dir() else "no ordinary file" if path.exists() else None
    except (OSError, ValueError) as exc:
        raise WrittenError(f"{str(name)!r}: this is no path of a {what} ({exc})") from None
    if kind:
        article = "" if kind.startswith("no ") else "a "
        raise WrittenError(f"{name}: this is {article}{kind}; a {what} is a YAML file")
    raise WrittenError(f"{name}: no such file, and no shipped {what} of that name{suggest(path.stem, known)}")


@dataclass(frozen=True)
class Written:
    """A mapping as it was written, with overrides put in, and where each of its values came from.

    what: how errors call it, such as "a recipe". overrides: by path, the flag that gave the value.
    """

    name: str
    what: str
    document: yamlmarks.Document
    data: dict[Any, Any]
    overrides: Mapping[Path, str]
    text: str

    def place(self, path: Sequence[Any], at_key: bool = False) -> str:
        """``file:line:col`` of a value, of its key, or of what is nearest to it; or the override."""
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

    def line(self, path: Sequence[Any], message: str, at_key: bool = False) -> str:
        """One problem, as it is told."""
        key = ".".join(map(str, path))
        return f"{self.place(path, at_key)}: {key + ': ' if key else ''}{message}"

    @property
    def whole(self) -> str:
        """YAML that reads as this, overrides included."""
        if not self.overrides:
            return self.text
        return f"# {self.name} with {' '.join(self.overrides.values())}\n" + yamlmarks.dump(self.data)


def read(text: str | bytes, name: str, overrides: Iterable[str] = (), what: str = "a recipe") -> Written:
    """``text`` with ``key=value`` overrides put in; a key is dotted, a value is YAML. Raises WrittenError."""
    document = _read(text, name)
    if not isinstance(document.value, dict):
        kind = "empty" if document.value is None else f"a {type(document.value).__name__}"
        raise WrittenError(f"{name}: {what} is a mapping (key: value); this is {kind}")
    given: dict[Path, str] = {}
    data = document.value
    for override in overrides:
        data = _override(data, override, given)
    return Written(name, what, document, data, given, text.decode() if isinstance(text, bytes) else text)


def fill(form: type[Form], written: Written, special: Special = lambda path, kind, shown: None) -> Form:
    """``written`` as a ``form``. Raises WrittenError with a line for everything that does not fit."""
    try:
        return form.model_validate(written.data)
    except ValidationError as exc:
        raise WrittenError("\n".join(_problems(exc, form, written, special))) from None


def _read(text: str | bytes, name: str) -> yamlmarks.Document:
    try:
        return yamlmarks.read(text)
    except yamlmarks.YamlError as exc:
        place = f"{name}:{exc.mark.line}:{exc.mark.column}" if exc.mark else name
        raise WrittenError(f"{place}: {exc.message}") from None


def _override(data: dict[Any, Any], override: str, given: dict[Path, str]) -> dict[Any, Any]:
    """``data`` with one ``key=value`` put in; its path is noted in ``given``."""
    flag = f"--set {override}"
    key, equals, value = override.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path):
        raise WrittenError(f"{flag}: an override is written key=value, such as train.steps=20")
    if len(path) > yamlmarks.MAX_DEPTH:
        most = yamlmarks.MAX_DEPTH
        raise WrittenError(f"--set {key[:60]}...: nested {len(path)} deep; nothing goes below {most} levels")
    data = copy.deepcopy(data)
    part = data
    for name in path[:-1]:
        if part.get(name) is None:
            part[name] = {}
        part = part[name]
        if not isinstance(part, dict):
            raise WrittenError(f"{flag}: {name} is no mapping, so nothing below it can be set")
    part[path[-1]] = _read(value, flag).value
    given[path] = flag
    return data


def _problems(
    exc: ValidationError, form: type[BaseModel], written: Written, special: Special
) -> Iterable[str]:
    for error in exc.errors(include_url=False):
        path = _real_path(error["loc"], written.data, error["type"])
        about_key = error["type"] == "extra_forbidden" or error["loc"][-1] == "[key]"
        yield written.line(path, _sentence(error, path, form, special), about_key)


def _real_path(location: Sequence[Any], data: Any, kind: str) -> Path:
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
    "bool_type": "true or false",
    "string_type": "a text",
    "plain": "a number, a text, true, false or null",
    "finite_number": "a finite number",
    "model_type": "a mapping (key: value)",
    "dict_type": "a mapping (key: value)",
    "tuple_type": "a list, such as [1, 2]",
    "greater_than": "above {gt:g}",
    "greater_than_equal": "at least {ge:,g}",
    "less_than": "below {lt:,g}",
    "less_than_equal": "at most {le:,g}",
    "string_pattern_mismatch": "letters, digits, '.', '_' or '-', at most 64, the first a letter or digit",
    "string_too_long": "at most {max_length:,} characters long",
    "literal_error": "{expected}",
}


def _sentence(error: Any, path: Path, form: type[BaseModel], special: Special) -> str:
    """One sentence for one of pydantic's errors: what was given and what is allowed."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return f"is no key here{suggest(str(path[-1]), _keys_at(form, path[:-1]))}"
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
    if (own := special(path, kind, shown)) is not None:
        return own
    return f"is {shown}; it must be {_MUST[kind].format(**context)}{hint}"


def _keys_at(annotation: Any, path: Sequence[Any]) -> Iterable[str]:
    """The keys that the form allows at ``path``; positions in lists count as steps."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not path:
            return annotation.model_fields
        field = annotation.model_fields.get(path[0])
        return () if field is None else _keys_at(field.annotation, path[1:])
    rest = path[1:] if path and typing.get_origin(annotation) in (tuple, list, dict) else path
    found = (_keys_at(part, rest) for part in typing.get_args(annotation))
    return next((keys for keys in found if keys), ())
