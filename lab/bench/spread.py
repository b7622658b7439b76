"""What it costs a worker to take a run from a storage and deliver it, beside a run of ten seconds."""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from lab.bench.timing import Pace as Turns
from lab.bench.timing import Row, make_row
from sweeps.queue import Beat, Pace, Queue, as_chunks
from sweeps.storages import open_storage

__all__ = ["RUN", "rows"]

RUN = 10.0
"""Seconds of the run that the overhead is held against."""

WORKERS = 4
ROWS = 24_000
"""Bytes of a result: a run of ten evaluations is about that."""


def rows(pace: Turns, storage: str | None = None) -> Iterator[Row]:
    """One row: seconds that a trial spends in the storage, with four workers in it at once, beside RUN.

    storage: as for ``lab sweep --storage``; a journal in a scratch folder by default.
    """
    with tempfile.TemporaryDirectory(prefix="lab-bench-") as scratch:
        where = storage or str(Path(scratch, "queue.log"))
        seconds = _measure(where, 4 * WORKERS * pace.repeats)
    share = 100 * statistics.median(seconds) / RUN
    figures = {f"% of a trial of {RUN:.0f} s": share}
    name = "a journal" if storage is None else storage.partition("://")[0]
    yield make_row(f"a run through {name}, {WORKERS} workers", seconds, figures=figures)


def _measure(where: str, runs: int) -> list[float]:
    """Seconds of every run in the storage: taking it, its share of the beats, and delivering it."""
    name = f"bench-{time.monotonic_ns()}"
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    with open_storage(where, make=True) as storage:
        queue = Queue(storage, name, make=True)
        for i in range(runs):
            queue.publish({"job": {"filler": "x" * 900, "number": i}, "code": "bench"})
        workers = [context.Process(target=_work, args=(where, name, answers)) for _ in range(WORKERS)]
        for worker in workers:
            worker.start()
        left, found = runs, []
        while left:
            for ticket in queue.tickets():
                if ticket.outcome is not None:
                    for part in [one for one in ticket.notes if one.startswith("rows.")]:
                        queue.write(ticket.number, part, "")
                    queue.end(ticket.number, counted=True)
                    left -= 1
            time.sleep(0.1)
        for worker in workers:
            found += answers.get()
            worker.join()
    return found


def _work(where: str, name: str, answers: multiprocessing.Queue[list[float]]) -> None:
    found: list[float] = []
    pace, rows = Pace(), as_chunks(bytes(ROWS))
    with open_storage(where) as storage:
        queue = Queue(storage, name)
        beat = Beat(queue, f"worker:{multiprocessing.current_process().pid}", {"slots": 1}, every=pace.beat)
        with beat:
            while True:
                began = time.perf_counter()
                ticket = queue.claim("bench")
                if ticket is None:
                    break
                for part, text in rows.items():
                    queue.write(ticket.number, part, text)
                queue.write(ticket.number, "outcome", {"kind": "done"})
                for _ in range(round(RUN / pace.beat)):  # those that fall into a run
                    queue.note("beat", {"slots": 1, "beat": 0})
                found.append(time.perf_counter() - began)
    answers.put(found)
