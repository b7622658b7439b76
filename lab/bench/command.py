"""``lab bench``: how fast the lab is here, in pairs: ours beside a reference and a floor."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from lab.terminal import CommandError, JsonOption, emit, note, plural, say

if TYPE_CHECKING:
    from lab.bench.timing import Row, Spread

__all__ = ["bench"]

LINE = "{:<44}{:>10}{:>11}{:>7}  {:<14}{:>10}{:>10}  {:<14}  {}"
HEAD = LINE.format("median ms", "ours", "reference", "times", "spread", "floor", "of floor", "spread", "")


def bench(
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="GROUP",
            help="generation, blocks, step, trial, sweep or startup; may be repeated; all if absent.",
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(help="Turns of each row.", min=1)] = 7,
    threads: Annotated[int, typer.Option(help="Of torch.", min=1, max=1024)] = 1,
    json: JsonOption = False,
) -> None:
    """Time the lab in turns: a reference, ours, a floor, and again.

    Every ratio is that of two neighbours, reference over ours (times) and floor over ours (of floor): the
    median, the smallest and the largest. Times are CPU time on one thread, wall time on several.

    Examples:
      lab bench
      lab bench --only blocks --only step --repeats 15
      lab bench --only startup --json
    """
    import torch

    from lab.bench.suite import GROUPS
    from lab.bench.timing import Pace
    from sweeps.pool import use_one_thread
    from sweeps.run import versions

    wanted = [name for name in GROUPS if name in (only or GROUPS)]
    unknown = [name for name in only or () if name not in GROUPS]
    if unknown:
        raise CommandError(f"--only is {unknown[0]!r}; known are {', '.join(GROUPS)}")
    for name in wanted:
        GROUPS[name].needed()
    use_one_thread()  # a sweep's workers compute like this; then as many threads as are asked for
    torch.set_num_threads(threads)
    pace, line = Pace(repeats, threads), note if json else say
    about = versions()
    kind = "CPU" if threads == 1 else "wall"
    line(f"{about['machine']}; torch {about['torch']}; {plural(threads, 'thread')}")
    line(f"medians of {plural(repeats, 'turn')}, {kind} time unless a group says otherwise")
    groups = []
    for name in wanted:
        line(f"\n{name}\n{textwrap.fill(GROUPS[name].about, 110)}\n{HEAD}")
        rows = []
        for row in GROUPS[name].rows(pace):
            line(_line(row))
            rows.append(asdict(row))
        groups.append({"group": name, "about": GROUPS[name].about, "rows": rows})
    if json:
        emit({**about, "threads": threads, "repeats": repeats, "clock": kind, "groups": groups})


def _line(row: Row) -> str:
    """A row as text: milliseconds, ratios with their spread, and what ours is held against."""
    times, share = row.times, row.share
    against = [name for name in (row.reference, row.floor) if name]
    figures = [f"{value:,.4g} {name}" for name, value in row.figures.items()]
    return LINE.format(
        row.what,
        _ms(row.seconds),
        _ms(row.reference_seconds),
        f"{times.median:.2f}" if times else "-",
        f"{times.low:.2f} to {times.high:.2f}" if times else "",
        _ms(row.floor_seconds),
        f"{100 * share.median:.1f} %" if share else "-",
        f"{100 * share.low:.1f} to {100 * share.high:.1f}" if share else "",
        "; ".join([*figures, *against]),
    ).rstrip()


def _ms(seconds: Spread | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds.median:.2f}"
