"""Weights averaged beside a training: an exponential mean (EMA), or a plain one over its end (SWA)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from lab.model.form import AveragePart, RatePart
from lab.train.rates import share_at

__all__ = ["Average", "AverageError"]


class AverageError(ValueError):
    """No step of a training is part of its average."""


class Average:
    """The mean of the weights after the steps that count; where parameters are sharded, so is it.

    ema: w_t has the share (1 - d) d^(n - t) of the mean after n steps, over the sum of these shares: the
    start weighs nothing (the correction of Kingma & Ba 2015, sec. 3). swa: the plain mean (Izmailov et al.
    2018, alg. 1) over every ``every``-th step, counted back from the last, within the last ``share`` and, if
    ``below`` is given, where ``rate`` is below that share of its highest. Raises AverageError where none is.
    """

    def __init__(self, part: AveragePart, rate: RatePart, steps: int, params: Mapping[str, Tensor]) -> None:
        self._part, self._rate, self._steps = part, rate, steps
        if not self.counts(steps):  # the rate is lowest there
            last = share_at(rate, steps, steps)
            raise AverageError(
                f"train.average.below is {part.below:g}, but the rate ends at {last:g} of its highest, "
                "so that no step would count; raise it, or let the rate fall further"
            )
        self._params = dict(params)
        self.values = {name: p.detach().clone() for name, p in params.items()}
        self.count = 0  # steps that the mean is over

    def counts(self, step: int) -> bool:
        """Whether the weights after ``step`` (1 to steps) are part of the mean."""
        if self._part.kind == "ema":
            return True
        if self._part.below is not None and share_at(self._rate, step, self._steps) >= self._part.below:
            return False
        left = self._steps - step
        return left < max(1, round(self._part.share * self._steps)) and left % self._part.every == 0

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights as they stand after ``step``."""
        if not self.counts(step):
            return
        self.count += 1
        decay = self._part.decay
        weight = (1 - decay) / (1 - decay**self.count) if self._part.kind == "ema" else 1 / self.count
        for name, p in self._params.items():
            # The first is copied whole: what stood there before must not leave a rounding error.
            self.values[name].copy_(p) if self.count == 1 else self.values[name].lerp_(p, weight)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model with the mean as its weights, while there is one; afterwards its own, bit for bit."""
        if not self.count:
            yield
            return
        with torch.no_grad():
            own = {name: p.detach().clone() for name, p in self._params.items()}
            try:
                for name, p in self._params.items():
                    p.copy_(self.values[name])
                yield
            finally:
                for name, p in self._params.items():
                    p.copy_(own[name])
