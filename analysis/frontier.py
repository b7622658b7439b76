"""Loss against a cost: which points nobody beats, and the power law through them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Frontier", "Spot", "frontier"]


@dataclass(frozen=True)
class Spot:
    """A schedule at a size after some tokens: what it costs, and its loss in bits per byte."""

    label: str
    size: str
    tokens: int
    cost: float
    bits: float


@dataclass(frozen=True)
class Frontier:
    """All spots by cost, and ``on``: those to which no other has less loss at no more cost.

    bits = scale * cost^-power through ``on``, by least squares of the logarithms, each spot weighing alike;
    error: the root mean square of what is left, as a share of the loss. All three are None below three spots.
    The fit describes the spots between the cheapest and the dearest; beyond them it claims nothing.
    """

    cost: str
    spots: tuple[Spot, ...]
    on: tuple[Spot, ...]
    scale: float | None
    power: float | None
    error: float | None

    def at(self, cost: float) -> float | None:
        """The fitted loss at a cost."""
        return None if self.scale is None or self.power is None else self.scale * cost**-self.power


def frontier(cost: str, spots: Sequence[Spot]) -> Frontier | None:
    """The frontier of ``spots``, ``cost`` being what their cost is called; None without spots."""
    if not spots:
        return None
    order = sorted(spots, key=lambda spot: (spot.cost, spot.bits))
    on: list[Spot] = []
    for spot in order:
        if not on or spot.bits < on[-1].bits:
            on.append(spot)
    scale = power = error = None
    if len(on) >= 3:
        x, y = (np.log([getattr(spot, name) for spot in on]) for name in ("cost", "bits"))
        slope, start = np.polyfit(x, y, 1)
        scale, power = math.exp(start), -float(slope)
        error = float(np.sqrt(np.mean((y - start - slope * x) ** 2)))
    return Frontier(cost, tuple(order), tuple(on), scale, power, error)
