"""Three numbers beside every score, known once the data are drawn: chance, ceiling and the share of a window.

They say what a score means: chance is what ignoring the input earns, the ceiling what the data allow, and
the window share what a model that sees the last w tokens alone could reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from synthetics.base import IGNORE, Batch, Task, TaskError
from synthetics.memorization import Memorization
from synthetics.splits import draw

__all__ = ["Profile", "ceiling", "chance", "profile", "window_share"]

EXAMPLES = 512
"""Rows of each split that the estimates are drawn from."""

PIECE = 2**21
"""Tokens of windows held at a time."""


@dataclass(frozen=True)
class Profile:
    """Token accuracies in [0, 1]; ``window_share`` is None for a task without a lag."""

    chance: float
    ceiling: float
    window_share: float | None


@lru_cache(maxsize=1024)
def profile(task: Task, window: int = 32) -> Profile:
    """Chance, ceiling and the share solved by the last ``window`` tokens; cached."""
    return Profile(chance(task), ceiling(task), window_share(task, window))


def chance(task: Task, seed: int = 0) -> float:
    """Accuracy on ``test`` of the one answer most frequent on ``valid``: the best without the input."""
    valid, test = draw(task, "valid", seed, EXAMPLES), draw(task, "test", seed, EXAMPLES)
    answers = valid.targets[valid.targets != IGNORE]
    favourite = np.bincount(answers, minlength=task.vocab).argmax()
    return float((test.targets[test.targets != IGNORE] == favourite).mean())


def ceiling(task: Task, seed: int = 0) -> float:
    """The best accuracy that the data allow.

    1 where the row holds its own answer. Memorization's answers must have been seen in training: there it is
    the share of test queries whose key occurs among the ``train_examples`` rows of the seed.
    """
    if not isinstance(task, Memorization):
        return 1.0
    train, test = draw(task, "train", seed, task.train_examples), draw(task, "test", seed, EXAMPLES)
    return float(np.isin(task.queries(test.inputs), task.queries(train.inputs)).mean())


def window_share(task: Task, window: int, seed: int = 0) -> float | None:
    """The share of scored positions that ``task.solve`` gets right from the last ``window`` tokens alone.

    None for a task without a lag. Raises TaskError unless ``window`` is at least 1.
    """
    if window < 1:
        raise TaskError(f"window is {window}; it must be at least 1 token")
    if not task.lagged:
        return None
    batch = draw(task, "test", seed, EXAMPLES)
    return float(np.concatenate([_early(task, batch, window), *_late(task, batch, window)]).mean())


def _early(task: Task, batch: Batch, window: int) -> np.ndarray:
    """Whether each scored position among the first ``window`` is solved; they see all there is."""
    targets = batch.targets[:, :window]
    return (task.solve(batch.inputs[:, :window]) == targets)[targets != IGNORE]


def _late(task: Task, batch: Batch, window: int) -> list[np.ndarray]:
    """The same for the scored positions after those, from a window each, in pieces that fit in memory."""
    if window >= task.tokens:
        return []
    views = np.lib.stride_tricks.sliding_window_view(batch.inputs, window, axis=1)[:, 1:]
    targets = batch.targets[:, window:]
    rows, starts = np.nonzero(targets != IGNORE)
    step = max(PIECE // window, 1)
    pieces = [(rows[i : i + step], starts[i : i + step]) for i in range(0, len(rows), step)]
    return [task.solve(views[piece])[:, -1] == targets[piece] for piece in pieces]
