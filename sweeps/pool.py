"""N worker processes, one thread each, that train runs and store them themselves.

A worker answers on a pipe with what became of a run; it exits at once when its parent dies, so a killed sweep
leaves no process behind. A worker that dies is replaced, and whoever gave it the run is told.
Nothing heavy is imported here: the thread count is set before torch is loaded.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from sweeps.run import Run

__all__ = ["Job", "Pool", "Reply", "Setup", "UnderWay", "Workers", "load_table", "use_one_thread"]


@dataclass(frozen=True)
class Setup:
    """What a worker needs beside its runs: where they are stored, and the user's file of blocks, if any.

    shared: the folder where runs under way leave their state for others; ``folder`` by default.
    """

    folder: Path
    code: str
    blocks_file: Path | None = None
    shared: Path | None = None


@dataclass(frozen=True)
class Job:
    """A run, the number of its candidate in the study, and the area at which it may be given up."""

    run: Run
    trial: int
    floor: float = 0.0

    def key(self, code: str, status: str) -> str:
        """Under which a run that ended with ``status`` is stored."""
        return self.run.key(code, self.floor if status == "stopped" else 0.0)


@dataclass(frozen=True)
class Reply:
    """What became of a job.

    done: stored, ``detail`` is the status of the run. failed: it raised, ``detail`` says what. died: the
    process was lost. returned: its worker left and gave it back. stop: nothing more can be stored
    (``detail``: why); the sweep has to end.
    """

    job: Job
    kind: Literal["done", "failed", "died", "returned", "stop"]
    detail: str
    seconds: float = 0.0


@dataclass(frozen=True)
class UnderWay:
    """A run that is being trained: by whom, and for how many seconds of the sweep's clock."""

    job: Job
    who: str
    seconds: float


class Workers(Protocol):
    """Whatever trains the runs of a sweep: processes here, or also workers elsewhere."""

    @property
    def size(self) -> int:
        """Runs that can be trained at once at present."""
        ...

    @property
    def idle(self) -> int:
        """Runs that could be submitted now."""
        ...

    @property
    def busy(self) -> int:
        """Runs submitted and not answered."""
        ...

    @property
    def under_way(self) -> list[UnderWay]:
        """Runs that are being trained."""
        ...

    def submit(self, job: Job) -> None:
        """Give a run away; only while ``idle``."""
        ...

    def wait(self, timeout: float) -> list[Reply]:
        """Replies that have come; none if ``timeout`` seconds pass, or earlier if there is work to give."""
        ...

    def recall(self) -> list[Job]:
        """Take back what was submitted and nobody has begun."""
        ...

    def tell(self, status: Mapping[str, Any]) -> None:
        """Say how far the sweep is to those who do not see its folder."""
        ...


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    job: Job | None = None
    since: float = 0.0


class Pool:
    """Worker processes as a context manager: ``submit`` while ``idle``, then ``wait`` for replies."""

    def __init__(self, workers: int, setup: Setup) -> None:
        # Workers are forked from a server that has loaded torch, once for all of them, and has computed
        # nothing: a torch that has would hand on thread pools and locks that no longer work.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["torch"])
        self._setup = setup
        self._size = workers
        self._workers: list[_Worker] = []

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            _end(worker)
        self._workers.clear()

    @property
    def size(self) -> int:
        """How many processes there are at most."""
        return self._size

    @property
    def idle(self) -> int:
        """Runs that could be submitted now."""
        return self._size - self.busy

    @property
    def busy(self) -> int:
        """Runs under way."""
        return sum(worker.job is not None for worker in self._workers)

    @property
    def under_way(self) -> list[UnderWay]:
        """The same, each with its process and its age."""
        now = time.monotonic()
        return [
            UnderWay(worker.job, f"process {worker.process.pid}", now - worker.since)
            for worker in self._workers
            if worker.job is not None
        ]

    def recall(self) -> list[Job]:
        """Nothing: what is submitted begins at once."""
        return []

    def tell(self, status: Mapping[str, Any]) -> None:
        """Nobody: whoever is here sees the folder."""

    def submit(self, job: Job) -> None:
        """Give a run to an idle worker; workers are started as they are needed."""
        worker = next((w for w in self._workers if w.job is None), None) or self._start()
        worker.job, worker.since = job, time.monotonic()
        with contextlib.suppress(OSError):  # it died while idle; ``wait`` finds it and says so
            worker.pipe.send(job)

    def wait(self, timeout: float | None = None) -> list[Reply]:
        """Replies that have come, at least one unless ``timeout`` seconds pass or no run is under way."""
        busy = {worker.pipe: worker for worker in self._workers if worker.job is not None}
        return [
            self._receive(busy[pipe]) for pipe in wait(list(busy), timeout) if isinstance(pipe, Connection)
        ]

    def _receive(self, worker: _Worker) -> Reply:
        job = worker.job
        if job is None:
            raise RuntimeError("a worker answered without a job")
        worker.job = None
        try:
            return worker.pipe.recv()
        except (EOFError, OSError):
            self._workers.remove(worker)
            _end(worker)
            return Reply(job, "died", f"its process ended ({_exit(worker.process.exitcode)})")

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_main, args=(theirs, self._setup), daemon=True)
        # The safe path keeps a torch.py of the user's working directory from being taken for torch.
        with _for_children(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", PYTHONSAFEPATH="1"):
            _begin(process)
        theirs.close()
        worker = _Worker(process, ours)
        self._workers.append(worker)
        return worker


def _begin(process: BaseProcess) -> None:
    """Start it. A server of processes that was killed is replaced once its end is seen, a moment later."""
    for pause in (0.1, 0.4, 1.6, 6.4):
        try:
            return process.start()
        except (ConnectionError, EOFError):
            time.sleep(pause)
    process.start()


def _exit(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else f"signal {-code}"
        return f"{name}, perhaps out of memory" if name == "SIGKILL" else name
    return f"exit code {code}"


def _end(worker: _Worker) -> None:
    worker.pipe.close()
    worker.process.join(5)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()


@contextlib.contextmanager
def _for_children(**variables: str) -> Iterator[None]:
    """Processes started inside get these environment variables, and never see Ctrl-C.

    The signal mask is inherited, so there is no moment between a child's start and its own handler.
    """
    before = {name: os.environ.get(name) for name in variables}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    # Starting Python's resource tracker unblocks SIGINT, and the fork server would start it.
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def use_one_thread() -> None:
    """Make this process compute as a worker does; the bits of a result depend on the number of threads."""
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling every fresh tensor would cost time and change no result.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def load_table(blocks_file: Path | None) -> Mapping[str, Any]:
    """The registry of blocks, the user's own included."""
    from blocks import BLOCKS
    from blocks.user import load_blocks

    return BLOCKS if blocks_file is None else BLOCKS | load_blocks(blocks_file)


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _main(pipe: Connection, setup: Setup) -> None:
    """The life of a worker: receive a job, train, store, answer."""
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    use_one_thread()
    table = load_table(setup.blocks_file)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        pipe.send(_work(job, setup, table))


def _work(job: Job, setup: Setup, table: Mapping[str, Any]) -> Reply:
    from sweeps.checkpoint import Checkpoint
    from sweeps.results import ResultsError, write_run
    from sweeps.run import code_hash, execute

    started = time.monotonic()
    name = f"{job.run.key(setup.code, job.floor)}.pt"
    checkpoint = Checkpoint((setup.shared or setup.folder) / "checkpoints" / name)
    try:
        rows = execute(job.run, job.trial, setup.code, table, job.floor, checkpoint)
    except Exception as exc:
        first = (str(exc).splitlines() or [""])[0]
        return Reply(job, "failed", f"{type(exc).__name__}: {first}", time.monotonic() - started)
    try:
        if code_hash(setup.blocks_file) != setup.code:
            return Reply(job, "stop", "the sources of blocks or synthetics changed while the sweep ran")
        write_run(setup.folder, rows)
        checkpoint.clear()
    except (OSError, ResultsError) as exc:
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else exc
        return Reply(
            job,
            "stop",
            f"{setup.folder}: a result cannot be stored ({why})",
        )
    return Reply(job, "done", rows[0]["status"], time.monotonic() - started)
