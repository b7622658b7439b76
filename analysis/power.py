"""What a cell can tell per CPU-second, and how many seeds tell two schedules apart.

On one cell at one cut let x[a, s] be the score of schedule a at seed s, with the training that validation
picks. The two-way analysis of variance with seeds as blocks (Fisher 1935, "The Design of Experiments", ch. 4;
paired, as every schedule has the same data at a seed) gives

    F = MS_between / MS_residual,   spread^2 = max(0, MS_between - MS_residual) / S,   noise^2 = MS_residual

A protocol that spends t seconds a schedule on the cell can afford n = t / (seconds per seed) seeds, and the
noncentrality of its tests grows as n * spread^2 / noise^2. So the power of a cell per CPU-second is

    (spread^2 / noise^2) / (CPU-seconds per schedule and seed, over all trainings tried)

The number of seeds for two given schedules follows from their paired differences on each cell: with delta
their weighted mean and v[c] the variance on cell c, at n seeds SE^2 = sum_c w[c]^2 v[c] / n, with Welch's
degrees of freedom as in ``stats``, and the power of the two-sided test is that of the noncentral t with
noncentrality delta / SE (Cohen 1988, "Statistical Power Analysis", ch. 2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.stats import f as fisher
from scipy.stats import nct
from scipy.stats import t as student

from analysis.agreement import chosen
from analysis.panel import Cell, Panel, PanelError, Part, Sheet
from analysis.stats import LEVEL

__all__ = [
    "Prediction",
    "components",
    "differ",
    "power_at",
    "scores_at",
    "seeds_between",
    "seeds_for",
    "seeds_to_find",
    "separation",
]

MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Prediction:
    """Seeds that tell two schedules apart with the power asked for; None when MOST_SEEDS do not.

    delta: the difference that was seen, first less second. reached: the power at ``seeds``. pilot: how many
    seeds the figures stand on; at few the prediction is loose, as delta and the variances are guesses.
    """

    seeds: int | None
    delta: float
    reached: float
    power: float
    pilot: int


def scores_at(cell: Cell, at: int, rates: Sequence[int]) -> np.ndarray:
    """Scores [A, S] of a cell cut at its evaluation ``at``, with the better of the trainings ``rates``."""
    rows = list(rates)
    part = Part(cell.task, cell.value[..., at][:, rows], cell.valid[..., at][:, rows])
    return chosen([part])[0]


def components(scores_AS: np.ndarray) -> tuple[float, float]:
    """MS_between and MS_residual of scores [A, S], by the formula on top of the file."""
    schedules, seeds = scores_AS.shape
    rows, columns = scores_AS.mean(1), scores_AS.mean(0)
    residual = scores_AS - rows[:, None] - columns[None, :] + scores_AS.mean()
    between = seeds * float(rows.var(ddof=1))
    return between, float((residual**2).sum()) / ((schedules - 1) * (seeds - 1))


def differ(between: float, noise: float, schedules: int, seeds: int) -> tuple[float, float]:
    """F and its p-value, the chance of such an F where no schedule differs; inf and 0 without any noise."""
    if noise <= 0:
        return (math.inf, 0.0) if between > 0 else (1.0, 1.0)
    ratio = between / noise
    return ratio, float(fisher.sf(ratio, schedules - 1, (schedules - 1) * (seeds - 1)))


def separation(reference: Panel) -> pl.DataFrame:
    """Every cell at every cut, the best per CPU-second first.

    Columns: task, setting, step, seconds (per schedule and seed, all trainings), F, p (of no difference
    between schedules), spread, noise (standard deviations), apart (share of pairs whose paired t-test at all
    seeds gives p <= 5 %, uncorrected), per_second (infinite where schedules differ without any noise).
    """
    rates = range(len(reference.trainings))
    rows = [
        _separation(cell, at, scores_at(cell, at, rates))
        for cell in reference.cells
        for at in range(len(cell.steps))
    ]
    return pl.DataFrame(rows).sort("per_second", "setting", "step", descending=[True, False, False])


def _separation(cell: Cell, at: int, scores_AS: np.ndarray) -> dict[str, float | int | str]:
    schedules, seeds = scores_AS.shape
    between, noise = components(scores_AS)
    spread = max(0.0, between - noise) / seeds
    ratio, p = differ(between, noise, schedules, seeds)
    seconds = float(cell.seconds[..., at].sum(axis=1).mean())
    signal = spread / noise if noise > 0 else math.inf if spread > 0 else 0.0
    first, second = np.triu_indices(schedules, 1)
    apart = scores_AS[first] - scores_AS[second]
    mean, error = apart.mean(1), apart.std(1, ddof=1) / math.sqrt(seeds)
    told = np.abs(mean) > student.ppf(0.5 + LEVEL / 2, seeds - 1) * error
    return {
        "task": cell.task,
        "setting": cell.setting,
        "step": cell.steps[at],
        "seconds": seconds,
        "F": ratio,
        "p": p,
        "spread": math.sqrt(spread),
        "noise": math.sqrt(noise),
        "apart": float(told.mean()),
        "per_second": signal / seconds if seconds > 0 else 0.0,
    }


def power_at(
    delta: float, variances: Sequence[float], weights: Sequence[float], seeds: int, family: int = 1
) -> float:
    """Chance that a difference is found at ``seeds`` seeds; alpha is shared by ``family`` comparisons.

    variances: of the paired difference at one seed, per cell. The wrong sign does not count as found.
    """
    parts = np.asarray(weights) ** 2 * np.asarray(variances) / seeds
    total = float(parts.sum())
    if total <= 0:
        return 1.0 if delta else 0.0
    df = total**2 / float((parts**2 / (seeds - 1)).sum())
    bar = float(student.ppf(1 - (1 - LEVEL) / (2 * family), df))
    found = float(nct.sf(bar, df, abs(delta) / math.sqrt(total)))
    return found if math.isfinite(found) else 1.0


def seeds_between(
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    weights: Sequence[float],
    power: float = 0.8,
    family: int = 1,
    paired: bool = True,
) -> Prediction:
    """Seeds that tell two apart, from their scores per cell (one array of seed values each).

    Without ``paired`` the variances add, as for runs of other seeds. Raises PanelError at one seed or for a
    power that is not between 0 and 1.
    """
    pilot = min(len(one) for one in (*first, *second))
    if pilot < 2:
        raise PanelError("one seed shows no variance; 2 seeds are needed, and 5 make a fair prediction")
    pairs = list(zip(first, second, strict=True))
    delta = sum(w * float(a.mean() - b.mean()) for w, (a, b) in zip(weights, pairs, strict=True))
    spread = [float((a - b).var(ddof=1) if paired else a.var(ddof=1) + b.var(ddof=1)) for a, b in pairs]

    return seeds_to_find(delta, spread, weights, pilot, power, family)


def seeds_to_find(
    delta: float,
    variances: Sequence[float],
    weights: Sequence[float],
    pilot: int,
    power: float = 0.8,
    family: int = 1,
) -> Prediction:
    """Seeds at which a weighted mean difference ``delta`` is found; variances as in ``power_at``.

    pilot: the seeds that the variances stand on. Raises PanelError for a power that is not between 0 and 1.
    """
    if not 0 < power < 1:
        raise PanelError(f"power is {power}; it must be between 0 and 1, such as 0.8")

    def reached(seeds: int) -> float:
        return power_at(delta, variances, weights, seeds, family)

    if reached(MOST_SEEDS) < power:
        return Prediction(None, delta, reached(MOST_SEEDS), power, pilot)
    low, high = 1, 2  # power grows with seeds: double, then halve the stretch
    while reached(high) < power:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) >= power else (middle, high)
    return Prediction(high, delta, reached(high), power, pilot)


def seeds_for(sheet: Sheet, first: str, second: str, power: float = 0.8, family: int = 1) -> Prediction:
    """How many seeds of the sheet's cells tell these two schedules apart. Raises PanelError."""
    for label in (first, second):
        if label not in sheet.labels:
            raise PanelError(f"there is no schedule {label!r}; there are {', '.join(sheet.labels)}")
    values = chosen(sheet.parts)
    at, other = sheet.labels.index(first), sheet.labels.index(second)
    weights = sheet.weights.tolist()
    return seeds_between([v[at] for v in values], [v[other] for v in values], weights, power, family)
