"""Progress of a sweep on stderr: a bar in a terminal, else a plain line every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lab.terminal import note

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

__all__ = ["Progress", "duration"]

EVERY = 5.0
"""Seconds between two plain lines."""


class Progress:
    """A context manager; ``start`` once, then ``step`` and ``line`` as things happen; ``unit`` is counted."""

    def __init__(self, every: float = EVERY, unit: str = "runs") -> None:
        self._every, self._unit = every, unit
        self._said = float("-inf")
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def start(self, title: str, done: int, total: int) -> None:
        """Say what begins; ``done`` of ``total`` runs are finished already."""
        note(title)
        if not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as RichProgress

        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
        self._bar = RichProgress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("", total=total, completed=done)
        self._bar.start()

    def step(self, what: str, done: int, total: int, eta: float | None) -> None:
        """One more run has finished; ``eta``: seconds to the end of the sweep, if it can be told."""
        left = "" if eta is None else f"{duration(eta)} left; "
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, description=f"{left}{what}")
        elif time.monotonic() - self._said >= self._every:
            self._said = time.monotonic()
            note(f"{done:,} of {total:,} {self._unit}; {left}{what}")

    def line(self, text: str) -> None:
        """Something that is always said."""
        with self.paused():
            note(text)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Room for lines of text between two states of the bar."""
        if self._bar is None:
            yield
            return
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
