"""Successive halving of the optimiser settings, over rounds: after each, the worse half is not run again.

Per candidate and task, and on validation alone. With n settings the rounds run n, ceil(n / 2), ceil(n / 4),
... of them, down to one (Jamieson & Talwalkar 2016, "Non-stochastic best arm identification and
hyperparameter optimization", AISTATS; a round of seeds is the unit of budget here). What is left is worked
out from stored results each time, so that a sweep that was killed, or found its runs finished, goes on alike.

A run is ended under way once it is decided that its setting will be left out: once its area on validation
would stay below ``floor`` even if every evaluation to come were perfect. The settings of a (candidate, task)
are run one after another for that, the best so far first, so that the floor, too, follows from stored results
alone. What is left is the same as without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

__all__ = ["Setting", "counts", "floor", "survivors"]

Setting = tuple[float, float]
"""Learning rate and weight decay."""


def counts(settings: int, rounds: int) -> list[int]:
    """How many of ``settings`` each round runs."""
    found = [settings]
    while len(found) < rounds:
        found.append(-(-found[-1] // 2))
    return found[:rounds]


def survivors(
    ends: pl.DataFrame, given: Sequence[Setting], settings: int, seeds: Iterable[int], score: str
) -> tuple[Setting, ...]:
    """What is left of ``given`` after the rounds ``seeds``, the best first.

    ends: final rows of one candidate on one task, of any seeds. settings: how many settings the task has; a
    round that lacks one of them with a setting that is still left ends the halving, and so does a last one.
    The mean over all rounds so far decides; a tie goes to the smaller values.
    """
    left = tuple(given)
    valid = (
        pl.col("acc_valid" if score == "accuracy" else "auc_valid").fill_nan(None).fill_null(pl.col("chance"))
    )
    runs = ends.select("seed", "setting", "lr", "weight_decay", valid.alias("valid")).unique(
        ["seed", "setting", "lr", "weight_decay"], keep="any"
    )
    played: list[int] = []
    for seed in seeds:
        if len(left) == 1:
            break
        played.append(seed)
        asked = pl.DataFrame(left, schema={"lr": pl.Float64, "weight_decay": pl.Float64}, orient="row")
        mine = runs.join(asked, on=["lr", "weight_decay"], how="semi")
        if mine.filter(pl.col("seed") == seed).height < len(left) * settings:
            break
        means = (
            mine.filter(pl.col("seed").is_in(played))
            .group_by("lr", "weight_decay")
            .agg(pl.col("valid").mean())
            .sort("valid", "lr", "weight_decay", descending=[True, False, False])
        )
        left = tuple(means.select("lr", "weight_decay").head(-(-len(left) // 2)).iter_rows())
    return left


def floor(sums: Sequence[float], before: float, left: int) -> float:
    """The area on validation that a run must reach in its round for its setting to be among the better half.

    sums: over all rounds, this one included, of those of the ``left`` settings that have run in it.
    before: the sum of this setting over the rounds before. 0 while half of the places are still free.
    """
    places = -(-left // 2)
    return max(0.0, sorted(sums, reverse=True)[places - 1] - before) if len(sums) >= places else 0.0
