"""The small notation ``name(option=value, ...)`` in which blocks and tasks are written.

It is legal Python, read with ``ast.parse(mode="eval")`` and matched node by node: nothing is evaluated.
The same text comes back from ``show``, with only those options that differ from their defaults.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import math
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NoReturn

__all__ = ["NotationError", "check_option", "literal", "parse_text", "refuse", "show_call", "suggest"]

Value = int | float | str | bool | None


class NotationError(ValueError):
    """A text does not follow the notation. The message quotes the text and points at the spot."""


def refuse(text: str, node: ast.AST | int, message: str, error: type[NotationError]) -> NoReturn:
    """Raise ``error`` with the text and a caret under the offending spot (a node or a column)."""
    column = node if isinstance(node, int) else getattr(node, "col_offset", 0)
    if not isinstance(node, int):
        # ast counts bytes; people count characters.
        column = len(text.encode()[:column].decode(errors="ignore"))
    raise error(f"{message}\n  {text}\n  {' ' * column}^")


def suggest(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` or the whole list, for the end of an error sentence."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    listed = ", ".join(known) if known else "none"
    return f"; did you mean {close[0]!r}? Known: {listed}" if close else f"; known: {listed}"


def parse_text(text: str, error: type[NotationError]) -> ast.expr:
    """The expression tree of ``text``. Raises ``error`` where it is not one expression on one line."""
    text_ok = text.strip()
    if not text_ok:
        raise error("an empty text is no expression; write for example 3*gdn + fox")
    if len(text) > 10_000 or "\n" in text_ok or "\0" in text:
        raise error(f"an expression is one line of at most 10,000 characters; this has {len(text):,}")
    if text != text_ok:
        return parse_text(text_ok, error)
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError as exc:
        refuse(text, max((exc.offset or 1) - 1, 0), f"this does not parse: {exc.msg}", error)
    except (RecursionError, MemoryError, ValueError):
        raise error("this does not parse: it is nested too deeply") from None


def literal(node: ast.expr) -> tuple[bool, Value]:
    """(True, value) if ``node`` is a plain constant or a negated number, else (False, None)."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str | bool | None):
        return True, node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        ok, value = literal(node.operand)
        if ok and isinstance(value, int | float) and not isinstance(value, bool):
            return True, -value
    return False, None


_KINDS = {int: "a whole number", float: "a number", str: "a word in quotes", bool: "True or False"}


def _alternatives(kind: Any) -> tuple[Any, ...]:
    """The members of a union, or the type alone."""
    return (kind,) if typing.get_origin(kind) is Literal else (typing.get_args(kind) or (kind,))


def _allowed(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kind)))
    if kind is type(None):
        return "None"
    return _KINDS.get(kind, getattr(kind, "__name__", str(kind)))


def _fits(value: object, kind: Any) -> bool:
    if typing.get_origin(kind) is Literal:
        return any(value == a and type(value) is type(a) for a in typing.get_args(kind))
    if kind is float:
        return type(value) in (int, float) and math.isfinite(typing.cast(float, value))
    return type(value) is kind


def check_option(owner: str, cls: type, name: str, value: Any) -> Any:
    """``value`` for field ``name`` of dataclass ``cls``, an int widened where a float is asked.

    Raises NotationError with what is allowed if the option is unknown or of another type.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name for f in dataclasses.fields(cls) if f.init}
    if name not in fields:
        raise NotationError(f"{owner} has no option {name!r}{suggest(name, fields)}")
    kind = hints[name]
    takes = _alternatives(kind)
    if not any(_fits(value, one) for one in takes):
        raise NotationError(f"{owner}: {name} is {value!r}; it must be {' or '.join(map(_allowed, takes))}")
    return float(value) if type(value) is int and float in takes and int not in takes else value


def show_call(name: str, item: Any, nested: Mapping[type, str] | None = None) -> str:
    """``name`` or ``name(option=value, ...)`` with the options of ``item`` that are not defaults."""
    changed = []
    for field in dataclasses.fields(item):
        value = getattr(item, field.name)
        if field.init and value != field.default:
            changed.append(f"{field.name}={_show_value(value, nested or {})}")
    return f"{name}({', '.join(changed)})" if changed else name


def _show_value(value: Any, nested: Mapping[type, str]) -> str:
    if dataclasses.is_dataclass(value):
        return show_call(nested[type(value)], value, nested)
    return repr(value)
