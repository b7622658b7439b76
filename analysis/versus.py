"""Two run folders against each other: what both trained, how its scores differ, and what else does.

A candidate is in both if its architecture is: schedule and shape, whatever it is called. It is compared on
the task settings that both sweeps have, at the seeds at which it was run on all of them. Seeds of both draw
the same data, so differences are paired by task and seed where there are two such seeds or more; else the two
means are compared by Welch's interval, seeds being two samples. The score is the first recipe's. p is
corrected over the candidates (Holm), which were all looked at.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
import yaml

from analysis.stats import LEVEL, Estimate, Interval, estimate, holm, rounding
from analysis.tables import Score, natural, so_far
from sweeps.results import Results

__all__ = ["Change", "Pair", "Verdict", "Versus", "VersusError", "changes", "versus"]

Verdict = Literal["better", "worse", "open", "one seed"]
SHOWN = 10
"""Labels that an error lists."""
TRAINED = ("steps", "batch", "lr", "weight_decay")
ENVIRONMENT = ("code", "torch", "python", "lab", "machine", "kernel", "precision")


class VersusError(ValueError):
    """Two run folders have nothing in common that could be compared."""


@dataclass(frozen=True)
class Pair:
    """A candidate that both have. difference: second - first, in the unit of the score.

    seeds: those compared, of both where paired, else of each. interval and p are None where a side has one
    seed. verdict: of the second, whether it is better or worse than the first at 5 %.
    """

    arch: str
    labels: tuple[str, str]
    scores: tuple[float, float]
    difference: float
    interval: Interval | None
    p: float | None
    paired: bool
    seeds: tuple[int, int]
    verdict: Verdict


@dataclass(frozen=True)
class Change:
    """Something that the two do not share; None where one has nothing there."""

    what: str
    first: str | None
    second: str | None


@dataclass(frozen=True)
class Versus:
    """The comparison. settings: of tasks, that both have; same_runs: runs stored in both, trained once.

    only: labels of candidates that one alone has; lacking: of those that both have, but one never ran on all
    shared settings at one seed. recipe and environment: what differs.
    """

    names: tuple[str, str]
    score: Score
    pairs: tuple[Pair, ...]
    settings: tuple[str, ...]
    other_settings: tuple[tuple[str, ...], tuple[str, ...]]
    same_runs: int
    only: tuple[tuple[str, ...], tuple[str, ...]]
    lacking: tuple[str, ...]
    recipe: tuple[Change, ...]
    environment: tuple[Change, ...]

    def count(self, verdict: Verdict) -> int:
        """Candidates of this verdict."""
        return sum(pair.verdict == verdict for pair in self.pairs)


def versus(first: Results, second: Results, names: tuple[str, str], score: Score) -> Versus:
    """Compare two folders. names: of the two, as they are told.

    Raises VersusError where they share no architecture or no task setting, or one has no finished run.
    """
    ends = [results.frame.filter("final") for results in (first, second)]
    for name, frame in zip(names, ends, strict=True):
        if frame.is_empty():
            raise VersusError(f"{name} has no finished run to compare; let its sweep finish one")
    archs = _shared(ends, "arch")
    if not archs:
        (one, other) = (_listed(_labels(frame)) for frame in ends)
        raise VersusError(
            f"{names[0]} and {names[1]} share no architecture, so there is nothing to compare: the first has "
            f"{one}, the second {other}"
        )
    ours = [frame.filter(pl.col("arch").is_in(archs)) for frame in ends]
    settings = _shared(ours, "setting")
    if not settings:
        (one, other) = (_listed(sorted(set(frame["setting"].to_list()))) for frame in ours)
        raise VersusError(
            f"{names[0]} and {names[1]} share no task setting, so there is nothing to compare: the first has "
            f"{one}, the second {other}"
        )
    pairs, lacking = _pairs((first, second), archs, settings, score)
    only = [frame.filter(~pl.col("arch").is_in(archs)) for frame in ends]
    return Versus(
        names=names,
        score=score,
        pairs=pairs,
        settings=settings,
        other_settings=_two(tuple(sorted(set(f["setting"].to_list()) - set(settings))) for f in ends),
        same_runs=len(set(ends[0]["run"].to_list()) & set(ends[1]["run"].to_list())),
        only=_two(tuple(_labels(frame)) for frame in only),
        lacking=lacking,
        recipe=changes(*(_asked(results, settings) for results in (first, second))),
        environment=changes(*(_environment(results) for results in (first, second))),
    )


def changes(first: Mapping[str, str], second: Mapping[str, str]) -> tuple[Change, ...]:
    """Where two mappings differ, in the order of the first, then of the second."""
    keys = dict.fromkeys([*first, *second])
    return tuple(
        Change(key, first.get(key), second.get(key)) for key in keys if first.get(key) != second.get(key)
    )


def _pairs(
    both: tuple[Results, Results], archs: tuple[str, ...], settings: tuple[str, ...], score: Score
) -> tuple[tuple[Pair, ...], tuple[str, ...]]:
    """The candidates compared, in natural order of their labels, and the labels of those that cannot be."""
    mine = pl.col("arch").is_in(archs) & pl.col("setting").is_in(settings)
    boards = [so_far(results.frame.filter(mine), score) for results in both]
    names = [dict(board.candidates.select("arch", "label").iter_rows()) for board in boards]
    values = [_values(board.runs, len(settings)) for board in boards]
    least = max(rounding(board) for board in boards)
    found, lacking = [], []
    for arch in sorted(archs, key=lambda arch: (natural(names[0].get(arch, "")), arch)):
        one, other = (side.get(arch, {}) for side in values)
        labels = _two(of.get(arch, "") for of in names)
        if not one or not other:
            lacking.append(labels[0] or labels[1])
            continue
        found.append(_pair(arch, labels, (one, other), least))
    known = [place for place, pair in enumerate(found) if pair.p is not None]
    corrected = holm([found[place].p or 0.0 for place in known])
    better = -1.0 if score == "steps" else 1.0
    for place, p in zip(known, corrected, strict=True):
        way: Verdict = "better" if better * found[place].difference > 0 else "worse"
        told = way if p <= 1 - LEVEL else "open"
        found[place] = Pair(**{**vars(found[place]), "p": p, "verdict": told})
    return tuple(found), tuple(lacking)


Values = Mapping[int, Mapping[str, float]]
"""seed -> task -> mean over settings."""


def _values(runs: pl.DataFrame, settings: int) -> dict[str, dict[int, dict[str, float]]]:
    """By arch, the values at every seed that has all settings."""
    whole = runs.filter(pl.col("setting").n_unique().over("arch", "seed") == settings)
    means = whole.group_by("arch", "seed", "task").agg(pl.col("value").mean()).sort("arch", "seed", "task")
    found: dict[str, dict[int, dict[str, float]]] = {}
    for arch, seed, task, value in means.iter_rows():
        found.setdefault(arch, {}).setdefault(seed, {})[task] = value
    return found


def _pair(arch: str, labels: tuple[str, str], sides: tuple[Values, Values], least: float) -> Pair:
    shared = sorted(set(sides[0]) & set(sides[1]))
    paired = len(shared) > 1
    seeds = (shared, shared) if paired else (sorted(sides[0]), sorted(sides[1]))
    tasks = sorted(sides[0][seeds[0][0]])
    arrays = [
        [np.array([side[seed][task] for seed in of]) for task in tasks]
        for side, of in zip(sides, seeds, strict=True)
    ]
    one, other = (estimate(values, least) for values in arrays)
    apart = [b - a for a, b in zip(*arrays, strict=True)] if paired else []
    gap = estimate(apart, 2 * least) if paired else _welch(one, other)
    return Pair(
        arch=arch,
        labels=labels,
        scores=(one.mean, other.mean),
        difference=gap.mean,
        interval=gap.interval(),
        p=gap.p_value(),
        paired=paired,
        seeds=(len(seeds[0]), len(seeds[1])),
        verdict="one seed",
    )


def _welch(one: Estimate, other: Estimate) -> Estimate:
    """other - one, of two samples of seeds."""
    mean = other.mean - one.mean
    if one.se is None or other.se is None or one.df is None or other.df is None:
        return Estimate(mean, None, None)
    a, b = one.se**2, other.se**2
    df = (a + b) ** 2 / (a**2 / one.df + b**2 / other.df) if a + b else one.df + other.df
    return Estimate(mean, math.sqrt(a + b), df)


def _shared(frames: list[pl.DataFrame], column: str) -> tuple[str, ...]:
    return tuple(sorted(set.intersection(*(set(frame[column].to_list()) for frame in frames))))


def _labels(frame: pl.DataFrame) -> list[str]:
    return sorted(set(frame["label"].to_list()), key=natural)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _two(values: Iterator[Any]) -> Any:
    first, second = values
    return first, second


def _flat(recipe: Any, before: str = "") -> dict[str, str]:
    """A recipe by dotted keys; a list is one value."""
    if not isinstance(recipe, dict):
        return {before or "recipe": recipe if isinstance(recipe, str) else json.dumps(recipe)}
    found: dict[str, str] = {}
    for key, value in recipe.items():
        found |= _flat(value, f"{before}.{key}" if before else str(key))
    return found


def _asked(results: Results, settings: tuple[str, ...]) -> dict[str, str]:
    """A folder's recipe, and how the shared settings were trained, which may hide behind one word of it."""
    mine = results.frame.filter(pl.col("setting").is_in(settings))
    trained = {name: ", ".join(f"{v:g}" for v in sorted(set(mine[name].to_list()))) for name in TRAINED}
    recipe = _flat(yaml.load(results.recipe_text, yaml.BaseLoader) or {})
    return recipe | {f"{name}, as trained": value for name, value in trained.items()}


def _environment(results: Results) -> dict[str, str]:
    """What the rows say of where they were trained, and what else the folder's env.json has."""
    said = {name: ", ".join(sorted(set(results.frame[name].drop_nulls().to_list()))) for name in ENVIRONMENT}
    rest = {name: str(value) for name, value in results.env.items() if isinstance(value, str | int | float)}
    return {name: value for name, value in said.items() if value} | {
        name: value for name, value in rest.items() if name not in said
    }
