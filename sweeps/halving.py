"""Successive halving of the optimiser settings, over rounds: after each, the worse half is not run again.

Per candidate and task, and on validation alone. With n settings the rounds run n, ceil(n / 2), ceil(n / 4),
... of them, down to one (Jamieson & Talwalkar 2016, "Non-stochastic best arm identification and
hyperparameter optimization", AISTATS; a round of seeds is the unit of budget here). What is left is worked
out from stored results each time, so that a sweep that was killed, or found its runs finished, goes on alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

__all__ = ["Setting", "counts", "survivors"]

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
    """What is left of ``given`` after the rounds ``seeds``, in the order given.

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
        best = set(means.select("lr", "weight_decay").head(-(-len(left) // 2)).iter_rows())
        left = tuple(setting for setting in left if setting in best)
    return left
