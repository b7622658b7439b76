"""What the levels of difficulty count, against counts in plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest

from synthetics import IGNORE
from synthetics.base import last_same, octaves
from synthetics.protocol import parse_task
from synthetics.score import LevelScore, accuracy_by_level
from synthetics.splits import draw

SEED = 4
ROWS = 200


def octave(count: int) -> int:
    return int(math.log2(count))


@pytest.mark.parametrize(
    ("text", "lag"),
    [
        ("recall", lambda row, t: next(d for d in range(1, t + 1) if row[t - d] == row[t])),
        ("noisy_recall", lambda row, t: next(d for d in range(1, t + 1) if row[t - d] == row[t])),
        ("mqar(pairs=8)", lambda row, t: t - row.index(row[t])),
        ("copying", lambda row, t: t - 240 + 1),
        ("compression", lambda row, t: 31 - t),
        ("parity", lambda row, t: t + 1),
        ("permutation", lambda row, t: t + 1),
        ("majority", lambda row, t: (t + 1) // abs(2 * sum(row[: t + 1]) - t - 1)),
    ],
)
def test_a_level_is_the_octave_of_what_it_counts(text: str, lag) -> None:
    task = parse_task(text)
    batch = draw(task, "test", SEED, 50)
    levels = task.levels(batch)
    where = np.argwhere(batch.targets != IGNORE).tolist()
    assert [levels[i, t] for i, t in where] == [octave(lag(batch.inputs[i].tolist(), t)) for i, t in where]


def test_fuzzys_level_is_the_octave_of_the_lag_between_equal_runs_of_key_tokens() -> None:
    task = parse_task("fuzzy_recall(vocab=9, length=60, key_motif=2)")
    batch = draw(task, "test", SEED, ROWS)
    levels = task.levels(batch)
    for i, t in np.argwhere(batch.targets != IGNORE).tolist():
        row = batch.inputs[i].tolist()
        end = next(e for e in range(t, -1, -1) if row[e] < 4)
        ends = [e for e in range(2, end) if row[e - 1 : e + 1] == row[end - 1 : end + 1] and row[e - 2] >= 4]
        assert levels[i, t] == octave(end - ends[-1])


def test_octaves_double() -> None:
    count = np.arange(1, 70)
    targets = np.where(count % 5 == 0, IGNORE, 0)
    expected = [IGNORE if c % 5 == 0 else octave(c) for c in count.tolist()]
    assert octaves(count, targets).tolist() == expected


def test_last_same_equals_a_search_in_plain_python() -> None:
    ids = np.random.default_rng(SEED).integers(-3, 4, size=(20, 17))
    expected = [
        [next((s for s in range(t - 1, -1, -1) if row[s] == row[t]), t) for t in range(17)]
        for row in ids.tolist()
    ]
    assert last_same(ids).tolist() == expected


def test_accuracy_by_level_counts_what_is_scored() -> None:
    targets = np.array([[1, 2, IGNORE, 3], [1, 1, 1, IGNORE]])
    levels = np.array([[0, 2, IGNORE, 2], [0, 0, 5, IGNORE]])
    guesses = np.array([[1, 2, 9, 9], [9, 1, 9, 9]])
    assert accuracy_by_level(guesses, targets, levels) == (
        LevelScore(0, 2 / 3, 3),
        LevelScore(2, 0.5, 2),
        LevelScore(5, 0.0, 1),
    )
