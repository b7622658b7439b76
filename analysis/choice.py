"""The choice of a cheap protocol: which cells, cuts, seeds and learning rates, under a CPU budget.

What is wanted is the tau that the protocol can be expected to reach with the reference. For pair ij let
s[ij] be what the reference says (+1, -1, 0), and predict the protocol's difference as normal with mean d and
variance v from the stored runs (weights as in the score: tasks alike, cells of a task alike):

    P(+-) = Phi(+-d / sqrt(v) - b),   b: Student's quantile, 5 % shared by all pairs (Bonferroni)
    expected tau = sum s (P(+) - P(-)) / sqrt(sum s^2 * sum (P(+) + P(-)))
    merit = 0.9 expected tau + 0.1 (the same with b = 0: tau of the order, without ties)

- A cell at a cut is offered when its F test says that schedules differ there (p <= 1 %). Else noise would be
  bought for the degrees of freedom that it brings.
- Merit is what is maximised. At few seeds of few cells nothing can be told apart whatever is added; there the
  order shows which way is up.
- d of a cell and cut is shrunk towards 0 by its reliability spread^2 / (spread^2 + noise^2 / S), or noise
  would look like differences (Efron & Morris 1973, JASA 68; spread and noise as in ``power``).
- b has Welch's degrees of freedom, from noises that are averaged over pairs: few seeds of few cells tell
  nothing.
- v at one seed is the mean of the pair's own variance and 2 noise^2, the pooled one: own variances from a few
  seeds are wild (moderated as in Smyth 2004, Stat. Appl. Genet. Mol. Biol. 3, with equal weights).

Cells, cuts and seeds are chosen greedily: of all changes of one cell (take it up, train it longer, give it
more seeds) that fit the budget, the one with the most merit per second, until none helps; against the
best single cell, which keeps the greedy choice from the worst case (Khuller, Moss & Naor 1999, Inf. Process.
Lett. 70). Budgets grow from the choice of the smaller one, so that merit never falls. All this is done
for each set of learning rates, and the best set is kept.

A protocol chosen on a panel flatters itself on that panel. So the choice is repeated on random halves of the
schedules, and each half's protocol is scored on the other half (``cross_validate``).

Shapes: N candidates (cell, cut, seeds), P pairs of schedules, T tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy.special import ndtr, stdtrit

from analysis.agreement import Agreement, Ties, agreement, chosen, redrawn_signs, signs, tau
from analysis.panel import Panel, PanelError, Pick, Protocol, Training, cost, cut
from analysis.power import components, differ, scores_at
from analysis.stats import LEVEL, Interval

__all__ = ["Choice", "HeldOut", "Point", "choose", "cross_validate", "frontier"]

CUTS = 8
"""At most so many cuts of a cell are tried, evenly spread on a logarithmic scale."""
LEAST_SEEDS = 2
"""With one seed a protocol could give no interval."""
SURE = 0.01
"""The p-value of F up to which a cell is offered."""
ORDER = 0.1
"""Weight of the order in the merit."""
_POWERS = (1, 2, 4)
"""Of the count that sums of delta, noise and below are divided by in means over cells, then over tasks."""


@dataclass(frozen=True)
class Choice:
    """A protocol (None: none fits), its mean cost per schedule in CPU-seconds, the tau expected of it."""

    budget: float
    protocol: Protocol | None
    seconds: float
    expected: float
    merit: float


@dataclass(frozen=True)
class HeldOut:
    """Tau on schedules that the choice did not see: mean over random halves, and where 95 % of them lie."""

    mean: float
    interval: Interval
    halves: int
    schedules: int


@dataclass(frozen=True)
class Point:
    """A point of the frontier. dearest: seconds of the costliest schedule; close: agreement on some
    labels."""

    choice: Choice
    dearest: float
    agreement: Agreement
    close: Agreement | None
    held_out: HeldOut | None


@dataclass(frozen=True, eq=False)
class _Menu:
    """Candidates for one set of trainings; delta and noise are per pair [N, P], noise already over seeds.

    below: mean noise squared over (seeds - 1), what Welch's degrees of freedom are made of, [N].
    """

    trainings: tuple[Training, ...]
    picks: tuple[Pick, ...]
    cell: np.ndarray
    task: np.ndarray
    seconds: np.ndarray
    delta: np.ndarray
    noise: np.ndarray
    below: np.ndarray


def choose(reference: Panel, budget: float, labels: Sequence[str] | None = None) -> Choice:
    """The best protocol found whose mean cost per schedule is at most ``budget`` CPU-seconds.

    labels: the schedules it is chosen on (default: all). Raises PanelError when the reference tells no pair
    of them apart.
    """
    return _path(reference, [budget], labels)[0]


def _path(reference: Panel, budgets: Sequence[float], labels: Sequence[str] | None = None) -> list[Choice]:
    """A choice for each budget, ascending; merit never falls along it."""
    places = reference.places(labels or reference.labels)
    sheet = cut(reference).only(places)
    wanted = signs(chosen(sheet.parts), sheet.weights)
    if not wanted.any():
        raise PanelError(
            f"the reference tells none of its {len(wanted)} pairs apart, so there is nothing to agree with; "
            "it needs more seeds or longer runs"
        )
    best: list[Choice] = [Choice(budget, None, 0.0, 0.0, 0.0) for budget in budgets]
    every = tuple(range(len(reference.trainings)))
    for rates in [every] if reference.halved else _rate_sets(len(every)):
        menu = _menu(reference, rates, places)
        if not menu.picks:
            continue
        for at, found in enumerate(_Greedy(menu, wanted).path(budgets)):
            if found.merit > best[at].merit + 1e-9:
                best[at] = found
    for at in range(1, len(best)):
        if best[at - 1].merit > best[at].merit:
            best[at] = replace(best[at - 1], budget=budgets[at])
    return best


def _rate_sets(count: int) -> list[tuple[int, ...]]:
    """Sets of trainings to try: all of them up to three, else each alone, neighbours, and the whole grid."""
    if count <= 3:
        return [one for size in range(1, count + 1) for one in combinations(range(count), size)]
    return [*((i,) for i in range(count)), *((i, i + 1) for i in range(count - 1)), tuple(range(count))]


def _menu(reference: Panel, rates: Sequence[int], places: Sequence[int]) -> _Menu:
    picks: list[Pick] = []
    cells: list[int] = []
    seconds: list[float] = []
    deltas: list[np.ndarray] = []
    noises: list[np.ndarray] = []
    first, second = np.triu_indices(len(places), 1)
    for number, cell in enumerate(reference.cells):
        many = len(cell.seeds)
        for at in _cuts(len(cell.steps)):
            scores = scores_at(cell, at, rates)[list(places)]
            between, noise = components(scores)
            if differ(between, noise, len(places), many)[1] > SURE:
                continue
            signal = max(0.0, between - noise)
            apart = scores[first] - scores[second]
            delta = apart.mean(1) * (signal / between if between > 0 else 0.0)
            variance = 0.5 * (apart.var(1, ddof=1) + 2 * noise)
            spent = cell.seconds[..., at][list(places)][:, list(rates)].sum(axis=1).mean(axis=0)  # [S]
            for seeds in range(LEAST_SEEDS, many + 1):
                picks.append(Pick(cell.setting, cell.steps[at], seeds))
                cells.append(number)
                seconds.append(float(spent[:seeds].sum()))
                deltas.append(delta)
                noises.append(variance / seeds)
    counts = np.array([pick.seeds for pick in picks])
    tasks = [cell.task for cell in reference.cells]
    known = sorted(set(tasks))
    noise_NP = np.array(noises).reshape(len(picks), len(first))
    return _Menu(
        trainings=tuple(reference.trainings[rate] for rate in rates),
        picks=tuple(picks),
        cell=np.array(cells),
        task=np.array([known.index(tasks[number]) for number in cells]),
        seconds=np.array(seconds),
        delta=np.array(deltas).reshape(noise_NP.shape),
        noise=noise_NP,
        below=noise_NP.mean(1) ** 2 / (counts - 1),
    )


def _cuts(many: int) -> list[int]:
    """Evaluations at which a curve may be cut: all, or CUTS of them, the last always among them."""
    if many <= CUTS:
        return list(range(many))
    return sorted({round(float(at)) - 1 for at in np.geomspace(1, many, CUTS)})


class _Greedy:
    """The greedy choice of ``choose`` on one menu; what is taken is kept from budget to budget."""

    def __init__(self, menu: _Menu, wanted: np.ndarray) -> None:
        self.menu, self.wanted = menu, wanted
        self.tail = (1 - LEVEL) / (2 * len(wanted))
        self.taken: dict[int, int] = {}

    def path(self, budgets: Sequence[float]) -> list[Choice]:
        return [self._grow(budget) for budget in budgets]

    def _grow(self, budget: float) -> Choice:
        menu = self.menu
        _, now = self._stand()
        while True:
            merit, extra, spent = self._changes()
            gain = np.where((extra > 0) & (spent <= budget), merit - now, -np.inf)
            if not (gain > 1e-6).any():
                break
            rate = np.where(gain > 1e-6, gain / np.where(extra > 0, extra, 1.0), -np.inf)
            best = int(rate.argmax())
            self.taken[int(menu.cell[best])] = best
            now = float(merit[best])
        alone = np.where(menu.seconds <= budget, self._merit(menu.delta, menu.noise, menu.below), -np.inf)
        if alone.size and alone.max() > now + 1e-6:
            best = int(alone.argmax())
            self.taken = {int(menu.cell[best]): best}
            return self._grow(budget)  # now stands higher than before, so this ends
        rows = sorted(self.taken.values())
        if not rows:
            return Choice(budget, None, 0.0, 0.0, 0.0)
        protocol = Protocol(tuple(menu.picks[row] for row in rows), menu.trainings)
        return Choice(budget, protocol, float(menu.seconds[rows].sum()), *self._stand())

    def _stand(self) -> tuple[float, float]:
        """Expected tau and merit of what is taken."""
        if not self.taken:
            return 0.0, 0.0
        sums, cells = self._sums()
        used = cells > 0
        means = [one[used] / cells[used, None] ** power for one, power in zip(sums, _POWERS, strict=True)]
        delta, noise, below = (
            one.sum(0, keepdims=True) / used.sum() ** power for one, power in zip(means, _POWERS, strict=True)
        )
        moments = delta, noise, below[:, 0]
        return float(self._tau(*moments)[0]), float(self._merit(*moments)[0])

    def _sums(self) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
        """Per task the sums of delta, noise [T, P] and below [T, 1] of what is taken; the cells taken [T]."""
        menu, tasks = self.menu, int(self.menu.task.max()) + 1
        delta, noise = (np.zeros((tasks, menu.delta.shape[1])) for _ in range(2))
        below, cells = np.zeros((tasks, 1)), np.zeros(tasks)
        for row in self.taken.values():
            delta[menu.task[row]] += menu.delta[row]
            noise[menu.task[row]] += menu.noise[row]
            below[menu.task[row]] += menu.below[row]
            cells[menu.task[row]] += 1
        return (delta, noise, below), cells

    def _changes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each candidate in the place of what its cell has: expected tau, extra seconds, all seconds."""
        menu, task = self.menu, self.menu.task
        sums, cells = self._sums()
        before = np.array([self.taken.get(int(cell), -1) for cell in menu.cell])
        has = before >= 0
        held = np.where(has, menu.seconds[before], 0.0)
        count = (cells[task] + ~has)[:, None]
        filled = np.maximum(cells, 1.0)[:, None]
        tasks = ((cells > 0).sum() + (cells[task] == 0))[:, None]
        parts: list[np.ndarray] = []
        offers = (menu.delta, menu.noise, menu.below[:, None])
        for total, offer, power in zip(sums, offers, _POWERS, strict=True):
            mean = total / filled**power
            mine = np.where(has[:, None], offer[before], 0.0)
            new = (total[task] - mine + offer) / count**power
            parts.append((mean.sum(0) - mean[task] + new) / tasks**power)
        delta, noise, below = parts
        spent = sum(menu.seconds[row] for row in self.taken.values()) - held + menu.seconds
        return self._merit(delta, noise, below[:, 0]), menu.seconds - held, spent

    def _merit(self, delta_NP: np.ndarray, noise_NP: np.ndarray, below_N: np.ndarray) -> np.ndarray:
        """What is maximised, by the formula on top of the file, [N]."""
        order = (2 * ndtr(delta_NP / np.sqrt(np.maximum(noise_NP, 1e-18))) - 1) * self.wanted
        tie_free = order.sum(-1) / np.sqrt((self.wanted**2).sum() * len(self.wanted))
        return (1 - ORDER) * self._tau(delta_NP, noise_NP, below_N) + ORDER * tie_free

    def _tau(self, delta_NP: np.ndarray, noise_NP: np.ndarray, below_N: np.ndarray) -> np.ndarray:
        """Expected tau by the formula on top of the file, [N]."""
        noise_NP = np.maximum(noise_NP, 1e-18)
        df = np.maximum(noise_NP.mean(1) ** 2 / np.maximum(below_N, 1e-36), 1.0)
        bar = stdtrit(np.minimum(df, 1e6), 1 - self.tail)[:, None]
        z = delta_NP / np.sqrt(noise_NP)
        up, down = ndtr(z - bar), ndtr(-z - bar)
        below = np.sqrt((self.wanted**2).sum() * np.maximum((up + down).sum(-1), 1e-12))
        return ((up - down) * self.wanted).sum(-1) / below


def frontier(
    reference: Panel,
    budgets: Sequence[float],
    close: Sequence[str] = (),
    ties: Ties = "paired",
    draws: int = 1000,
    halves: int = 20,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Point, ...]:
    """Tau against cost: the chosen protocol of each budget (CPU-seconds per schedule), ascending.

    Budgets that fit nothing, or bring nothing that a smaller one has not, are left out. close: labels whose
    agreement is also told apart from the rest. halves: for ``cross_validate``; 0 leaves it out. progress is
    called with the halves done and asked for.
    """
    budgets = sorted(budgets)
    found = _path(reference, budgets)
    held: list[HeldOut | None] = [None] * len(budgets)
    if halves:
        held = cross_validate(reference, budgets, halves, seed=seed, ties=ties, progress=progress)
    sheet, points = cut(reference), []
    near = reference.places(close)
    for at, choice in enumerate(found):
        if choice.protocol is None or (at and choice.protocol == found[at - 1].protocol):
            continue
        mine = cut(reference, choice.protocol)
        apart = agreement(sheet.only(near), mine.only(near), ties, draws, seed) if len(near) > 1 else None
        dearest = max(cost(reference, choice.protocol).values())
        points.append(Point(choice, dearest, agreement(sheet, mine, ties, draws, seed), apart, held[at]))
    return tuple(points)


def cross_validate(
    reference: Panel,
    budgets: Sequence[float],
    halves: int = 20,
    draws: int = 20,
    seed: int = 0,
    ties: Ties = "paired",
    progress: Callable[[int, int], None] | None = None,
) -> list[HeldOut | None]:
    """For each budget, the protocol chosen on a random half of the schedules, scored on the other half.

    The score is the mean tau of bootstrap redraws of both rankings, so that runs which they share do not
    count as agreement; a half for which no protocol fits the budget counts as 0. None where the panel has
    fewer than four schedules, or where no half could choose.
    """
    many = len(reference.labels)
    if many < 4:
        return [None] * len(budgets)
    sheet = cut(reference)
    taus: list[list[float]] = [[] for _ in budgets]
    for half in range(halves):
        rng = np.random.default_rng([seed, half])
        if progress:
            progress(half, halves)
        mixed = rng.permutation(many)
        mine, others = sorted(mixed[: many // 2].tolist()), sorted(mixed[many // 2 :].tolist())
        try:
            found = _path(reference, budgets, [reference.labels[at] for at in mine])
        except PanelError:
            continue  # the reference tells nothing of this half, so that no choice can be made on it
        truth = redrawn_signs(sheet.only(others), rng, draws, ties)
        for at, choice in enumerate(found):
            if choice.protocol is None:
                taus[at].append(0.0)
                continue
            seen = cut(reference, choice.protocol).only(others)
            taus[at].append(float(tau(truth, redrawn_signs(seen, rng, draws, ties)).mean()))
    return [_held(one, many - many // 2) for one in taus]


def _held(taus: Sequence[float], schedules: int) -> HeldOut | None:
    if not taus:
        return None
    low, high = np.quantile(taus, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return HeldOut(float(np.mean(taus)), (float(low), float(high)), len(taus), schedules)
