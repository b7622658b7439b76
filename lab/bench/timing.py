"""Timing in turns: reference, ours, floor, and again; what else the machine does meets neighbours alike.

So the ratio of two neighbours is steadier than either time, and every figure that is compared is a median of
such ratios with the smallest and the largest beside it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from blocks.products import linear

__all__ = [
    "Pace",
    "Rate",
    "Row",
    "Side",
    "Spread",
    "Work",
    "fastest",
    "make_row",
    "matrix_rate",
    "measure",
    "turns",
    "with_rates",
]

WARM_UP = 2
"""Turns that fill caches and allocate; they are not counted."""

TRIES = 3
"""Turns by which the fastest of several routines is chosen."""

Work = Callable[[], float]
"""One repetition: the seconds it took, what it had to prepare left out."""


@dataclass(frozen=True)
class Spread:
    """The median, the smallest and the largest of some figures of one kind."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Side:
    """Something to be timed, and what it is called in a table."""

    name: str
    work: Work


@dataclass(frozen=True)
class Row:
    """One line of a group; all times in seconds.

    times: reference / ours of neighbours, how many times faster than the reference ours is. share: floor /
    ours of neighbours, 1 where ours takes no longer than the floor. figures: what else is said of the median
    turn, by name. ``reference`` and ``floor`` are names, empty where there is none.
    """

    what: str
    seconds: Spread
    reference: str = ""
    reference_seconds: Spread | None = None
    times: Spread | None = None
    floor: str = ""
    floor_seconds: Spread | None = None
    share: Spread | None = None
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Pace:
    """How a suite is timed: ``repeats`` turns on ``threads`` threads."""

    repeats: int
    threads: int = 1

    @property
    def clock(self) -> Callable[[], float]:
        """CPU time for one thread, which a busy neighbour does not lengthen; wall time for several."""
        return time.process_time if self.threads == 1 else time.perf_counter

    def timed(self, call: Callable[[], object]) -> Work:
        """A Work that times one ``call`` and nothing else."""
        clock = self.clock

        def work() -> float:
            started = clock()
            call()
            return clock() - started

        return work


def turns(works: Sequence[Work], repeats: int, warm_up: int = WARM_UP) -> list[list[float]]:
    """Seconds of each work in ``repeats`` turns; in a turn every work runs once, in order."""
    seconds: list[list[float]] = [[] for _ in works]
    for turn in range(warm_up + repeats):
        for work, kept in zip(works, seconds, strict=True):
            took = work()
            if turn >= warm_up:
                kept.append(took)
    return seconds


def fastest(works: Mapping[str, Work]) -> Side:
    """The work with the smallest median, by a few turns among them all."""
    if len(works) == 1:
        return Side(*next(iter(works.items())))
    medians = map(statistics.median, turns(list(works.values()), TRIES, warm_up=1))
    name = min(zip(medians, works, strict=True))[1]
    return Side(name, works[name])


def measure(
    what: str,
    ours: Work,
    pace: Pace,
    reference: Side | None = None,
    floor: Side | None = None,
    warm_up: int = WARM_UP,
) -> Row:
    """One row, its sides timed in turns: reference, ours, floor, so that ours is next to both others."""
    sides = [side.work for side in (reference, floor) if side]
    works = [sides[0], ours, *sides[1:]] if reference else [ours, *sides]
    seconds = turns(works, pace.repeats, warm_up)
    mine = seconds.pop(1 if reference else 0)
    return make_row(
        what,
        mine,
        reference=(reference.name, seconds.pop(0)) if reference else None,
        floor=(floor.name, seconds.pop(0)) if floor else None,
    )


def make_row(
    what: str,
    ours: Sequence[float],
    reference: tuple[str, Sequence[float]] | None = None,
    floor: tuple[str, Sequence[float]] | None = None,
    figures: Mapping[str, float] | None = None,
) -> Row:
    """A row of seconds that are measured already: those of one turn stand at the same place in each list."""

    def against(other: tuple[str, Sequence[float]] | None) -> tuple[str, Spread | None, Spread | None]:
        if other is None:
            return "", None, None
        name, seconds = other
        ratios = [theirs / mine for theirs, mine in zip(seconds, ours, strict=True)]
        return name, Spread.of(seconds), Spread.of(ratios)

    return Row(what, Spread.of(ours), *against(reference), *against(floor), figures or {})


def with_rates(row: Row, flops: float) -> Row:
    """``row`` with what ``flops`` come to in GFLOP/s by its medians: ours, and the floor's, a matrix rate."""
    rates = {"GFLOP/s": flops / row.seconds.median / 1e9}
    if row.floor_seconds is not None:
        rates["GFLOP/s matrix rate"] = flops / row.floor_seconds.median / 1e9
    return replace(row, figures={**row.figures, **rates})


@dataclass(frozen=True)
class Rate:
    """A large float32 product as a yardstick: ``side`` multiplies two matrices of ``size`` x ``size``."""

    side: Side
    size: int

    @property
    def flops(self) -> int:
        return 2 * self.size**3

    def floor(self, flops: float) -> Side:
        """The seconds that ``flops`` take at the rate of the product, which is measured at every call."""
        scale = flops / self.flops
        return Side(f"matrix rate by {self.side.name}", lambda: scale * self.side.work())


def matrix_rate(pace: Pace, size: int = 1024) -> Rate:
    """The machine's float32 matrix rate by the faster of the routines that PyTorch brings here.

    A product by way of ``blocks.products.linear`` (oneDNN where that is in use) and one by ``torch.mm``.
    """
    a, b = (torch.randn(size, size, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    routines = {
        "torch.mm": pace.timed(lambda: torch.mm(a, b)),
        "blocks.products": pace.timed(lambda: linear(a, b)),
    }
    return Rate(fastest(routines), size)
