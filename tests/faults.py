"""Kill sweeps and their workers at random, and see whether anything is lost, doubled or different.

    python -m tests.faults --backend journal --kills 50
    python -m tests.faults --backend postgresql --kills 50
    python -m tests.faults --backend folder --kills 50        # no storage: a sweep with processes of its own

Half of the kills come at any moment, half within milliseconds of a write to the journal or to the run folder.
Whoever is killed is started again, until the sweep is whole; then the next sweep, until enough were killed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from sweeps import results
from sweeps.recipe import loads
from sweeps.study import sweep
from tests import postgres
from tests.sweeps.machines import SWEEP, TEXT, WORKER, Machine, finished, rows

BACKENDS = ("journal", "postgresql", "folder")
PATIENCE = 3600.0
"""Seconds after which a sweep that is not whole is called stuck."""


class Field:
    """One sweep, its workers, and what is done to them."""

    def __init__(self, place: Path, name: str, storage: str, seeds: int, rng: random.Random) -> None:
        place.mkdir(parents=True)
        self.rng, self.storage = rng, storage
        self.folder, self.recipe = place / "runs" / name, place / "tiny.yaml"
        self.recipe.write_text(
            TEXT.replace("name: tiny", f"name: {name}").replace("seeds: 3", f"seeds: {seeds}")
        )
        self.runs = 8 * seeds
        own = "1" if storage and rng.random() < 0.5 else "0" if storage else "2"
        self.sweep = Machine(place / "sweep.txt", SWEEP, (str(self.recipe), str(self.folder), own, storage))
        places = ("storage", str(self.folder)) if storage else ()
        self.workers: list[Machine] = []
        self.waiting = [(place / f"worker{i}.txt", (storage, name, to, "1")) for i, to in enumerate(places)]
        self.journal = Path(storage) if storage and "://" not in storage else None

    def mend(self) -> None:
        """Start what is not there: the sweep until it is whole, workers while there is a queue."""
        ended = self.sweep.process.poll()
        if ended is not None and (ended != 0 or finished(self.folder) < self.runs):
            assert ended in (0, -signal.SIGKILL), self.sweep.said
            self.sweep.start()
        if self.waiting and "Started" in self.sweep.said:
            self.workers = [Machine(log, WORKER, words) for log, words in self.waiting]
            self.waiting = []
        for one in self.workers:
            ended = one.process.poll()
            if ended is not None and not self.whole:
                assert ended in (0, -signal.SIGKILL), one.said
                one.start()

    @property
    def whole(self) -> bool:
        return self.sweep.process.poll() == 0 and finished(self.folder) == self.runs

    def written(self) -> tuple[int, int]:
        with contextlib.suppress(OSError):
            names = os.listdir(self.folder / "trials")
            return len(names), self.journal.stat().st_size if self.journal else 0
        return 0, 0

    def await_moment(self) -> str:
        """Wait for the moment of the next kill; which kind it is."""
        if self.rng.random() < 0.5:
            time.sleep(self.rng.random() * 1.5)
            return "any moment"
        before, end = self.written(), time.monotonic() + 3.0
        while self.written() == before and time.monotonic() < end:
            time.sleep(0.0005)
        time.sleep(self.rng.random() ** 2 * 0.02)
        return "a write"

    def strike(self) -> str:
        """Kill, or stop for longer than the grace, one of those that live; who it was."""
        one = self.rng.choice([self.sweep, *self.workers])
        who = "sweep" if one is self.sweep else "worker"
        children = one.children()
        what = self.rng.random()
        if children and what < 0.3:
            os.kill(self.rng.choice(children), signal.SIGKILL)
            return f"a process of the {who}"
        if what < 0.4:
            one.kill(signal.SIGSTOP)
            time.sleep(self.rng.random() * 10.0)
            one.kill(signal.SIGCONT)
            return f"{who}, stopped for a while"
        if one is self.sweep and what < 0.6:
            os.kill(one.process.pid, signal.SIGKILL)  # it alone: its processes must leave by themselves
            one.process.wait()
            return "sweep alone"
        one.kill()
        return who

    def close(self) -> None:
        for one in [self.sweep, *self.workers]:
            one.kill()


@contextlib.contextmanager
def storages(backend: str, place: Path) -> Iterator[str]:
    if backend == "postgresql":
        with postgres.server() as port:
            yield postgres.url(port)
    else:
        yield str(place / "queue.log") if backend == "journal" else ""


def play(backend: str, kills: int, place: Path, rng: random.Random, seeds: int = 6) -> dict[str, object]:
    """Sweeps under fire until ``kills`` have struck; AssertionError where anything is not as it should."""
    struck: Counter[str] = Counter()
    again = sweeps = 0
    whole = loads(TEXT, "tiny", (f"seeds={seeds}",))
    sweep(whole, place / "undisturbed" / "tiny", workers=2)
    expected = rows(place / "undisturbed" / "tiny")
    with storages(backend, place) as storage:
        while sum(struck.values()) < kills:
            sweeps += 1
            field = Field(place / f"sweep{sweeps}", f"tiny{sweeps}", storage, seeds, rng)
            try:
                end = time.monotonic() + PATIENCE
                while not field.whole:
                    field.mend()
                    moment = field.await_moment()
                    if sum(struck.values()) < kills and not field.whole and finished(field.folder):
                        struck[f"{field.strike()}, at {moment}"] += 1
                    assert time.monotonic() < end, f"stuck: {field.sweep.said}"
            finally:
                field.close()
            again += field.sweep.said.count("again: ")
            check(field.folder, expected)
    return {"backend": backend, "sweeps": sweeps, "kills": sum(struck.values()), "again": again, "by": struck}


def check(folder: Path, expected: pl.DataFrame) -> None:
    """The exact set of runs of an undisturbed sweep, bit for bit, each once, and nothing beside it."""
    found = rows(folder)
    assert set(found["run"]) == set(expected["run"]), "none lost, none added"
    assert found.filter("final")["run"].is_unique().all(), "none twice"
    assert found.equals(expected), "bit for bit"
    assert not results.failures(folder)
    assert not list(folder.rglob(".tmp-*"))


def main() -> None:
    reader = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    reader.add_argument("--backend", choices=BACKENDS, default="journal")
    reader.add_argument("--kills", type=int, default=50)
    reader.add_argument("--seed", type=int, default=random.randrange(2**32))
    given = reader.parse_args()
    print("seed", given.seed, flush=True)
    with tempfile.TemporaryDirectory(prefix="lab-faults-") as place:
        found = play(given.backend, given.kills, Path(place), random.Random(given.seed))
    print(json.dumps(found, indent=1))
    print("0 lost, 0 twice, scores bit for bit those of an undisturbed sweep")


if __name__ == "__main__":
    main()
