"""Sweeps and workers as processes of their own, as on many machines, at a quick pace; and their reference."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from sweeps import results

TEXT = """\
name: tiny
pattern: r*gdn(conv=2) + fox
search: {r: [1:1, 2:1]}
shape: {dim: 16, heads: 2}
tasks: ["recall(vocab=8, length=16, train_examples=128)", "memorization(vocab=16, length=16)"]
train: {steps: 20, batch: 8, eval_every: 10, eval_examples: 32, lr: [1e-3, 1e-2], extrapolate: [2]}
seeds: 3
"""
RUNS = 24

PACE = "Pace(beat=0.3, grace=6.0)"

SWEEP = f"""
import sys
from pathlib import Path
from sweeps.queue import Pace
from sweeps.recipe import load
from sweeps.study import sweep
if __name__ == "__main__":
    recipe, folder, workers, storage, *retry = sys.argv[1:]
    how = {{"workers": int(workers), "storage": storage or None, "pace": {PACE}, "retry": bool(retry)}}
    sweep(load(recipe), Path(folder), **how, on_event=lambda event: print(event, flush=True))
"""

WORKER = f"""
import sys
from sweeps.queue import Pace
from sweeps.worker import work
if __name__ == "__main__":
    storage, name, place, workers = sys.argv[1:]
    say = lambda news: print(news.text, flush=True)
    done = work(storage, name, results_to=place or None, workers=int(workers), pace={PACE}, on_event=say)
    print("delivered", done, flush=True)
"""


@dataclass
class Machine:
    """A process group of its own, as if it had a machine to itself; what it says goes to a file."""

    log: Path
    program: str
    words: tuple[str, ...]
    process: subprocess.Popen[bytes] = field(init=False)
    before: int = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.before = len(self.said)
        command = [sys.executable, "-c", self.program, *self.words]
        with self.log.open("ab") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)

    @property
    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    @property
    def awake(self) -> bool:
        """Whether it has said anything since it was started."""
        return len(self.said) > self.before

    def kill(self, sign: int = signal.SIGKILL) -> None:
        """Everything that runs on this machine, at once."""
        try:
            os.killpg(self.process.pid, sign)
        except ProcessLookupError:
            return
        if sign == signal.SIGKILL:
            self.process.wait()

    def end(self, seconds: float = 300.0) -> int:
        return self.process.wait(seconds)

    def children(self) -> list[int]:
        """Its training processes, without the one that starts them and the one they are forked from."""
        parents: dict[int, int] = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                stat = (path / "stat").read_text().rpartition(")")[2].split()
                forked = b"forkserver" in (path / "cmdline").read_bytes()
            except OSError:
                continue
            if forked:
                parents[int(path.name)] = int(stat[1])
        return [pid for pid, parent in parents.items() if parents.get(parent) == self.process.pid]


def until(true, machines: Iterator[Machine] | list[Machine], seconds: float = 300.0) -> None:
    """Wait for ``true()``; a machine that ends meanwhile with an error says why."""
    end = time.monotonic() + seconds
    while not true():
        for one in machines:
            assert one.process.poll() in (None, 0, -signal.SIGKILL), one.said
        assert time.monotonic() < end, "\n\n".join(one.said for one in machines)
        time.sleep(0.02)


def finished(folder: Path) -> int:
    return len(list((folder / "trials").glob("*.parquet")))


def rows(folder: Path) -> pl.DataFrame:
    """Everything that a sweep found out, its seconds apart."""
    return results.read(folder).frame.drop("seconds")
