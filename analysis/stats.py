"""Statistics of a sweep: intervals over seeds, paired differences, the ranking and what may be said of it.

Tasks are fixed effects: the answer is about these tasks, and only seeds are a sample. With x[t, s] the score
on task t at seed s, the score of a candidate is the unweighted mean over tasks of its mean over seeds, and

    SE^2 = (1 / T^2) * sum_t v_t,  v_t = var_s(x[t, s]) / n_t,  df = (sum_t v_t)^2 / sum_t (v_t^2 / (n_t - 1))

(Welch 1947, "The generalization of Student's problem when several different population variances are
involved", Biometrika 34; Satterthwaite 1946, Biometrics Bulletin 2). The interval is mean +- t(df) * SE.
Two candidates are compared by the same formula on x_a[t, s] - x_b[t, s]: the same task at the same seed has
the same data, so what is shared cancels.

The best candidate is picked by looking at the data, so a comparison with it is one of the extreme pair. The
p-values of ALL pairs are therefore corrected together (Holm 1979, Scand. J. Statist. 6): if all candidates
are equal, the chance that any is said to be worse stays within 5 %. Correcting only the comparisons with the
best would let it grow past that.

A candidate that left the race early (pruned) is compared on the seeds that it shares with the other. It left
because it looked bad after some round, so its p against anyone is taken times the rounds after which it could
have left (Bonferroni over looks, the seeds shared less one): else two equal candidates would be told apart
too often. Its gap is not corrected, and is somewhat too large. It is never the best, nor the cheapest within
the margin.

Steps to a threshold are read off a grid of evaluations. Their variance is taken as no less than that of the
rounding, spacing^2 / 12 a run (Sheppard's term), or seeds that share a grid point would look certain.

Non-inferior: the one-sided 95 % upper bound of (best - it), mean + t(0.95, df) * SE, is within the margin.
Not corrected: that the best is picked by looking makes its lead too large, which errs against the cheap one.

The percentile bootstrap over seeds (Efron & Tibshirani 1993, ch. 13) is given beside Student's t as a check
without normality. With fewer than about ten seeds it is too narrow, so no claim rests on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from scipy.stats import t as student

from analysis.pairs import p_of_pairs
from analysis.tables import Board, Score, natural
from sweeps.results import Pruned

__all__ = [
    "Estimate",
    "Interval",
    "Ranking",
    "Row",
    "TaskNote",
    "arrays",
    "bootstrap",
    "estimate",
    "gap",
    "holm",
    "looks_at",
    "rank",
    "rounding",
    "samples_of",
]

LEVEL = 0.95
NEAR = 0.03
"""A task is at an end (ceiling or chance) when every candidate stands within this share of it."""

Interval = tuple[float, float]
Samples = Mapping[str, Mapping[int, float]]
"""task -> seed -> value of one candidate."""

Verdict = Literal["open", "ceiling", "chance"]


@dataclass(frozen=True)
class Estimate:
    """A mean over tasks and seeds with its standard error; ``se`` and ``df`` are None at one seed."""

    mean: float
    se: float | None
    df: float | None

    def interval(self, level: float = LEVEL) -> Interval | None:
        """Two-sided Student interval, or None when there is one seed."""
        if self.se is None or self.df is None:
            return None
        half = float(student.ppf(0.5 + level / 2, self.df)) * self.se
        return self.mean - half, self.mean + half

    def upper(self, level: float = LEVEL) -> float | None:
        """One-sided upper bound, or None when there is one seed."""
        if self.se is None or self.df is None:
            return None
        return self.mean + float(student.ppf(level, self.df)) * self.se

    def p_value(self) -> float | None:
        """Two-sided p of mean = 0; without any spread over seeds it is 1 at 0 and 0 elsewhere."""
        if self.se is None or self.df is None:
            return None
        if self.se == 0:
            return 1.0 if self.mean == 0 else 0.0
        return 2 * float(student.sf(abs(self.mean) / self.se, self.df))


FACTS = ("state", "flops", "params", "depth", "dim", "heads", "n_linear", "n_window", "n_full")
"""What a row of a ranking takes over from its candidate."""


@dataclass(frozen=True)
class Row:
    """One candidate of a ranking.

    gap: best - this one, signed so that positive means worse (for steps: more steps), 0 for the best itself.
    p is corrected for all pairs; bound is the one-sided 95 % upper bound of the gap. tied: cannot be told
    apart from the best. within: shown to be within the margin. gap_interval, p, bound and tied are None for
    the best; all of these and interval, bootstrap and within are None at one seed. tasks maps a task to its
    own estimate. failed counts diverged runs (taken as chance), censored those that missed the threshold, of
    ``runs``. left: how it left the race, None for those in it; such a one is not asked to be within.
    """

    label: str
    arch: str
    score: float
    interval: Interval | None
    bootstrap: Interval | None
    gap: float
    gap_interval: Interval | None
    p: float | None
    bound: float | None
    tied: bool | None
    within: bool | None
    tasks: Mapping[str, Estimate]
    state: int
    flops: int
    params: int
    depth: int
    dim: int
    heads: int
    n_linear: int
    n_window: int
    n_full: int
    failed: int
    censored: int
    runs: int
    seeds: int
    left: Pruned | None


@dataclass(frozen=True)
class TaskNote:
    """What a task can tell: its chance and ceiling, and whether all candidates are stuck at one of them."""

    task: str
    settings: int
    chance: float
    ceiling: float
    window_share: float | None
    budget: float
    verdict: Verdict


@dataclass(frozen=True)
class Ranking:
    """The answer of a sweep, best first; of those that left the race none stands before the best in it.

    margin: in units of the score. cheapest: label of the cheapest candidate shown to be within ``margin``
    of the best (by state, then FLOPs, then parameters), the best itself when no cheaper one is, None at one
    seed. runs: how many runs it stands on. seeds: of those in the race. threshold: the accuracy that a steps
    score waits for.
    """

    score: Score
    margin: float
    rows: tuple[Row, ...]
    tasks: tuple[TaskNote, ...]
    runs: int
    seeds: tuple[int, ...]
    left_out: tuple[int, ...]
    waiting: tuple[str, ...]
    cheapest: str | None
    threshold: float

    @property
    def best(self) -> Row:
        return self.rows[0]

    @property
    def tied(self) -> tuple[str, ...]:
        """Labels that cannot be told apart from the best, without the best."""
        return tuple(row.label for row in self.rows[1:] if row.tied)

    @property
    def pruned(self) -> tuple[Row, ...]:
        """Those that left the race."""
        return tuple(row for row in self.rows if row.left)

    def row(self, label: str) -> Row:
        return next(row for row in self.rows if row.label == label)


def estimate(samples: Sequence[np.ndarray], least: float = 0.0) -> Estimate:
    """Mean over tasks of the mean over seeds, by the formula on top of the file.

    samples: one array of seed values per task. least: the variance of a value is taken as no less.
    """
    mean = float(np.mean([values.mean() for values in samples]))
    if min(len(values) for values in samples) < 2:
        return Estimate(mean, None, None)
    parts = np.array([max(values.var(ddof=1), least) / len(values) for values in samples])
    free = np.array([len(values) - 1 for values in samples])
    total = float(parts.sum())
    if total == 0:
        return Estimate(mean, 0.0, float(free.sum()))
    df = 1.0 / float(((parts / total) ** 2 / free).sum())
    return Estimate(mean, math.sqrt(total) / len(samples), df)


def bootstrap(
    samples: Sequence[np.ndarray], level: float = LEVEL, draws: int = 2000, seed: int = 0
) -> Interval | None:
    """Percentile bootstrap of the mean over tasks, seeds drawn anew within each task; None at one seed."""
    if min(len(values) for values in samples) < 2:
        return None
    rng = np.random.default_rng(seed)
    means = np.zeros(draws)
    for values in samples:
        picks = rng.integers(len(values), size=(draws, len(values)))
        means += values[picks].mean(axis=1) / len(samples)
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def holm(p_values: Sequence[float] | np.ndarray) -> list[float]:
    """Step-down corrected p-values, in the order given (Holm 1979)."""
    given = np.asarray(p_values, dtype=float)
    order = np.argsort(given, kind="stable")
    times = np.minimum(1.0, given[order] * np.arange(len(given), 0, -1))
    corrected = np.empty_like(given)
    corrected[order] = np.maximum.accumulate(times)
    return corrected.tolist()


def rank(ranked: Board, margin: float = 0.02) -> Ranking | None:
    """Rank the candidates of a board, best first; None when no round is complete yet.

    ``margin`` as a recipe states it: 0.02 is two points of accuracy or area, 2 % of the mean budget of steps.
    Equal scores are ordered by cost, then by label, so that the order of rows never matters.
    """
    if ranked.cells.is_empty():
        return None
    if ranked.lower_is_better:
        margin *= float(np.mean(ranked.tasks["budget"].to_numpy()))
    samples = samples_of(ranked)
    whole = {arch: estimate(arrays(by_task), rounding(ranked)) for arch, by_task in samples.items()}
    facts = {row["arch"]: row for row in ranked.candidates.iter_rows(named=True)}
    sign = -1.0 if ranked.lower_is_better else 1.0

    def place(arch: str) -> tuple[object, ...]:
        return -sign * whole[arch].mean, _cost(facts[arch]), natural(facts[arch]["label"])

    first = min((arch for arch in samples if arch not in ranked.pruned), key=place)
    order = sorted(samples, key=lambda arch: (place(arch) < place(first), place(arch)))
    gaps = {arch: gap(ranked, samples[order[0]], samples[arch], sign) for arch in order[1:]}
    p_values = _corrected(ranked, samples, order)
    rows = tuple(
        _row(ranked, samples[arch], gaps.get(arch), p_values.get(arch), margin, facts[arch]) for arch in order
    )
    within = [row for row in rows if row.within]
    cheapest = min(within, key=lambda row: (row.state, row.flops, row.params)).label if within else None
    return Ranking(
        score=ranked.score,
        margin=margin,
        rows=rows,
        tasks=tuple(_note(ranked, task) for task in ranked.tasks.iter_rows(named=True)),
        runs=ranked.runs.height,
        seeds=ranked.seeds,
        left_out=ranked.left_out,
        waiting=ranked.waiting,
        cheapest=cheapest,
        threshold=float(np.mean(ranked.tasks["threshold"].to_numpy())),
    )


def samples_of(ranked: Board) -> dict[str, Samples]:
    """The values of each arch, in order of the seeds."""
    samples: dict[str, dict[str, dict[int, float]]] = {}
    ordered = ranked.cells.sort("arch", "task", "seed")
    for arch, task, seed, value in ordered.select("arch", "task", "seed", "value").iter_rows():
        samples.setdefault(arch, {}).setdefault(task, {})[seed] = value
    return dict(samples)


def arrays(by_task: Samples) -> list[np.ndarray]:
    return [np.array(list(values.values())) for values in by_task.values()]


def _shared(one: Samples, other: Samples) -> list[int]:
    """Seeds that two candidates have in common; every task of a candidate has the same."""
    others = next(iter(other.values()))
    return [seed for seed in next(iter(one.values())) if seed in others]


def _cost(row: Mapping[str, int]) -> tuple[int, int, int]:
    return row["state"], row["flops"], row["params"]


def rounding(ranked: Board) -> float:
    """Variance of rounding a value to the grid of evaluations (0 for accuracy and area)."""
    return ranked.grid**2 / 12


def looks_at(ranked: Board, pair: tuple[str, str], shared: int) -> int:
    """Rounds after which one of a pair of archs could have left the race, 1 where neither did."""
    return max(1, shared - 1) if ranked.pruned.keys() & pair else 1


def gap(ranked: Board, best: Samples, other: Samples, sign: float) -> Estimate:
    """best - other, paired by task and seed."""
    both = _shared(best, other)
    apart = [np.array([sign * (best[task][seed] - other[task][seed]) for seed in both]) for task in best]
    return estimate(apart, 2 * rounding(ranked))


def _corrected(ranked: Board, samples: Mapping[str, Samples], order: Sequence[str]) -> dict[str, float]:
    """Holm-corrected p of each candidate against the first of ``order``, in the family of all pairs."""
    if any(len(seeds) < 2 for by_task in samples.values() for seeds in by_task.values()):
        return {}  # told before the pairs are gone through, which are very many in a wide search
    seeds = sorted({seed for by_task in samples.values() for values in by_task.values() for seed in values})
    value_NTS = np.array(
        [[[values.get(s, math.nan) for s in seeds] for values in samples[arch].values()] for arch in order]
    )
    left_N = np.array([arch in ranked.pruned for arch in order])
    p_values = p_of_pairs(value_NTS, left_N, 2 * rounding(ranked))
    return {} if p_values is None else dict(zip(order[1:], holm(p_values)[: len(order) - 1], strict=True))


def _row(
    ranked: Board,
    by_task: Samples,
    gap: Estimate | None,
    p: float | None,
    margin: float,
    facts: Mapping[str, int | str],
) -> Row:
    arch = str(facts["arch"])
    mine = ranked.runs.filter(pl.col("arch") == arch)
    values, left = arrays(by_task), ranked.pruned.get(arch)
    whole = estimate(values, rounding(ranked))
    bound = gap.upper() if gap else None
    within = True if gap is None and len(ranked.seeds) > 1 else None
    if bound is not None and left is None:
        within = bound <= margin
    # On the seeds that it shares with the best, one that left may be ahead of it; that is not worse.
    ahead = left is not None and gap is not None and gap.mean <= 0
    return Row(
        label=str(facts["label"]),
        arch=arch,
        score=whole.mean,
        interval=whole.interval(),
        bootstrap=bootstrap(values),
        gap=gap.mean if gap else 0.0,
        gap_interval=gap.interval() if gap else None,
        p=p,
        bound=bound,
        tied=None if p is None else p > 1 - LEVEL or ahead,
        within=within,
        tasks={task: estimate([one], rounding(ranked)) for task, one in zip(by_task, values, strict=True)},
        failed=int(mine["failed"].sum()),
        censored=int(mine["censored"].sum()),
        runs=mine.height,
        seeds=len(values[0]),
        left=left,
        **{name: int(facts[name]) for name in FACTS},
    )


def _note(ranked: Board, task: Mapping[str, object]) -> TaskNote:
    """Where the candidates' means stand between chance and ceiling; for steps, whether any run got there."""
    mine = ranked.cells.filter(pl.col("task") == task["task"])
    means = mine.group_by("arch").agg(pl.col("value").mean())["value"].to_numpy()
    chance, ceiling = float(str(task["chance"])), float(str(task["ceiling"]))
    verdict: Verdict = "open"
    if ranked.lower_is_better:
        runs = ranked.runs.filter(pl.col("task") == task["task"])
        verdict = "chance" if bool(runs["censored"].all()) else "open"
    elif ceiling > chance:
        place = (means - chance) / (ceiling - chance)
        verdict = "ceiling" if place.min() >= 1 - NEAR else "chance" if place.max() <= NEAR else "open"
    share = task["window_share"]
    return TaskNote(
        task=str(task["task"]),
        settings=int(str(task["settings"])),
        chance=chance,
        ceiling=ceiling,
        window_share=None if share is None else float(str(share)),
        budget=float(str(task["budget"])),
        verdict=verdict,
    )
