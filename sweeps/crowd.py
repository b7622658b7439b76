"""Workers on other machines, as the sweep sees them: what it publishes, watches, collects and gives up."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps import results
from sweeps.begin import SweepError
from sweeps.events import News
from sweeps.places import TOKEN, collect, token_of
from sweeps.pool import Job, Pool, Reply, Setup, UnderWay
from sweeps.queue import LEASE, Beat, Pace, Queue, Silence, Ticket
from sweeps.results import ResultsError
from sweeps.storages import StorageError
from sweeps.wire import job_of, plain

__all__ = ["Crowd", "Team", "team"]

LOOK = 0.5
"""Seconds between two looks into the queue, at least; a slow storage is looked into less often."""

IN_VAIN = ("failed", "died")
"""Outcomes that count as a try: kept until the run is asked for, so that none is forgotten over a restart."""

WORKER = "worker:"
"""Notes of the queue that begin so are the beats of workers."""


@dataclass
class _Held:
    """A trial of the queue that this sweep answers for. asked: a reply is waited for."""

    job: Job
    asked: bool
    worker: str | None = None
    begun: float | None = None
    unseen: Silence | None = None  # of a result that is not where it was said to be


class Crowd:
    """The sweep's side of a queue. Needs the queue's lease.

    Runs are published a little ahead of the workers that are there, so that none waits for the next look;
    what their coordinator left behind when it was killed is taken up: what is delivered is collected, what
    is being trained goes on and is answered for once it is asked for again.
    """

    def __init__(
        self, queue: Queue, folder: Path, code: str, say: Callable[[News], None], pace: Pace
    ) -> None:
        self._queue, self._folder, self._code, self._say, self._pace = queue, folder, code, say, pace
        self._held: dict[int, _Held] = {}
        self._silence: dict[str | int, Silence] = {}
        self._workers: dict[str, Mapping[str, Any]] = {}  # those that live: their notes
        self._seen: Container[str | None] = ()  # workers that have notes
        self.due = 0.0
        self._take_up()

    def _take_up(self) -> None:
        for ticket in self._queue.tickets():
            if ticket.waiting and self._queue.take(ticket):
                self._queue.end(ticket.number, counted=False)
                continue
            if ticket.notes.get("code") != self._code:
                self._queue.end(ticket.number, counted=False)
                continue
            held = _Held(job_of(ticket.notes["job"]), asked=False)
            if ticket.outcome is None or ticket.outcome["kind"] in IN_VAIN:
                self._held[ticket.number] = held
            else:
                self._receive(ticket, held)

    @property
    def slots(self) -> int:
        """Runs that the workers which are there can train at once."""
        return sum(int(note["slots"]) for note in self._workers.values())

    @property
    def busy(self) -> int:
        """Runs submitted and not answered."""
        return sum(held.asked for held in self._held.values())

    @property
    def idle(self) -> int:
        """Runs that could be published: up to one more than twice what is trained at once.

        What is adopted and not asked for yet does not count: it is asked for by submitting it.
        """
        return max(0, 2 * self.slots + 1 - self.busy) if self.slots else 0

    @property
    def under_way(self) -> list[UnderWay]:
        """Runs that workers have taken."""
        now = time.monotonic()
        return [
            UnderWay(held.job, held.worker or "a worker", now - held.begun)
            for held in self._held.values()
            if held.begun is not None
        ]

    def has(self, job: Job) -> bool:
        """Whether a worker is at this run already."""
        return self._adopted(job) is not None

    def _adopted(self, job: Job) -> _Held | None:
        wanted = (job.run.key(self._code), job.floor)
        for held in self._held.values():
            if not held.asked and (held.job.run.key(self._code), held.job.floor) == wanted:
                return held
        return None

    def submit(self, job: Job) -> None:
        """Publish a run, or wait for the worker that is at it already."""
        if held := self._adopted(job):
            held.job, held.asked = job, True
            return
        number = self._queue.publish({"job": plain(job), "code": self._code})
        self._held[number] = _Held(job, asked=True)

    def recall(self) -> Job | None:
        """Take back one run that no worker has begun."""
        for number, held in reversed(self._held.items()):
            if held.begun is None and held.asked and self._queue.take(Ticket(number, True, {})):
                self._give_up(number)
                return held.job
        return None

    def poll(self) -> list[Reply]:
        """Look into the queue: who is there, what has come, who is lost."""
        began = time.monotonic()
        self._watch(self._queue.notes())
        tickets = {ticket.number: ticket for ticket in self._queue.tickets()}
        replies = [
            reply
            for number, held in list(self._held.items())
            if (reply := self._look_at(number, held, tickets.get(number))) is not None
        ]
        for number in tickets.keys() - self._held.keys():
            # Published in a moment in which the storage was away, and again after it.
            if tickets[number].waiting and self._queue.take(tickets[number]):
                self._queue.end(number, counted=False)
        cost = time.monotonic() - began
        self.due = time.monotonic() + max(LOOK, 20 * cost)
        return replies

    def _watch(self, notes: Mapping[str, Any]) -> None:
        """Take note of every worker's beats; say who came and who is gone."""
        notes = {name.removeprefix(WORKER): note for name, note in notes.items() if name.startswith(WORKER)}
        self._seen = notes.keys()
        for name, note in notes.items():
            silence = self._silence.setdefault(name, self._pace.silence())
            silent = silence.look(note["beat"] if note else None)
            # What a worker that is dead left behind stands still; a new one is believed at once.
            if note and silent < self._pace.grace and (silence.changes > 0 or note["beat"] <= 2):
                if name not in self._workers:
                    self._say(News(f"worker {name} has joined, {note['slots']} at once"))
                self._workers[name] = note
            elif self._workers.pop(name, None):
                self._say(News(f"worker {name} " + ("is lost" if note else "has left")))

    def _look_at(self, number: int, held: _Held, ticket: Ticket | None) -> Reply | None:
        if ticket is None:
            del self._held[number]
            return Reply(held.job, "returned", "its trial was ended by someone else") if held.asked else None
        if ticket.waiting:
            return None
        if held.begun is None or held.worker != ticket.worker:
            held.begun, held.worker = held.begun or time.monotonic(), ticket.worker
        if ticket.outcome is not None:
            return self._receive(ticket, held) if held.asked else None
        silence = self._silence.setdefault(ticket.worker or number, self._pace.silence())
        if ticket.worker not in self._seen:
            silence.look(None)
        if silence.seconds < self._pace.grace:
            return None
        self._give_up(number)
        return self._reply(held, "died", f"worker {ticket.worker or '(unnamed)'} was lost")

    def _receive(self, ticket: Ticket, held: _Held) -> Reply | None:
        """What a worker has delivered, stored if it is a result."""
        outcome: Mapping[str, Any] = ticket.outcome or {}
        if outcome["kind"] != "done":
            self._give_up(ticket.number)
            return self._reply(held, outcome["kind"], outcome["detail"])
        key = held.job.key(self._code, outcome["detail"])
        try:
            collect(self._folder, key, ticket.notes)
        except FileNotFoundError as exc:  # a shared disk may show it a moment later
            held.unseen = held.unseen or self._pace.silence()
            if held.unseen.look(None) < self._pace.grace:
                return None
            self._give_up(ticket.number)
            return self._reply(held, "died", f"its result was delivered but is not at {exc}")
        except (ResultsError, StorageError) as exc:
            self._give_up(ticket.number)
            return self._reply(held, "died", str(exc))
        for i in range(outcome["found"].get("chunks", 0)):
            self._queue.write(ticket.number, f"rows.{i}", "")
        self._queue.end(ticket.number, counted=True)
        self._held.pop(ticket.number, None)
        return self._reply(held, "done", outcome["detail"], outcome["seconds"])

    @staticmethod
    def _reply(held: _Held, kind: Any, detail: str, seconds: float = 0.0) -> Reply | None:
        return Reply(held.job, kind, detail, seconds) if held.asked else None

    def _give_up(self, number: int) -> None:
        self._queue.end(number, counted=False)
        self._held.pop(number, None)

    def dismiss(self, status: Mapping[str, Any]) -> None:
        """The sweep has come to its end: take back everything and let the workers go."""
        for number in list(self._held):
            self._give_up(number)
        about = self._queue.notes()["about"]
        self._queue.note("about", {**about, "ended": True, "status": status})


class Team:
    """Processes here and a crowd elsewhere as one: ``Workers``, and a context manager."""

    def __init__(self, pool: Pool, crowd: Crowd, lease: Beat) -> None:
        self._pool, self._crowd, self._lease = pool, crowd, lease

    @property
    def size(self) -> int:
        """Runs that can be trained at once at present."""
        return self._pool.size + self._crowd.slots

    @property
    def idle(self) -> int:
        """Runs that could be submitted now."""
        return self._pool.idle + self._crowd.idle

    @property
    def busy(self) -> int:
        """Runs submitted and not answered."""
        return self._pool.busy + self._crowd.busy

    @property
    def under_way(self) -> list[UnderWay]:
        """Runs that are being trained, here and elsewhere."""
        return [*self._pool.under_way, *self._crowd.under_way]

    def submit(self, job: Job) -> None:
        """Wait for who is at it already; else a process here; else publish it."""
        (self._pool if self._pool.idle and not self._crowd.has(job) else self._crowd).submit(job)

    def recall(self) -> list[Job]:
        """Take back what is published and nobody has begun."""
        found: list[Job] = []
        while job := self._crowd.recall():
            found.append(job)
        return found

    def tell(self, status: Mapping[str, Any]) -> None:
        """Say how far the sweep is in the queue, with the next beat."""
        self._lease.about = {**self._lease.about, "status": status}

    def wait(self, timeout: float) -> list[Reply]:
        """Replies that have come, after one look into the queue at most."""
        # What is published and not begun is better begun here than waited for.
        while self._pool.idle and (job := self._crowd.recall()):
            self._pool.submit(job)
        self._lease.check()
        patience = max(0.0, min(timeout, self._crowd.due - time.monotonic()))
        if self._pool.busy:
            replies = self._pool.wait(patience)
        else:
            time.sleep(patience)
            replies = []
        return [*replies, *self._crowd.poll()] if time.monotonic() >= self._crowd.due else replies


@contextmanager
def team(
    queue: Queue,
    pool: Pool,
    setup: Setup,
    about: Mapping[str, Any],
    say: Callable[[News], None],
    pace: Pace,
) -> Iterator[Team]:
    """``pool`` and the workers of ``queue`` together, while this sweep holds the queue.

    about: what workers have to know of the sweep. When all is done they are let go; where the sweep is
    stopped they finish what they have and wait for the next one. Raises SweepError where another sweep holds
    the queue.
    """
    token = token_of(setup.folder)
    if not token:
        token = secrets.token_hex(16)
        results.write_text(setup.folder / TOKEN, token + "\n")
    _await_lease(queue, token, say, pace)
    mine = {"session": secrets.token_hex(8), "token": token}
    place = {"folder": str(setup.folder.absolute()), "token": token, "code": setup.code}
    with Beat(queue, LEASE, mine, every=pace.beat, guarded=True) as lease:
        queue.note("about", {**about, **place, "ended": False})
        crowd = Crowd(queue, setup.folder, setup.code, say, pace)
        with pool:
            yield Team(pool, crowd, lease)
        crowd.dismiss(lease.about.get("status", {}))


def _await_lease(queue: Queue, token: str, say: Callable[[News], None], pace: Pace) -> None:
    """Return once nobody holds the queue. Raises SweepError where somebody does."""
    silence, told = pace.silence(), False
    while (note := queue.notes().get(LEASE)) is not None:
        # The last sweep of this very folder held its lock, which is ours now: that one is no more.
        if note["token"] == token or silence.look(note["beat"]) >= pace.grace:
            return
        if silence.changes:
            raise SweepError(
                f"another sweep is at work on {queue.name} in this storage; wait for it or stop it, or "
                f"help it: lab worker STORAGE {queue.name}"
            )
        if not told:
            say(News(f"a sweep held this queue before; waiting up to {pace.grace:.0f} s for a sign of life"))
            told = True
        time.sleep(pace.beat / 2)
