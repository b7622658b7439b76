"""Where else a finished run may be told: trackers that people have, through one small interface.

Everything that counts is in the run folder. A tracker is told after a run is stored: its configuration, its
curve, its end, as if it had been trained just now. Each has a thread of its own, so that a sweep never waits
for one; a tracker that raises is told nothing more, in one sentence, and no run ever fails for it.

``jsonl`` is always on: ``runs.jsonl`` in the run folder, one line per run trained, in the order in which they
ended. The others are packages of the user's own, imported when asked for. They take what they need (a server,
an account, offline or not) from their own environment variables.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from sweeps import results
from sweeps.events import Event, News, RunDone
from sweeps.results import ResultsError

__all__ = ["TRACKERS", "Factory", "Tracker", "TrackerError", "Tracking", "known", "tracked"]

CONFIG = (
    "label",
    "schedule",
    "arch",
    "dim",
    "heads",
    "depth",
    "n_linear",
    "n_window",
    "n_full",
    "params",
    "flops",
    "state",
    "task",
    "setting",
    "length",
    "vocab",
    "lr",
    "weight_decay",
    "batch",
    "precision",
    "kernel",
    "steps",
    "seed",
    "code",
    "torch",
    "machine",
)
METRICS = ("loss", "acc_valid", "acc", "seconds")
SUMMARY = ("status", "acc", "acc_valid", "auc", "auc_valid", "steps_to", "seconds")

PATIENCE = 30.0
"""Seconds that the end of a sweep waits for a tracker to take what is left."""


class TrackerError(ValueError):
    """A tracker is unknown, or its package is not installed; one sentence."""


class Tracker(Protocol):
    """What is told of each run, in this order; every method may raise."""

    def start(self, run: str, config: Mapping[str, Any]) -> None:
        """A run, by its key, and what it is."""
        ...

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """An evaluation of that run after ``step`` training steps; numbers that are none are left out."""
        ...

    def finish(self, summary: Mapping[str, Any]) -> None:
        """How that run ended."""
        ...


class _Jsonl:
    def __init__(self, folder: Path, project: str) -> None:
        self._path = folder / "runs.jsonl"
        self._line: dict[str, Any] = {}

    def start(self, run: str, config: Mapping[str, Any]) -> None:
        self._line = {"run": run, **config, "curve": []}

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._line["curve"].append({"step": step, **metrics})

    def finish(self, summary: Mapping[str, Any]) -> None:
        text = json.dumps({**self._line, "summary": summary}) + "\n"
        with self._path.open("ab+") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a crash cut the last line short; this one has its own
                    text = "\n" + text
            file.write(text.encode())


class _TensorBoard:
    """An event file per run under ``tensorboard/`` in the run folder."""

    def __init__(self, folder: Path, project: str) -> None:
        self._make = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        self._folder = folder / "tensorboard"
        self._writer: Any = None
        self._config: Mapping[str, Any] = {}

    def start(self, run: str, config: Mapping[str, Any]) -> None:
        self._config = config
        self._writer = self._make(str(self._folder / run))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def finish(self, summary: Mapping[str, Any]) -> None:
        rows = "\n".join(f"| {name} | {value} |" for name, value in {**self._config, **summary}.items())
        self._writer.add_text("run", f"| | |\n|---|---|\n{rows}")
        self._writer.close()


class _Wandb:
    """Weights & Biases, or trackio with its interface: a run each in a project of the recipe's name."""

    def __init__(self, folder: Path, project: str, package: str) -> None:
        self._api = importlib.import_module(package)
        self._project = project
        self._run: Any = None

    def start(self, run: str, config: Mapping[str, Any]) -> None:
        name = f"{config['label']} {config['setting']} {config['seed']} {run[:8]}"
        self._run = self._api.init(
            project=self._project, name=name, group=str(config["label"]), config={"run": run, **config}
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def finish(self, summary: Mapping[str, Any]) -> None:
        numbers = {f"final/{k}": v for k, v in summary.items() if isinstance(v, int | float)}
        self._run.log(numbers)
        self._run.finish()


class _Mlflow:
    """A run each in the experiment of the recipe's name, where ``MLFLOW_TRACKING_URI`` says."""

    def __init__(self, folder: Path, project: str) -> None:
        self._api = importlib.import_module("mlflow")
        self._api.set_experiment(project)

    def start(self, run: str, config: Mapping[str, Any]) -> None:
        self._api.start_run(run_name=f"{config['label']} {config['setting']} {config['seed']}")
        self._api.log_params({"run": run, **config})

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._api.log_metrics(dict(metrics), step=step)

    def finish(self, summary: Mapping[str, Any]) -> None:
        self._api.log_metrics({f"final_{k}": v for k, v in summary.items() if isinstance(v, int | float)})
        self._api.set_tag("status", summary["status"])
        self._api.end_run()


Factory = Callable[[Path, str], Tracker]
"""Of the run folder and the recipe's name."""

TRACKERS: Mapping[str, tuple[str, Factory]] = {
    "tensorboard": ("tensorboard", _TensorBoard),
    "trackio": ("trackio", lambda folder, project: _Wandb(folder, project, "trackio")),
    "wandb": ("wandb", lambda folder, project: _Wandb(folder, project, "wandb")),
    "mlflow": ("mlflow", _Mlflow),
}
"""name -> the package that it needs, and how it is made."""


def known(names: Iterable[str]) -> dict[str, Factory]:
    """The factories of ``names``. Raises TrackerError for one unknown or without its package."""
    found: dict[str, Factory] = {}
    for name in names:
        if name not in TRACKERS:
            raise TrackerError(
                f"there is no tracker {name!r}; there are {', '.join(TRACKERS)}, and jsonl always"
            )
        package, found[name] = TRACKERS[name]
        if importlib.util.find_spec(package) is None:
            raise TrackerError(f"{name} needs the package {package}; pip install {package}")
    return found


class Tracking:
    """Tells every tracker of the runs of a sweep; a context manager that waits for them at its end.

    factories: by name, beside ``jsonl``. trouble: is told, once for each, which tracker fell out and why.
    """

    def __init__(
        self, folder: Path, project: str, factories: Mapping[str, Factory], trouble: Callable[[str], None]
    ) -> None:
        every: dict[str, Factory] = {"jsonl": _Jsonl, **factories}
        self._lines = [_Line(name, make, folder, project) for name, make in every.items()]
        self._trouble = trouble

    def __enter__(self) -> Tracking:
        return self

    def __exit__(self, *_: object) -> None:
        for line in self._lines:
            line.end()
        self._tell()

    def run(self, rows: pl.DataFrame) -> None:
        """A run that is stored: its rows with the columns of ``sweeps.results.SCHEMA``."""
        for line in self._lines:
            line.put(rows)
        self._tell()

    def _tell(self) -> None:
        for line in self._lines:
            if (why := line.take_trouble()) is not None:
                self._trouble(f"the tracker {line.name} {why}; the sweep goes on without it")


@contextmanager
def tracked(
    folder: Path, project: str, factories: Mapping[str, Factory], on_event: Callable[[Event], None]
) -> Iterator[Callable[[Event], None]]:
    """``on_event``, with every run that is done told to the trackers, too."""

    def tell(event: Event) -> None:
        on_event(event)
        if isinstance(event, RunDone):
            try:
                rows = results.read_run(folder / "trials" / f"{event.run}.parquet")
            except ResultsError as exc:  # somebody has moved it already; nothing is lost but this line
                on_event(News(f"the trackers miss a run: {exc}"))
            else:
                tracking.run(rows)

    with Tracking(folder, project, factories, lambda text: on_event(News(text))) as tracking:
        yield tell


class _Line:
    """One tracker and its thread, which begins with the first run."""

    def __init__(self, name: str, make: Factory, folder: Path, project: str) -> None:
        self.name = name
        self._make, self._folder, self._project = make, folder, project
        self._rows: queue.SimpleQueue[pl.DataFrame | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._why: str | None = None
        self._fell_out = False

    def put(self, rows: pl.DataFrame | None) -> None:
        if self._fell_out:
            return
        self._rows.put(rows)
        if not self._thread.ident:
            self._thread.start()

    def end(self) -> None:
        if self._thread.ident and not self._fell_out:
            self._rows.put(None)
            self._thread.join(PATIENCE)
            if self._thread.is_alive():
                self._why, self._fell_out = f"did not take all runs within {PATIENCE:.0f} s", True

    def take_trouble(self) -> str | None:
        why, self._why = self._why, None
        return why

    def _work(self) -> None:
        try:
            tracker = self._make(self._folder, self._project)
            while (rows := self._rows.get()) is not None:
                _replay(tracker, rows)
        except Exception as exc:
            # Whatever a package of others raises; SystemExit too would end this thread alone.
            first = (str(exc).splitlines() or [""])[0]
            self._fell_out = True
            self._why = f"failed ({type(exc).__name__}: {first})"


def _replay(tracker: Tracker, rows: pl.DataFrame) -> None:
    """Tell a tracker of one run, evaluation by evaluation."""
    curve = rows.sort("step", "final").to_dicts()
    last = curve[-1]
    tracker.start(last["run"], {name: last[name] for name in CONFIG})
    for point in curve:
        tracker.log(point["step"], _numbers(point, METRICS))
    tracker.finish({"status": last["status"], **_numbers(last, SUMMARY[1:])})


def _numbers(row: Mapping[str, Any], names: Iterable[str]) -> dict[str, float]:
    return {name: row[name] for name in names if row[name] is not None and math.isfinite(row[name])}
