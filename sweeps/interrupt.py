"""Ctrl-C, once: one SIGINT is one KeyboardInterrupt in the main thread, whatever polars does meanwhile."""

from __future__ import annotations

import signal
import threading

import polars  # noqa: F401  # its handler, which is taken back below, is installed when it is imported

__all__ = ["keep_interrupts"]


def keep_interrupts() -> None:
    """Give SIGINT back to Python's own handler.

    polars (2.1) puts a handler of its own before Python's. A SIGINT during one of its queries is raised by
    the query, in whichever thread that is, and often a second time by Python while the first unwinds: the
    clean-up is cut short, or a thread that only reads dies of what was meant for the main one. Without its
    handler a query is finished before the interrupt is raised; ours take milliseconds.
    """
    if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
        signal.signal(signal.SIGINT, signal.getsignal(signal.SIGINT) or signal.default_int_handler)
