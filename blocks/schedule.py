"""A schedule is text: ``7*[3*(gdn, sparse) + (fox, sparse)] + 2*(gdn, sparse)``.

``(a, b)`` is one layer: its blocks in turn, each with its own pre-norm and residual. ``+`` and ``[,]`` chain,
``n*`` repeats, ``attn(window=64)`` gives options. A bare name that is no block is a variable: a count
(``r*gdn``), an option's value (``sparse(k_ratio=k)``) or a block (``m``).

The text is legal Python, read by ``ast.parse`` and matched node by node; nothing is evaluated. What comes
out is a tuple of layers, each a tuple of blocks: hashable, comparable, and printable back with ``show``.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

from blocks import BLOCKS
from blocks.base import Block, OptionError
from blocks.notation import (
    NotationError,
    Value,
    check_option,
    literal,
    parse_text,
    refuse,
    show_call,
    suggest,
)

__all__ = ["Layer", "Schedule", "ScheduleError", "names", "parse", "show", "tile"]

Layer = tuple[Block, ...]
Schedule = tuple[Layer, ...]

MAX_LAYERS = 1024


class ScheduleError(NotationError):
    """A schedule does not parse, names what nobody knows, or comes out empty or absurdly deep."""


def parse(
    text: str, blocks: Mapping[str, type[Block]] = BLOCKS, variables: Mapping[str, Value] | None = None
) -> Schedule:
    """The layers that ``text`` describes, with ``variables`` put in.

    A variable's value is a count, an option's value, or the name of a block (a str, options allowed:
    ``"gdn(conv=0)"``). Raises ScheduleError with a caret under the offending spot.
    """
    variables = variables or {}
    for name in variables:
        if name in blocks:
            raise ScheduleError(f"the variable {name!r} is named like a block; call it something else")
    tree = parse_text(text, ScheduleError)
    layers = _Reader(text.strip(), blocks, variables).sequence(tree)
    if not layers:
        raise ScheduleError(f"the schedule {text.strip()!r} has no layer; at least one is needed")
    return layers


def names(text: str, blocks: Mapping[str, type[Block]] = BLOCKS) -> frozenset[str]:
    """The variables of ``text``: its bare names that are no block. Raises ScheduleError."""
    tree = parse_text(text, ScheduleError)
    return frozenset(n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id not in blocks)


def tile(pattern: Schedule, depth: int) -> Schedule:
    """``pattern`` repeated and cut at ``depth`` layers."""
    if not 1 <= depth <= MAX_LAYERS:
        raise ScheduleError(f"the depth is {depth}; it must be between 1 and {MAX_LAYERS}")
    return (pattern * -(-depth // len(pattern)))[:depth]


@dataclass(frozen=True)
class _Reader:
    text: str
    blocks: Mapping[str, type[Block]]
    variables: Mapping[str, Value]

    def fail(self, node: ast.AST, message: str) -> NoReturn:
        refuse(self.text, node, message, ScheduleError)

    def sequence(self, node: ast.expr) -> Schedule:
        """The layers of any node."""
        match node:
            case ast.BinOp(left, ast.Add(), right):
                layers = self.sequence(left) + self.sequence(right)
            case ast.BinOp(left, ast.Mult(), right):
                layers = self.repeat(node, left, right)
            case ast.List(elts):
                layers = tuple(layer for part in elts for layer in self.sequence(part))
            case ast.Tuple(elts):
                if not elts:
                    self.fail(node, "a layer needs at least one block: (gdn, swiglu)")
                layers = (tuple(self.block(part) for part in elts),)
            case _:
                layers = ((self.block(node),),)
        if len(layers) > MAX_LAYERS:
            self.fail(node, f"this makes more than {MAX_LAYERS} layers")
        return layers

    def repeat(self, node: ast.BinOp, left: ast.expr, right: ast.expr) -> Schedule:
        count = self.count(left)
        if not 0 <= count <= MAX_LAYERS:
            self.fail(left, f"a count must be between 0 and {MAX_LAYERS}; this is {count}")
        layers = self.sequence(right)
        if count * len(layers) > MAX_LAYERS:
            self.fail(node, f"this makes {count * len(layers):,} layers; at most {MAX_LAYERS} are allowed")
        return layers * count

    def count(self, node: ast.expr) -> int:
        is_literal, value = literal(node)
        if isinstance(node, ast.Name) and node.id not in self.blocks:
            value = self.variable(node)
        elif not is_literal:
            self.fail(node, "left of * stands a count: a whole number or a variable, as in 3*gdn or r*gdn")
        if type(value) is not int:
            self.fail(node, f"a count must be a whole number; this is {value!r}")
        return value

    def variable(self, node: ast.Name) -> Value:
        if node.id not in self.variables:
            known = suggest(node.id, {*self.blocks, *self.variables})
            hint = "" if self.variables else "; variables get their values from a recipe's search"
            self.fail(node, f"unknown block or variable {node.id!r}{known}{hint}")
        return self.variables[node.id]

    def block(self, node: ast.expr) -> Block:
        match node:
            case ast.Name(id=name) if name in self.blocks:
                return self.make(node, name, {})
            case ast.Name():
                return self.named_by_variable(node, self.variable(node))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
                if name not in self.blocks:
                    self.fail(node, f"unknown block {name!r}{suggest(name, self.blocks)}")
                if args:
                    self.fail(args[0], f"options are named: write {name}(option=value)")
                return self.make(node, name, {k.arg: self.option(k) for k in keywords})
            case ast.BinOp() | ast.List() | ast.Tuple():
                self.fail(node, "inside a layer (a, b) stand single blocks; + * and [ ] join whole layers")
            case _:
                self.fail(node, "expected a block, such as gdn or attn(window=64)")

    def named_by_variable(self, node: ast.Name, value: Value) -> Block:
        if not isinstance(value, str):
            self.fail(node, f"{node.id} is {value!r}, which is no block; write {node.id}*(...) for a count")
        inner = parse_text(str(value), ScheduleError)
        if not isinstance(inner, ast.Name | ast.Call) or (
            isinstance(inner, ast.Name) and inner.id not in self.blocks
        ):
            self.fail(node, f"{node.id} is {value!r}, which is no block{suggest(str(value), self.blocks)}")
        return _Reader(str(value), self.blocks, {}).block(inner)

    def option(self, keyword: ast.keyword) -> Any:
        node = keyword.value
        if keyword.arg is None:
            self.fail(node, "** is not part of the notation; write each option by name")
        is_literal, value = literal(node)
        if is_literal:
            return value
        match node:
            case ast.Name(id=name) if name not in self.blocks:
                return self.variable(node)
            case ast.Name() | ast.Call():
                return self.block(node)
        self.fail(node, "an option's value is a number, a 'word', True, False, None, a block or a variable")

    def make(self, node: ast.expr, name: str, options: Mapping[str | None, Any]) -> Block:
        cls = self.blocks[name]
        try:
            checked = {str(k): check_option(name, cls, str(k), v) for k, v in options.items()}
            return cls(**checked)
        except (NotationError, OptionError) as exc:
            self.fail(node, str(exc))


def show(schedule: Schedule, blocks: Mapping[str, type[Block]] = BLOCKS) -> str:
    """The canonical text of ``schedule``: repeats folded, only options that are not defaults.

    ``parse(show(s)) == s`` for every schedule.
    """
    words = {cls: name for name, cls in blocks.items()}

    def layer_text(layer: Layer) -> str:
        parts = [show_call(words[type(b)], b, words) for b in layer]
        return parts[0] if len(parts) == 1 else f"({', '.join(parts)})"

    return _fold(tuple(layer_text(layer) for layer in schedule))


@lru_cache(maxsize=1024)
def _fold(items: tuple[str, ...]) -> str:
    """Shortest text over the ways to see ``items`` as one period repeated, then a rest; runs are folded."""
    candidates = [" + ".join(_runs(items))]
    for period in range(2, len(items) // 2 + 1):
        times = 1
        while items[times * period : (times + 1) * period] == items[:period]:
            times += 1
        if times > 1:
            inner = " + ".join(_runs(items[:period]))
            rest = items[times * period :]
            candidates.append(f"{times}*[{inner}]" + (f" + {_fold(rest)}" if rest else ""))
    return min(candidates, key=len)


def _runs(items: tuple[str, ...]) -> list[str]:
    """``a a b`` as ``2*a``, ``b``."""
    out: list[str] = []
    start = 0
    for i in range(1, len(items) + 1):
        if i == len(items) or items[i] != items[start]:
            out.append(items[start] if i - start == 1 else f"{i - start}*{items[start]}")
            start = i
    return out
