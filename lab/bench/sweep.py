"""What the engine of a sweep costs beside the runs themselves."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from lab.bench import spread
from lab.bench.timing import Pace, Row, make_row
from sweeps.form import Recipe
from sweeps.recipe import load
from sweeps.study import Event, RunDone
from sweeps.study import sweep as run_sweep

__all__ = ["ABOUT", "rows"]

ABOUT = (
    "A whole sweep with one worker, wall seconds. Its floor is the sum of its runs' seconds; the rest is the "
    "engine: the worker's start and imports, the store, the study's journal. Then what a worker elsewhere "
    "spends in the storage for a run (to take it, its beats, to deliver it), four at once."
)


def rows(pace: Pace, recipe: str = "smoke", overrides: Sequence[str] = ()) -> Iterator[Row]:
    """One row: the sweep beside its runs, and what the engine adds in seconds (``overhead s``)."""
    asked = load(recipe, overrides)
    pairs = [_sweep(asked) for _ in range(pace.repeats)]
    whole, runs = zip(*pairs, strict=True)
    figures = {"overhead s": statistics.median(one - other for one, other in pairs)}
    yield make_row(f"{recipe}, one worker", whole, floor=("its runs", runs), figures=figures)
    yield from spread.rows(pace)


def _sweep(recipe: Recipe) -> tuple[float, float]:
    """(Wall seconds of a sweep in a fresh folder, the sum of its runs' seconds)."""
    spent: list[float] = []

    def note(event: Event) -> None:
        if isinstance(event, RunDone):
            spent.append(event.seconds)

    with tempfile.TemporaryDirectory(prefix="lab-bench-") as folder:
        started = time.perf_counter()
        run_sweep(recipe, Path(folder, recipe.name), workers=1, on_event=note)
        return time.perf_counter() - started, sum(spent)
