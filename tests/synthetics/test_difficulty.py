"""Chance, ceiling and window share, held against what is known of each task."""

from __future__ import annotations

import numpy as np
import pytest

from synthetics import IGNORE, TASKS, TaskError
from synthetics.difficulty import Profile, ceiling, chance, profile, window_share
from synthetics.protocol import parse_task
from synthetics.splits import draw


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("recall", 8),
        ("recall(vocab=128)", 64),
        ("noisy_recall", 8),
        ("fuzzy_recall", 8),
        ("copying", 14),
        ("compression", 15),
        ("memorization(vocab=21)", 10),
        ("mqar", 64),
        ("multihop", 31),
        ("overwrite", 8),
        ("parity", 2),
        ("permutation", 6),
        ("permutation(group=5)", 120),
        ("compositional_mqar", 32),
        ("majority", 2),
        ("dyck", 8),
        ("needle", 31),
        ("ngram", 8),
    ],
)
def test_chance_is_one_over_the_number_of_equally_likely_answers(text: str, answers: int) -> None:
    # A row holds few independent answers (recall repeats its values), so rows are counted, not positions.
    rows = 512
    error = np.sqrt(1 / answers * (1 - 1 / answers) / rows)
    assert abs(chance(parse_task(text)) - 1 / answers) < 4 * error


def test_the_ceiling_is_one_except_where_training_cannot_show_every_key() -> None:
    assert all(ceiling(task()) == 1.0 for name, task in TASKS.items() if name != "memorization")
    # 256 rows of 16 queries over K keys: a key is seen with probability 1 - (1 - 1/K)^4096.
    for vocab in (256, 2048, 4096, 8192):
        keys = (vocab - 1) // 2
        expected = 1 - (1 - 1 / keys) ** 4096
        measured = ceiling(parse_task(f"memorization(vocab={vocab})"))
        assert abs(measured - expected) < 4 * np.sqrt(expected * (1 - expected) / 4096) + 1e-9
    assert ceiling(parse_task("memorization(train_examples=1)")) < 0.2


@pytest.mark.parametrize("text", ["recall", "noisy_recall", "recall(vocab=128)"])
def test_recalls_window_share_is_the_share_of_lags_that_fit(text: str) -> None:
    batch = draw(parse_task(text), "test", 0, 512)
    lags = []
    for row, targets in zip(batch.inputs.tolist(), batch.targets, strict=True):
        for t in np.flatnonzero(targets != IGNORE):
            lags.append(next(lag for lag in range(1, t + 1) if row[t - lag] == row[t]))
    for window in (1, 3, 16, 33, 65):
        fits = np.mean([lag < window for lag in lags])
        assert window_share(parse_task(text), window) == pytest.approx(fits)


def test_mqars_window_share_falls_with_the_length_of_the_row() -> None:
    near, far = (window_share(parse_task(f"mqar(length={length}, pairs=8)"), 32) for length in (64, 256))
    assert near is not None
    assert far is not None
    assert far < near


def test_copyings_window_reaches_back_past_the_answers() -> None:
    # The last token stands copy + 1 tokens before its own answer's position: any smaller window is blind.
    task = parse_task("copying(length=40, copy=4)")
    assert window_share(task, 5) == 0.0
    assert window_share(task, 6) == pytest.approx(0.25)


def test_a_profile_holds_the_three_numbers() -> None:
    task = parse_task("recall(length=32)")
    assert profile(task) == Profile(chance(task), ceiling(task), window_share(task, 32))
    assert profile(parse_task("compression")).window_share is None


def test_a_window_of_nothing_is_refused() -> None:
    with pytest.raises(TaskError, match="window is 0; it must be at least 1 token"):
        window_share(parse_task("recall"), 0)
