"""What a sweep tells while it runs, and at its end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sweeps.results import Failure, Pruned

__all__ = ["Event", "News", "Outcome", "Pruned", "RoundDone", "RunDone", "RunFailed", "Started"]


@dataclass(frozen=True)
class Started:
    """The folder is open. ``stored`` of ``runs`` are finished already."""

    candidates: int
    runs: int
    stored: int
    rounds: int
    workers: int


@dataclass(frozen=True)
class RunDone:
    """A run is stored as ``run``. ``done`` of ``total`` runs; ``eta``: seconds to the end, if known."""

    run: str
    label: str
    setting: str
    seed: int
    status: str
    seconds: float
    round: int
    done: int
    total: int
    eta: float | None


@dataclass(frozen=True)
class RunFailed:
    """A run has no result; it is set aside until a sweep of the folder is asked to retry."""

    failure: Failure
    done: int
    total: int


@dataclass(frozen=True)
class RoundDone:
    """Round ``number`` (from 1) of ``rounds`` is complete; ``eta``: seconds for the rest of the sweep."""

    number: int
    rounds: int
    seed: int
    seconds: float
    eta: float | None


@dataclass(frozen=True)
class News:
    """A sentence about the machinery: a worker came or was lost, a run begins again."""

    text: str


Event = Started | RunDone | RunFailed | Pruned | RoundDone | News


@dataclass(frozen=True)
class Outcome:
    """What a sweep did. ``rounds`` of ``rounds_asked`` are complete in the folder.

    trained: runs of this call. stored: runs found finished. stopped: ``complete``; ``time`` where the limit
    ended it; ``decided`` where pruning left one candidate alone; reason says so in a sentence. seconds: of
    this call.
    """

    folder: Path
    candidates: int
    rounds: int
    rounds_asked: int
    trained: int
    stored: int
    failures: tuple[Failure, ...]
    seconds: float
    stopped: Literal["complete", "time", "decided"]
    reason: str
