"""Sweeps with real processes: what is finished stays, what is killed goes on, nothing is trained twice."""

import fcntl
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from blocks.kernels import native
from sweeps import packs, results, space
from sweeps.pool import use_one_thread
from sweeps.recipe import Recipe, load, loads
from sweeps.run import code_hash, execute, runs_of
from sweeps.study import Event, Outcome, RoundDone, RunDone, Started, SweepError, sweep

TEXT = """\
name: tiny
pattern: r*gdn(conv=2) + fox
search: {r: [1:1, 2:1]}
shape: {dim: 16, heads: 2}
tasks: ["recall(vocab=8, length=16, train_examples=128)", "memorization(vocab=16, length=16)"]
train: {steps: 20, batch: 8, eval_every: 10, eval_examples: 32, lr: [1e-3, 1e-2], extrapolate: [2]}
seeds: 2
"""

CLI = """\
import sys
from pathlib import Path
from sweeps.recipe import load
from sweeps.study import sweep
if __name__ == "__main__":
    say = lambda event: print(type(event).__name__, flush=True)
    sweep(load(sys.argv[1]), Path(sys.argv[2]), workers=int(sys.argv[3]), on_event=say)
"""


def tiny(*overrides: str) -> Recipe:
    return loads(TEXT, "tiny", overrides)


def rows(folder: Path) -> pl.DataFrame:
    return results.read(folder).frame.drop("seconds")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome, list[Event]]:
    """The undisturbed sweep that others are compared with."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    events: list[Event] = []
    outcome = sweep(tiny(), folder, workers=1, on_event=events.append)
    return folder, outcome, events


def test_an_undisturbed_sweep(done: tuple[Path, Outcome, list[Event]]) -> None:
    folder, outcome, events = done
    assert (outcome.trained, outcome.stored, outcome.rounds, outcome.failures) == (16, 0, 2, ())
    assert outcome.stopped == "complete"
    assert [type(e) for e in events].count(RunDone) == 16
    assert isinstance(events[0], Started)
    rounds = [(e.number, e.rounds) for e in events if isinstance(e, RoundDone)]
    assert rounds == [(1, 2), (2, 2)]
    # The rounds are played one after the other.
    assert [e.seed for e in events if isinstance(e, RunDone)] == [0] * 8 + [1] * 8
    finals = rows(folder).filter("final")
    assert finals.height == 16
    assert set(finals["label"]) == {"r=1:1", "r=2:1"}
    assert set(finals["n_linear"]) == {1, 2}
    assert finals.filter(pl.col("task") == "memorization")["window_share"].null_count() == 8
    # One run is scored at all levels: together they are its accuracy.
    for row in finals.iter_rows(named=True):
        weighted = sum(a * n for a, n in zip(row["level_acc"], row["level_count"], strict=True))
        assert weighted / sum(row["level_count"]) == pytest.approx(row["acc"])
        assert row["levels"] == ([0] if row["task"] == "memorization" else sorted(set(row["levels"])))
        assert (row["stretch"], len(row["stretch_acc"])) == ([2], 1)
    assert rows(folder).filter(~pl.col("final"))["levels"].null_count() == 16
    again = sweep(tiny(), folder, workers=1)
    assert (again.trained, again.stored) == (0, 16)


def test_a_stored_run_repeated_alone_gives_the_same_rows(done: tuple[Path, Outcome, list[Event]]) -> None:
    folder, recipe, code = done[0], tiny(), code_hash()
    use_one_thread()
    stored = rows(folder)
    for trial, candidate in enumerate(space.candidates(recipe)):
        run = list(runs_of(recipe, candidate, space.task_texts(recipe), seed=1))[trial]
        alone = results.to_frame(execute(run, trial, code)).drop("seconds")
        assert alone.equals(stored.filter(pl.col("run") == run.key(code)))


def start(recipe: Path, folder: Path, workers: int = 1) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CLI, str(recipe), str(folder), str(workers)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def events_of(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        yield line.strip()


def gone(group: int, seconds: float = 20.0) -> bool:
    """Whether every process of the group ends within some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
def test_killed_at_random_moments_and_run_again(
    tmp_path: Path, done: tuple[Path, Outcome, list[Event]]
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    recipe, folder = tmp_path / "tiny.yaml", tmp_path / "runs" / "tiny"
    recipe.write_text(TEXT)
    trained = 0
    for attempt in range(3):
        process = start(recipe, folder, workers=1 + attempt % 2)
        wait_for = rng.randrange(1, 6)
        for n, event in enumerate(events_of(process)):
            trained += event == "RunDone"
            if n == wait_for:
                break
        time.sleep(rng.random() * 0.5)
        if attempt == 1:
            process.kill()  # the coordinator alone: its workers must leave by themselves
        else:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert gone(process.pid)
        for path in (folder / "trials").glob("*.parquet"):
            results.read_run(path)
    outcome = sweep(loads(TEXT), folder, workers=1)
    assert rows(folder).equals(rows(done[0]))
    assert outcome.trained + outcome.stored == 16
    assert outcome.stored >= trained  # what was announced was stored
    assert not list(folder.rglob(".tmp-*"))


def ended_by(errors: str) -> list[str]:
    """The last lines of the tracebacks on stderr; errors that were being handled meanwhile do not count.

    An interrupt may come anywhere, also while the standard library handles an AttributeError of its own. An
    interrupt while another one is handled is one too many, and counts. Where there is nothing to underline
    the line of markers is empty.
    """
    handled = r"\n\n(?:During handling of the above exception|The above exception was the direct cause)"
    ends = re.findall(rf"^Traceback .*\n(?:(?: .*)?\n)*(\w.*)$({handled})?", errors, re.MULTILINE)
    return [last for last, was_handled in ends if not was_handled or last == "KeyboardInterrupt"]


def test_ctrl_c_keeps_what_is_finished(tmp_path: Path) -> None:
    recipe, folder = tmp_path / "tiny.yaml", tmp_path / "tiny"
    recipe.write_text(TEXT)
    process = start(recipe, folder)
    for event in events_of(process):
        if event == "RunDone":
            break
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert ended_by(errors) == ["KeyboardInterrupt"], errors  # the coordinator's own; workers are silent
    assert errors.strip().endswith("KeyboardInterrupt")
    assert gone(process.pid)
    assert 1 <= rows(folder).filter("final").height < 16
    assert not list(folder.rglob(".tmp-*"))


def test_what_is_finished_elsewhere_is_fetched(done: tuple[Path, Outcome, list[Event]]) -> None:
    # No worker is started here: everything asked for is in the neighbouring folder or was set aside.
    first = done[0]
    other = first.parent / "other"
    renamed = tiny("name=other", "search.r=[2, 1]")
    outcome = sweep(renamed, other, workers=1)
    assert (outcome.trained, outcome.stored) == (0, 16)
    mine = rows(other)
    assert mine.filter(pl.col("n_linear") == 2)["label"].unique().to_list() == ["r=2"]
    assert mine.filter(pl.col("n_linear") == 2)["trial"].unique().to_list() == [0]
    assert set(mine["run"]) == set(rows(first)["run"])
    # Fewer seeds: the rest is set aside; asked for again, it is back.
    sweep(tiny("name=other", "search.r=[2, 1]", "seeds=1"), other, workers=1)
    assert rows(other)["seed"].unique().to_list() == [0]
    assert len(results.stored(other, "earlier")) == 8
    assert sweep(renamed, other, workers=1).trained == 0
    assert rows(other).equals(mine)
    assert not results.stored(other, "earlier")


def test_a_pack_holds_the_runs_and_a_sweep_answers_from_it(
    done: tuple[Path, Outcome, list[Event]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "packs" / "tiny.parquet"
    file.parent.mkdir()
    assert packs.pack(done[0], file) == 16
    assert packs.pack(done[0], file) == 16, "packed again, nothing is there twice"
    columns = ["run", "step", "acc", "loss"]
    assert (
        results.read_run(file)
        .select(columns)
        .sort(columns)
        .equals(rows(done[0]).select(columns).sort(columns))
    )
    monkeypatch.setattr(packs, "KNOWN", file.parent)
    away = tmp_path / "runs" / "away"
    away.parent.mkdir()
    outcome = sweep(tiny("name=away"), away, workers=1)
    assert (outcome.trained, outcome.stored) == (0, 16)
    assert rows(away).equals(rows(done[0]))
    # A folder that holds part of it adds to it and takes nothing away.
    (away / "trials" / results.stored(away).popitem()[1]).unlink()
    assert packs.pack(away, file) == 16
    with pytest.raises(results.ResultsError, match="no run folder"):
        packs.pack(tmp_path, file)


def test_what_one_task_lacks_is_trained_before_the_next_is_begun(tmp_path: Path) -> None:
    """So that a sweep that is ended within a round has whole tasks."""
    events: list[Event] = []
    sweep(tiny("seeds=1"), tmp_path / "x", workers=1, on_event=events.append)
    tasks = [event.setting.partition("(")[0] for event in events if isinstance(event, RunDone)]
    assert tasks == ["recall"] * 4 + ["memorization"] * 4


@pytest.mark.slow
def test_sampled_candidates_grow_and_are_kept(tmp_path: Path) -> None:
    short = (
        "search.r=[1, 2, 3, 4, 5]",
        "train.lr=1e-2",
        "train.steps=10",
        "tasks=['memorization(vocab=16)']",
    )
    folder = tmp_path / "tiny"
    first = sweep(tiny(*short, "trials=2"), folder, workers=1)
    assert (first.candidates, first.trained, first.rounds) == (2, 4, 2)
    before = rows(folder)
    second = sweep(tiny(*short, "trials=3"), folder, workers=1)
    assert (second.candidates, second.trained, second.stored) == (3, 2, 4)
    assert rows(folder).filter(pl.col("run").is_in(before["run"].unique().to_list())).equals(before)


def test_the_time_limit_ends_after_the_round_that_fits(tmp_path: Path) -> None:
    short = (
        "train.lr=1e-2",
        "train.steps=10",
        "tasks=['memorization(vocab=16)']",
        "seeds=50",
        "search.r=[1]",
    )
    folder = tmp_path / "tiny"
    outcome = sweep(tiny(*short), folder, workers=1, time_limit=0.5)
    assert outcome.stopped == "time"
    assert outcome.reason
    assert 1 <= outcome.trained < 50  # the first round always begins
    assert rows(folder).filter("final").height == outcome.trained


@pytest.mark.slow
def test_a_compiler_that_fails_is_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "false")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    native.library.cache_clear()
    with pytest.raises(SweepError, match=r"does not compile .*; or set train.kernel=torch"):
        sweep(tiny(), tmp_path / "x", workers=1)
    outcome = sweep(tiny("train.kernel=torch", "seeds=1"), tmp_path / "x", workers=1)
    assert (outcome.trained, outcome.failures) == (8, ())


def test_two_sweeps_of_one_folder_are_refused(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(SweepError, match="another sweep is at work"):
            sweep(tiny(), tmp_path, workers=1)


def test_places_where_no_sweep_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.tex").write_text("")
    for name in ("file", "theirs", "file/below"):
        with pytest.raises((SweepError, results.ResultsError), match=name):
            sweep(tiny(), tmp_path / name, workers=1)
    assert sorted(p.name for p in (tmp_path / "theirs").iterdir()) == ["thesis.tex"]
    for wrong in ({"workers": -1}, {"workers": 0}, {"time_limit": 0.0}):
        with pytest.raises(SweepError):
            sweep(tiny(), tmp_path / "new", **wrong)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["recipe.yaml", "status.json", "trials", "earlier"])
def test_what_stands_in_the_place_of_a_file_or_folder_is_named(name: str, tmp_path: Path) -> None:
    short = tiny("train.steps=10", "tasks=['memorization(vocab=16)']", "seeds=1", "search.r=[1]")
    folder = tmp_path / "tiny"
    sweep(short, folder, workers=1)
    there = folder / name
    if there.is_file():
        there.unlink()
        there.mkdir()
    else:
        there.rename(tmp_path / "moved")
        there.write_text("")
    with pytest.raises(SweepError) as told:
        sweep(short, folder, workers=1)
    assert str(told.value).startswith(f"{there}: cannot be written (")
    assert str(told.value).endswith("); move it away or delete it; what is finished is kept")


def test_smoke_is_planned() -> None:
    from sweeps.plan import plan

    recipe = load("smoke")
    made = plan(recipe, workers=2, gflops=1.0)
    assert [row.label for row in made.rows] == ["r=1:1", "r=2:1"]
    assert made.runs == 8
    assert made.seconds == pytest.approx(2 * made.seconds_per_round)
    assert made.as_json()["rows"][0]["n_full"] == 1
    assert plan(recipe, workers=1).gflops > 0
