"""Matrices in few bits: each row in whole steps of its own, the step chosen for the least squared error.

This is rounding to nearest with a search for where to clip, what OpenAI's parameter golf calls GPTQ-lite; no
calibration text, no Hessian. R rows (outputs), C columns (inputs).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["CLIPS", "Rounded", "RoundingError", "round_rows", "top_of"]

CLIPS = (1.0, 0.99999, 0.9999, 0.9995, 0.999)
"""Where a row may be clipped: at these quantiles of its magnitudes. Of equal errors the first wins."""

SMALLEST = 2.0**-24
"""The smallest float16 above 0; a row of smaller numbers still has a step."""


class RoundingError(ValueError):
    """Weights cannot be rounded; one sentence."""


@dataclass(frozen=True, eq=False)
class Rounded:
    """A matrix as ``steps_RC`` (int8) times ``size_R`` (float16, the length of a step of each row)."""

    steps_RC: Tensor
    size_R: Tensor

    def whole(self) -> Tensor:
        """The matrix in float32, [R, C]."""
        return self.steps_RC.float() * self.size_R.float()[:, None]


def top_of(bits: int) -> int:
    """The most steps to either side of 0: 31 for 6 bits. -32 is left out, so that both sides are alike."""
    return 2 ** (bits - 1) - 1


def round_rows(weight_RC: Tensor, bits: int, finest: float = 0.0) -> Rounded:
    """``weight_RC`` in steps, each row's clip chosen for itself among ``CLIPS`` by squared error.

    bits: 2 to 8. finest: no row's step is shorter than this. Parameter golf has 1/31, which costs rows of
    small numbers most of their bits and makes files small; 0 leaves every row its own step. Raises
    RoundingError where a number is not finite, or too large for a float16 step.
    """
    weight = weight_RC.detach().float()
    if not weight.isfinite().all():
        raise RoundingError("weights are NaN or infinite; there is nothing to round")
    sorted_RC = weight.abs().sort(dim=1).values
    best_R = torch.full_like(sorted_RC[:, 0], torch.inf)
    found = Rounded(torch.zeros_like(weight, dtype=torch.int8), torch.zeros_like(best_R, dtype=torch.float16))
    for clip in CLIPS:
        one = _rounded(weight, _quantile(sorted_RC, clip), top_of(bits), finest)
        error_R = (one.whole() - weight).square().sum(dim=1)
        better_R = error_R < best_R
        best_R = torch.where(better_R, error_R, best_R)
        found = Rounded(
            torch.where(better_R[:, None], one.steps_RC, found.steps_RC),
            torch.where(better_R, one.size_R, found.size_R),
        )
    return found


def _rounded(weight_RC: Tensor, clip_R: Tensor, top: int, finest: float) -> Rounded:
    size_R = (clip_R / top).clamp_min(max(finest, SMALLEST)).half()
    if size_R.isinf().any():
        raise RoundingError(f"a row reaches {float(clip_R.max()):.3g}, too far for steps in float16")
    # Counted in steps as they are stored, so that what the step lost in float16 is made good here.
    steps_RC = (weight_RC / size_R.float()[:, None]).round().clamp(-top, top)
    return Rounded(steps_RC.to(torch.int8), size_R)


def _quantile(sorted_RC: Tensor, share: float) -> Tensor:
    """As ``torch.quantile`` along the rows, which refuses large matrices."""
    place = share * (sorted_RC.shape[1] - 1)
    low = int(place)
    high = min(low + 1, sorted_RC.shape[1] - 1)
    return torch.lerp(sorted_RC[:, low], sorted_RC[:, high], place - low)
