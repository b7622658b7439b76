"""SIGTERM and Ctrl-C: the step under way is finished and saved, then the training ends."""

from __future__ import annotations

import signal
from types import FrameType

__all__ = ["Ending"]


class Ending:
    """A context in which the first SIGTERM or SIGINT asks for an end; a second SIGINT interrupts at once.

    asked: the signal, None while there was none.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    def __call__(self) -> bool:
        return self.asked is not None

    @property
    def code(self) -> int:
        """The exit code that says which signal ended it: 143 for SIGTERM, 130 for Ctrl-C."""
        return 128 + (self.asked or 0)

    def __enter__(self) -> Ending:
        self._before = {one: signal.signal(one, self._ask) for one in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)  # pyright: ignore[reportArgumentType]

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        if self.asked is signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number)
