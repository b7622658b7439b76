"""Constraints on what a candidate may cost: ``<= 64 KiB``, ``within 1% of baseline``, ``<= 90% of baseline``.

Costs are known before training, so that a candidate that violates one is never trained.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from sweeps.match import Cost, shown

__all__ = ["Bound", "BoundError", "Held", "parse_bound"]

BYTES = 4
"""A scalar of state in float32, as ``lab describe`` has it."""

UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

NUMBER = r"(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)"
LARGEST_POWER = 18

FORM = "'<= NUMBER', '>= NUMBER', '<= 90% of baseline' or 'within 1% of baseline'"


class BoundError(ValueError):
    """A text is no bound; the message says what was given and what is allowed."""


@dataclass(frozen=True)
class Held:
    """One constraint met by one candidate. violation: 0 or less where it holds, else the share beyond it."""

    cost: Cost
    violation: float
    sentence: str

    @property
    def holds(self) -> bool:
        """Whether the candidate may be trained as far as this constraint goes."""
        return self.violation <= 0


@dataclass(frozen=True)
class Bound:
    """A cost at most, at least, or within a share of a number, which may be a share of the baseline's."""

    cost: Cost
    text: str
    kind: Literal["<=", ">=", "within"]
    number: Fraction
    is_share: bool
    within: Fraction = Fraction(0)

    def hold(self, cost: int, baseline: int) -> Held:
        """What becomes of a candidate that costs ``cost`` where the baseline costs ``baseline``."""
        target = self.number * baseline if self.is_share else self.number
        over = (cost - target) / target if target else Fraction(cost)
        beyond = {"<=": over, ">=": -over, "within": abs(over) - self.within}[self.kind]
        verb = "is" if self.cost == "state" else "are"
        limit = "" if shown(target) in self.text else f" ({shown(target)})"
        return Held(self.cost, float(beyond), f"its {self.cost} {verb} {cost:,}, not {self.text}{limit}")


def parse_bound(text: str, cost: Cost) -> Bound:
    """The bound that ``text`` sets on ``cost``. Raises BoundError."""
    words = " ".join(text.split())
    found = re.fullmatch(rf"(<=|>=) ?(?:(?:{NUMBER} ?% of )?(baseline)|{NUMBER} ?([A-Za-z]*))", words)
    if found:
        kind: Literal["<=", ">="] = "<=" if found[1] == "<=" else ">="
        if found[3]:
            return Bound(cost, words, kind, _number(found[2] or "100", text) / 100, True)
        return Bound(cost, words, kind, _number(found[4], text) / _per_scalar(found[5], cost, text), False)
    found = re.fullmatch(rf"within {NUMBER} ?% of (?:(baseline)|{NUMBER})", words)
    if not found:
        raise BoundError(f"is {text!r}; it must be a bound: {FORM}")
    within = _number(found[1], text) / 100
    number = Fraction(1) if found[2] else _number(found[3], text)
    if not number:
        raise BoundError(f"is {text!r}; nothing can be within a share of 0")
    return Bound(cost, words, "within", number, bool(found[2]), within)


def _number(digits: str, text: str) -> Fraction:
    power = re.search(r"[eE]([-+]?\d+)", digits)
    if len(digits) > 40 or (power and abs(int(power[1])) > LARGEST_POWER):
        raise BoundError(f"is {text!r}; a number has at most 40 characters and a power of {LARGEST_POWER}")
    return Fraction(digits)


def _per_scalar(unit: str, cost: Cost, text: str) -> Fraction:
    """What a number is divided by to count scalars."""
    if not unit:
        return Fraction(1)
    if cost != "state" or unit not in UNITS:
        units = f"scalars, or {', '.join(UNITS)} of float32" if cost == "state" else "a plain number"
        raise BoundError(f"is {text!r}, with the unit {unit!r}; {cost} is given as {units}")
    return Fraction(BYTES, UNITS[unit])
