"""Scores of predictions and of learning curves: pure functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synthetics.base import IGNORE

__all__ = [
    "LevelScore",
    "accuracy",
    "accuracy_by_level",
    "accuracy_by_position",
    "area",
    "madlab_accuracy",
    "steps_to",
]


@dataclass(frozen=True)
class LevelScore:
    """Token accuracy over the ``count`` scored positions of one level of difficulty."""

    level: int
    acc: float
    count: int


def accuracy(predicted_NT: np.ndarray, targets_NT: np.ndarray) -> float:
    """Share of scored tokens predicted right."""
    scored = targets_NT != IGNORE
    return float((predicted_NT == targets_NT)[scored].mean())


def accuracy_by_position(predicted_NT: np.ndarray, targets_NT: np.ndarray) -> tuple[float | None, ...]:
    """Token accuracy at each of the T positions, None where nothing is ever scored."""
    scored = (targets_NT != IGNORE).sum(0)
    right = (predicted_NT == targets_NT).sum(0)
    return tuple(float(r / s) if s else None for r, s in zip(right, scored, strict=True))


def accuracy_by_level(
    predicted_NT: np.ndarray, targets_NT: np.ndarray, levels_NT: np.ndarray
) -> tuple[LevelScore, ...]:
    """Token accuracy at each level that occurs, from the easiest on; levels as ``Task.levels`` gives them."""
    scored = targets_NT != IGNORE
    level, right = levels_NT[scored], (predicted_NT == targets_NT)[scored]
    count, hits = np.bincount(level), np.bincount(level, weights=right)
    return tuple(LevelScore(int(i), float(hits[i] / count[i]), int(count[i])) for i in np.flatnonzero(count))


def madlab_accuracy(predicted_NT: np.ndarray, targets_NT: np.ndarray, batch: int = 128) -> float:
    """What mad-lab prints as accuracy: per batch the mean of per-class recalls, then the mean over batches.

    A class counts where it is a target or a prediction of the batch, so one stray prediction of an absent
    class adds a zero. Kept to compare with published tables; ``accuracy`` is the score.
    """
    per_batch = []
    for start in range(0, len(targets_NT), batch):
        targets, predicted = targets_NT[start : start + batch], predicted_NT[start : start + batch]
        scored = targets != IGNORE
        target, guess = targets[scored], predicted[scored]
        size = int(max(target.max(), guess.max())) + 1
        support = np.bincount(target, minlength=size)
        seen = (support + np.bincount(guess, minlength=size)) > 0
        hits = np.bincount(target[target == guess], minlength=size)
        per_batch.append((hits / np.maximum(support, 1))[seen].mean())
    return float(np.mean(per_batch))


def area(values: Sequence[float], points: int) -> float:
    """Area under a learning curve, as the mean over ``points`` evaluations.

    A run that stopped early because it had solved the task stays at its last value.
    """
    return (sum(values) + values[-1] * (points - len(values))) / points


def steps_to(steps: Sequence[int], values: Sequence[float], threshold: float) -> int | None:
    """The first step whose value reaches ``threshold``; None if none does."""
    return next((s for s, v in zip(steps, values, strict=True) if v >= threshold), None)
