"""All pairs at once are the pairs one by one."""

import itertools
import random

import numpy as np
import pytest

from analysis.pairs import p_of_pairs
from analysis.stats import estimate, holm


def one_by_one(value_NTS: np.ndarray, left_N: np.ndarray, least: float) -> list[float | None]:
    """By the formulas of a single comparison."""
    found: list[float | None] = []
    for a, b in itertools.combinations(range(len(value_NTS)), 2):
        shared = np.isfinite(value_NTS[a, 0]) & np.isfinite(value_NTS[b, 0])
        apart = [value_NTS[a, t, shared] - value_NTS[b, t, shared] for t in range(value_NTS.shape[1])]
        p = estimate(apart, least).p_value() if shared.any() else None
        looks = max(1, int(shared.sum()) - 1) if left_N[a] or left_N[b] else 1
        found.append(None if p is None else min(1.0, p * looks))
    return found


@pytest.mark.parametrize("tasks", [1, 2, 5])
@pytest.mark.parametrize("least", [0.0, 0.3])
def test_all_pairs_at_once_are_the_pairs_one_by_one(tasks: int, least: float) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = np.random.default_rng(seed)
    for _ in range(20):
        number, seeds = rng.integers(2, 12), rng.integers(2, 9)
        value_NTS = rng.normal(size=(number, tasks, seeds)) * np.linspace(0.1, 3, tasks)[:, None]
        value_NTS[0] = value_NTS[-1]  # equal, and apart by the same at every seed: no spread at all
        value_NTS[number // 2] = value_NTS[-1] + 1
        left_N = rng.random(number) < 0.3
        for i in np.flatnonzero(left_N):  # who left has fewer seeds
            value_NTS[i, :, rng.integers(2, seeds + 1) :] = np.nan
        expected = one_by_one(value_NTS, left_N, least)
        found = p_of_pairs(value_NTS, left_N, least)
        assert found is not None
        np.testing.assert_allclose(found, np.array(expected, dtype=float), rtol=1e-9, atol=1e-12)


def test_a_pair_that_shares_fewer_than_two_seeds_has_no_p() -> None:
    value_NTS = np.arange(12.0).reshape(3, 1, 4)
    value_NTS[1, :, :2] = np.nan
    value_NTS[2, :, 3:] = np.nan
    assert None in one_by_one(value_NTS, np.zeros(3, bool), 0.0)
    assert p_of_pairs(value_NTS, np.zeros(3, bool), 0.0) is None


def test_holm_is_the_definition_step_by_step() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    drawn = random.Random(seed)
    p_values = [drawn.choice([drawn.random() / 50, 0.01, 0.0, 1.0]) for _ in range(40)]
    order, highest = sorted(range(40), key=p_values.__getitem__), 0.0
    for place, index in enumerate(order):
        highest = max(highest, min(1.0, p_values[index] * (40 - place)))
        assert holm(p_values)[index] == highest
    assert holm([]) == []
