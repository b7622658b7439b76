"""How far two rankings of the same schedules agree: Kendall's tau with ties, its interval, its ceiling.

A ranking says of each pair of schedules +1 (the first is better), -1, or 0: a tie, they cannot be told apart.
With a[ij] and b[ij] what two rankings say of pair ij,

    tau = sum a[ij] b[ij] / sqrt(sum a[ij]^2 * sum b[ij]^2)

This is Kendall's tau-b (Kendall 1945, "The treatment of ties in ranking problems", Biometrika 33) in the form
of Daniels' general coefficient (1944, Biometrika 33), which asks for signs only and so allows ties that are
not transitive; with transitive ones it is the tau-b of ``scipy.stats.kendalltau``. A pair that one ranking
tells apart and the other does not counts against the agreement; one that neither tells apart does not count.
A ranking that tells no pair apart agrees with nothing: tau is 0.

Ties, three rules:

- ``paired`` (the rule of ``stats.rank``): the paired difference of the two, same cell and same seed, cannot
  be told from 0 at 95 % by Welch's formula, p-values of all pairs corrected together (Holm 1979). With it the
  chance that any false order is claimed is 5 %.
- ``overlap``: the two 95 % intervals overlap. Simple and common, but of no stated level: it ignores that
  seeds are shared and that standard errors add in squares (Schenker & Gentleman 2001, American Statistician
  55).
- ``none``: the order of the means, whatever the noise.

Intervals are percentiles of a bootstrap over seeds within cells, the same seeds for all schedules (they are
paired), other ones for each of the two rankings. Each resample repeats everything: the choice of the learning
rate on validation, means, ties. Deviations from the mean are stretched by sqrt(n / (n - 1)) first, so that at
few seeds a resampled mean has the variance that the sample says (Rao & Wu 1988, JASA 83). The interval is for
the mean tau of fresh pairs of runs of these sizes, not of endless ones; tests hold its coverage in
simulation. A resample holds the noise twice, once in the data and once in the drawing, so that it errs to the
low side, and where hardly any pair can be told apart it is not to be relied on.

Tasks are fixed effects as in ``stats``: an interval over seeds is about this panel on these cells. With
``schedules`` the schedules are drawn anew, too: then it is about other panels like this one, and much wider.

Shapes: A schedules, L trainings, S seeds, B draws, P pairs of schedules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtr, stdtrit

from analysis.panel import PanelError, Part, Sheet
from analysis.stats import LEVEL, Interval

__all__ = [
    "Agreement",
    "Ceiling",
    "Standing",
    "Ties",
    "agreement",
    "chosen",
    "redrawn_signs",
    "repeat",
    "resample",
    "signs",
    "split_half",
    "standings",
    "tau",
]

Ties = Literal["paired", "overlap", "none"]
_AT_ONCE = 250
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Agreement:
    """Tau of two rankings. ``order``: tau of the bare orders, without ties.

    Of ``pairs`` pairs the first ranking tells ``told_first`` apart, the second ``told_second``, both
    ``told_both``, and of these ``contradicted`` in opposite order.
    """

    tau: float
    interval: Interval | None
    order: float
    pairs: int
    told_first: int
    told_second: int
    told_both: int
    contradicted: int
    ties: Ties


@dataclass(frozen=True)
class Ceiling:
    """Tau of the reference with itself: the mean over splits or redraws, and where 95 % of them lie.

    order: the mean of the bare orders, without ties. seeds: how many each of the two rankings stands on, in
    the poorest cell. With one seed nothing can be called a tie, so ``ties`` is then ``none`` and the figure
    compares with ``Agreement.order`` only.
    """

    mean: float
    interval: Interval
    order: float
    seeds: int
    splits: int
    ties: Ties


@dataclass(frozen=True)
class Standing:
    """A schedule in a ranking: its score with Student's 95 % interval (None at one seed)."""

    label: str
    score: float
    interval: Interval | None


def tau(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Tau-b of signs [..., P] and [..., P] by the formula on top; 0 where a ranking tells nothing apart."""
    first, second = np.asarray(first, float), np.asarray(second, float)
    below = np.sqrt((first**2).sum(-1) * (second**2).sum(-1))
    return np.where(below > 0, (first * second).sum(-1) / np.where(below > 0, below, 1.0), 0.0)


def chosen(parts: Sequence[Part]) -> list[np.ndarray]:
    """Test scores [..., A, S] of each cell with the training that validation picks, as ``tables.board`` does.

    The parts' arrays are [..., A, L, S]. One training per schedule and task: the best mean over the task's
    cells and seeds; a tie goes to the first.
    """
    best: dict[str, np.ndarray] = {}
    for task in {part.task for part in parts}:
        mine = [part.valid.mean(-1) for part in parts if part.task == task]
        best[task] = np.mean(mine, axis=0).argmax(-1)
    return [
        np.take_along_axis(part.value, best[part.task][..., None, None], axis=-2)[..., 0, :] for part in parts
    ]


def signs(values: Sequence[np.ndarray], weights: np.ndarray, ties: Ties = "paired") -> np.ndarray:
    """What a ranking says of each pair, [..., P], from scores [..., A, S] of each cell.

    Pairs are in the order of ``np.triu_indices(A, 1)``. Raises PanelError when ties are asked of one seed.
    """
    first, second = np.triu_indices(values[0].shape[-2], 1)
    if ties != "none" and min(one.shape[-1] for one in values) < 2:
        raise PanelError("one seed gives no interval, so nothing shows what is tied; 2 seeds are needed")
    if ties == "paired":
        apart = [one[..., first, :] - one[..., second, :] for one in values]
        mean, error, df = _estimate(apart, weights)
        with np.errstate(divide="ignore", invalid="ignore"):
            p = 2 * stdtr(df, -np.abs(mean) / error)
        p = np.where(error > _ROUNDING, p, np.where(np.abs(mean) > _ROUNDING, 0.0, 1.0))
        return np.sign(mean) * (_holm(p) <= 1 - LEVEL)
    if ties == "overlap":
        mean, error, df = _estimate(values, weights)
        half = stdtrit(df, 0.5 + LEVEL / 2) * error
        gap = mean[..., first] - mean[..., second]
        return np.sign(gap) * (np.abs(gap) > half[..., first] + half[..., second] + _ROUNDING)
    mean = sum(w * one.mean(-1) for w, one in zip(weights, values, strict=True))
    gap = np.asarray(mean)[..., first] - np.asarray(mean)[..., second]
    return np.sign(gap) * (np.abs(gap) > _ROUNDING)


def _estimate(values: Sequence[np.ndarray], weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``stats.estimate`` for many at once and with weights: mean, standard error, degrees of freedom."""
    shape = values[0].shape[:-1]
    mean, total, below = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for weight, one in zip(weights, values, strict=True):
        seeds = one.shape[-1]
        part = weight**2 * one.var(-1, ddof=1) / seeds
        mean += weight * one.mean(-1)
        total += part
        below += part**2 / (seeds - 1)
    df = np.where(below > 0, total**2 / np.where(below > 0, below, 1.0), 1.0)
    return mean, np.sqrt(total), df


def _holm(p: np.ndarray) -> np.ndarray:
    """``stats.holm`` along the last axis."""
    order = np.argsort(p, axis=-1, kind="stable")
    sorted_p = np.take_along_axis(p, order, -1) * np.arange(p.shape[-1], 0, -1)
    corrected = np.empty_like(p)
    np.put_along_axis(corrected, order, np.minimum(np.maximum.accumulate(sorted_p, -1), 1.0), -1)
    return corrected


def standings(sheet: Sheet) -> tuple[Standing, ...]:
    """The ranking that a sheet gives, best first, by the formula of ``stats``; cells are strata."""
    values = chosen(sheet.parts)
    if sheet.seeds < 2:
        mean, half = sum(w * one.mean(-1) for w, one in zip(sheet.weights, values, strict=True)), None
    else:
        mean, error, df = _estimate(values, sheet.weights)
        half = stdtrit(df, 0.5 + LEVEL / 2) * error
    rows = [
        Standing(label, float(m), None if half is None else (float(m - half[at]), float(m + half[at])))
        for at, (label, m) in enumerate(zip(sheet.labels, np.asarray(mean), strict=True))
    ]
    return tuple(sorted(rows, key=lambda row: -row.score))


def resample(sheet: Sheet, rng: np.random.Generator, draws: int) -> list[Part]:
    """``draws`` redraws of every cell's seeds, stretched as on top of the file; arrays [B, A, L, S]."""
    parts: list[Part] = []
    for part in sheet.parts:
        seeds = part.value.shape[-1]
        picks = rng.integers(seeds, size=(draws, seeds))
        parts.append(Part(part.task, *(_redraw(one, picks) for one in (part.value, part.valid))))
    return parts


def _redraw(scores_ALS: np.ndarray, picks_BS: np.ndarray) -> np.ndarray:
    seeds = scores_ALS.shape[-1]
    mean = scores_ALS.mean(-1, keepdims=True)
    stretched = mean + np.sqrt(seeds / max(seeds - 1, 1)) * (scores_ALS - mean)
    return np.moveaxis(stretched[..., picks_BS], -2, 0)


def redrawn_signs(sheet: Sheet, rng: np.random.Generator, draws: int, ties: Ties) -> np.ndarray:
    """Signs [B, P] of ``draws`` bootstrap resamples of a sheet."""
    found: list[np.ndarray] = []
    for start in range(0, draws, _AT_ONCE):
        parts = resample(sheet, rng, min(_AT_ONCE, draws - start))
        found.append(signs(chosen(parts), sheet.weights, ties))
    return np.concatenate(found)


def agreement(
    first: Sheet,
    second: Sheet,
    ties: Ties = "paired",
    draws: int = 1000,
    seed: int = 0,
    schedules: bool = False,
) -> Agreement:
    """Tau of the rankings of two sheets over the same schedules, with a bootstrap interval (none at 0 draws).

    When the second is cut out of the first, they share runs: ``tau`` itself is then too friendly, while the
    interval, which draws both apart, is not. Raises PanelError when the schedules differ or are fewer than 2.
    """
    if first.labels != second.labels:
        raise PanelError(
            f"the two rankings are of different schedules: {', '.join(first.labels)} against "
            f"{', '.join(second.labels)}"
        )
    if len(first.labels) < 2:
        raise PanelError(f"{len(first.labels)} schedule is no ranking; 2 are needed")
    values = [(chosen(sheet.parts), sheet.weights) for sheet in (first, second)]
    a, b = (signs(*one, ties) for one in values)
    order = tau(*(signs(*one, "none") for one in values))
    interval = None
    if draws and min(first.seeds, second.seeds) > 1:
        rng = np.random.default_rng(seed)
        drawn = [redrawn_signs(sheet, rng, draws, ties) for sheet in (first, second)]
        if schedules:
            picks = rng.integers(len(first.labels), size=(draws, len(first.labels)))
            drawn = [_of_schedules(one, picks) for one in drawn]
        interval = _middle(tau(*drawn))
    both = np.abs(a * b)
    return Agreement(
        tau=float(tau(a, b)),
        interval=interval,
        order=float(order),
        pairs=len(a),
        told_first=int(np.abs(a).sum()),
        told_second=int(np.abs(b).sum()),
        told_both=int(both.sum()),
        contradicted=int((a * b < 0).sum()),
        ties=ties,
    )


def _of_schedules(signs_BP: np.ndarray, picks_BA: np.ndarray) -> np.ndarray:
    """Signs of the pairs among drawn schedules; one drawn twice is tied with itself."""
    size = picks_BA.shape[1]
    first, second = np.triu_indices(size, 1)
    table = np.zeros((len(signs_BP), size, size))
    table[:, first, second] = signs_BP
    table[:, second, first] = -signs_BP
    rows = np.arange(len(signs_BP))[:, None]
    return table[rows, picks_BA[:, first], picks_BA[:, second]]


def _middle(taus: np.ndarray) -> Interval:
    low, high = np.quantile(taus, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return float(low), float(high)


def split_half(sheet: Sheet, ties: Ties = "paired", splits: int = 200, seed: int = 0) -> Ceiling:
    """Tau between the two halves of each cell's seeds, over random splits: what the data know of themselves.

    Both halves have half of the seeds, so that this understates what the whole would say of a repeat. At 2 or
    3 seeds a half is one seed, of which no tie can be told: then the bare orders are compared. Raises
    PanelError at one seed.
    """
    if sheet.seeds < 2:
        raise PanelError("one seed cannot be split in two halves; 2 seeds are needed")
    rule: Ties = ties if sheet.seeds >= 4 else "none"
    rng = np.random.default_rng(seed)
    found, orders = np.empty(splits), np.empty(splits)
    for at in range(splits):
        mixed = [rng.permutation(part.value.shape[2]) for part in sheet.parts]
        halves = [
            sheet.take([m[: len(m) // 2] for m in mixed]),
            sheet.take([m[-(len(m) // 2) :] for m in mixed]),
        ]
        found[at] = tau(*(signs(chosen(half.parts), half.weights, rule) for half in halves))
        orders[at] = tau(*(signs(chosen(half.parts), half.weights, "none") for half in halves))
    return Ceiling(float(found.mean()), _middle(found), float(orders.mean()), sheet.seeds // 2, splits, rule)


def repeat(sheet: Sheet, ties: Ties = "paired", draws: int = 1000, seed: int = 0) -> Ceiling:
    """Tau between two bootstrap redraws of the reference: what a second reference of its size would give.

    Raises PanelError at one seed, or without draws.
    """
    if sheet.seeds < 2:
        raise PanelError("one seed cannot be redrawn; 2 seeds are needed")
    if draws < 1:
        raise PanelError(f"{draws} draws give no ceiling; at least 1 is needed")
    rng = np.random.default_rng(seed)
    found = tau(*(redrawn_signs(sheet, rng, draws, ties) for _ in range(2)))
    orders = tau(*(redrawn_signs(sheet, rng, draws, "none") for _ in range(2)))
    return Ceiling(float(found.mean()), _middle(found), float(orders.mean()), sheet.seeds, draws, ties)
