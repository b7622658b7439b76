"""From final rows to numbers: what a run scores, and which training of a schedule counts.

One place for what the race, the study and the ranking must agree on. Pure functions of polars frames with
the columns of ``sweeps.results.SCHEMA``; a *setting* is one difficulty of a task, a *training* one optimiser
setting.
"""

from __future__ import annotations

import polars as pl

__all__ = ["CHOICE", "best_trainings", "graded", "instances", "mean_score"]

CHOICE = ("lr", "weight_decay")
"""What is chosen per candidate and task."""

_COLUMNS = {"accuracy": ("acc", "acc_valid"), "auc": ("auc", "auc_valid"), "steps": ("steps_to", "auc_valid")}


def graded(finals: pl.DataFrame, score: str) -> pl.DataFrame:
    """The final rows with ``value`` (what is ranked), ``valid`` (what selects), failed and censored.

    A run that diverged, or whose score is not a finite number, counts as chance; for steps, as its budget,
    and so does one that never got there.
    """
    test, valid = (pl.col(name).cast(pl.Float64).fill_nan(None) for name in _COLUMNS[score])
    by_steps = pl.lit(score == "steps")
    worst = pl.col("steps").cast(pl.Float64) if score == "steps" else pl.col("chance")
    never = by_steps & test.is_null()
    failed = (pl.col("status") == "diverged") | (test.is_null() & ~never)
    return finals.with_columns(
        value=pl.when(failed | never).then(worst).otherwise(test),
        valid=pl.when(failed).then(pl.col("chance")).otherwise(valid),
        failed=failed,
        censored=never | (failed & by_steps),
    )


def best_trainings(runs: pl.DataFrame) -> pl.DataFrame:
    """arch, task, lr, weight_decay, valid: the training with the best mean validation per (arch, task).

    runs: graded rows of complete rounds. Only trainings that took part in every round count, since halving
    leaves the others behind. A tie goes to the smaller values: the order of rows does not matter.
    """
    means = runs.group_by("arch", "task", *CHOICE).agg(pl.col("valid").mean(), pl.len())
    through = means.filter(pl.col("len") == pl.col("len").max().over("arch", "task")).drop("len")
    best_first = through.sort(
        "arch", "task", "valid", *CHOICE, descending=[False, False, True, False, False], nulls_last=True
    )
    return best_first.unique(["arch", "task"], keep="first", maintain_order=True)


def instances(finals: pl.DataFrame, score: str) -> pl.DataFrame:
    """arch, label, task, setting, seed, value: every instance under its best training, in a fixed order.

    finals: the final rows of complete rounds.
    """
    runs = graded(finals, score)
    chosen = runs.join(best_trainings(runs), on=["arch", "task", *CHOICE], how="semi", nulls_equal=True)
    return chosen.select("arch", "label", "task", "setting", "seed", "value").sort("arch", "setting", "seed")


def mean_score(finals: pl.DataFrame, score: str) -> float:
    """One candidate's mean over settings and seeds, then over tasks; more is better, so steps count negated.

    finals: the final rows of its complete rounds.
    """
    by_task = instances(finals, score).group_by("task").agg(pl.col("value").mean())
    mean = by_task.select(pl.col("value").mean()).item()
    return -mean if score == "steps" else mean
