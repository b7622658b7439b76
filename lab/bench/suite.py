"""The groups of ``lab bench``: a name -> what it measures, and the rows as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from lab.bench import blocks, generation, startup, step, sweep, trial
from lab.bench.timing import Pace, Row

__all__ = ["GROUPS", "Group"]


def _nothing() -> None:
    """Most groups need nothing beside the lab."""


@dataclass(frozen=True)
class Group:
    """about: what is measured, against what. needed: raises CommandError where something is not installed."""

    about: str
    rows: Callable[[Pace], Iterator[Row]]
    needed: Callable[[], None] = _nothing


GROUPS: Mapping[str, Group] = {
    "generation": Group(generation.ABOUT, generation.rows),
    "blocks": Group(blocks.ABOUT, blocks.rows, blocks.needed),
    "step": Group(step.ABOUT, step.rows),
    "trial": Group(trial.ABOUT, trial.rows),
    "sweep": Group(sweep.ABOUT, sweep.rows),
    "startup": Group(startup.ABOUT, startup.rows),
}
