"""Two candidates of a sweep, named beforehand: what the seeds show of their difference.

With d[t, s] = x_a[t, s] - x_b[t, s] on the seeds that both have, differences, intervals, p and bounds are
those of ``stats``, over all tasks and for each task alone. What the ranking adds for a family is left out:
the pair was chosen before the data were seen, so its p is not corrected over pairs. Whoever picks two out of
a ranking by looking at it has to take the ranking's p. The p of tasks are corrected over the tasks (Holm).

Effect size: Cohen's d_z (Cohen 1988, "Statistical Power Analysis", ch. 2; Lakens 2013, Front. Psychol. 4),
the difference in standard deviations of one seed's difference, times Hedges' factor for few seeds (Hedges
1981, J. Educ. Stat. 6),

    d_z = J(df) * mean / (SE * sqrt(n)),   J(m) = Gamma(m / 2) / (sqrt(m / 2) * Gamma((m - 1) / 2))

over all tasks with the SE and the degrees of freedom of ``stats``. It says how easily the difference is seen
in such runs, which is what seeds are planned by, and not how large it is: that is the difference itself,
whose unit has a meaning of its own. At one degree of freedom J does not exist, and no effect size is given.

Non-inferiority is asked both ways, against the margin, by one-sided 95 % bounds. It is not asked where one of
the two left the race, whose gap is too large by the way it left; its p is taken times the looks, as in the
ranking.

Seeds to tell the two apart: by ``power``, once for a difference as large as was seen (at few seeds a loose
guess, as that difference is one), once for one as large as the margin, which needs the variances only.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from scipy.special import gammaln

from analysis.power import Prediction, seeds_to_find
from analysis.stats import (
    LEVEL,
    Estimate,
    Interval,
    Ranking,
    bootstrap,
    estimate,
    holm,
    looks_at,
    rank,
    rounding,
)
from analysis.tables import Board
from sweeps.results import Pruned

__all__ = ["POWER", "CompareError", "Comparison", "Line", "compare", "find"]

POWER = 0.8
SHOWN = 20
"""Labels that an error lists; a sweep may have thousands."""

Arrays = Mapping[str, np.ndarray]
"""task -> values by seed."""


class CompareError(ValueError):
    """Two candidates cannot be compared as asked."""


@dataclass(frozen=True)
class Line:
    """The two on one task, or on the mean of all (``task`` is None).

    difference: first - second, in the unit of the score. effect: d_z, of the same sign; None where the seeds
    show no spread, or too little to correct it. interval, effect and p are None at one seed.
    """

    task: str | None
    first: float
    second: float
    difference: float
    interval: Interval | None
    effect: float | None
    p: float | None


@dataclass(frozen=True)
class Comparison:
    """Two candidates on the seeds that both have, the same tasks and data.

    whole: over all tasks, its p times ``looks`` (1 unless one left the race). tasks: each alone, p corrected
    by Holm. bootstrap: of the difference over all tasks. margin: in units of the score. worse_by: how much
    worse the first, the second is at most (one-sided 95 % bounds); within: whether that is within the margin.
    as_seen, as_margin: seeds, in all, that show a difference as large as the seen one, as the margin (None
    where that is 0). left: how each left the race. seeds: those shared. pair: the ranking of the two alone on
    those seeds, without the looks; for costs, lost runs and what the tasks can tell.

    The bounds and intervals are None at one seed, within also where one left the race.
    """

    labels: tuple[str, str]
    whole: Line
    tasks: tuple[Line, ...]
    bootstrap: Interval | None
    margin: float
    worse_by: tuple[float, float] | None
    within: tuple[bool, bool] | None
    as_seen: Prediction | None
    as_margin: Prediction | None
    looks: int
    left: tuple[Pruned | None, Pruned | None]
    seeds: tuple[int, ...]
    pair: Ranking

    @property
    def told_apart(self) -> bool | None:
        """Whether the difference over all tasks is significant at 5 %; None at one seed."""
        return None if self.whole.p is None else self.whole.p <= 1 - LEVEL

    @property
    def lead(self) -> float:
        """How much better the first is, negative where it is worse; for steps, how many fewer it needs."""
        return -self.whole.difference if self.pair.score == "steps" else self.whole.difference


def compare(ranked: Board, first: str, second: str, margin: float = 0.02, power: float = POWER) -> Comparison:
    """Compare two candidates of a board by their labels.

    margin: as a recipe states it. power: that the predicted seeds are to have.

    Raises CompareError for an unknown label, one without a complete round, twice the same candidate, two that
    share no seed, or a margin that is not from 0 to 1; PanelError for a power that is not between 0 and 1.
    """
    if not 0 <= margin <= 1:
        raise CompareError(f"the margin is {margin:g}; it must be from 0 to 1, such as 0.02 for two points")
    archs = find(ranked, first), find(ranked, second)
    _refuse_same(ranked, (first, second), archs)
    alone = _alone(ranked, archs, (first, second))
    pair = rank(alone, margin)
    if pair is None:
        raise CompareError(f"{first} and {second} have no finished seed in common; run the sweep again")
    one, other = (_values(alone, arch) for arch in archs)
    many, least = len(alone.seeds), 2 * rounding(ranked)
    looks = looks_at(ranked, archs, many)
    apart = {task: one[task] - other[task] for task in one}
    whole = estimate(list(apart.values()), least)
    by_task = {task: estimate([values], least) for task, values in apart.items()}
    p_values = [gap.p_value() for gap in by_task.values()]
    known = [min(1.0, looks * p) for p in p_values if p is not None]
    corrected = dict(zip(by_task, holm(known), strict=True)) if known else {}
    left = ranked.pruned.get(archs[0]), ranked.pruned.get(archs[1])
    bounds = _worse_by(whole, -1.0 if ranked.lower_is_better else 1.0)
    asked = None if bounds is None or any(left) else bounds
    p = whole.p_value()
    return Comparison(
        labels=(first, second),
        whole=_line(None, one, other, whole, None if p is None else min(1.0, looks * p)),
        tasks=tuple(
            _line(task, {task: one[task]}, {task: other[task]}, gap, corrected.get(task))
            for task, gap in by_task.items()
        ),
        bootstrap=bootstrap(list(apart.values())),
        margin=pair.margin,
        worse_by=bounds,
        within=None if asked is None else (asked[0] <= pair.margin, asked[1] <= pair.margin),
        as_seen=_seeds(whole.mean, list(by_task.values()), many, power, looks),
        as_margin=_seeds(pair.margin, list(by_task.values()), many, power, looks),
        looks=looks,
        left=left,
        seeds=alone.seeds,
        pair=pair,
    )


def find(ranked: Board, label: str) -> str:
    """The arch of a candidate by its label, or by one of those it is stored under.

    Raises CompareError where no candidate or more than one answers to it, or it has no complete round.
    """
    named = dict(ranked.candidates.select("label", "arch").iter_rows())
    holders = [label] if label in named else [name for name in named if label in name.split(" / ")]
    if len(holders) > 1:
        raise CompareError(f"{label!r} stands for {len(holders)} candidates: {', '.join(holders)}; name one")
    if not holders:
        raise CompareError(f"there is no candidate {label!r}{_known(label, list(named))}")
    if holders[0] in ranked.waiting:
        raise CompareError(
            f"{label} has no complete round that counts yet; run the sweep again to go on with it"
        )
    return named[holders[0]]


def _known(label: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(label, names, n=1)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    listed = f"{', '.join(names[:SHOWN])}{more}"
    return f"; did you mean {close[0]!r}? Known: {listed}" if close else f"; known: {listed}"


def _refuse_same(ranked: Board, labels: tuple[str, str], archs: tuple[str, str]) -> None:
    if archs[0] != archs[1]:
        return
    others = [name for name in ranked.labels if archs[0] != find(ranked, name)]
    hint = f"name another as the second, such as {others[0]}" if others else "there is no other candidate"
    if labels[0] == labels[1]:
        raise CompareError(f"{labels[0]} is given twice; {hint}")
    raise CompareError(f"{labels[0]} and {labels[1]} are the same architecture and share their runs; {hint}")


def _alone(ranked: Board, archs: tuple[str, str], labels: tuple[str, str]) -> Board:
    """The board of the two, on the seeds that both have, under the labels they were asked for by."""
    names = pl.DataFrame({"arch": archs, "label": labels})
    own = [set(ranked.cells.filter(pl.col("arch") == arch)["seed"].to_list()) for arch in archs]
    shared = tuple(sorted(own[0] & own[1]))

    def ours(frame: pl.DataFrame) -> pl.DataFrame:
        mine = frame.drop("label").join(names, on="arch", how="inner")
        return mine.filter(pl.col("seed").is_in(shared)) if "seed" in frame.columns else mine

    return replace(
        ranked,
        cells=ours(ranked.cells),
        candidates=ours(ranked.candidates),
        runs=ours(ranked.runs),
        seeds=shared,
        waiting=(),
        pruned={},
    )


def _values(alone: Board, arch: str) -> dict[str, np.ndarray]:
    mine = alone.cells.filter(pl.col("arch") == arch).sort("task", "seed")
    return {
        str(task): part["value"].to_numpy() for (task,), part in mine.group_by("task", maintain_order=True)
    }


def _line(task: str | None, one: Arrays, other: Arrays, gap: Estimate, p: float | None) -> Line:
    first, second = (float(np.mean([values.mean() for values in side.values()])) for side in (one, other))
    many = len(next(iter(one.values())))
    return Line(task, first, second, gap.mean, gap.interval(), _standardised(gap, many), p)


def _standardised(gap: Estimate, seeds: int) -> float | None:
    """d_z with Hedges' factor, by the formula on top of the file."""
    if not gap.se or gap.df is None or gap.df <= 1 + 1e-9:
        return None
    factor = math.exp(gammaln(gap.df / 2) - gammaln((gap.df - 1) / 2)) / math.sqrt(gap.df / 2)
    return factor * gap.mean / (gap.se * math.sqrt(seeds))


def _worse_by(gap: Estimate, sign: float) -> tuple[float, float] | None:
    """Bounds of how much worse the first and the second are; sign: -1 where less is better."""
    first, second = (replace(gap, mean=side * sign * gap.mean).upper() for side in (-1.0, 1.0))
    return None if first is None or second is None else (first, second)


def _seeds(
    delta: float, gaps: Sequence[Estimate], pilot: int, power: float, family: int
) -> Prediction | None:
    """Seeds that show ``delta`` with the variances of the tasks' differences; None where nothing can."""
    errors = [gap.se for gap in gaps if gap.se is not None]
    if delta == 0 or len(errors) < len(gaps):
        return None
    variances = [pilot * error**2 for error in errors]
    return seeds_to_find(delta, variances, [1 / len(gaps)] * len(gaps), pilot, power, family)
