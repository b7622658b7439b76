"""Does a comparison keep its promise? The same architecture entered twice, and a handicap planted on purpose.

A/A: pseudo-architectures are made of disjoint sets of ONE architecture's seeds, drawn anew in every cell, and
go through the whole comparison of ``stats`` (the choice of the learning rate on validation, paired Welch
differences, Holm over all pairs). Any difference it claims is a false alarm, and at 95 % there should be no
more than 5 % of them. The interval of the rate is that of Clopper & Pearson (1934, Biometrika 26). It counts
how often the drawing was repeated. The runs behind it are fewer, and their luck is not in it: four seeds can
be split in three ways only, and if one of them looks like a difference, it comes up every third time. So
beside it stands Student's interval over the architectures, whose pools of runs are independent; that one says
whether the promise is kept.

Real pairs use every run once: two labels of a frame that are the same architecture, or the seeds of one label
dealt into disjoint sets. They are few, but independent.

Handicap: a schedule that is worse by construction must be found with as many seeds as ``power`` predicts from
a pilot. Seeds of the check are others than those of the pilot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

from analysis.agreement import chosen, signs
from analysis.panel import Panel, PanelError, Part, Sheet, cut
from analysis.power import Prediction, seeds_between
from analysis.stats import LEVEL, estimate

__all__ = ["Alarms", "Handicap", "clopper_pearson", "dealt", "entered_twice", "handicap", "same_twice"]

_AT_ONCE = 500


@dataclass(frozen=True)
class Alarms:
    """False alarms among ``trials`` comparisons of an architecture with itself, at ``seeds`` seeds a side.

    rates: of each architecture whose runs were drawn from again and again; empty where every run counts once.
    """

    alarms: int
    trials: int
    seeds: int
    rates: tuple[float, ...] = ()

    @property
    def rate(self) -> float:
        return self.alarms / self.trials

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the rate, by the number of trials."""
        return clopper_pearson(self.alarms, self.trials)

    @property
    def across(self) -> tuple[float, float] | None:
        """95 % interval of the rate, over architectures; None where there are no two of them."""
        if len(self.rates) < 2:
            return None
        low, high = estimate([np.array(self.rates)]).interval() or (0.0, 1.0)
        return max(0.0, low), min(1.0, high)

    @property
    def honest(self) -> bool:
        """Whether the rate may be the promised 5 % or less: the interval does not lie above it."""
        return (self.across or self.interval)[0] <= 1 - LEVEL + 1e-12


@dataclass(frozen=True)
class Handicap:
    """What a pilot predicts, and whether it came true; ``found`` is None where too few seeds were
    ``left``."""

    prediction: Prediction
    left: int
    found: bool | None
    p: float | None


def clopper_pearson(hits: int, trials: int, level: float = LEVEL) -> tuple[float, float]:
    """Exact interval of a rate. Raises PanelError without trials."""
    if not 0 <= hits <= trials or trials < 1:
        raise PanelError(f"{hits} of {trials} is no rate; at least one trial is needed")
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, hits, trials - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, trials - hits)) if hits < trials else 1.0
    return low, high


def same_twice(
    sheet: Sheet, seeds: int | None = None, repeats: int = 1000, members: int = 2, seed: int = 0
) -> Alarms:
    """``repeats`` times: ``members`` pseudo-architectures of one architecture; is any pair told apart?

    Architectures take turns. seeds: how many each member has in every cell (default: as many as there are,
    shared out). Raises PanelError when there are not ``members`` times 2 seeds.
    """
    size = sheet.seeds // members if seeds is None else seeds
    if size < 2 or size * members > sheet.seeds:
        need = members * max(size, 2)
        raise PanelError(
            f"every cell needs {need} seeds for {members} disjoint sets; there are {sheet.seeds}"
        )
    rng = np.random.default_rng(seed)
    turns = np.arange(repeats) % len(sheet.labels)
    alarms = np.zeros(len(sheet.labels))
    for start in range(0, repeats, _AT_ONCE):
        who = turns[start : start + _AT_ONCE]
        parts = [_pseudo(part, who, rng, size, members) for part in sheet.parts]
        np.add.at(alarms, who, signs(chosen(parts), sheet.weights).any(-1))
    rates = alarms / np.maximum(np.bincount(turns, minlength=len(alarms)), 1)
    return Alarms(int(alarms.sum()), repeats, size, tuple(rates.tolist()))


def _pseudo(part: Part, who_B: np.ndarray, rng: np.random.Generator, size: int, members: int) -> Part:
    """Arrays [B, members, L, size]: disjoint seeds of architecture ``who[b]``, drawn anew."""
    draws, many = len(who_B), part.value.shape[2]
    order = rng.random((draws, many)).argsort(axis=1)[:, : size * members].reshape(draws, members, size)

    def taken(scores_ALS: np.ndarray) -> np.ndarray:
        mine = scores_ALS[who_B].swapaxes(1, 2)  # [B, S, L]
        rows = np.arange(draws)[:, None, None]
        return mine[rows, order].swapaxes(2, 3)

    return Part(part.task, taken(part.value), taken(part.valid))


def dealt(sheet: Sheet, seeds: int) -> Alarms:
    """Real A/A pairs: each schedule's seeds are dealt, in order, into pairs of disjoint sets of ``seeds``.

    Each run is used once, and each pair goes through the whole comparison, over all cells, as two schedules
    would. Raises PanelError when there are not twice the seeds.
    """
    if 2 * seeds > sheet.seeds:
        raise PanelError(f"{2 * seeds} seeds are needed for two sets of {seeds}; there are {sheet.seeds}")
    alarms = trials = 0
    for place in range(len(sheet.labels)):
        for start in range(0, sheet.seeds - 2 * seeds + 1, 2 * seeds):
            sets = [slice(start + side * seeds, start + (side + 1) * seeds) for side in (0, 1)]
            pair = [
                Part(part.task, *(np.stack([a[place][:, s] for s in sets]) for a in (part.value, part.valid)))
                for part in sheet.parts
            ]
            alarms, trials = alarms + int(signs(chosen(pair), sheet.weights).any()), trials + 1
    return Alarms(alarms, trials, seeds)


def entered_twice(reference: Panel, pairs: Sequence[tuple[str, str]]) -> Alarms:
    """Real A/A pairs given by their labels: each is compared once, on all cells and seeds.

    The runs of a pair must differ, or there is nothing to test: raises PanelError where all scores are equal.
    """
    sheet = cut(reference)
    alarms = 0
    for pair in pairs:
        mine = sheet.only(reference.places(pair))
        if all(np.array_equal(part.value[0], part.value[1]) for part in mine.parts):
            raise PanelError(f"{pair[0]} and {pair[1]} have the same runs; give the second other seeds")
        alarms += int(signs(chosen(mine.parts), mine.weights).any())
    return Alarms(alarms, len(pairs), sheet.seeds)


def handicap(base: Panel, other: Panel, pilot: int = 3, power: float = 0.8) -> Handicap:
    """Predict from ``pilot`` seeds how many show that ``other`` is worse, and try it on the next ones.

    Each panel holds one schedule, on the same cells; its trainings may differ (a learning rate may be the
    handicap). Raises PanelError when the cells differ or the pilot has fewer than 2 seeds.
    """
    sheets = [cut(base), cut(other)]
    cells = [{cell.setting for cell in one.cells} for one in (base, other)]
    if any(len(sheet.labels) != 1 for sheet in sheets) or cells[0] != cells[1]:
        raise PanelError("a handicap is shown by two frames of one schedule each, on the same settings")
    many = min(sheet.seeds for sheet in sheets)
    if not 2 <= pilot <= many:
        raise PanelError(f"a pilot of {pilot} seeds cannot be had; it must be between 2 and {many}")
    weights = sheets[0].weights
    mine, its = (_alone(sheet, 0, pilot) for sheet in sheets)
    prediction = seeds_between(mine, its, weights.tolist(), power)
    left, wanted = many - pilot, prediction.seeds
    if wanted is None or wanted > left:
        return Handicap(prediction, left, None, None)
    late = [_alone(sheet, pilot, pilot + wanted) for sheet in sheets]
    scaled = [w * len(weights) * (a - b) for w, a, b in zip(weights, *late, strict=True)]
    gap = estimate(scaled)
    p = gap.p_value()
    return Handicap(prediction, left, p is not None and p <= 1 - LEVEL and gap.mean > 0, p)


def _alone(sheet: Sheet, start: int, stop: int) -> list[np.ndarray]:
    """Scores of the only schedule per cell at seeds ``start`` to ``stop``, with the training those pick."""
    picks = [np.arange(start, stop)] * len(sheet.parts)
    return [values[0] for values in chosen(sheet.take(picks).parts)]
