"""What a run scores and which training counts: chosen on validation, whatever the order of rows."""

import random

import polars as pl
import pytest

from sweeps.scores import graded, mean_score

FINALS = pl.DataFrame(
    {
        "arch": ["x"] * 6,
        "label": ["x"] * 6,
        "seed": [0] * 6,
        "status": ["budget"] * 6,
        "chance": [0.1] * 6,
        "task": ["a", "a", "a", "a", "b", "b"],
        "setting": ["a1", "a2", "a1", "a2", "b1", "b1"],
        "lr": [0.1, 0.1, 0.2, 0.2, 0.1, 0.2],
        "weight_decay": [0.0] * 6,
        "acc_valid": [0.9, 0.1, 0.6, 0.6, 0.2, 0.3],
        "auc_valid": [0.9, 0.9, 0.1, 0.1, 0.2, 0.3],
        "acc": [0.8, 0.2, 0.5, 0.7, 0.4, 0.1],
        "auc": [0.5, 0.3, 0.9, 0.9, 0.0, 0.2],
        "steps": [100] * 6,
        "steps_to": [10, None, 30, 30, None, 50],
    }
)


@pytest.mark.parametrize(("score", "value"), [("accuracy", 0.35), ("auc", 0.3), ("steps", -52.5)])
def test_the_best_rate_is_chosen_on_validation_per_family(score: str, value: float) -> None:
    rng = random.Random(0)
    for _ in range(5):
        order = rng.sample(range(len(FINALS)), len(FINALS))
        assert mean_score(FINALS[order], score) == pytest.approx(value)


@pytest.mark.parametrize(("score", "value"), [("accuracy", 0.5), ("auc", 0.2), ("steps", -77.5)])
def test_a_run_that_diverged_recommends_its_rate_no_more(score: str, value: float) -> None:
    lost = (pl.col("setting") == "b1") & (pl.col("lr") == 0.2)
    frame = FINALS.with_columns(status=pl.when(lost).then(pl.lit("diverged")).otherwise("status"))
    assert mean_score(frame, score) == pytest.approx(value)


@pytest.mark.parametrize(("score", "value"), [("accuracy", 0.1), ("auc", 0.1), ("steps", -100.0)])
def test_where_all_diverged_the_score_is_chance(score: str, value: float) -> None:
    assert mean_score(FINALS.with_columns(status=pl.lit("diverged")), score) == pytest.approx(value)


def test_steps_are_censored_where_the_threshold_is_not_reached() -> None:
    rows = graded(FINALS, "steps")
    assert rows["value"].to_list() == [10, 100, 30, 30, 100, 50]
    assert rows["censored"].to_list() == [False, True, False, False, True, False]
    assert not rows["failed"].any()
