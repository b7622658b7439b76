"""YAML 1.2 values with the place each one stands at, on top of PyYAML's parser.

PyYAML follows YAML 1.1, where ``3:1`` is the base-60 number 181, ``1e-4`` a string and ``on`` a truth value.
Here the core schema of YAML 1.2 decides: plain scalars are null, true/false, whole numbers, floats, else
strings. A recipe is small data written by people, so what only attacks or confuses is refused: aliases and
anchors, tags, duplicate keys, several documents, deep nesting, large files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

__all__ = ["Document", "Mark", "YamlError", "dump", "read"]

MAX_BYTES = 200_000
MAX_DEPTH = 12
MAX_DIGITS = 40

Path = tuple[Any, ...]
"""Keys and list positions from the top of the document to a value."""

_CORE = [
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$"), "~nN\0"),
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    ("int", re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"), "-+0123456789"),
    (
        "float",
        re.compile(
            r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        "-+.0123456789",
    ),
]


class YamlError(ValueError):
    """The text is not the plain YAML a recipe is written in. ``mark`` says where, 1-based, if known."""

    def __init__(self, message: str, mark: Mark | None = None) -> None:
        super().__init__(message)
        self.message, self.mark = message, mark


@dataclass(frozen=True)
class Mark:
    """A place in a text, counted from 1."""

    line: int
    column: int


@dataclass
class Document:
    """``value`` and, by path, where each value starts; for entries of a mapping also where the key does."""

    value: Any
    values: dict[Path, Mark] = field(default_factory=dict)
    keys: dict[Path, Mark] = field(default_factory=dict)


class _Loader(yaml.SafeLoader):
    """PyYAML's scanner and parser with the resolvers of the 1.2 core schema, and the limits above."""

    yaml_implicit_resolvers: Mapping[str, list[tuple[str, re.Pattern[str]]]] = {}

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise YamlError("anchors and aliases (& and *) are not used; write it out", _mark(event))
        if getattr(event, "tag", None):
            raise YamlError(f"tags are not used in recipes; drop {event.tag!r}", _mark(event))
        if self.depth >= MAX_DEPTH:
            raise YamlError(f"nested deeper than {MAX_DEPTH} levels; no recipe needs that", _mark(event))
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


for _tag, _pattern, _first in _CORE:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, [c.strip("\0") for c in _first])


def read(text: str | bytes) -> Document:
    """Parse one document. Raises YamlError, with the place, where it is not plain YAML 1.2."""
    if len(text) > MAX_BYTES:
        raise YamlError(f"{len(text):,} bytes long; a recipe has at most {MAX_BYTES:,}")
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise YamlError(f"not a text: byte {exc.start} is not UTF-8") from None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.reader.ReaderError as exc:
        raise YamlError(f"not a text: character {exc.position} is not printable") from None
    except yaml.MarkedYAMLError as exc:
        what = " ".join(part for part in (exc.problem, exc.context) if part)
        mark = exc.problem_mark or exc.context_mark
        raise YamlError(f"not YAML: {what}", Mark(mark.line + 1, mark.column + 1) if mark else None) from None
    document = Document(None)
    if node is not None:
        document.value = _build(node, (), document)
    return document


class _Dumper(yaml.SafeDumper):
    """PyYAML's writer, which must also quote what only YAML 1.2 would take for a number."""


def _write_text(dumper: _Dumper, text: str) -> yaml.Node:
    number = any(pattern.match(text) for _, pattern, _ in _CORE)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if number else None)


_Dumper.add_representer(str, _write_text)


def dump(value: Any) -> str:
    """YAML of plain data that ``read``, and any reader of YAML 1.1, takes for the same data."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _mark(part: Any) -> Mark:
    return Mark(part.start_mark.line + 1, part.start_mark.column + 1)


def _build(node: yaml.Node, path: Path, document: Document) -> Any:
    document.values[path] = _mark(node)
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*path, i), document) for i, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return _scalar(node)
    mapping: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise YamlError("a key must be a word or a number, not a list or a mapping", _mark(key_node))
        key = _scalar(key_node)
        place = (*path, key)
        if key in mapping:
            first = document.keys[place]
            raise YamlError(f"duplicate key {key_node.value!r} (first at line {first.line})", _mark(key_node))
        document.keys[place] = _mark(key_node)
        mapping[key] = _build(value_node, place, document)
    return mapping


def _scalar(node: yaml.Node) -> Any:
    text, kind = node.value, node.tag.rpartition(":")[2]
    if kind in ("int", "float") and len(text) > MAX_DIGITS:
        raise YamlError(f"a number of {len(text)} digits; at most {MAX_DIGITS}", _mark(node))
    match kind:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
        case "float":
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text
