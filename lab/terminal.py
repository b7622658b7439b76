"""What all commands share: options, plain tables, one JSON document on stdout, the rest on stderr.

Nothing heavy is imported here: ``lab --help`` loads this file.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from blocks.base import Block
    from blocks.notation import Value

__all__ = [
    "BlocksOption",
    "CommandError",
    "DepthOption",
    "DimOption",
    "FiguresOption",
    "FormatOption",
    "HeadsOption",
    "JsonOption",
    "VarOption",
    "emit",
    "known_blocks",
    "lines_said",
    "note",
    "number_of",
    "percent",
    "plural",
    "say",
    "stream",
    "table",
    "variables",
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
BlocksOption = Annotated[
    Path | None,
    typer.Option("--blocks", metavar="FILE", help="A Python file with blocks of your own; it is run."),
]
VarOption = Annotated[
    list[str] | None,
    typer.Option("--var", metavar="NAME=VALUE", help="A variable of the schedule: r=3, k=0.25, m=gdn."),
]
FiguresOption = Annotated[
    Path | None, typer.Option("--figures", metavar="DIR", help="Draw every figure as a file in DIR, too.")
]
FormatOption = Annotated[str, typer.Option("--format", help="Of these files: svg or png.")]
DimOption = Annotated[int, typer.Option("--dim", help="Model width.")]
HeadsOption = Annotated[int, typer.Option("--heads", help="Heads of every mixer.")]
DepthOption = Annotated[
    int | None, typer.Option("--depth", help="Repeat the schedule and cut it at this many layers.")
]


class CommandError(ValueError):
    """A command was given something it cannot use; one sentence."""


def say(text: str = "") -> None:
    """The answer: to stdout."""
    typer.echo(text)


def stream(text: str, aside: bool = False) -> None:
    """A piece of the answer as it comes: at once and without an end of line; ``aside`` to stderr."""
    typer.echo(text, nl=False, err=aside)


def note(text: str) -> None:
    """Everything beside the answer: to stderr."""
    typer.echo(text, err=True)


def lines_said() -> Iterator[str]:
    """The lines of stdin that say something, asked for where someone sits there."""
    asking = sys.stdin.isatty()
    while True:
        if asking:
            stream("> ", aside=True)
        line = sys.stdin.readline()
        if not line:
            break
        if line.strip():
            yield line.rstrip("\r\n")
    if asking:
        stream("\n", aside=True)


def emit(document: Any) -> None:
    """``document`` as the one JSON document on stdout; what is not a finite number becomes null."""
    typer.echo(json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Aligned columns two spaces apart, the same in a terminal and in a file; numbers to the right."""
    body = [[str(cell) for cell in row] for row in rows]
    columns = list(zip(header, *body, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [bool(body) and all(_numeric(cell) for cell in column[1:]) for column in columns]
    lines = [
        "  ".join(
            cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in [list(header), *body]
    ]
    return "\n".join(lines)


def _numeric(cell: str) -> bool:
    return (
        cell == "-"
        or re.fullmatch(r"[-+\N{MINUS SIGN}]?[\d.,]+(e[-+]?\d+)?( ?[%kMGT]?B?)?", cell) is not None
    )


def percent(share: float | None) -> str:
    """A share as a percentage, ``-`` where there is none."""
    return "-" if share is None else f"{100 * share:.1f} %"


def plural(count: int, thing: str) -> str:
    """``1 layer``, ``2 layers``."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def number_of(text: str, option: str) -> int:
    """``152M``, ``1.3B``, ``20_000`` as a whole number of at least 1. Raises CommandError."""
    units = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9, "G": 10**9, "T": 10**12}
    found = re.fullmatch(r"(\d[\d_,]*(?:\.\d+)?)\s*([kMBGT]?)", text.strip())
    number = round(float(re.sub("[_,]", "", found[1])) * units[found[2]]) if found else 0
    if not 1 <= number <= 10**18:
        raise CommandError(f"{option} is {text!r}; write a number of at least 1 as 152000000, 152M or 1.3B")
    return number


def known_blocks(path: Path | None) -> dict[str, type[Block]]:
    """The built-in blocks, and those of the file ``path`` if one is given."""
    from sweeps.pool import load_table

    return dict(load_table(path))


def variables(pairs: Sequence[str] | None) -> dict[str, Value]:
    """``["r=3", "m=gdn"]`` as ``{"r": 3, "m": "gdn"}``; ``3:1`` stands for 3, as in a recipe."""
    found: dict[str, Value] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier():
            raise CommandError(f"--var {pair!r} is not of the form NAME=VALUE, such as r=3")
        if name in found:
            raise CommandError(f"--var {name} is given twice")
        found[name] = _value(value.strip())
    return found


def _value(text: str) -> Value:
    from blocks.notation import NotationError, literal, parse_text
    from sweeps.space import realise

    try:
        is_literal, value = literal(parse_text(text, NotationError))
    except NotationError:
        is_literal, value = False, text  # such as 3:1
    return value if is_literal else realise(text)
