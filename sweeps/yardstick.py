"""What the candidates of a recipe are held against: the goal of ``match``, the constraints, the baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from blocks import BLOCKS
from blocks.base import Block, Shape
from blocks.schedule import Schedule
from sweeps.bounds import Bound, Held
from sweeps.form import ConstraintsPart, MatchPart
from sweeps.match import Cost, Goal, Solved, costs, knob, match

__all__ = ["Fitted", "Yardstick"]


@dataclass(frozen=True)
class Fitted:
    """A schedule and its shape as they are trained, what ``match`` did to them, what came of each bound."""

    schedule: Schedule
    shape: Shape
    solved: Solved | None = None
    held: tuple[Held, ...] = ()


@dataclass(frozen=True)
class Yardstick:
    """goal: of ``match``. bounds: of ``constraints``, at ``length`` tokens; costs: the baseline's, there."""

    goal: Goal | None
    bounds: tuple[Bound, ...]
    length: int
    costs: Mapping[Cost, int]

    @classmethod
    def of(
        cls,
        wanted: MatchPart | None,
        limits: ConstraintsPart | None,
        baseline: tuple[str, Schedule, Shape],
        longest: int,
        blocks: Mapping[str, type[Block]] = BLOCKS,
    ) -> Yardstick:
        """baseline: its label, and what it is as written. longest: tokens of the longest task.

        Raises OptionError where the baseline does not fit its shape, MatchError where it sets no goal.
        """
        label, schedule, shape = baseline
        goal = None
        if wanted is not None:
            ((cost, aim),) = wanted.aims.items()
            length = wanted.length or longest
            own = aim == "baseline"
            goal = Goal(
                cost=cost,
                target=Fraction(costs(schedule, shape, length)[cost]) if own else Fraction(str(aim)),
                whose=f"that of {label}" if own else "as given",
                by=tuple(knob(text, blocks) for text in wanted.by),
                within=Fraction(str(wanted.within)),
                length=length,
            )
        length = (limits.length if limits else None) or longest
        return cls(goal, limits.bounds if limits else (), length, costs(schedule, shape, length))

    def fit(self, schedule: Schedule, shape: Shape, blocks: Mapping[str, type[Block]] = BLOCKS) -> Fitted:
        """A candidate matched and measured. Raises MatchError, or OptionError where it does not fit."""
        solved = None
        if self.goal is not None:
            schedule, shape, solved = match(schedule, shape, self.goal, blocks)
        if not self.bounds:
            return Fitted(schedule, shape, solved)
        here = costs(schedule, shape, self.length)
        held = tuple(bound.hold(here[bound.cost], self.costs[bound.cost]) for bound in self.bounds)
        return Fitted(schedule, shape, solved, held)
