"""Does a verdict from synthetic tasks predict loss on language? Rank correlations, and what they are worth.

The same schedules have a synthetic score and, at several sizes and counts of tokens (*cells*), a loss in bits
per byte. Of every cell, and of the mean over all, this holds Kendall's tau-b (``analysis.agreement``) between
the two orders: 1 where a better score always is a lower loss. Beside the score stand plain predictors, which
cost no training: a larger state, more FLOPs, more full layers; and the loss of the smallest language models.
Of each are told

    tau      of the predictor with the loss
    ahead    tau of the score less that tau
    partial  (t_sl - t_sp t_pl) / sqrt((1 - t_sp^2) (1 - t_pl^2)), what is left of the score's tau t_sl when
             the predictor p is held fixed (Kendall 1942, "Partial rank correlation", Biometrika 32)

Orders are bare, without ties by a test: two seeds are too few to tell pairs apart. The noise is in the
intervals: seeds of both sides are drawn anew as in ``agreement``, and schedules with replacement, the same
ones for all predictors, so that an interval is about other panels like this one. ``seeds_alone`` keeps the
schedules: it is about this panel.

Nothing is read or written. Shapes: A schedules, S seeds, B draws, P pairs, N drawn schedules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl

from analysis.agreement import Ceiling, chosen, redrawn_signs, repeat, signs, tau
from analysis.frontier import Frontier, Spot, frontier
from analysis.panel import PanelError, Part, Sheet
from analysis.stats import LEVEL, Interval

__all__ = ["SCORE", "Against", "Held", "Line", "Transfer", "transfer"]

SCORE = "synthetic score"
PLAIN: Mapping[str, str] = {"larger state": "state", "more FLOPs": "flops", "more full layers": "n_full"}
"""Predictors that cost no training -> the column; more of it is expected to be better."""

Among = Literal["all", "hybrids"]
AMONG: tuple[Among, ...] = ("all", "hybrids")


@dataclass(frozen=True)
class Held:
    """One predictor against the loss; of the score itself ``ahead`` and ``partial`` are None.

    partial is None, too, where the predictor orders the schedules exactly as score or loss does.
    """

    predictor: str
    tau: float
    interval: Interval
    seeds_alone: Interval
    ahead: float | None = None
    ahead_interval: Interval | None = None
    partial: float | None = None
    partial_interval: Interval | None = None


@dataclass(frozen=True)
class Against:
    """All predictors against the loss of one cell, or of the mean over all cells (size and tokens None).

    among: ``all`` schedules, or ``hybrids``: those whose layers have more than one kind of memory.
    """

    size: str | None
    tokens: int | None
    among: Among
    schedules: int
    seeds: int
    held: tuple[Held, ...]

    @property
    def score(self) -> Held:
        """The synthetic score's."""
        return self.held[0]


@dataclass(frozen=True)
class Line:
    """A schedule: its score, its costs at the largest size, its mean loss in every complete cell in turn."""

    label: str
    hybrid: bool
    score: float
    state: int
    flops: int
    n_full: int
    bits: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Transfer:
    """The whole answer. cells: complete ones, small sizes first; lines: best score first.

    overall, hybrids: of the mean over all complete cells; hybrids is None below three of them. ceiling: what
    the order of the mean loss agrees with itself when seeds are redrawn, None at one seed.
    """

    done: int
    asked: int
    diverged: int
    labels: tuple[str, ...]
    cells: tuple[tuple[str, int], ...]
    lines: tuple[Line, ...]
    against: tuple[Against, ...]
    overall: Against | None
    hybrids: Against | None
    ceiling: Ceiling | None
    by_flops: Frontier | None
    by_state: Frontier | None

    @property
    def complete(self) -> bool:
        """Whether all that was asked for is there."""
        return self.done >= self.asked


def transfer(
    frame: pl.DataFrame, verdict: Sheet, labels: Sequence[str], asked: int, draws: int = 1000, seed: int = 0
) -> Transfer:
    """Hold the synthetic ``verdict`` against the losses in ``frame`` (rows of ``lab.transfer``).

    labels: the schedules of the study; asked: its trainings. Raises PanelError where the verdict lacks one.
    """
    if lacking := [label for label in labels if label not in verdict.labels]:
        raise PanelError(
            f"the verdict has no schedule {lacking[0]!r}; it has {', '.join(verdict.labels)}; give --verdict "
            "a sweep of the study's schedules"
        )
    mine = verdict.only([verdict.labels.index(label) for label in labels])
    cells = _cells(frame, labels)
    facts = _facts(frame, labels)
    rng = np.random.default_rng(seed)
    drawn = _Drawn(rng, draws, len(labels), np.array([one.hybrid for one in facts]))
    score = drawn.of(mine)
    against: list[Against] = []
    small: dict[str, Order] = {}
    for (size, tokens), sheet in cells.items():
        loss, plain = drawn.of(sheet), _plain(facts, drawn, [size])
        about = [drawn.against(among, score, loss, plain | small) for among in AMONG]
        against += [replace(one, size=size, tokens=tokens, seeds=sheet.seeds) for one in about if one]
        small = small or {f"loss at {size}, {tokens:,} tokens": loss}
    overall = hybrids = ceiling = None
    if cells:
        whole = Sheet(tuple(labels), tuple(part for sheet in cells.values() for part in sheet.parts))
        loss, plain = drawn.of(whole), _plain(facts, drawn, list(dict.fromkeys(size for size, _ in cells)))
        about = [drawn.against(among, score, loss, plain) for among in AMONG]
        overall, hybrids = (one and replace(one, seeds=whole.seeds) for one in about)
        ceiling = repeat(whole, "none", draws, seed) if whole.seeds > 1 else None
    return Transfer(
        done=frame.height,
        asked=asked,
        diverged=frame.filter(pl.col("status") == "diverged").height,
        labels=tuple(labels),
        cells=tuple(cells),
        lines=_lines(labels, mine, cells, facts),
        against=tuple(against),
        overall=overall,
        hybrids=hybrids,
        ceiling=ceiling,
        by_flops=frontier("training FLOPs", _spots(frame, "train_flops")),
        by_state=frontier("scalars of state", _spots(_longest(frame), "state")),
    )


def _cells(frame: pl.DataFrame, labels: Sequence[str]) -> dict[tuple[str, int], Sheet]:
    """The losses, negated so that more is better, of every size and count that all schedules have."""
    order = frame.group_by("size", "tokens").agg(pl.col("dim").max()).sort("dim", "size", "tokens")
    found: dict[tuple[str, int], Sheet] = {}
    for size, tokens in order.select("size", "tokens").iter_rows():
        part = frame.filter((pl.col("size") == size) & (pl.col("tokens") == tokens))
        bits = {(label, seed): bit for label, seed, bit in part.select("label", "seed", "bits").iter_rows()}
        seeds = [s for s in sorted(part["seed"].unique()) if all((label, s) in bits for label in labels)]
        if seeds:
            value_AS = -np.array([[bits[label, s] for s in seeds] for label in labels])
            value_ALS = value_AS[:, None, :]
            name = f"{size}, {tokens:,} tokens"
            found[size, tokens] = Sheet(tuple(labels), (Part(name, value_ALS, value_ALS),))
    return found


@dataclass(frozen=True)
class _Facts:
    """What is known of a schedule before it is trained. sizes: its costs at each, the largest last."""

    hybrid: bool
    sizes: Mapping[str, Mapping[str, int]]

    @property
    def largest(self) -> Mapping[str, int]:
        """At the largest size that is there; nothing where none is."""
        return list(self.sizes.values())[-1] if self.sizes else {}


def _facts(frame: pl.DataFrame, labels: Sequence[str]) -> list[_Facts]:
    found = []
    for label in labels:
        rows = list(frame.filter(pl.col("label") == label).sort("dim").iter_rows(named=True))
        kinds = {name for row in rows for name in ("n_linear", "n_window", "n_full") if row[name]}
        sizes = {row["size"]: {column: int(row[column]) for column in PLAIN.values()} for row in rows}
        found.append(_Facts(len(kinds) > 1, sizes))
    return found


def _plain(facts: Sequence[_Facts], drawn: _Drawn, sizes: Sequence[str]) -> dict[str, Order]:
    """The orders of the plain predictors, by their means over ``sizes``."""
    return {
        name: drawn.fixed([sum(one.sizes[size][column] for size in sizes) for one in facts])
        for name, column in PLAIN.items()
    }


@dataclass(frozen=True)
class Order:
    """An order of the schedules, [1, A, A], and its redraws, [B or 1, A, A]: +1 where i is above j."""

    own: np.ndarray
    drawn: np.ndarray


class _Drawn:
    """The redraws that all intervals share: of seeds, and which schedules are drawn."""

    def __init__(self, rng: np.random.Generator, draws: int, size: int, hybrid: np.ndarray) -> None:
        self.rng, self.draws, self.size = rng, draws, size
        self.places: dict[Among, np.ndarray] = {"all": np.arange(size), "hybrids": np.flatnonzero(hybrid)}
        self.picks: dict[Among, np.ndarray] = {
            among: places[rng.integers(max(len(places), 1), size=(draws, len(places)))]
            for among, places in self.places.items()
        }

    def of(self, sheet: Sheet) -> Order:
        """The order of a sheet and its redraws."""
        own = signs(chosen(sheet.parts), sheet.weights, "none")[None]
        return Order(self._table(own), self._table(redrawn_signs(sheet, self.rng, self.draws, "none")))

    def fixed(self, values: Sequence[float]) -> Order:
        """The order of plain values, more being better; equal ones are tied."""
        value_A = np.asarray(values)
        table = np.sign(value_A[:, None] - value_A[None, :])[None]
        return Order(table, table)

    def _table(self, signs_BP: np.ndarray) -> np.ndarray:
        first, second = np.triu_indices(self.size, 1)
        table = np.zeros((len(signs_BP), self.size, self.size))
        table[:, first, second], table[:, second, first] = signs_BP, -signs_BP
        return table

    def against(self, among: Among, score: Order, loss: Order, others: Mapping[str, Order]) -> Against | None:
        """All predictors against the loss; None below three schedules."""
        places, picks = self.places[among], self.picks[among]
        if len(places) < 3:
            return None
        held = [self._held(name, one, score, loss, places, picks) for name, one in others.items()]
        own = self._held(SCORE, score, score, loss, places, picks)
        return Against(None, None, among, len(places), 0, (own, *held))

    def _held(
        self, name: str, other: Order, score: Order, loss: Order, places: np.ndarray, picks: np.ndarray
    ) -> Held:
        as_is = _taus(score.own, other.own, loss.own, places[None])
        drawn = _taus(score.drawn, other.drawn, loss.drawn, picks)
        alone = _taus(score.drawn, other.drawn, loss.drawn, places[None])
        plain = Held(name, float(as_is.tau[0]), _middle(drawn.tau), _middle(alone.tau))
        if name == SCORE:
            return plain
        plain = replace(plain, ahead=float(as_is.ahead[0]), ahead_interval=_middle(drawn.ahead))
        if not np.isfinite(as_is.partial[0]):
            return plain
        return replace(plain, partial=float(as_is.partial[0]), partial_interval=_middle(drawn.partial))


@dataclass(frozen=True)
class _Taus:
    """A predictor's with the loss; how far the score's is ahead; what is left of the score's. [B] each."""

    tau: np.ndarray
    ahead: np.ndarray
    partial: np.ndarray


def _taus(score: np.ndarray, other: np.ndarray, loss: np.ndarray, picks_BN: np.ndarray) -> _Taus:
    s, p, x = (_pairs(table, picks_BN) for table in (score, other, loss))
    t_sl, t_pl, t_sp = tau(s, x), tau(p, x), tau(s, p)
    rest = np.sqrt(np.maximum((1 - t_sp**2) * (1 - t_pl**2), 0.0))
    partial = np.where(rest > 1e-6, (t_sl - t_sp * t_pl) / np.where(rest > 1e-6, rest, 1.0), np.nan)
    return _Taus(t_pl, np.broadcast_to(t_sl - t_pl, t_pl.shape), partial)


def _pairs(table_BAA: np.ndarray, picks_BN: np.ndarray) -> np.ndarray:
    """The signs [B, P] of all pairs of the drawn schedules; one drawn twice is tied with itself."""
    first, second = np.triu_indices(picks_BN.shape[1], 1)
    draws = max(len(table_BAA), len(picks_BN))
    rows = np.arange(draws)[:, None] if len(table_BAA) > 1 else np.zeros((draws, 1), int)
    return table_BAA[rows, picks_BN[:, first], picks_BN[:, second]]


def _middle(taus: np.ndarray) -> Interval:
    low, high = np.nanquantile(taus, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return float(low), float(high)


def _lines(
    labels: Sequence[str], verdict: Sheet, cells: Mapping[tuple[str, int], Sheet], facts: Sequence[_Facts]
) -> tuple[Line, ...]:
    scores = sum(w * one.mean(-1) for w, one in zip(verdict.weights, chosen(verdict.parts), strict=True))
    found = [
        Line(
            label=label,
            hybrid=facts[at].hybrid,
            score=float(np.asarray(scores)[at]),
            state=facts[at].largest.get("state", 0),
            flops=facts[at].largest.get("flops", 0),
            n_full=facts[at].largest.get("n_full", 0),
            bits=tuple(-float(sheet.parts[0].value[at].mean()) for sheet in cells.values()),
        )
        for at, label in enumerate(labels)
    ]
    return tuple(sorted(found, key=lambda line: -line.score))


def _longest(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(pl.col("tokens") == pl.col("tokens").max())


def _spots(frame: pl.DataFrame, cost: str) -> list[Spot]:
    """The mean loss of every schedule, size and count, at what it costs."""
    means = frame.group_by("label", "size", "tokens", maintain_order=True).agg(
        pl.col("bits").mean(), pl.col(cost).first()
    )
    return [Spot(*row) for row in means.select("label", "size", "tokens", cost, "bits").iter_rows()]
