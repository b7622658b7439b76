"""One cell of a panel as arrays: a task setting, every run of it scored at every evaluation of its curve.

Shapes: A schedules, L trainings, S seeds, K cuts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import polars as pl

__all__ = ["LOST", "Cell", "CutScore", "PanelError", "Training", "cell_of", "comparable"]

CutScore = Literal["auc", "accuracy"]
Training = tuple[float, float, int]
"""Learning rate, weight decay, batch."""

LOST = -1.0
"""Below every score."""


class PanelError(ValueError):
    """A frame cannot be used as a reference or a protocol; one sentence."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One task setting. ``steps`` are its cuts, the last is the whole budget; arrays are [A, L, S, K]."""

    task: str
    setting: str
    steps: tuple[int, ...]
    seeds: tuple[int, ...]
    value: np.ndarray
    valid: np.ndarray
    seconds: np.ndarray


def _grid(setting: str, part: pl.DataFrame) -> tuple[int, ...]:
    """The evaluation steps of a run that spends its whole budget."""
    budgets = part["steps"].unique().to_list()
    if len(budgets) > 1:
        both = " and ".join(str(b) for b in sorted(budgets)[:2])
        raise PanelError(f"runs of {setting} differ in budget ({both} steps); give one sweep at a time")
    survived = part.with_columns(
        pl.when(pl.col("status") == "diverged")
        .then(pl.col("step").list.head(pl.col("step").list.len() - 1))
        .otherwise("step")
        .alias("step")
    )
    seen = sorted(set(survived["step"].explode(empty_as_null=True).drop_nulls().to_list())) or budgets
    every = min((b - a for a, b in pairwise(seen[:3])), default=max(seen[0], 1))
    return (*range(seen[0], budgets[0], every), budgets[0])


def cell_of(
    task: str,
    setting: str,
    part: pl.DataFrame,
    labels: Sequence[str],
    trainings: Sequence[Training],
    seeds: tuple[int, ...],
    score: CutScore,
) -> Cell:
    """The finished runs ``part`` of one setting, one row a run with its curve as lists, as a cell.

    What did not run at every seed stands at LOST. Raises PanelError when budgets or evaluations differ.
    """
    steps = _grid(setting, part)
    shape = (len(labels), len(trainings), len(seeds), len(steps))
    value, valid = (np.full(shape, LOST) for _ in range(2))
    seconds = np.zeros(shape)
    row, column = ({key: at for at, key in enumerate(keys)} for keys in (labels, trainings))
    for run in part.iter_rows(named=True):
        training = (run["lr"], run["weight_decay"], run["batch"])
        if training not in column or run["seed"] not in seeds:
            continue
        at = row[run["label"]], column[training], seeds.index(run["seed"])
        reached = len(run["step"]) - (run["status"] == "diverged")
        if tuple(run["step"][:reached]) != steps[:reached]:
            raise PanelError(f"runs of {setting} are evaluated at different steps; give one sweep at a time")
        value[at] = _curve(run["acc"][:reached], len(steps), run, score)
        valid[at] = _curve(run["acc_valid"][:reached], len(steps), run, score)
        spent = run["seconds"][: max(reached, 1)]
        seconds[at] = spent + [spent[-1]] * (len(steps) - len(spent))
    lost = (valid == LOST).any(axis=(2, 3))
    value[lost] = valid[lost] = LOST
    return Cell(task, setting, steps, seeds, value, valid, seconds)


def _curve(points: list[float], cuts: int, run: Mapping[str, Any], score: CutScore) -> np.ndarray:
    """The score at every cut."""
    last = points[-1] if points else run["chance"]
    whole_curve = np.array(points + [last] * (cuts - len(points)))
    found = whole_curve.cumsum() / np.arange(1, cuts + 1) if score == "auc" else whole_curve
    if run["status"] == "diverged":
        found[len(points) :] = run["chance"]
    return found


def comparable(cells: Sequence[Cell], labels: Sequence[str]) -> None:
    """One training is chosen per task: each schedule needs one that halving left in all cells of the task.

    Settings of a task that were swept one by one may have left none. Raises PanelError.
    """
    for task in {cell.task for cell in cells}:
        mine = [cell for cell in cells if cell.task == task]
        ran = np.all([(cell.valid != LOST).all(axis=(2, 3)) for cell in mine], axis=0)
        for label, some in zip(labels, ran.any(axis=1), strict=True):
            if not some:
                settings = ", ".join(cell.setting for cell in mine)
                raise PanelError(
                    f"{label} has no learning rate that ran in every round of {settings}; "
                    "sweep these settings together, in one recipe"
                )
