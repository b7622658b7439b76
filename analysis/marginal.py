"""What each variable of a recipe does by itself: marginal means over the others, with intervals over seeds.

At every task and seed the scores of the candidates are fitted by least squares as a mean plus one term for
the value of each variable, the terms of a variable adding up to nothing. The marginal mean of a value is what
that fit gives on the average of all values of the other variables (estimated marginal means: Searle, Speed &
Milliken 1980, The American Statistician 34). On a whole grid it is the plain mean over the candidates that
have the value. Where a sweep has some of the combinations only, as when they were sampled, it stands on the
assumption that the variables add up, and a value that these candidates cannot tell from the values of another
variable has none.

A variable may exist only under a value of another (``k`` of ``sparse(k_ratio=k)``, where others have
``swiglu``). It is fitted among the candidates that have it, with the variables that all of these have. For
the others a combination that is there with several of its values counts once, as their mean.

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
    """A variable with its values in natural order.

    among: how many candidates have it, where it exists under some values of others only; else None.
    """

    name: str
    effects: tuple[Effect, ...]
    among: int | None = None


@dataclass(frozen=True)
class Marginals:
    """The variables of a sweep. candidates: of ``space`` combinations, the whole grid where they are equal.

    Both count combinations of the variables that every candidate has; ``of`` counts the candidates. seeds:
    those that every candidate has; fewer than the ranking's where some left the race.
    """

    variables: tuple[Variable, ...]
    candidates: int
    space: int
    seeds: tuple[int, ...]
    of: int

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
    """arch -> variable -> value as JSON, of the variables that every candidate has and that vary.

    Empty where these are fewer than two.
    """
    found = _every_choice(ranked)
    names = _varied(found)
    if len(names) < 2:
        return {}
    return {arch: {name: values[name] for name in names} for arch, values in found.items()}


def marginals(ranked: Board) -> Marginals | None:
    """Marginal means of every variable; None where fewer than two variables take several values."""
    found = _every_choice(ranked)
    always = _varied(found)
    some = {
        name: having
        for name in dict.fromkeys(name for values in found.values() for name in values)
        if len(having := {arch: of for arch, of in found.items() if name in of}) < len(found)
        and name in _varied(having)
    }
    if len(always) + len(some) < 2:
        return None
    variables = [_variable(ranked, found, always, name) for name in always]
    variables += [_variable(ranked, having, _varied(having), name, True) for name, having in some.items()]
    return Marginals(
        variables=tuple(variables),
        candidates=len({tuple(values[name] for name in always) for values in found.values()}),
        space=math.prod(len({values[name] for values in found.values()}) for name in always),
        seeds=_scores(ranked, sorted(found))[0],
        of=len(found),
    )


def _every_choice(ranked: Board) -> dict[str, dict[str, str]]:
    """arch -> variable -> value as JSON, of all variables that the candidate has."""
    first = ranked.runs.sort("arch", "trial", "run").unique("arch", keep="first", maintain_order=True)
    return {
        str(arch): {name: json.dumps(value) for name, value in json.loads(text).items()}
        for arch, text in first.select("arch", "choices").iter_rows()
    }


def _varied(found: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The variables that all of these candidates have, with more than one value among them."""
    every = list(found.values())
    names = [name for name in every[0] if all(name in values for values in every)]
    return [name for name in names if len({values[name] for values in every}) > 1]


def _variable(
    ranked: Board,
    found: Mapping[str, Mapping[str, str]],
    names: Sequence[str],
    name: str,
    partly: bool = False,
) -> Variable:
    """The effects of ``name`` in a fit by ``names`` on the candidates ``found``; partly: others lack it."""
    archs = sorted(found)
    values = {one: _ordered({found[arch][one] for arch in archs}) for one in names}
    combinations = sorted({tuple(found[arch][one] for one in names) for arch in archs})
    design, columns = _design([dict(zip(names, row, strict=True)) for row in combinations], values)
    _, tasks = _scores(ranked, archs)
    mine = np.array(
        [[tuple(found[arch][one] for one in names) == row for arch in archs] for row in combinations]
    )
    fit = np.linalg.pinv(design) @ (mine / mine.sum(axis=1, keepdims=True))
    least = rounding(ranked)

    def of(contrast: np.ndarray) -> Estimate | None:
        if not np.allclose(contrast @ np.linalg.pinv(design) @ design, contrast, atol=1e-8):
            return None  # another contrast fits the same candidates as well
        weights = contrast @ fit
        return estimate([weights @ scores for scores in tasks], least * float(weights @ weights))

    def effect(value: str) -> Effect:
        only = columns[name, value]
        mean, apart = of(only + np.eye(1, len(only))[0]), of(only)
        return Effect(
            value=_shown(value),
            candidates=sum(found[arch][name] == value for arch in archs),
            mean=mean.mean if mean else None,
            interval=mean.interval() if mean else None,
            effect=apart.mean if apart else None,
            effect_interval=apart.interval() if apart else None,
        )

    return Variable(name, tuple(effect(value) for value in values[name]), len(archs) if partly else None)


def defined(found: Marginals) -> str:
    """What the means are, in a few sentences; it differs for a whole grid and for a part of one."""
    many = f"{len(found.seeds)} seed{'' if len(found.seeds) == 1 else 's'}"
    spread = f"95 % intervals over {many}" if len(found.seeds) > 1 else "one seed, no intervals"
    effect = "Effect: against the mean of all values of the variable, at the same tasks and seeds"
    some = "".join(
        f" {one.name} exists in {one.among} of {found.of} schedules and is compared among these."
        for one in found.variables
        if one.among is not None
    )
    if found.whole:
        return f"Mean score over every combination of the other variables; {spread}. {effect}.{some}"
    return (
        f"{found.candidates} of {found.space} combinations were tried, so the mean of a value is that of a "
        f"least-squares fit in which the variables add up, over all values of the others; {spread}. "
        f"{effect}.{some}"
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
    mine = pl.col("arch").is_in(list(archs)) & pl.col("seed").is_in(seeds)
    kept = cells.filter(mine).sort("task", "arch", "seed")
    by_task = kept.group_by("task", maintain_order=True).agg("value")["value"].to_list()
    return seeds, [np.array(values).reshape(len(archs), len(seeds)) for values in by_task]
