"""Importance: what decides gets it, shares add up, equal candidates have none."""

import itertools

import numpy as np
import pytest

from sweeps.importance import evaluator_name, importance

SEED = 20_271


def rows(many: int) -> list[dict[str, str]]:
    return [{"r": str(r), "m": str(m)} for r, m in itertools.product(range(many), repeat=2)]


@pytest.mark.parametrize("decides", ["r", "m"])
def test_the_variable_that_decides_gets_the_most_and_the_shares_add_up(decides: str) -> None:
    rng = np.random.default_rng(SEED)
    found = importance(rows(5), [float(row[decides]) + 0.1 * rng.uniform() for row in rows(5)])
    assert next(iter(found)) == decides and found[decides] > 0.6
    assert sum(found.values()) == pytest.approx(1)


def test_it_asks_about_the_best_and_not_about_the_worst() -> None:
    """One value of r makes the best, one of m the worst; turned round, the other way about."""
    scores = [1.0 if row["r"] == "4" else -1.0 if row["m"] == "0" else 0.0 for row in rows(5)]
    found = importance(rows(5), scores)
    assert found["r"] > 0.6 > found["m"]
    found = importance(rows(5), [-score for score in scores])
    assert found["m"] > 0.6 > found["r"]


def test_order_of_candidates_never_matters() -> None:
    rng = np.random.default_rng(SEED)
    scores = rng.uniform(size=16)
    order = rng.permutation(16)
    assert importance(rows(4), scores.tolist()) == pytest.approx(
        importance([rows(4)[place] for place in order], scores[order].tolist())
    )


@pytest.mark.parametrize("scores", [[0.5] * 25, [0.9] + [0.5] * 24])
def test_where_the_best_tenth_cannot_be_told_from_the_rest_there_is_none(scores: list[float]) -> None:
    assert importance(rows(5), scores) == {}
    assert importance([], []) == {}


def test_the_evaluator_is_named_with_what_it_asks() -> None:
    assert evaluator_name(25) == (
        "Optuna's PED-ANOVA (what decides whether a schedule is among the best 3 of 25)"
    )
