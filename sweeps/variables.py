"""Variables within variables: values that are schedules, or blocks with variables of their own.

``search: {p: [r*g + f, f + r*g], g: [...]}`` gives ``pattern: p`` layouts to choose from, and
``m: [swiglu, sparse(k_ratio=k)]`` a variable ``k`` that is there under one value of ``m`` only. Such values
are put into the text as text; counts, options and plain blocks are left to ``blocks.schedule.parse``.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache

from blocks.notation import parse_text
from blocks.schedule import ScheduleError
from sweeps.form import OPTIMISER, Choices, Recipe, Value

__all__ = ["filled", "idle", "mentioned", "reached"]

LONGEST = 10_000
"""Letters of a schedule with everything put in; what ``blocks.notation`` takes."""

MOST_NESTED = 16
"""Variables within variables, of which nobody needs more than a few."""


def filled(
    text: str, values: Mapping[str, Value], blocks: Collection[str], within: tuple[str, ...] = ()
) -> str:
    """``text`` with every variable put in that stands for a schedule or a block with variables.

    within: the variables that ``text`` came out of. A text without any such comes back as it is, so that the
    carets of errors stay where they were. Raises ScheduleError, also where a variable stands for itself.
    """
    text = text.strip()
    whole = text.encode()  # ast counts bytes
    for node in reversed(list(_places(parse_text(text, ScheduleError), blocks))):
        value = values.get(node.id)
        if not isinstance(value, str) or not _unfolds(value, values):
            continue
        if node.id in within:
            chain = " -> ".join((*within[within.index(node.id) :], node.id))
            raise ScheduleError(f"the variable {node.id!r} stands for itself: {chain}")
        if len(within) >= MOST_NESTED:
            raise ScheduleError(
                f"variables are at most {MOST_NESTED} deep within each other: {within[0]} is more"
            )
        inner = filled(value, values, blocks, (*within, node.id))
        if not isinstance(_tree(inner), ast.Name | ast.Call | ast.Tuple):
            inner = f"[{inner}]"  # 2*p is two of all that p stands for
        whole = whole[: node.col_offset] + inner.encode() + whole[node.end_col_offset :]
        if len(whole) > LONGEST:
            raise ScheduleError(f"with its variables put in, the schedule has more than {LONGEST:,} letters")
    return whole.decode()


def reached(
    text: str, values: Mapping[str, Collection[Value]], blocks: Collection[str]
) -> Iterator[tuple[str, tuple[str, int] | None]]:
    """``text`` and all that may be put into it, each once, with the variable and the number of its value.

    values: of every variable those that it may have. What does not parse is left out.
    """
    todo: list[tuple[str, tuple[str, int] | None]] = [(text, None)]
    seen = {text}
    while todo:
        one, place = todo.pop()
        if (tree := _tree(one)) is None:
            continue
        yield one, place
        for node in _places(tree, blocks):
            for i, value in enumerate(values.get(node.id, ())):
                if isinstance(value, str) and value not in seen and _unfolds(value, values):
                    seen.add(value)
                    todo.append((value, (node.id, i)))


def mentioned(text: str, values: Mapping[str, Collection[Value]], blocks: Collection[str]) -> set[str]:
    """The variables that ``text`` has, itself or in what may be put into it."""
    return {name for one, _ in reached(text, values, blocks) for name in _names(one) if name in values}


def idle(recipe: Recipe, choices: Choices) -> tuple[str, ...]:
    """The variables of a combination that change nothing in it: no chosen value names them."""
    if recipe.pattern is None:
        return ()
    heard = mentioned(recipe.pattern, {name: (value,) for name, value in choices}, ())
    heard |= set(recipe.numbers.values())
    for name in OPTIMISER:
        given = getattr(recipe.train, name)
        heard |= set(given) if isinstance(given, Mapping) else set()
    return tuple(name for name, _ in choices if name not in heard)


def _unfolds(value: str, variables: Collection[str]) -> bool:
    """Whether a value is more than a block as it stands, which ``parse`` reads itself."""
    match _tree(value):
        case ast.BinOp() | ast.List() | ast.Tuple():
            return True
        case ast.Name() | ast.Call():
            return any(name in variables for name in _names(value))
    return False


def _places(tree: ast.expr, blocks: Collection[str]) -> Iterator[ast.Name]:
    """The names in ``tree`` that stand for layers or a block, from left to right; no counts, no options."""
    todo: list[ast.expr] = [tree]
    while todo:  # not by recursion: a chain of + is as deep as it is long
        match todo.pop():
            case ast.BinOp(left, ast.Add(), right):
                todo += (right, left)
            case ast.BinOp(_, ast.Mult(), right):
                todo.append(right)
            case ast.List(elts) | ast.Tuple(elts):
                todo += reversed(elts)
            case ast.Name(id=name) as node if name not in blocks:
                yield node


@lru_cache(maxsize=4096)  # asked for every candidate
def _tree(text: str) -> ast.expr | None:
    """The expression, None where there is none."""
    try:
        return parse_text(text, ScheduleError)
    except ScheduleError:
        return None


@lru_cache(maxsize=4096)
def _names(text: str) -> frozenset[str]:
    """All names in an expression, blocks included."""
    tree = _tree(text)
    return frozenset(n.id for n in ast.walk(tree) if isinstance(n, ast.Name)) if tree else frozenset()
