"""``lab genesis pace``: how fast a full-size model trains here, beside genesis-llm and the matrix rate."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analysis.counts import short
from lab.sweep import SetOption
from lab.terminal import BlocksOption, JsonOption, emit, known_blocks, note, say

if TYPE_CHECKING:
    from lab.genesis.pace import Line

__all__ = ["pace"]

LINE = "{:<46}{:>9}  {:<16}{:>7}  {:<14}{:>9}{:>8}{:>7}"


def pace(
    spec: Annotated[
        Path, typer.Argument(metavar="SPEC", help="A model's specification; lab scale makes one.")
    ],
    rows: Annotated[
        list[int] | None, typer.Option(help="Rows of a step of ours; repeatable. Default: 1 and 4.", min=1)
    ] = None,
    length: Annotated[int, typer.Option(help="Tokens of a row, of both sides.", min=2, max=2048)] = 256,
    repeats: Annotated[int, typer.Option(help="Turns, after one that is not counted.", min=1)] = 3,
    threads: Annotated[int, typer.Option(help="Of each side; they take turns.", min=1, max=1024)] = 2,
    set_: SetOption = None,
    blocks: BlocksOption = None,
    json: JsonOption = False,
) -> None:
    """Time training steps of a model in turns with genesis-llm's passes and with matrix products alone.

    Ours are whole optimiser steps of lab train; genesis-llm's are forward and backward on one row. "times" is
    tokens a second over genesis-llm's of the same turn. "of rate" is the share of the matrix rate that the
    products of our steps reach: products of the model's own shapes alone, over the step. Each is the
    median, then the smallest and the largest. Times are CPU time on one thread, wall time on several.

    Examples:
      lab genesis pace winner.yaml
      lab genesis pace winner.yaml --rows 1 --threads 1 --set train.precision=fp32 --json
    """
    from lab.genesis.pace import matrices
    from lab.genesis.pace import pace as run
    from lab.genesis.peer import needed
    from lab.model.spec import load

    known = known_blocks(blocks)
    # Rows of a pass are those of --rows; a specification may say otherwise for its own training.
    asked = load(spec, (*(set_ or ()), f"data.length={length}", "train.micro=null"), known)
    installed = needed()
    lines = run(asked, rows or (1, 4), repeats, threads, known)
    table = [_figures(line, lines, number) for number, line in enumerate(lines)]
    if json:
        emit(
            {
                "genesis_llm": installed,
                "threads": threads,
                "clock": "CPU" if threads == 1 else "wall",
                "matrix_weights": matrices(asked, known).weights,
                "rows": table,
            }
        )
        return
    note(
        f"{asked.name}: {short(matrices(asked, known).weights)} weights in matrices, genesis-llm {installed}"
    )
    say(LINE.format("median tokens/s", "", "spread", "times", "spread", "GFLOP/s", "of rate", "GB").rstrip())
    for row in table:
        say(_text(row))


def _figures(line: Line, lines: Sequence[Line], number: int) -> dict[str, Any]:
    """One row: a side of ours is followed by its products, and the last is genesis-llm."""
    ours, peer = number % 2 == 0 and number < len(lines) - 1, lines[-1]
    flops = None if line.flops is None else line.flops / statistics.median(line.seconds)
    return {
        "what": line.what,
        "seconds": line.seconds,
        "tokens_per_s": line.tokens_per_s,
        "times": line.times(peer) if ours else None,
        "matrix_flops_per_s": flops,
        "of_matrix_rate": line.times(lines[number + 1]) if ours else None,
        "memory": line.memory,
    }


def _text(row: dict[str, Any]) -> str:
    times, share, flops = row["times"], row["of_matrix_rate"], row["matrix_flops_per_s"]
    return LINE.format(
        row["what"],
        f"{statistics.median(row['tokens_per_s']):.1f}",
        _spread(row["tokens_per_s"], 1),
        "-" if times is None else f"{statistics.median(times):.2f}",
        "" if times is None else _spread(times, 2),
        "-" if flops is None else f"{flops / 1e9:.1f}",
        "-" if share is None else f"{100 * statistics.median(share):.0f} %",
        f"{row['memory'] / 1e9:.2f}",
    ).rstrip()


def _spread(values: Sequence[float], digits: int) -> str:
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"
