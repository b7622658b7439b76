"""How fast task instances are drawn: through ``splits.draw``, as a run draws them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

from lab.bench.timing import Pace, Row, measure
from synthetics import TASKS
from synthetics.base import Task
from synthetics.splits import draw

__all__ = ["ABOUT", "rows"]

ABOUT = (
    "Drawing instances, every task at its defaults. Ours alone: mad-lab, which it is compared with, "
    "is no package that could be installed here."
)


def rows(pace: Pace, tasks: Iterable[Task] | None = None, examples: int = 4096) -> Iterator[Row]:
    """One row per task: the seconds of ``examples`` rows of its training split, and examples per second.

    CPU time at any thread count: drawing is NumPy's, on one thread.
    """
    pace = replace(pace, threads=1)
    for task in tasks if tasks is not None else (kind() for kind in TASKS.values()):
        row = measure(
            f"{task.name}, {examples:,} rows", pace.timed(partial(draw, task, "train", 0, examples)), pace
        )
        yield replace(row, figures={"examples/s": examples / row.seconds.median})
