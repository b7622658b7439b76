"""One width of a schedule, solved so that its parameters or its state come to those of another.

The realisable widths are whole numbers, and so are the costs: what is found is the nearest of all, by integer
search, and nothing is built for it. Costs are those of the stack (blocks and norms) without embedding and
head. These hang on a task's vocabulary, of which a recipe has several and a full-size model another; without
them a match holds on every task at once, and it is the stricter one where all candidates are equally wide.
"""

from __future__ import annotations

import dataclasses
import itertools
import typing
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

from blocks import BLOCKS
from blocks.base import Block, Shape
from blocks.notation import suggest
from blocks.schedule import Schedule

__all__ = ["Cost", "Goal", "Knob", "MatchError", "Solved", "costs", "knob", "match", "nearest", "shown"]

Cost = Literal["params", "state", "flops"]

WIDEST = 65_536
"""The largest width, or whole-number option, that is tried; of ``dim`` a quarter, what a recipe may give."""

Blocks = Mapping[str, type[Block]]


class MatchError(ValueError):
    """A schedule cannot be brought to its target. ``miss``: how far beyond the tolerance, over the target."""

    def __init__(self, message: str, miss: float = 1.0) -> None:
        super().__init__(message)
        self.miss = miss


@dataclass(frozen=True)
class Knob:
    """What is solved: the model's width ``dim`` (no block), or an option of every block of one name.

    An option that takes fractions is a width over dim, as all expansions are: n / dim is tried for whole n.
    One that takes whole numbers is tried as such. Every such block of a schedule is given the same value.
    """

    block: str
    option: str

    def __str__(self) -> str:
        return f"{self.block}.{self.option}" if self.block else self.option


@dataclass(frozen=True, kw_only=True)
class Goal:
    """Where schedules are to be brought. cost: ``params``, or ``state`` after ``length`` tokens.

    by: tried in this order, the first that comes within the tolerance counts. within: the largest distance
    from ``target``, as a share of it. whose: words for the target, such as ``that of r=3:1``.
    """

    cost: Literal["params", "state"]
    target: Fraction
    whose: str
    by: tuple[Knob, ...]
    within: Fraction
    length: int

    def __post_init__(self) -> None:
        if not self.target > 0:
            raise MatchError(f"{self.cost} {self.whose} is 0, to which nothing can be brought")

    def off(self, cost: int) -> Fraction:
        """The distance of ``cost`` from the target, as a share of it."""
        return abs(cost - self.target) / self.target

    def is_met(self, cost: int) -> bool:
        """Whether ``cost`` is within the tolerance, exactly."""
        return self.off(cost) <= self.within


@dataclass(frozen=True, kw_only=True)
class Solved:
    """What became of a schedule: ``by`` went from values ``before`` to ``after``, the cost from was to now.

    by is empty, and nothing changed, where it was within the tolerance as it stood.
    """

    cost: str
    target: float
    by: str
    before: tuple[float | None, ...]
    after: float | None
    was: int
    now: int


def costs(schedule: Schedule, shape: Shape, length: int) -> dict[Cost, int]:
    """The costs of the stack: learned scalars, scalars of state after ``length`` tokens, FLOPs per token.

    Raises OptionError where a block does not fit the shape.
    """
    tally = list(Counter(block for layer in schedule for block in layer).items())
    names: tuple[Cost, ...] = ("params", "state", "flops")
    return {name: _total(name, tally, shape, length) for name in names}


def knob(text: str, blocks: Blocks = BLOCKS) -> Knob:
    """What ``text`` names: ``dim`` or ``block.option``. Raises MatchError with what is allowed."""
    name, dot, option = text.partition(".")
    if text == "dim":
        return Knob("", "dim")
    if not dot:
        raise MatchError(f"is {text!r}; it must be dim, or an option of a block, such as swiglu.expand")
    if name not in blocks:
        raise MatchError(f"is {text!r}, and no block is called {name!r}{suggest(name, blocks)}")
    kinds = _kinds(blocks[name])
    widths = [one for one, kind in kinds.items() if kind]
    if option not in kinds:
        raise MatchError(f"is {text!r}, and {name} has no option {option!r}{suggest(option, widths)}")
    if not kinds[option]:
        raise MatchError(f"is {text!r}, and {option} is no number{suggest(option, widths)}")
    return Knob(name, option)


def match(
    schedule: Schedule, shape: Shape, goal: Goal, blocks: Blocks = BLOCKS
) -> tuple[Schedule, Shape, Solved]:
    """``schedule`` and ``shape`` with one width solved; both as they are where the goal is met already.

    Raises MatchError, one sentence with the nearest that there is, where no width comes within the tolerance.
    """
    was = costs(schedule, shape, goal.length)[goal.cost]
    told = {"cost": goal.cost, "target": float(goal.target), "was": was}
    if goal.is_met(was):
        return schedule, shape, Solved(**told, by="", before=(), after=None, now=was)
    misses: list[tuple[Fraction, int, str]] = []
    why: list[str] = []
    for one in goal.by:
        way = _Way.of(one, schedule, shape, goal, blocks)
        if way is None:
            why.append(f"it has no {one.block}")
            continue
        # A multiple of a width that fits the heads fits them too, so that no gap is wider than dim.
        found = nearest(way.cost, goal.target, way.widest, shape.dim, str(one))
        if found is None or goal.off(found[1]) >= goal.off(was):
            why.append(f"no value of {one} brings it nearer")
            continue
        width, now = found
        done, wide = way.write(schedule, width)
        value = way.spell(width)
        if goal.is_met(now):
            return done, wide, Solved(**told, by=str(one), before=way.values, after=value, now=now)
        misses.append((goal.off(now), now, f"{one}={value:.6g}"))
    if not misses:
        raise MatchError(f"{_start(goal, was)}: {' and '.join(why)}", float(goal.off(was) - goal.within))
    miss, now, at = min(misses)
    raise MatchError(
        f"{_start(goal, was)}: the nearest is {now:,} ({float(100 * miss):,.2f} % off) with {at}; "
        "raise within, or add another width to by",
        float(miss - goal.within),
    )


def nearest(
    cost: Callable[[int], int | None], target: Fraction, widest: int, gap: int, what: str
) -> tuple[int, int] | None:
    """The width of 1 to ``widest`` whose cost is nearest to ``target``, and that cost; of two the smaller.

    cost: None where a width cannot be had. gap: so many widths in a row that cannot, and none beyond can.
    None if none can at all. Costs must not fall with the width: raises MatchError where those looked at do.
    """
    seen: dict[int, int] = {}

    def realisable(start: int, end: int) -> int | None:
        """The first width from ``start`` on, below ``end``, that can be had."""
        for width in range(start, min(end, start + gap)):
            if width not in seen and (found := cost(width)) is not None:
                seen[width] = found
            if width in seen:
                return width
        return None

    below: int | None = None  # the widest known to cost less than the target,
    above: int | None = None  # and the narrowest known not to
    low, high, step = 0, widest + 1, 1
    while high - low > 1:
        start = min(low + step, high - 1)
        width = realisable(start, high)
        if width is not None and seen[width] < target:
            below = low = width
            step = 2 * step if high > widest else max(1, (high - low) // 2)  # once it is bracketed, halve
        else:
            above, high = above if width is None else width, start
            step = max(1, (high - low) // 2)
    for power in range(widest.bit_length()):  # halving looks at few; these are spread over all
        realisable(2**power, widest + 1)
    order = sorted(seen)
    if any(seen[a] > seen[b] for a, b in itertools.pairwise(order)):
        raise MatchError(f"its cost does not grow steadily with {what}, so that no value can be searched for")
    ends = [end for end in (below, above) if end is not None]
    best = min(ends, key=lambda width: (abs(seen[width] - target), width), default=None)
    return None if best is None else (best, seen[best])


@dataclass(frozen=True, kw_only=True)
class _Way:
    """One knob of one schedule: its widths, what they cost, and how a schedule has them."""

    goal: Goal
    knob: Knob
    cls: type[Block] | None
    shape: Shape
    turned: list[tuple[Block, int]]
    fixed: int
    takes_fractions: bool

    @classmethod
    def of(cls, knob: Knob, schedule: Schedule, shape: Shape, goal: Goal, blocks: Blocks) -> _Way | None:
        tally = Counter(block for layer in schedule for block in layer)
        kind = blocks.get(knob.block)
        turned = [(b, n) for b, n in tally.items() if kind is None or type(b) is kind]
        if not turned:
            return None
        every = _total(goal.cost, list(tally.items()), shape, goal.length)
        moved = sum(n * _cost(goal.cost, b, shape, goal.length) for b, n in turned)
        return cls(
            goal=goal,
            knob=knob,
            cls=kind,
            shape=shape,
            turned=turned,
            fixed=every - moved,
            takes_fractions=kind is not None and _kinds(kind)[knob.option] == "fractions",
        )

    @property
    def widest(self) -> int:
        return WIDEST if self.cls else WIDEST // 4

    @property
    def values(self) -> tuple[float | None, ...]:
        """What stands in the schedule."""
        if self.cls is None:
            return (self.shape.dim,)
        return tuple(dict.fromkeys(getattr(block, self.knob.option) for block, _ in self.turned))

    def cost(self, width: int) -> int | None:
        """The cost of the whole stack at ``width``; None where a block cannot have it."""
        name, length = self.goal.cost, self.goal.length
        try:
            if self.cls is None:
                return _total(name, self.turned, replace(self.shape, dim=width), length)
            turned = [(self._turn(block, self._value(width)), n) for block, n in self.turned]
            return self.fixed + sum(n * _cost(name, block, self.shape, length) for block, n in turned)
        except ValueError:  # OptionError, and whatever a block of the user's own raises
            return None

    def spell(self, width: int) -> float:
        """The option's value: its default where that is the same width, so that one model has one text."""
        value = self._value(width)
        if not self.takes_fractions or self.cls is None:
            return value
        default: Any = next(f.default for f in dataclasses.fields(self.cls) if f.name == self.knob.option)
        if not isinstance(default, float) or round(default * self.shape.dim) != width:
            return value
        length = self.goal.length
        for block, _ in self.turned:
            one, other = (self._turn(block, v) for v in (default, value))
            if costs(((one,),), self.shape, length) != costs(((other,),), self.shape, length):
                return value
        return default

    def write(self, schedule: Schedule, width: int) -> tuple[Schedule, Shape]:
        if self.cls is None:
            return schedule, replace(self.shape, dim=width)
        value, cls = self.spell(width), self.cls
        done = tuple(
            tuple(self._turn(block, value) if type(block) is cls else block for block in layer)
            for layer in schedule
        )
        return done, self.shape

    def _value(self, width: int) -> float:
        return width / self.shape.dim if self.takes_fractions else width

    def _turn(self, block: Block, value: float) -> Block:
        return replace(typing.cast(Any, block), **{self.knob.option: value})


def _cost(name: Cost, block: Block, shape: Shape, length: int) -> int:
    if name == "params":
        return block.params(shape)
    return block.state_size(shape, length) if name == "state" else block.flops(shape, length)


def _total(name: Cost, tally: list[tuple[Block, int]], shape: Shape, length: int) -> int:
    """Of the stack: every block behind a norm of its own, and one norm at the end."""
    norms = (sum(n for _, n in tally) + 1) * shape.dim if name == "params" else 0
    return norms + sum(n * _cost(name, block, shape, length) for block, n in tally)


def _kinds(cls: type[Block]) -> dict[str, Literal["fractions", "whole", ""]]:
    """The options of a block by the numbers that they take; empty for those that take none."""
    hints = typing.get_type_hints(cls)
    found: dict[str, Literal["fractions", "whole", ""]] = {}
    for field in dataclasses.fields(cls):
        takes = typing.get_args(hints[field.name]) or (hints[field.name],)
        found[field.name] = "fractions" if float in takes else "whole" if int in takes else ""
    return found


def shown(number: Fraction) -> str:
    """``12,345``; with two places where it is no whole number."""
    return f"{int(number):,}" if number.denominator == 1 else f"{float(number):,.2f}"


def _them(goal: Goal) -> str:
    return "its params" if goal.cost == "params" else "its state"


def _start(goal: Goal, was: int) -> str:
    at = f" at {goal.length:,} tokens" if goal.cost == "state" else ""
    are = "are" if goal.cost == "params" else "is"
    wanted = f"{shown(goal.target)} ({goal.whose}), within {float(100 * goal.within):g} %"
    return f"{_them(goal)}{at} {are} {was:,} and cannot be brought to {wanted}"
