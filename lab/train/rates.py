"""The learning rate over the steps, as a share of its highest."""

from __future__ import annotations

import math

from lab.model.form import RatePart

__all__ = ["share_at"]


def share_at(rate: RatePart, step: int, steps: int) -> float:
    """The share of the highest rate at ``step`` (1 to ``steps``), between 0 and 1.

    The last step of the warm-up has the whole rate. A decay over n steps takes its n first points, so that
    its last step still learns where ``final`` is 0.
    """
    warm = round(rate.warmup * steps)
    if step <= warm:
        return step / warm
    begin = steps - round(rate.decay * steps) if rate.shape in ("wsd", "warmdown") else warm
    if step <= begin:
        return 1.0
    done = (step - 1 - begin) / (steps - begin)
    left = 1 - done if rate.shape in ("linear", "warmdown") else 0.5 * (1 + math.cos(math.pi * done))
    return rate.final + (1 - rate.final) * left
