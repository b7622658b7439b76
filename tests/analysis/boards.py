"""Boards out of arrays, for laws and simulations that need no frames of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from analysis.tables import Board, Score
from sweeps.results import Pruned

BUDGET = 1000.0


def make_board(
    values_ATS: np.ndarray,
    labels: Sequence[str] | None = None,
    score: Score = "accuracy",
    grid: float = 0.0,
    gone: Mapping[str, int] | None = None,
    choices: Sequence[str] | None = None,
) -> Board:
    """The board of scores [candidate, task, seed]; gone: label -> the seeds it stayed for."""
    many, tasks, seeds = values_ATS.shape
    labels = list(labels or [f"c{place}" for place in range(many)])
    stayed = [(gone or {}).get(label, seeds) for label in labels]
    rows = [
        (f"arch-{labels[a]}", labels[a], f"task{t}", s, float(values_ATS[a, t, s]), False, False)
        for a in range(many)
        for t in range(tasks)
        for s in range(stayed[a])
    ]
    columns = ["arch", "label", "task", "seed", "value", "failed", "censored"]
    cells = pl.DataFrame(rows, schema=columns, orient="row")
    texts = dict(zip(labels, choices or ["{}"] * many, strict=True))
    runs = cells.with_columns(
        choices=pl.col("label").replace_strict(texts), trial=pl.lit(0), run=pl.lit("run")
    )
    layers = {name: [2] * many for name in ("depth", "dim", "heads", "n_linear", "n_window", "n_full")}
    costs = {name: [1000 - place for place in range(many)] for name in ("state", "flops", "params")}
    candidates = pl.DataFrame(
        {"arch": [f"arch-{label}" for label in labels], "label": labels} | layers | costs
    )
    known = {"settings": 1, "chance": 0.1, "ceiling": 1.0, "window_share": 0.2, "budget": BUDGET}
    facts = pl.DataFrame([{"task": f"task{t}", **known, "threshold": 0.9} for t in range(tasks)])
    left = {
        f"arch-{label}": Pruned(f"arch-{label}", label, after, seeds, labels[0], 9, 9, 0.01)
        for label, after in (gone or {}).items()
    }
    return Board(
        score=score,
        cells=cells,
        candidates=candidates,
        tasks=facts,
        chosen=pl.DataFrame(),
        runs=runs,
        seeds=tuple(range(seeds)),
        left_out=(),
        waiting=(),
        pruned=left,
        grid=grid,
    )
