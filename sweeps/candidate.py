"""A candidate of a sweep: one model that a recipe stands for, in plain values."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal, cast

from blocks.base import Shape
from blocks.design import Design, design_of
from blocks.schedule import Schedule
from sweeps.bounds import Held
from sweeps.form import Choices
from sweeps.match import Solved

__all__ = ["Candidate", "unembedded"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A schedule with its shape and design, and the optimiser settings to try on it; plain values only.

    label: for people, ``r=3:1``. also: labels of other choices that come out as the same architecture.
    choices: as spelled in the recipe. schedule: canonical text. optimisers: (lr, weight decay) pairs.
    around: what the design has that is not plain, by the recipe's keys.
    idle: variables that have no say here, since only a value that another one does not have names them.
    solved: what ``match`` made of it; it is in schedule and dim already. held: what came of each constraint.
    """

    label: str
    choices: Choices
    schedule: str
    dim: int
    heads: int
    norm: str
    optimisers: tuple[tuple[float, float], ...]
    also: tuple[str, ...] = ()
    solved: Solved | None = None
    held: tuple[Held, ...] = ()
    idle: tuple[str, ...] = ()
    around: tuple[tuple[str, str | float], ...] = ()

    @property
    def refusal(self) -> str:
        """Why the constraints do not let it be trained; empty if they do."""
        return " and ".join(one.sentence for one in self.held if not one.holds)

    @property
    def arch(self) -> str:
        """Hash of schedule, shape and design as spelled, whatever they are called; see ``space.identity``."""
        parts: list[object] = [self.schedule, self.dim, self.heads, self.norm]
        text = json.dumps([*parts, *([self.around] if self.around else [])])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def shape(self) -> Shape:
        """What all blocks of the model share."""
        return Shape(dim=self.dim, heads=self.heads, norm=cast(Literal["rms", "rms_zero"], self.norm))

    @property
    def design(self) -> Design:
        """What the model has beside its layers."""
        return design_of(**dict(self.around))  # pyright: ignore[reportArgumentType]

    @property
    def design_text(self) -> str:
        """The same for people, ``residual: unet, norms: bare``; empty where it is plain."""
        return ", ".join(f"{name}: {value}" for name, value in self.around)

    @property
    def choices_json(self) -> str:
        """``choices`` as a JSON object, without those that have no say."""
        return json.dumps({name: value for name, value in self.choices if name not in self.idle})


def unembedded(values: str | None, schedule: Schedule) -> str | None:
    """What is wrong where blocks ask for an embedding of values and the design has none, or the reverse."""
    asked = any(getattr(block, "values", False) for layer in schedule for block in layer)
    if asked == (values is not None):
        return None
    has = "a block asks for one" if asked else "the model has one"
    return (
        f"blocks with values=True and an embedding of values (values: embedding) belong together; only {has}"
    )
