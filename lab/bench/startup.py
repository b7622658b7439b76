"""How long the command line takes to answer, in processes of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

from lab.bench.timing import Pace, Row, Side, Work, measure

__all__ = ["ABOUT", "rows"]

ABOUT = (
    "Wall seconds of a process. Ours alone; the floor is an interpreter that imports only the library which "
    "the command cannot do without."
)

COMMANDS: Mapping[tuple[str, ...], str] = {
    ("--help",): "typer",
    ("describe", "2*(gdn, swiglu)"): "torch",
}
"""Command lines, and what each has to import."""


def rows(pace: Pace, commands: Mapping[tuple[str, ...], str] = COMMANDS) -> Iterator[Row]:
    """One row per command line."""
    for arguments, library in commands.items():
        shown = " ".join(f'"{word}"' if " " in word else word for word in arguments)
        ours = _process("from lab.cli import main; main()", arguments)
        floor = Side(f"import {library}", _process(f"import {library}"))
        yield measure(f"lab {shown}", ours, pace, floor=floor, warm_up=1)


def _process(program: str, arguments: Sequence[str] = ()) -> Work:
    def work() -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", program, *arguments], check=True, capture_output=True)
        return time.perf_counter() - started

    return work
