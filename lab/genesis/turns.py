"""Works in processes of their own, in turns: one repetition of each, and again.

What else the machine does meets neighbours alike, so the ratio of two is steadier than either time. Processes
of their own keep the peak memory of each apart.
"""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from lab.terminal import CommandError

__all__ = ["Side", "Timed", "Work", "take_turns"]

Work = Callable[[], float]
"""One repetition: the seconds it took, what it had to prepare left out."""

Side = Callable[[], Work]
"""Prepares a work, in the process where it will run; must be picklable."""


@dataclass(frozen=True)
class Timed:
    """Seconds of each repetition, and the peak memory of its process, in bytes."""

    seconds: tuple[float, ...]
    memory: int


def take_turns(what: str, sides: Sequence[Side], repeats: int, threads: int, warm_up: int = 2) -> list[Timed]:
    """``repeats`` turns after ``warm_up`` that fill caches and allocate; each side on ``threads`` threads.

    Raises CommandError, which names ``what``, where the process of a side ends early.
    """
    context = mp.get_context("spawn")
    pipes: list[Any] = []
    workers = []
    for side in sides:
        mine, other = context.Pipe()
        worker = context.Process(target=_serve, args=(other, side, threads), daemon=True)
        worker.start()
        other.close()  # else a worker that dies would be waited for for ever
        pipes.append(mine)
        workers.append(worker)
    try:
        timed = _ask(pipes, repeats, warm_up)
    except (EOFError, ConnectionError) as exc:
        raise CommandError(f"a side of the race ended early in {what}: see its last words above") from exc
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
    return timed


def _ask(pipes: list[Any], repeats: int, warm_up: int) -> list[Timed]:
    seconds: list[list[float]] = [[] for _ in pipes]
    for turn in range(warm_up + repeats):
        for pipe, kept in zip(pipes, seconds, strict=True):
            pipe.send("go")
            took = pipe.recv()
            if turn >= warm_up:
                kept.append(took)
    for pipe in pipes:
        pipe.send("end")
    return [Timed(tuple(kept), pipe.recv()) for kept, pipe in zip(seconds, pipes, strict=True)]


def _serve(pipe: Connection, side: Side, threads: int) -> None:
    """A worker: one repetition for each ``go``, the peak of its memory at the end."""
    torch.set_num_threads(threads)
    with contextlib.redirect_stdout(sys.stderr):
        work = side()
        while pipe.recv() == "go":
            pipe.send(work())
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
