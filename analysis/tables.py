"""Results frame -> tidy tables: which runs count, at which training, one number per (candidate, task, seed).

Words: a *candidate* is a schedule with its shape (one ``arch``); a *setting* is one difficulty of a task
family; a *training* is one optimiser setting; a *round* is one seed of every candidate on every setting.
Everything here is a pure function of polars frames; the columns read are those of ``sweeps.results.SCHEMA``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from sweeps.results import Pruned
from sweeps.scores import CHOICE, best_trainings, graded

__all__ = [
    "SCORES",
    "Board",
    "Score",
    "TableError",
    "board",
    "curves",
    "diverged",
    "natural",
    "one_number",
    "positions",
    "so_far",
]

Score = Literal["accuracy", "auc", "steps"]
"""``accuracy``: final test accuracy. ``auc``: area under the test-accuracy curve over the budget, 0 to 1.
``steps``: optimiser steps to the threshold, the lower the better; a run that never does counts its budget."""

SCORES: tuple[Score, ...] = ("accuracy", "auc", "steps")
TRAINING = ("lr", "weight_decay", "batch", "steps")

_COSTS = ("params", "flops", "state")
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-?\d+)?")


class TableError(ValueError):
    """A results frame cannot be ranked as asked."""


@dataclass(frozen=True)
class Board:
    """All that a ranking or a figure reads; each frame is small and tidy.

    cells: arch, label, task, seed, value, failed, censored: one row per candidate, task and complete round;
    candidates: one row per arch with label, costs and layers, in natural order of the labels;
    tasks: task, settings, chance, ceiling, window_share, budget, threshold (means over a task's settings);
    chosen: arch, task and the training picked on validation; runs: the final rows behind ``cells``;
    seeds: rounds that count; left_out: seeds begun but not complete; waiting: labels with no complete round;
    pruned: by arch, who left the race, and so has fewer rounds of its own than ``seeds``;
    grid: steps between two evaluations, the grain of a steps score (0 for the other scores).
    """

    score: Score
    cells: pl.DataFrame
    candidates: pl.DataFrame
    tasks: pl.DataFrame
    chosen: pl.DataFrame
    runs: pl.DataFrame
    seeds: tuple[int, ...]
    left_out: tuple[int, ...]
    waiting: tuple[str, ...]
    pruned: Mapping[str, Pruned]
    grid: float

    @property
    def lower_is_better(self) -> bool:
        return self.score == "steps"

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the ranked candidates, in natural order."""
        ranked = set(self.cells["label"].to_list())
        return tuple(label for label in self.candidates["label"].to_list() if label in ranked)


def natural(label: str) -> tuple[tuple[int, float, str], ...]:
    """Sort key that puts ``r=5`` before ``r=10`` and numbers before words."""
    key: list[tuple[int, float, str]] = []
    at = 0
    for match in _NUMBER.finditer(label):
        key += [(1, 0.0, label[at : match.start()]), (0, float(match.group()), "")]
        at = match.end()
    return (*key, (1, 0.0, label[at:]))


def one_number(labels: Sequence[str]) -> bool:
    """Whether the labels are the same words around one changing number (``r=3``, ``r=4``): an order."""
    shapes = {_NUMBER.sub("#", label, count=1) for label in labels}
    return len(labels) > 1 and len(shapes) == 1 and "#" in next(iter(shapes))


def board(frame: pl.DataFrame, score: Score = "accuracy", pruned: Sequence[Pruned] = ()) -> Board:
    """Reduce all rows of a sweep to what is ranked.

    Only complete rounds count. The training of a (candidate, task) is the one with the best validation score,
    mean over settings and seeds, of those that every round ran; the test columns have no say. A diverged run
    counts as chance. pruned: who left the race; these count with their own complete rounds, all others with
    those complete for all others.

    Raises TableError when the score is unknown or no row is the end of a run.
    """
    if score not in SCORES:
        raise TableError(f"score {score!r} is not known; choose one of {', '.join(SCORES)}.")
    ends = _ends(frame, score)
    if ends.is_empty():
        raise TableError("There is no finished run to rank; let the sweep finish at least one round.")
    candidates = _candidates(ends, frame)
    ends = ends.drop("label").join(candidates.select("arch", "label"), on="arch", how="left")
    left = {one.arch: one for one in pruned}
    return _assembled(frame, score, ends, candidates, left, _kept(ends, left))


def so_far(frame: pl.DataFrame, score: Score) -> Board:
    """A board of every run that has ended, whether its round is complete or not: to be looked at, not ranked.

    Raises TableError as ``board``.
    """
    whole = board(frame, score)
    ends = _ends(frame, score).drop("label").join(whole.candidates.select("arch", "label"), on="arch")
    seeds = sorted(set(ends["seed"].to_list()))
    return _assembled(frame, score, ends, whole.candidates, {}, (ends, seeds, []))


def _assembled(
    frame: pl.DataFrame,
    score: Score,
    ends: pl.DataFrame,
    candidates: pl.DataFrame,
    left: Mapping[str, Pruned],
    counted: tuple[pl.DataFrame, list[int], list[str]],
) -> Board:
    """The board of the final rows, seeds and candidates still waiting that ``_kept`` tells."""
    kept, seeds, waiting = counted
    chosen = best_trainings(kept)
    runs = kept.join(chosen, on=["arch", "task", *CHOICE], how="semi", nulls_equal=True)
    cells = runs.group_by("arch", "label", "task", "seed").agg(
        pl.col("value").mean(), pl.col("failed").any(), pl.col("censored").any()
    )
    names = dict(zip(candidates["arch"].to_list(), candidates["label"].to_list(), strict=True))
    return Board(
        score=score,
        cells=cells.sort("task", "arch", "seed"),
        candidates=candidates,
        tasks=_tasks(ends),
        chosen=chosen,
        runs=runs.sort("arch", "setting", "seed"),
        seeds=tuple(seeds),
        left_out=tuple(sorted(set(ends["seed"].to_list()) - set(seeds))),
        waiting=tuple(sorted((names[arch] for arch in waiting), key=natural)),
        pruned={arch: one for arch, one in left.items() if arch in names and arch not in waiting},
        grid=_grid(frame) if score == "steps" else 0.0,
    )


def _ends(frame: pl.DataFrame, score: Score) -> pl.DataFrame:
    """Final rows, one per run, graded."""
    ends = graded(frame.filter(pl.col("final")), score)
    same_run = ["arch", "setting", *TRAINING, "seed"]
    return ends.sort(*same_run, "label", "run").unique(same_run, keep="first", maintain_order=True)


def _candidates(ends: pl.DataFrame, frame: pl.DataFrame) -> pl.DataFrame:
    """One row per arch; costs are means over the settings, whose lengths and vocabularies differ."""
    per_setting = ends.unique(["arch", "setting"], keep="first", maintain_order=True)
    costs = per_setting.group_by("arch").agg(pl.col(_COSTS).mean().round().cast(pl.Int64))
    labels = frame.group_by("arch").agg(pl.col("label").unique())
    names = {arch: " / ".join(sorted(found, key=natural)) for arch, found in labels.iter_rows()}
    sharing = {name: sorted(arch for arch in names if names[arch] == name) for name in names.values()}
    names = {
        arch: name if len(sharing[name]) == 1 else f"{name} #{sharing[name].index(arch) + 1}"
        for arch, name in names.items()
    }
    layers = ["schedule", "design", "strip", "roles", "depth", "dim", "heads"]
    layers += ["n_linear", "n_window", "n_full"]
    rest = per_setting.unique("arch", keep="first", maintain_order=True)
    rest = rest.select("arch", *layers, "state_lengths", "state_sizes").join(costs, on="arch")
    order = sorted(names, key=lambda arch: (natural(names[arch]), arch))
    named = pl.DataFrame({"arch": order, "label": [names[arch] for arch in order]})
    return named.join(rest, on="arch", how="left", maintain_order="left")


def _kept(ends: pl.DataFrame, left: Mapping[str, Pruned]) -> tuple[pl.DataFrame, list[int], list[str]]:
    """The final rows that count, the seeds of those in the race, and the candidates still waiting.

    Who left the race has its own complete rounds; without two of them in common with those in the race there
    is nothing to compare it by, and it waits.
    """
    race = ends.filter(~pl.col("arch").is_in(list(left)))
    complete, seeds, waiting = _rounds(race)
    parts = [race.filter(pl.col("seed").is_in(seeds) & pl.col("arch").is_in(complete))]
    for arch in sorted(set(ends["arch"].to_list()) & set(left)):
        mine = ends.filter(pl.col("arch") == arch)
        _, own, _ = _rounds(mine)
        whole = mine["setting"].n_unique() == race["setting"].n_unique()
        if whole and len(set(own) & set(seeds)) > 1:
            parts.append(mine.filter(pl.col("seed").is_in(own)))
        else:
            waiting.append(arch)
    return pl.concat(parts), seeds, waiting


def _rounds(ends: pl.DataFrame) -> tuple[list[str], list[int], list[str]]:
    """Candidates with a complete seed, the seeds complete for all of those, and the candidates still waiting.

    A candidate's seed is complete when every setting of the sweep is there with as many trainings as its
    round gave this candidate on that task; where no round says so, with every one that it has been given.
    """
    settings = ends.select("setting").n_unique()
    given = ends.group_by("arch", "task").agg(pl.struct(*CHOICE).n_unique().alias("given"))
    cells = ends.group_by("arch", "task", "setting", "seed").agg(
        pl.struct(*CHOICE).n_unique().alias("have"), pl.col("trainings").min()
    )
    whole = cells.join(given, on=["arch", "task"]).with_columns(
        (pl.col("have") >= pl.coalesce("trainings", "given")).alias("whole")
    )
    done = (
        whole.group_by("arch", "seed")
        .agg(pl.col("whole").all(), pl.len())
        .filter(pl.col("whole") & (pl.col("len") == settings))
    )
    seeds_of = {arch: set(seeds) for arch, seeds in done.group_by("arch").agg(pl.col("seed")).iter_rows()}
    complete = sorted(seeds_of)
    common = set.intersection(*seeds_of.values()) if seeds_of else set()
    return complete, sorted(common), sorted(set(ends["arch"].to_list()) - set(complete))


def _grid(frame: pl.DataFrame) -> float:
    """The median distance between two evaluations of a run, in steps."""
    apart = frame.sort("run", "step").select(pl.col("step").diff().over("run")).to_series().drop_nulls()
    return float(np.median(apart.to_numpy())) if len(apart) else 0.0


def _tasks(ends: pl.DataFrame) -> pl.DataFrame:
    """What is known of each task before any training, and the budget its runs were given."""
    per_setting = ends.unique(["task", "setting"], keep="first", maintain_order=True)
    return (
        per_setting.group_by("task")
        .agg(
            pl.col("setting").n_unique().alias("settings"),
            pl.col("chance", "ceiling", "window_share").mean(),
            pl.col("steps").cast(pl.Float64).mean().alias("budget"),
            pl.col("threshold").mean(),
        )
        .sort("task")
    )


def curves(frame: pl.DataFrame, ranked: Board) -> pl.DataFrame:
    """Test accuracy by step of the ranked runs: arch, label, task, step, mean, low, high, seeds.

    Mean over settings first, then over seeds; low and high are the lowest and highest seed. A run that ended
    early keeps its last value to the end; a diverged one stands at chance from its last step on.
    """
    keys = ["arch", "label", "task", "setting", "seed", "run"]
    mine = frame.drop("label").join(ranked.runs.select("run", "label"), on="run")
    failed = (pl.col("status") == "diverged") & pl.col("final")
    points = mine.select(
        *keys,
        "step",
        pl.when(failed).then("chance").otherwise(pl.col("acc").fill_nan(None)).alias("acc"),
    )
    every_step = points.select("task", "step").unique()
    full = points.select(keys).unique().join(every_step, on="task")
    full = full.join(points, on=[*keys, "step"], how="left").sort("run", "step")
    full = full.with_columns(pl.col("acc").forward_fill().over("run", order_by="step")).drop_nulls("acc")
    seeds = full.group_by("arch", "label", "task", "seed", "step").agg(pl.col("acc").mean())
    return (
        seeds.group_by("arch", "label", "task", "step")
        .agg(
            pl.col("acc").mean().alias("mean"),
            pl.col("acc").min().alias("low"),
            pl.col("acc").max().alias("high"),
            pl.len().alias("seeds"),
        )
        .sort("task", "arch", "step")
    )


def positions(ranked: Board) -> pl.DataFrame:
    """Final accuracy by position in the sequence: arch, label, task, setting, position, mean (over seeds).

    Of each task the longest setting is shown. Empty when no run stored its accuracy by position; positions at
    which nothing is scored are left out.
    """
    stored = ranked.runs.filter(~pl.col("failed") & (pl.col("acc_position").list.len() > 0))
    longest = (
        stored.sort("length", "setting", descending=[True, False])
        .unique("task", keep="first", maintain_order=True)
        .select("task", "setting")
    )
    spread = (
        stored.join(longest, on=["task", "setting"], how="semi")
        .select("arch", "label", "task", "setting", "seed", "acc_position")
        .with_columns(pl.int_ranges(pl.col("acc_position").list.len()).alias("position"))
        .explode("acc_position", "position")
        .with_columns(pl.col("acc_position").fill_nan(None))
        .drop_nulls("acc_position")
    )
    return (
        spread.group_by("arch", "label", "task", "setting", "position")
        .agg(pl.col("acc_position").mean().alias("mean"))
        .sort("task", "arch", "position")
    )


def diverged(frame: pl.DataFrame, labels: Iterable[tuple[str, str]]) -> pl.DataFrame:
    """Every diverged run, ranked or not: label, setting, seed, lr, weight_decay, step, reason.

    ``labels`` pairs each arch with the name it has on the board.
    """
    names = pl.DataFrame(list(labels), schema={"arch": pl.String, "label": pl.String}, orient="row")
    lost = frame.filter(pl.col("final") & (pl.col("status") == "diverged")).unique("run", keep="first")
    return (
        lost.drop("label")
        .join(names, on="arch", how="left")
        .select("label", "setting", "seed", "lr", "weight_decay", "step", "reason")
        .sort("label", "setting", "seed", "lr")
    )
