"""How far to trust a score: everything that a reference sweep says about cheaper protocols, in one value.

Frame in, ``Calibration`` out: the reference ranking, what it knows of itself (the ceiling), the frontier of
tau against cost, the protocol chosen within a budget, real runs of a protocol if there are any, A/A honesty,
and the published rows. Nothing is read, written or printed here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise

import polars as pl

from analysis.agreement import (
    Agreement,
    Ceiling,
    Standing,
    Ties,
    agreement,
    repeat,
    split_half,
    standings,
)
from analysis.choice import Point, frontier
from analysis.honesty import Alarms, dealt, same_twice
from analysis.panel import CutScore, Panel, PanelError, Sheet, cost, cut, panel
from analysis.power import Prediction, seeds_for, separation
from analysis.published import Held, hold

__all__ = ["MAD_RUNS", "MAD_SECONDS", "MAD_STEPS", "TARGET", "Calibration", "Real", "calibrate"]

MAD_SECONDS = 170 * 86_400.0
"""CPU-seconds of MAD's own protocol for one architecture, by tokens, on the machine of the measurement."""
MAD_RUNS, MAD_STEPS = 396, 5_384_400
TARGET = 0.9
"""The tau that is wanted of a protocol."""
LEAST_SCHEDULES = 4
"""A half of the panel must have pairs."""


@dataclass(frozen=True)
class Real:
    """Real runs of a protocol against the reference: agreement, that on the close labels, mean seconds.

    shared: runs that the reference holds, too; they agree with themselves, so that tau is too friendly.
    """

    agreement: Agreement
    close: Agreement | None
    seconds: float
    labels: tuple[str, ...]
    shared: int


@dataclass(frozen=True, eq=False)
class Calibration:
    """The whole answer. ``chosen`` is the point of ``frontier`` that is recommended, None where none fits.

    reference_seconds: mean CPU-seconds of the reference per schedule; honesty, dealt: A/A by resampling and
    by real pairs, None below four seeds; apart: neighbours among the close labels, and seeds of the chosen
    protocol that tell them apart at a power of 80 %; cells: ``power.separation``; left_out: settings that are
    not complete.
    """

    labels: tuple[str, ...]
    score: CutScore
    ties: Ties
    close: tuple[str, ...]
    seeds: int
    budget: float
    reference_seconds: float
    ranking: tuple[Standing, ...]
    ceiling: Ceiling
    repeat: Ceiling
    frontier: tuple[Point, ...]
    chosen: Point | None
    real: Real | None
    apart: tuple[tuple[str, str, Prediction], ...]
    honesty: Alarms | None
    dealt: Alarms | None
    published: tuple[Held, ...]
    cells: pl.DataFrame
    left_out: tuple[str, ...]


def calibrate(
    frame: pl.DataFrame,
    protocol: pl.DataFrame | None = None,
    close: Sequence[str] = (),
    budget: float = 1800.0,
    score: CutScore = "auc",
    ties: Ties = "paired",
    draws: int = 1000,
    halves: int = 20,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Hold cheaper protocols against the reference ``frame``.

    protocol: rows of real runs of a cheap protocol (their schedules by label; at least two of the
    reference's). close: labels to be scored apart. budget: CPU-seconds per schedule. progress is called with
    the halves of the panel done and asked for, which is what takes long. Raises PanelError for a
    frame with too few schedules or seeds, and for labels that are not there.
    """
    reference = panel(frame, score, least_schedules=LEAST_SCHEDULES)
    if len(set(close)) == 1:
        raise PanelError(f"one close schedule ({close[0]}) is no ranking; name two or more")
    reference.places(close)
    if budget <= 0:
        raise PanelError(f"the budget is {budget:g} seconds; it must be above 0")
    sheet = cut(reference)
    real = None
    if protocol is not None:
        mine = set(frame["run"].to_list())
        real = _real(reference, protocol, mine, close, ties, draws, seed)
    spent = sum(cost(reference).values()) / len(reference.labels)
    points = frontier(reference, _budgets(spent, budget), close, ties, draws, halves, seed, progress)
    chosen, enough = _recommended(points, budget), sheet.seeds >= 4
    side = min(4, sheet.seeds // 2)  # as many as a sweep has, not as this one
    return Calibration(
        labels=reference.labels,
        score=score,
        ties=ties,
        close=tuple(close),
        seeds=reference.seeds,
        budget=budget,
        reference_seconds=spent,
        ranking=standings(sheet),
        ceiling=split_half(sheet, ties, seed=seed),
        repeat=repeat(sheet, ties, draws, seed),
        frontier=points,
        chosen=chosen,
        real=real,
        apart=_apart(reference, close, chosen),
        honesty=same_twice(sheet, side, repeats=10_000, seed=seed) if enough else None,
        dealt=dealt(sheet, side) if enough else None,
        published=hold(panel(frame, "accuracy")),
        cells=separation(reference),
        left_out=reference.left_out,
    )


def _budgets(whole: float, budget: float) -> list[float]:
    """Doublings up to the reference's own cost, and the budget asked for if it is less."""
    return sorted({whole / 2**halvings for halvings in range(8)} | {min(budget, whole)})


def _recommended(points: Sequence[Point], budget: float) -> Point | None:
    """The cheapest point within the budget that reaches TARGET, else the one with the highest tau in it.

    Tau is that on the half of the panel that the choice did not see, where there is one.
    """
    within = [point for point in points if point.choice.seconds <= budget]
    if not within:
        return None
    reaching = [point for point in within if _trusted(point) >= TARGET]
    return min(reaching, key=lambda p: p.choice.seconds) if reaching else max(within, key=_trusted)


def _apart(
    reference: Panel, close: Sequence[str], chosen: Point | None
) -> tuple[tuple[str, str, Prediction], ...]:
    """Seeds for each two that are neighbours among the close schedules; all their pairs share the 5 %."""
    if chosen is None or len(close) < 2:
        return ()
    sheet = cut(reference, chosen.choice.protocol)
    family = len(close) * (len(close) - 1) // 2
    order = [one.label for one in standings(cut(reference)) if one.label in close]
    return tuple((a, b, seeds_for(sheet, a, b, family=family)) for a, b in pairwise(order))


def _trusted(point: Point) -> float:
    return point.held_out.mean if point.held_out else point.agreement.tau


def _real(
    reference: Panel,
    frame: pl.DataFrame,
    mine: Set[str],
    close: Sequence[str],
    ties: Ties,
    draws: int,
    seed: int,
) -> Real:
    """Score real runs on the schedules that both frames have."""
    try:
        ran = panel(frame, reference.score)
    except PanelError as exc:
        raise PanelError(f"the runs of the protocol: {exc}") from exc
    shared = [label for label in reference.labels if label in ran.labels]
    if len(shared) < 2:
        raise PanelError(
            f"the protocol ran {', '.join(ran.labels)}; "
            f"{len(shared)} of them are in the reference, and 2 are needed"
        )
    first, second = (_of(one, shared) for one in (reference, ran))
    near = [label for label in close if label in shared]
    apart = None
    if len(near) > 1:
        apart = agreement(_of(reference, near), _of(ran, near), ties, draws, seed)
    spent = cost(ran)
    return Real(
        agreement(first, second, ties, draws, seed),
        apart,
        sum(spent[label] for label in shared) / len(shared),
        tuple(shared),
        len(mine & set(frame["run"].to_list())),
    )


def _of(one: Panel, labels: Sequence[str]) -> Sheet:
    return cut(one).only(one.places(labels))
