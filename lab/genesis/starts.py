"""How every tensor of a released file starts, and whether it is still there.

A start that is one value (zeros, ones, a tenth of the identity) can be recognised exactly. A drawn one
cannot: the seed is unknown, so that all there is to say of such a tensor is that its numbers are what such a
draw gives, or are not. Decay rates are drawn from a range so wide that training need not leave it; inside it
they tell nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from blocks.genesis_model import GenesisConfig
from lab.genesis.weights import Weights

__all__ = ["ERRORS", "Measured", "Pool", "Start", "State", "measure", "pooled", "start_of"]

State = Literal["at start", "consistent", "moved", "no claim"]
"""at start: every number is the start's; consistent: a draw as at the start looks so; moved: neither;
no claim: nothing can be said."""

ERRORS = 5.0
"""Standard errors that a fresh draw may lie off: beyond five, one fresh tensor in some two million."""

ZEROS = (
    "omega",
    "b_proj.bias",
    "fgate_proj.bias",
    "ttt.B_init",
    "ttt.norm.bias",
    "confidence.0.bias",
    "confidence.2.bias",
)
ONES = ("g_norm_swish_gate.weight", "q_norm.weight", "k_norm.weight", "output_norm.weight", "ttt.norm.weight")


@dataclass(frozen=True)
class Start:
    """What a tensor is at the start.

    kind: ``value``, all of them ``value`` (or, ``diagonal``, that much of the identity); ``normal`` and
    ``uniform``, drawn around 0 with standard deviation ``std``, the latter within +-``limit``; ``range``,
    drawn between ``low`` and ``limit``, with no shape claimed.
    """

    kind: Literal["value", "normal", "uniform", "range"]
    value: float = 0.0
    diagonal: bool = False
    std: float = 0.0
    low: float = 0.0
    limit: float = math.inf


@dataclass(frozen=True)
class Measured:
    """One tensor held against its start. ratio: its standard deviation over the start's, if that is drawn."""

    name: str
    size: int
    start: Start
    state: State
    ratio: float | None


@dataclass(frozen=True)
class Pool:
    """Drawn tensors taken together: their standard deviation over the start's, and its standard error."""

    ratio: float
    error: float

    @property
    def consistent(self) -> bool:
        return abs(self.ratio - 1) <= ERRORS * self.error


def start_of(name: str, config: GenesisConfig) -> Start:
    """The start of a tensor by its released name, as the package really makes it."""
    if name.endswith(ZEROS):
        return Start("value", 0.0)
    if name.endswith(ONES):
        return Start("value", 1.0)
    if name.endswith("ttt.W0"):
        return Start("value", 0.1, diagonal=True)
    if name.endswith("ttt.log_lr"):
        return Start("value", math.log(config.ttt_lr))
    if name.endswith("layer_scale.scale"):
        return Start("value", 1e-4)
    if name.endswith("A_log"):
        return Start("range", low=math.log(0.5), limit=math.log(8))
    if name.endswith("dt_bias"):
        low, high = (math.log(math.expm1(step)) for step in (1e-3, 1e-1))
        return Start("range", low=low, limit=high)
    if name.endswith(".conv.weight"):
        limit = config.conv**-0.5
        return Start("uniform", std=limit / math.sqrt(3), limit=limit)
    return Start("normal", std=0.01 if name.endswith("ttt.A_init") else config.start_std)


def measure(weights: Weights) -> dict[str, Measured]:
    """Every weight of a file held against its start, by released name."""
    config = weights.released.config()
    return {
        name: _measure(name, t, start_of(name, config), weights.stored[name])
        for name, t in weights.tensors.items()
    }


def _measure(name: str, t: Tensor, start: Start, stored: torch.dtype) -> Measured:
    ratio: float | None = None
    state: State = "moved"
    slack = 2 * max(torch.finfo(kind).eps for kind in (stored, torch.float32))
    if start.kind == "value":
        state = "at start" if _is(t, start, stored) else "moved"
    elif start.kind == "range":
        wide = slack * max(abs(start.low), abs(start.limit))
        inside = t.amin().item() >= start.low - wide and t.amax().item() <= start.limit + wide
        state = "no claim" if inside else "moved"
    elif torch.finfo(stored).bits < 16:
        state = "no claim"  # rounding to eight bits alone widens a draw
    else:
        ratio = _spread(t) / start.std
        centred = abs(t.mean(dtype=torch.float64).item()) <= ERRORS * start.std / math.sqrt(t.numel())
        inside = t.abs().amax().item() <= start.limit * (1 + slack)
        if inside and centred and Pool(ratio, _error(start, t.numel())).consistent:
            state = "consistent"
    return Measured(name, t.numel(), start, state, ratio)


def _is(t: Tensor, start: Start, stored: torch.dtype) -> bool:
    """Whether every number is the start's, made in float32 or in float64 and put into the stored type."""
    for made in (torch.float32, torch.float64):
        if start.diagonal:
            wanted = start.value * torch.eye(len(t), dtype=made)
        else:
            wanted = torch.full_like(t, start.value, dtype=made)
        if torch.equal(t, wanted.to(stored).to(t.dtype)):
            return True
    return False


def _spread(t: Tensor) -> float:
    """The root mean square: the standard deviation around a known mean of 0."""
    return torch.linalg.vector_norm(t, dtype=torch.float64).item() / math.sqrt(t.numel())


def _error(start: Start, n: int) -> float:
    """Relative standard error of the standard deviation of n draws: sqrt((kurtosis - 1) / 4n)."""
    return math.sqrt((0.5 if start.kind == "normal" else 0.2) / n)


def pooled(found: Mapping[str, Measured], names: Sequence[str]) -> Pool | None:
    """The drawn ones among ``names`` together, each over its own start; None where none is drawn.

    Far sharper than one tensor after the other: 23 small matrices of one kind are one sample.
    """
    drawn = [found[name] for name in names if found[name].ratio is not None]
    if not drawn:
        return None
    n = sum(one.size for one in drawn)
    square = sum(one.size * (one.ratio or 0.0) ** 2 for one in drawn) / n
    error = math.sqrt(sum(one.size**2 * _error(one.start, one.size) ** 2 for one in drawn)) / n
    return Pool(math.sqrt(square), error)
