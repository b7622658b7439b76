"""One whole run of a cell: data, training, evaluations, as a sweep's worker does it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from blocks.schedule import parse
from lab.bench.timing import Pace, Row, matrix_rate, measure, with_rates
from sweeps.recipe import load
from sweeps.run import Run, flops_per_step, runs_of
from sweeps.space import candidates, task_texts
from synthetics.fit import Fit, fit
from synthetics.protocol import parse_task

__all__ = ["ABOUT", "first_run", "rows"]

ABOUT = (
    "One run through fit: data, steps, evaluations. Ours alone; the floor is the FLOPs of its training steps "
    "at the matrix rate."
)


def first_run(recipe: str, steps: int, overrides: Sequence[str] = ()) -> Run:
    """The first run of a recipe's first round, its budget cut to ``steps``."""
    asked = load(recipe, overrides)
    run = next(runs_of(asked, candidates(asked)[0], task_texts(asked), asked.first_seed))
    every = min(run.training.eval_every, steps)
    return replace(run, training=replace(run.training, steps=steps, eval_every=every))


def rows(pace: Pace, recipe: str = "ratios", steps: int = 50, overrides: Sequence[str] = ()) -> Iterator[Row]:
    """One row: the seconds of the run, and steps per second."""
    run = first_run(recipe, steps, overrides)
    schedule, task = parse(run.candidate.schedule), parse_task(run.task)
    rate = matrix_rate(pace)

    def trial() -> Fit:
        return fit(schedule, run.candidate.shape, task, run.training, run.seed)

    # The warm-up. Every repetition takes as many steps: the run is the same bit for bit.
    taken = trial().curve[-1].step
    flops = taken * flops_per_step(run)
    row = measure(
        f"{recipe}, {run.candidate.label} on {run.task}, {taken} steps",
        pace.timed(trial),
        pace,
        floor=rate.floor(flops),
        warm_up=0,
    )
    yield with_rates(replace(row, figures={"steps/s": taken / row.seconds.median}), flops)
