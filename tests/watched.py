"""Commands in this process, watched: warnings raise, time is limited, sweeps need no worker processes."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import resource
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path

from sweeps import study
from sweeps.pool import Job, Pool, Reply, Setup, UnderWay, _work, load_table

__all__ = ["LIMIT", "Hang", "acting_as", "encodes", "inline", "limited", "peak", "unfit"]

LIMIT = 20.0
"""Seconds that a command may take."""

STDERR = 2


class Hang(BaseException):
    """A command takes longer than it may; no ``except Exception`` catches this."""


class Here(Pool):
    """A pool without processes: a run is trained where it is waited for."""

    def __init__(self, workers: int, setup: Setup) -> None:
        super().__init__(1, setup)
        self.setup, self.jobs = setup, list[Job]()

    @property
    def busy(self) -> int:
        return len(self.jobs)

    @property
    def under_way(self) -> list[UnderWay]:
        return []

    def submit(self, job: Job) -> None:
        self.jobs.append(job)

    def wait(self, timeout: float | None = None) -> list[Reply]:
        return [_work(self.jobs.pop(), self.setup, load_table(self.setup.blocks_file))]


def unfit(code: int, said: str) -> str:
    """What is wrong with how a command ended; empty if nothing is."""
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    if "Traceback" in said:
        return "a traceback"
    if code not in (0, 2):
        return f"exit code {code}"
    if code == 2 and (len(errors) != 1 or not errors[0].removeprefix("error:").strip()):
        return "no sentence"
    return ""


def encodes(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Warnings raise, and so does the time limit; what does not answer to that ends the process."""

    def late(*_: object) -> None:
        raise Hang(f"longer than {LIMIT} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    faulthandler.dump_traceback_later(15 * LIMIT, exit=True, file=STDERR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def inline() -> Iterator[None]:
    """Sweeps train in this process; starting one for every broken folder would take hours."""
    real = study.Pool
    study.Pool = Here  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        study.Pool = real  # type: ignore[misc]


@contextlib.contextmanager
def acting_as(user: int | None, place: Path) -> Iterator[None]:
    """Be another user, to whom ``place`` belongs; None: stay."""
    if user is None:
        yield
        return
    place.parent.chmod(0o755)
    for path in (place, *place.rglob("*")):
        os.lchown(path, user, user)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
