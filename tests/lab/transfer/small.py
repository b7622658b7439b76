"""A study small enough for tests, on the paragraphs of the README, and its rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import torch

from blocks import BLOCKS
from lab.transfer import rows
from lab.transfer.form import Study
from lab.transfer.pieces import load, pieces
from lab.transfer.work import Worker, made_by

TEXT = """
kind: transfer
name: toy
recipe: reference
schedules: [attn, gdn, gdn+fox 3:1]
baseline: gdn+fox 3:1
match: {{params: baseline, by: swiglu.expand, within: 0.05}}
sizes: {{a: {{dim: 16, heads: 1, depth: 4}}}}
mup: 16
data: {data}
length: 16
batch: 2
tokens: [{first}, {last}]
warmup: 2
decay: 0.25
lr: 0.01
seeds: 1
scored: 300
"""


class Silent:
    """Keeps the rows that it is told of."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def begun(self, begun: object) -> None:
        pass

    def step(self, step: object, steps: int) -> None:
        pass

    def row(self, row: dict[str, Any]) -> None:
        self.rows.append(row)


def write_study(folder: Path, data: Path, steps: tuple[int, int] = (8, 16)) -> Path:
    """The study's file; ``steps`` of the two counts of tokens."""
    path = folder / "toy.yaml"
    first, last = (32 * one for one in steps)
    path.write_text(TEXT.format(data=data, first=first, last=last), encoding="utf-8")
    return path


def worker_of(
    study: Study,
    folder: Path,
    out_of_time: Callable[[], bool] = lambda: False,
    packs: tuple[Path, ...] = (),
    listener: Silent | None = None,
) -> Worker:
    torch.set_num_threads(1)
    made = made_by(pieces(study)[0], "these sources")
    return Worker(folder, made, listener or Silent(), packs, out_of_time, 1e9, dict(BLOCKS))


def measured(folder: Path) -> pl.DataFrame:
    """The rows of a folder without what is of one run alone."""
    return rows.read(folder).drop("seconds", "made").sort("label", "seed", "tokens")


def load_study(path: Path, *overrides: str) -> Study:
    return load(str(path), overrides)
