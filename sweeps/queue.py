"""The queue between a sweep and its workers: one Optuna trial per run, in a study ``<sweep>-queue``.

Nothing of a sampler is in it; it is the part of Optuna that has been made to work over files, databases and
proxies: taking a WAITING trial is atomic, so no two workers ever get the same.

    WAITING, ``job``           published by the sweep
    RUNNING, ``worker``        taken; the worker's beats are watched
    RUNNING, ``outcome``       delivered, with ``rows.0``, ``rows.1``, ... where results travel this way
    COMPLETE or FAIL           collected, or given up: only the sweep ends a trial

So the sweep alone decides what counts, and a worker that comes back too late finds its trial ended. Whoever
is at work says so by a counter in the notes of the study. Nobody compares clocks: a counter that stands still
for ``grace`` seconds, by the watcher's own clock and while it looked, is that of a process that is lost.
"""

from __future__ import annotations

import base64
import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeps.status import Status, of_document
from sweeps.storages import StorageError, first_line, troubles

__all__ = [
    "LEASE",
    "VERSION",
    "Beat",
    "Pace",
    "Queue",
    "Silence",
    "Ticket",
    "as_chunks",
    "from_chunks",
]

VERSION = 1
"""Of what stands in a queue."""

PATIENCE = 60.0
"""Seconds for which a storage that does not answer is asked again."""

CHUNK = 1 << 20
"""Characters of one attribute: below what a proxy takes in one message."""

LEASE = "sweep"
"""The note by which a sweep holds the queue."""

T = TypeVar("T")


@dataclass(frozen=True)
class Pace:
    """How life is told from death.

    beat: seconds between two beats. grace: seconds of silence after which a worker, or the sweep that held
    the queue, is given up. All that work on one queue keep the same.
    """

    beat: float = 3.0
    grace: float = 30.0

    def silence(self) -> Silence:
        """A watch over one counter."""
        return Silence(longest=2 * self.beat)


@dataclass(frozen=True)
class Ticket:
    """A trial of the queue that is not ended. ``notes``: its attributes, as listed above."""

    number: int
    waiting: bool
    notes: Mapping[str, Any]

    @property
    def worker(self) -> str | None:
        """Who took it; None for a moment after it was taken."""
        return self.notes.get("worker")

    @property
    def outcome(self) -> dict[str, Any] | None:
        """What became of it, once that is delivered."""
        return self.notes.get("outcome")


class Queue:
    """The queue of the sweep ``name``. What a storage raises when it stays away becomes StorageError."""

    def __init__(self, storage: BaseStorage, name: str, *, make: bool = False) -> None:
        self.name, self._storage = name, storage
        study = f"{name}-queue"
        try:
            self._study = self._ask(storage.get_study_id_from_name, study)
        except KeyError:
            if not make:
                raise StorageError(
                    f"there is no sweep {name!r} in this storage; start it with lab sweep RECIPE --storage"
                ) from None
            try:
                self._study = self._ask(storage.create_new_study, [StudyDirection.MAXIMIZE], study)
            except DuplicatedStudyError:  # somebody was faster
                self._study = self._ask(storage.get_study_id_from_name, study)

    def _ask(self, call: Callable[..., T], *arguments: Any) -> T:
        """``call(*arguments)``, again and again while the storage is away, for as long as PATIENCE goes."""
        began, pause = time.monotonic(), 0.1
        while True:
            try:
                return call(*arguments)
            except troubles() as exc:
                if time.monotonic() - began > PATIENCE:
                    raise StorageError(
                        f"the storage of {self.name} does not answer ({first_line(exc)}); "
                        "what is finished is kept, run the same command again"
                    ) from exc
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    def notes(self) -> dict[str, Any]:
        """The notes of the study: the sweep's own, and the beats of all that are at work."""
        return self._ask(self._storage.get_study_user_attrs, self._study)

    def note(self, name: str, value: Any) -> None:
        """Write one note; None takes it back."""
        self._ask(self._storage.set_study_user_attr, self._study, name, value)

    def status(self, pace: Pace) -> Status:
        """How far the sweep is, as it says itself. Waits for a sign of life from one that says it works."""
        notes = self.notes()
        about = notes.get("about") or {}
        lease = notes.get(LEASE) or {}
        said = (about if about.get("ended") else lease).get("status")
        if said is None:
            raise StorageError(
                f"the sweep {self.name!r} has not said yet how far it is; ask again in a moment"
            )
        status = of_document(said)
        if status.state == "working":
            time.sleep(pace.beat + 1)
            if (self.notes().get(LEASE) or {}).get("beat") == lease["beat"]:
                status = replace(status, state="stopped", eta=None)
        return status

    def publish(self, notes: Mapping[str, Any]) -> int:
        """A new trial that waits for a worker; its number."""
        template = create_trial(state=TrialState.WAITING, user_attrs=dict(notes))
        return self._ask(self._storage.create_new_trial, self._study, template)

    def tickets(self) -> list[Ticket]:
        """All trials that are not ended, the oldest first."""
        return [_ticket(trial) for trial in self._open((TrialState.WAITING, TrialState.RUNNING))]

    def _open(self, states: tuple[TrialState, ...]) -> list[FrozenTrial]:
        return self._ask(self._storage.get_all_trials, self._study, False, states)

    def claim(self, worker: str) -> Ticket | None:
        """Take the oldest waiting trial; None if none waits."""
        for trial in self._open((TrialState.WAITING,)):
            ticket = _ticket(trial)
            if self.take(ticket) and self.write(ticket.number, "worker", worker):
                return ticket
        return None

    def take(self, ticket: Ticket) -> bool:
        """Make a waiting trial ours; False if another was faster."""
        try:
            return self._ask(self._storage.set_trial_state_values, ticket.number, TrialState.RUNNING)
        except UpdateFinishedTrialError:
            return False

    def write(self, number: int, name: str, value: Any) -> bool:
        """Write an attribute of a trial; False if the trial is ended: the sweep has given it up."""
        try:
            self._ask(self._storage.set_trial_user_attr, number, name, value)
        except UpdateFinishedTrialError:
            return False
        return True

    def end(self, number: int, *, counted: bool) -> None:
        """Collected, or given up; once ended it stays as it is."""
        state = TrialState.COMPLETE if counted else TrialState.FAIL
        try:
            self._ask(self._storage.set_trial_state_values, number, state, [1.0] if counted else None)
        except UpdateFinishedTrialError:
            return


def _ticket(trial: FrozenTrial) -> Ticket:
    return Ticket(trial._trial_id, trial.state == TrialState.WAITING, trial.user_attrs)


def as_chunks(content: bytes) -> dict[str, str]:
    """``rows.0``, ``rows.1``, ...: bytes as attributes."""
    text = base64.b64encode(content).decode()
    return {f"rows.{i}": text[at : at + CHUNK] for i, at in enumerate(range(0, len(text), CHUNK))}


def from_chunks(notes: Mapping[str, Any], chunks: int) -> bytes:
    """What ``as_chunks`` made attributes of. Raises StorageError where one is missing or broken."""
    try:
        return base64.b64decode("".join(notes[f"rows.{i}"] for i in range(chunks)), validate=True)
    except (KeyError, TypeError, ValueError) as exc:
        raise StorageError(f"a result in the storage is not whole ({exc})") from exc


class Beat:
    """A thread that counts in the note ``name``, beside ``about``, for as long as its process lives.

    lost: why it has ended early; whoever started it has to end, too. guarded: the note is one that others may
    take over, which they do by another ``session`` in it.
    """

    def __init__(
        self, queue: Queue, name: str, about: Mapping[str, Any], *, every: float, guarded: bool = False
    ) -> None:
        self.about = dict(about)
        self.lost: Exception | None = None
        self._queue, self._name, self._every, self._guarded = queue, name, every, guarded
        self._count = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._go, daemon=True)

    def __enter__(self) -> Self:
        self._say()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self.lost is None:
            with contextlib.suppress(StorageError, OSError):  # others find out by the silence
                self._queue.note(self._name, None)

    def check(self) -> None:
        """Raise what ended the beats early, if anything did."""
        if self.lost is not None:
            raise self.lost

    def _say(self) -> None:
        self._count += 1
        self._queue.note(self._name, {**self.about, "beat": self._count})

    def _go(self) -> None:
        while not self._stop.wait(self._every):
            try:
                if self._guarded and not self._is_ours():
                    raise StorageError(
                        f"another sweep has taken the queue of {self._queue.name} over; "
                        "what is finished is kept"
                    )
                self._say()
            except (StorageError, OSError) as exc:
                self.lost = exc
                return

    def _is_ours(self) -> bool:
        note = self._queue.notes().get(self._name)
        return note is not None and note.get("session") == self.about["session"]


@dataclass
class Silence:
    """For how long a counter has stood still, as far as somebody looked.

    longest: what a gap between two looks counts as at most. So a watcher that was itself stopped, or cut off
    from the storage, takes nobody for lost. changes: of the counter, since the first look.
    """

    longest: float

    beat: Any = None
    seconds: float = 0.0
    changes: int = 0
    at: float | None = None

    def look(self, beat: Any) -> float:
        """Take note of ``beat``; the seconds of silence so far."""
        now = time.monotonic()
        if self.at is not None and beat == self.beat:
            self.seconds += min(now - self.at, self.longest)
        else:
            self.changes += self.at is not None
            self.seconds = 0.0
        self.beat, self.at = beat, now
        return self.seconds
