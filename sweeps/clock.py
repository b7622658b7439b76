"""How long runs take: measured where one like it has finished, else by FLOPs at the rate measured so far."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from blocks import BLOCKS
from sweeps.run import Run, flops_per_step

__all__ = ["Clock"]


class Clock:
    """Collects the seconds of finished runs and predicts those of others."""

    def __init__(self, table: Mapping[str, Any] = BLOCKS) -> None:
        self._table = table
        self._flops: dict[tuple[str, str], float] = {}
        self._measured: dict[tuple[str, ...], list[float]] = defaultdict(list)
        self._seconds = 0.0
        self._work = 0.0

    def work(self, run: Run) -> float:
        """FLOPs of a run that spends its whole budget."""
        cell = (run.candidate.arch, run.task)
        if cell not in self._flops:
            self._flops[cell] = flops_per_step(run, self._table) / run.training.batch
        return self._flops[cell] * run.training.batch * run.training.steps

    def note(self, run: Run, seconds: float) -> None:
        """A run has taken ``seconds``."""
        self._measured[_cell(run)].append(seconds)
        self._seconds += seconds
        self._work += self.work(run)

    @property
    def rate(self) -> float | None:
        """FLOP/s of one worker so far; None before the first run has finished."""
        return self._work / self._seconds if self._seconds else None

    def predict(self, run: Run) -> float | None:
        """Seconds that a run will take; None before the first run has finished."""
        if times := self._measured.get(_cell(run)):
            return sum(times) / len(times)
        return self.work(run) / self.rate if self.rate else None

    def predict_all(self, runs: Iterable[Run], workers: int) -> float | None:
        """Seconds until ``workers`` have done ``runs`` in this order; None if nothing is known yet."""
        free = [0.0] * workers
        for run in runs:
            seconds = self.predict(run)
            if seconds is None:
                return None
            heapq.heapreplace(free, free[0] + seconds)
        return max(free)


def _cell(run: Run) -> tuple[str, ...]:
    """What runs have in common that take about equally long: all but the seed."""
    return (run.candidate.arch, run.task, repr(run.training))
