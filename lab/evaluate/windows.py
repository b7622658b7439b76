"""Sliding windows over a sequence: which targets each window scores, and from where on it reads.

Target i is what follows input i. All is arithmetic on positions; nothing here knows of models.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Span", "WindowError", "spans"]


class WindowError(ValueError):
    """A window or a stride is impossible; one sentence."""


@dataclass(frozen=True)
class Span:
    """One window: it reads the inputs [start, stop) and scores the targets [first, stop) of them."""

    start: int
    first: int
    stop: int


def spans(begin: int, end: int, window: int, stride: int) -> Iterator[Span]:
    """Windows of at most ``window`` inputs that score every target of [begin, end) once, in order.

    A window ends ``stride`` targets after the one before it and scores those; the first scores as many as it
    holds where nothing stands before them. So every target has at least window - stride inputs before its
    own, or all there are. Windows may read back before ``begin``, never past the last target they score.

    Where a text is no whole number of strides, the last window is moved back and scores what is left: windows
    that score a full stride there count targets twice, as in the early entries of OpenAI's parameter golf.

    Raises WindowError unless 1 <= stride <= window.
    """
    if window < 1:
        raise WindowError(f"the window is {window} tokens; it must hold at least 1")
    if not 1 <= stride <= window:
        raise WindowError(
            f"the stride is {stride}; it must lie between 1 and the window of {window}, or targets "
            "are left out"
        )
    first = begin
    while first < end:
        stop = min(end, max(first + stride, window))
        yield Span(max(0, stop - window), first, stop)
        first = stop
