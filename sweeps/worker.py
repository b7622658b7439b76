"""``lab worker``: a machine that takes runs from the queue of a sweep, trains them, delivers the results."""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from blocks.kernels import native
from sweeps import results
from sweeps.events import News
from sweeps.interrupt import keep_interrupts
from sweeps.places import Place, choose
from sweeps.pool import Job, Pool, Reply, Setup
from sweeps.queue import LEASE, VERSION, Beat, Pace, Queue, Ticket
from sweeps.run import code_hash
from sweeps.storages import StorageError, open_storage
from sweeps.wire import job_of

__all__ = ["work"]

STEADY = Pace()

PAUSES = (0.1, 2.0)
"""Seconds between two looks into an empty queue: from the first to the longest."""


def work(
    storage: str,
    name: str,
    *,
    results_to: str | None = None,
    workers: int | None = None,
    blocks_file: Path | None = None,
    pace: Pace = STEADY,
    on_event: Callable[[News], None] = lambda event: None,
) -> int:
    """Train runs of the sweep ``name`` until it has ended; how many were delivered.

    results_to: see ``places.choose``. workers: processes of one thread each; the number of cores by default.
    pace: the sweep's own. Raises StorageError, JournalError or OSError; on KeyboardInterrupt what is under
    way goes back into the queue.
    """
    workers = len(os.sched_getaffinity(0)) if workers is None else workers
    if workers < 1:
        raise StorageError(f"workers is {workers}; at least one is needed")
    keep_interrupts()
    with open_storage(storage) as opened:
        queue = Queue(opened, name)
        about = queue.notes().get("about")
        if about is None:
            raise StorageError(f"there is no sweep {name!r} in this storage yet; start it, then its workers")
        if about["ended"]:
            return 0
        code = code_hash(blocks_file)
        _check_same(about, code, blocks_file)
        place = choose(results_to, about)
        me = f"{platform.node()}-{os.getpid()}-{secrets.token_hex(2)}"
        on_event(News(f"{me} works for {name}, {workers} at once; results go {place}"))
        with tempfile.TemporaryDirectory(prefix="lab-worker-") as scratch:
            Path(scratch, "trials").mkdir()
            shared = Path(place.where) if place.kind == "folder" else None
            setup = Setup(Path(scratch), code, blocks_file, shared)
            beats = Beat(queue, f"worker:{me}", {"slots": workers}, every=pace.beat)
            with beats, Pool(workers, setup) as pool:
                return _Worker(queue, pool, setup, place, me, beats, pace, on_event).go()


def _check_same(about: Mapping[str, Any], code: str, blocks_file: Path | None) -> None:
    """Raise StorageError unless this machine trains the sweep's runs as the sweep itself would."""
    if about["version"] != VERSION:
        raise StorageError(
            f"the sweep's queue has version {about['version']}, here it is {VERSION}; "
            "use the same version of the lab on all machines"
        )
    if about["code"] == code:
        if about["kernel"] == "c":
            _build_kernels()
        return
    if about["torch"] != torch.__version__:
        raise StorageError(
            f"the sweep runs on torch {about['torch']}, here is {torch.__version__}; install the former"
        )
    if about["blocks"] and blocks_file is None:
        raise StorageError("the sweep has blocks of its own; give the same file here: --blocks FILE")
    what = "the file of blocks or the sources" if about["blocks"] or blocks_file else "the sources"
    raise StorageError(
        f"the sweep trains with sources {about['code']}, here they are {code}: {what} of blocks and "
        "synthetics differ; check out the sweep's commit here"
    )


def _build_kernels() -> None:
    """Before the processes would do so at once and fail one by one."""
    try:
        native.library(torch.float32)
    except native.KernelError as exc:
        raise StorageError(f"{exc}; or sweep with train.kernel=torch") from exc


class _Worker:
    """One call of ``work``: the trials in hand."""

    def __init__(
        self,
        queue: Queue,
        pool: Pool,
        setup: Setup,
        place: Place,
        name: str,
        beat: Beat,
        pace: Pace,
        say: Callable[[News], None],
    ) -> None:
        self.queue, self.pool, self.setup, self.place = queue, pool, setup, place
        self.name, self.beat, self.pace, self.say = name, beat, pace, say
        self.hand: dict[Job, list[int]] = {}  # the trials of each run; twice the same after a silence
        self.delivered = 0
        self.sweep_silence, self.told = pace.silence(), False

    def go(self) -> int:
        """Until the sweep has ended."""
        pause = PAUSES[0]
        try:
            while True:
                took = self.fill()
                pause = PAUSES[0] if took else min(2 * pause, PAUSES[1])
                if not took and not self.pool.busy and self.is_over():
                    return self.delivered
                for reply in self.pool.wait(pause if self.pool.idle else PAUSES[1]):
                    self.deliver(reply)
                    pause = PAUSES[0]
                self.beat.check()
        except BaseException as exc:
            self.give_back(f"its worker was ended ({type(exc).__name__})")
            raise

    def fill(self) -> bool:
        """Take runs for all processes that are idle; whether there was any."""
        took = False
        while self.pool.idle and (ticket := self.queue.claim(self.name)):
            took = True
            self.begin(ticket)
        return took

    def begin(self, ticket: Ticket) -> None:
        if ticket.notes["code"] != self.setup.code:
            self.tell(ticket.number, "returned", "its worker has other sources")
            raise StorageError(
                f"the sweep goes on with sources {ticket.notes['code']}, here they are {self.setup.code}; "
                "check out its commit here and join again"
            )
        job = job_of(ticket.notes["job"])
        self.hand.setdefault(job, []).append(ticket.number)
        self.pool.submit(job)

    def is_over(self) -> bool:
        """Whether the sweep has ended; says so once where it only stands still."""
        notes = self.queue.notes()
        if notes["about"]["ended"]:
            return True
        silent = self.sweep_silence.look((notes.get(LEASE) or {}).get("beat")) > self.pace.grace
        if silent and not self.told:
            self.say(News("the sweep is not at work; waiting for it to go on (Ctrl-C ends this worker)"))
        self.told = silent
        return False

    def deliver(self, reply: Reply) -> None:
        """Hand over what became of a run; nothing where the sweep has given it up meanwhile."""
        number = self.hand[reply.job].pop(0)
        if not self.hand[reply.job]:
            del self.hand[reply.job]
        if reply.kind == "stop":
            self.tell(number, "returned", reply.detail)
            raise StorageError(f"{reply.detail}; the run is back in the queue")
        if reply.kind != "done":
            self.tell(number, reply.kind, reply.detail)
            return
        key = reply.job.key(self.setup.code, reply.detail)
        path = results.stored(self.setup.folder)[key]
        found = self.place.put(self.queue, number, key, path.read_bytes())
        path.unlink()
        if found is not None and self.tell(number, "done", reply.detail, reply.seconds, found):
            self.delivered += 1

    def tell(
        self,
        number: int,
        kind: str,
        detail: str,
        seconds: float = 0.0,
        found: Mapping[str, Any] | None = None,
    ) -> bool:
        outcome = {"kind": kind, "detail": detail, "seconds": seconds, "found": found}
        return self.queue.write(number, "outcome", outcome)

    def give_back(self, why: str) -> None:
        """Whatever is under way begins again elsewhere, at once."""
        with contextlib.suppress(StorageError, OSError):  # the sweep finds out by the silence
            for numbers in self.hand.values():
                for number in numbers:
                    self.tell(number, "returned", why)
