"""``lab genesis race``: how fast, and in how much memory, beside genesis-llm on the same weights."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from lab.terminal import CommandError, JsonOption, emit, note, say

__all__ = ["race"]


def race(
    only: Annotated[
        list[str] | None, typer.Option("--only", help="forward, decode, decode4 or train; all if absent.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Pairs of repetitions.", min=1)] = 7,
    threads: Annotated[int, typer.Option(help="Of each side; they take turns.", min=1, max=1024)] = 2,
    json: JsonOption = False,
) -> None:
    """Time evaluation, generation and training at full size beside genesis-llm, in turns, on random weights.

    Every ratio is that of two neighbours, theirs over ours: the median, the smallest and the largest.

    Examples:
      lab genesis race
      lab genesis race --only train --repeats 11
    """
    from lab.genesis.peer import needed
    from lab.genesis.race import WHATS
    from lab.genesis.race import race as run

    wanted = only or list(WHATS)
    unknown = [what for what in wanted if what not in WHATS]
    if unknown:
        raise CommandError(f"--only is {unknown[0]!r}; known are {', '.join(WHATS)}")
    installed = needed()
    rows = []
    line = note if json else say
    line(
        "{:<42}{:>9}{:>9}{:>8}  {:<14}{:>9}{:>9}".format(
            "median seconds", "ours", "theirs", "ratio", "spread", "GB ours", "theirs"
        )
    )
    for row in run(repeats, threads, wanted):
        spread = f"{min(row.ratios):.2f} to {max(row.ratios):.2f}"
        line(
            f"{WHATS[row.what]:<42}{row.seconds:>9.3f}{row.peer_seconds:>9.3f}{row.ratio:>8.2f}  {spread:<14}"
            f"{row.memory / 1e9:>9.2f}{row.peer_memory / 1e9:>9.2f}"
        )
        rows.append({**dataclasses.asdict(row), "ratio": row.ratio})
    if json:
        emit({"genesis_llm": installed, "threads": threads, "repeats": repeats, "rows": rows})
