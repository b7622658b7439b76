"""What each variable of a recipe does by itself: marginal means over the others, with intervals over seeds.

At every task and seed the scores of the candidates are fitted by least squares as a mean plus one term for
the value of each variable, the terms of a variable adding up to nothing. The marginal mean of a value is what
that fit gives on the average of all values of the other variables (estimated marginal means: Searle, Speed &
Milliken 1980, The American Statistician 34). On a whole grid it is the plain mean over the candidates that
have the value. Where a sweep has some of the combinations only, as when they were sampled, it stands on the
assumption that the variables add up, and a value that these candidates cannot tell from the values of another
variable has none.

Its effect is its marginal mean less that of all values, at the same tasks and seeds, so that what a seed does
to all cancels. Intervals are those of ``stats``, over seeds; the candidates are taken as given.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from analysis.stats import Estimate, Interval, estimate, rounding
from analysis.tables import Board, natural

__all__ = ["Effect", "Importance", "Marginals", "Variable", "choices_of", "defined", "marginals", "named"]


@dataclass(frozen=True)
class Effect:
    """One value of a variable, on ``candidates`` that have it; mean and effect as on top of the file.

    mean and effect are None where the candidates do not determine them, intervals also at one seed.
    """

    value: str
    candidates: int
    mean: float | None
    interval: Interval | None
    effect: float | None
    effect_interval: Interval | None


@dataclass(frozen=True)
class Variable:
    """A variable with its values in natural order."""

    name: str
    effects: tuple[Effect, ...]


@dataclass(frozen=True)
class Marginals:
    """The variables of a sweep. candidates: of ``space`` combinations, the whole grid where they are equal.

    seeds: those that every candidate has; fewer than the ranking's where some left the race.
    """

    variables: tuple[Variable, ...]
    candidates: int
    space: int
    seeds: tuple[int, ...]

    @property
    def whole(self) -> bool:
        """Whether every combination of values is there."""
        return self.candidates == self.space


@dataclass(frozen=True)
class Importance:
    """The share of each variable in what ``evaluator`` asks for; shares add up to 1."""

    evaluator: str
    shares: Mapping[str, float]


def choices_of(ranked: Board) -> dict[str, dict[str, str]]:
    """arch -> variable -> value as JSON, of the variables that take more than one value on the board.

    Empty where fewer than two variables do, or the candidates do not have the same variables.
    """
    first = ranked.runs.sort("arch", "trial", "run").unique("arch", keep="first", maintain_order=True)
    found = {
        str(arch): {name: json.dumps(value) for name, value in json.loads(text).items()}
        for arch, text in first.select("arch", "choices").iter_rows()
    }
    if len({tuple(sorted(values)) for values in found.values()}) != 1:
        return {}
    names = next(iter(found.values()))
    varied = [name for name in names if len({values[name] for values in found.values()}) > 1]
    if len(varied) < 2:
        return {}
    return {arch: {name: values[name] for name in varied} for arch, values in found.items()}


def marginals(ranked: Board) -> Marginals | None:
    """Marginal means of every variable; None where fewer than two variables take several values."""
    chosen = choices_of(ranked)
    if not chosen:
        return None
    archs = sorted(chosen)
    names = list(chosen[archs[0]])
    values = {name: _ordered({chosen[arch][name] for arch in archs}) for name in names}
    design, columns = _design([chosen[arch] for arch in archs], values)
    seeds, tasks = _scores(ranked, archs)
    fit = np.linalg.pinv(design)
    least = rounding(ranked)

    def of(contrast: np.ndarray) -> Estimate | None:
        weights = contrast @ fit
        if not np.allclose(weights @ design, contrast, atol=1e-8):
            return None  # another contrast fits the same candidates as well
        return estimate([weights @ scores for scores in tasks], least * float(weights @ weights))

    def effect(name: str, value: str) -> Effect:
        only = columns[name, value]
        mean, apart = of(only + np.eye(1, len(only))[0]), of(only)
        return Effect(
            value=_shown(value),
            candidates=sum(chosen[arch][name] == value for arch in archs),
            mean=mean.mean if mean else None,
            interval=mean.interval() if mean else None,
            effect=apart.mean if apart else None,
            effect_interval=apart.interval() if apart else None,
        )

    return Marginals(
        variables=tuple(
            Variable(name, tuple(effect(name, value) for value in values[name])) for name in names
        ),
        candidates=len({tuple(chosen[arch].values()) for arch in archs}),
        space=math.prod(len(every) for every in values.values()),
        seeds=seeds,
    )


def defined(found: Marginals) -> str:
    """What the means are, in a sentence or two; it differs for a whole grid and for a part of one."""
    many = f"{len(found.seeds)} seed{'' if len(found.seeds) == 1 else 's'}"
    spread = f"95 % intervals over {many}" if len(found.seeds) > 1 else "one seed, no intervals"
    effect = "Effect: against the mean of all values of the variable, at the same tasks and seeds"
    if found.whole:
        return f"Mean score over every combination of the other variables; {spread}. {effect}."
    return (
        f"{found.candidates} of {found.space} combinations were tried, so the mean of a value is that of a "
        f"least-squares fit in which the variables add up, over all values of the others; {spread}. {effect}."
    )


def named(importance: Importance) -> str:
    """The importance of each variable, with what was asked."""
    shares = ", ".join(f"{name} {share:.2f}" for name, share in importance.shares.items())
    return f"Importance by {importance.evaluator}: {shares}."


def _ordered(values: set[str]) -> list[str]:
    return sorted(values, key=lambda value: (natural(_shown(value)), value))


def _shown(value: str) -> str:
    """A value as labels have it."""
    return str(json.loads(value))


def _design(
    rows: Sequence[Mapping[str, str]], values: Mapping[str, Sequence[str]]
) -> tuple[np.ndarray, dict[tuple[str, str], np.ndarray]]:
    """The design matrix (a mean, then each variable coded to add up to 0), and the coding of every value."""
    width = 1 + sum(len(every) - 1 for every in values.values())
    columns: dict[tuple[str, str], np.ndarray] = {}
    start = 1
    for name, every in values.items():
        for place, value in enumerate(every):
            code = np.zeros(width)
            stretch = slice(start, start + len(every) - 1)
            code[stretch] = -1.0 if place == len(every) - 1 else np.eye(len(every) - 1)[place]
            columns[name, value] = code
        start += len(every) - 1
    mean = np.eye(1, width)[0]
    design = np.array([mean + sum(columns[name, row[name]] for name in values) for row in rows])
    return design, columns


def _scores(ranked: Board, archs: Sequence[str]) -> tuple[tuple[int, ...], list[np.ndarray]]:
    """The seeds that all have, and per task the scores [candidate, seed]."""
    cells = ranked.cells
    own = [set(cells.filter(pl.col("arch") == arch)["seed"].to_list()) for arch in archs]
    seeds = tuple(sorted(set.intersection(*own)))
    kept = cells.filter(pl.col("seed").is_in(seeds)).sort("task", "arch", "seed")
    by_task = kept.group_by("task", maintain_order=True).agg("value")["value"].to_list()
    return seeds, [np.array(values).reshape(len(archs), len(seeds)) for values in by_task]
