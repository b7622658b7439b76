"""How the next token is chosen out of logits: penalty, temperature, top-k, top-p, and the draw.

B sequences, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["PLAIN", "GenerateError", "Sampling", "choose", "distribution", "draw", "penalised"]


class GenerateError(ValueError):
    """A generation was asked for with what it cannot use; one sentence."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen: penalty first, then temperature, then top-k, then top-p.

    temperature: 0 takes the likeliest token. top_k: only so many of the likeliest, None for all. top_p: of
    these only the fewest whose probabilities reach it (Holtzman et al. 2020). repetition_penalty: what was
    read or written already is made less likely above 1 (Keskar et al. 2019). Raises GenerateError.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise GenerateError(
                f"temperature is {self.temperature:g}; it must be 0, for the likeliest token, or more"
            )
        if self.top_k is not None and self.top_k < 1:
            raise GenerateError(f"top-k is {self.top_k}; it must be at least 1")
        if not 0 < self.top_p <= 1:
            raise GenerateError(f"top-p is {self.top_p:g}; it must be above 0 and at most 1")
        if not (math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0):
            raise GenerateError(
                f"repetition penalty is {self.repetition_penalty:g}; it must be above 0, and 1 is none"
            )


PLAIN = Sampling()
"""Draws from the model's own probabilities."""


def choose(logits_BV: Tensor, sampling: Sampling, u_B: Tensor | None) -> Tensor:
    """The next id of each row: the likeliest where ``u_B`` is None, else by its numbers in [0, 1)."""
    if u_B is None:
        return logits_BV.argmax(-1)
    return draw(distribution(logits_BV, sampling), u_B.to(logits_BV.device))


def penalised(logits_BV: Tensor, seen_BV: Tensor, penalty: float) -> Tensor:
    """Positive logits of seen ids divided by ``penalty``, negative ones multiplied, never to an infinity."""
    most = torch.finfo(logits_BV.dtype).max
    changed_BV = torch.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty).clamp(-most, most)
    return torch.where(seen_BV, changed_BV, logits_BV)


def distribution(logits_BV: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities [B, V] in float64 under temperature, top-k and top-p; the temperature is above 0.

    Between equal logits the lower id comes first, as in ``argmax``, so that top-k of 1 is greedy.
    """
    wide_BV = logits_BV.double()
    # The largest becomes 0 first, so that no temperature, however low, makes an infinity of it.
    scaled_BV = (wide_BV - wide_BV.amax(-1, keepdim=True)) / sampling.temperature
    sorted_BV, order_BV = scaled_BV.sort(dim=-1, descending=True, stable=True)
    if sampling.top_k is not None:
        sorted_BV[:, sampling.top_k :] = -math.inf
    p_BV = sorted_BV.softmax(-1)
    if sampling.top_p < 1:
        before_BV = p_BV.cumsum(-1) - p_BV
        p_BV = p_BV.masked_fill(before_BV >= sampling.top_p, 0.0)
        p_BV = p_BV / p_BV.sum(-1, keepdim=True)
    return torch.zeros_like(p_BV).scatter(1, order_BV, p_BV)


def draw(p_BV: Tensor, u_B: Tensor) -> Tensor:
    """The id of each row at whose place the running sum of ``p_BV`` passes ``u_B`` in [0, 1)."""
    sums_BV = p_BV.cumsum(-1)
    return torch.searchsorted(sums_BV, u_B[:, None] * sums_BV[:, -1:], right=True)[:, 0]
