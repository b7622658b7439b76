"""Trackers: each is told of every run, and none that fails, hangs or is missing costs a run."""

import json
import threading
from pathlib import Path

import polars as pl
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sweeps import results, trackers
from sweeps.events import News
from sweeps.recipe import loads
from sweeps.run import code_hash, execute, runs_of
from sweeps.space import candidates, task_texts
from sweeps.study import sweep
from sweeps.trackers import TRACKERS, TrackerError, Tracking, known

TEXT = """\
name: tracked
pattern: m
search: {m: [gdn(conv=2), attn]}
shape: {dim: 16, heads: 2}
tasks: ["recall(vocab=8, length=16, train_examples=64)"]
train: {steps: 4, batch: 4, eval_every: 2, eval_examples: 16}
"""


@pytest.fixture(scope="module")
def frames() -> list[pl.DataFrame]:
    """The rows of two real runs."""
    recipe = loads(TEXT, "tracked")
    runs = [run for one in candidates(recipe) for run in runs_of(recipe, one, task_texts(recipe), 0)]
    return [results.to_frame(execute(run, 0, code_hash())) for run in runs]


def told(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]


class Faulty:
    """Raises from the method named."""

    def __init__(self, where: str) -> None:
        self.where = where
        if where == "make":
            raise RuntimeError("no account\nand more lines")

    def start(self, run, config):
        self._call("start")

    def log(self, step, metrics):
        self._call("log")

    def finish(self, summary):
        self._call("finish")

    def _call(self, name: str) -> None:
        if name == self.where:
            raise RuntimeError("no account\nand more lines")


@pytest.mark.slow
@pytest.mark.parametrize("where", ["make", "start", "log", "finish"])
def test_a_sweep_tells_of_every_run_and_none_fails_for_a_tracker(where, tmp_path):
    heard: list[object] = []
    faulty = {"faulty": lambda *_: Faulty(where)}
    outcome = sweep(
        loads(TEXT, "tracked"), tmp_path / "tracked", workers=1, trackers=faulty, on_event=heard.append
    )
    assert (outcome.trained, outcome.failures) == (6, ())
    stored = results.stored(tmp_path / "tracked")
    assert {line["run"] for line in told(tmp_path / "tracked")} == stored.keys()
    (news,) = [event.text for event in heard if isinstance(event, News)]
    assert news == "the tracker faulty failed (RuntimeError: no account); the sweep goes on without it"
    again = sweep(loads(TEXT, "tracked"), tmp_path / "tracked", workers=1)
    assert again.trained == 0
    assert len(told(tmp_path / "tracked")) == 6  # what was found finished is told by nobody twice


def test_every_run_is_a_line_with_its_curve(frames, tmp_path):
    with Tracking(tmp_path, "tracked", {}, pytest.fail) as tracking:
        for frame in frames:
            tracking.run(frame)
    lines = told(tmp_path)
    assert [line["run"] for line in lines] == [frame["run"][0] for frame in frames]
    for line, frame in zip(lines, frames, strict=True):
        assert [point["step"] for point in line["curve"]] == frame["step"].to_list()
        assert [point["acc"] for point in line["curve"]] == frame["acc"].to_list()
        assert line["summary"]["auc"] == frame["auc"][-1]
        assert line["schedule"] == frame["schedule"][0]


def test_a_line_that_a_crash_cut_short_spoils_no_other(frames, tmp_path):
    (tmp_path / "runs.jsonl").write_text('{"run": "cut sho')
    with Tracking(tmp_path, "tracked", {}, pytest.fail) as tracking:
        tracking.run(frames[0])
    first, second = (tmp_path / "runs.jsonl").read_text().splitlines()
    assert first == '{"run": "cut sho'
    assert json.loads(second)["run"] == frames[0]["run"][0]


@pytest.mark.parametrize("where", ["make", "start", "log", "finish"])
def test_a_tracker_that_raises_is_told_no_more_and_the_others_are(where, frames, tmp_path):
    heard: list[str] = []
    with Tracking(tmp_path, "tracked", {"faulty": lambda *_: Faulty(where)}, heard.append) as tracking:
        for frame in frames:
            tracking.run(frame)
    why = "failed (RuntimeError: no account)"
    assert heard == [f"the tracker faulty {why}; the sweep goes on without it"]
    assert len(told(tmp_path)) == len(frames)


def test_a_tracker_that_hangs_does_not_hold_the_sweep(frames, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "PATIENCE", 0.1)
    never, heard = threading.Event(), []

    class Hanging(Faulty):
        def start(self, run, config):
            never.wait()

    with Tracking(tmp_path, "tracked", {"hanging": lambda *_: Hanging("")}, heard.append) as tracking:
        for frame in frames:
            tracking.run(frame)
    never.set()
    assert len(heard) == 1 and "hanging did not take all runs" in heard[0]


@pytest.mark.parametrize("where", ["make", "start", "log", "finish"])
def test_a_tracker_that_fell_out_is_handed_no_more_rows(where, frames, tmp_path):
    """Nobody takes them any more: over a long sweep they would pile up in memory."""
    line = trackers._Line("faulty", lambda *_: Faulty(where), tmp_path, "tracked")
    line.put(frames[0])
    line._thread.join()
    left = line._rows.qsize()
    for frame in 3 * frames:
        line.put(frame)
    assert line._rows.qsize() == left <= 1  # one that could not be made has taken nothing


def test_a_tracker_that_hung_at_the_end_is_handed_no_more_rows(frames, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "PATIENCE", 0.1)
    never = threading.Event()

    class Hanging(Faulty):
        def start(self, run, config):
            never.wait()

    line = trackers._Line("hanging", lambda *_: Hanging(""), tmp_path, "tracked")
    line.put(frames[0])
    line.end()
    left = line._rows.qsize()
    line.put(frames[1])
    assert line._rows.qsize() == left
    never.set()
    line._thread.join()


def test_tensorboard_has_every_curve(frames, tmp_path):
    with Tracking(tmp_path, "tracked", known(["tensorboard"]), pytest.fail) as tracking:
        for frame in frames:
            tracking.run(frame)
    for frame in frames:
        events = EventAccumulator(str(tmp_path / "tensorboard" / frame["run"][0])).Reload()
        curve = [(event.step, event.value) for event in events.Scalars("acc")]
        assert [step for step, _ in curve] == frame["step"].to_list()
        assert [value for _, value in curve] == pytest.approx(frame["acc"].to_list())


def test_an_unknown_tracker_and_one_without_its_package_are_one_sentence(monkeypatch):
    with pytest.raises(TrackerError, match="there are tensorboard, trackio, wandb, mlflow, and jsonl always"):
        known(["tensorbored"])
    monkeypatch.setitem(TRACKERS, "absent", ("no_such_package", Faulty))
    with pytest.raises(TrackerError, match="pip install no_such_package"):
        known(["absent"])
