"""``lab status``: what a folder tells of its sweep, also where the sweep told nothing."""

import json
from pathlib import Path

from sweeps import results
from sweeps.results import Failure, Pruned, write_pruned
from sweeps.status import Running, Status, write
from tests.analysis.factory import make_folder, make_frame


def folder_of(place: Path) -> Path:
    return make_folder(place / "ratios", make_frame(), "name: ratios\n")


def test_what_a_sweep_said_is_told_with_what_the_folder_shows(answer, tmp_path):
    folder = folder_of(tmp_path)
    runs = len(results.stored(folder))
    write(folder, Status("ratios", "time", 2, 5, done=1, total=runs + 7, requeued=3))
    results.record_failure(folder, Failure("k", "r=3", "recall", 4, "RuntimeError: no", "2026-01-01"))
    write_pruned(folder, [Pruned("a" * 16, "r=4", 2, 5, "r=3", 5, 6, 0.01)])
    text = answer("status", folder)
    for words in (
        "ended by --time",
        f"round 2 of 5; {runs} of {runs + 7} runs done",  # of the folder, not of the last that was said
        "begun again: 3",
        "left the race: r=4",
        "set aside: r=3 on recall, seed 4: RuntimeError: no",
        "lab sweep with --retry",
    ):
        assert words in text
    assert json.loads(answer("status", folder, "--json"))["done"] == runs


def test_a_sweep_that_said_it_was_at_work_and_is_not_has_stopped(answer, tmp_path):
    folder = folder_of(tmp_path)
    run = Running("r=3", "recall", 4, "process 1", 5.0)
    write(folder, Status("ratios", "working", 1, 5, done=1, total=9, running=(run,), eta=60.0))
    text = answer("status", folder)
    assert "stopped; the same lab sweep goes on from here" in text
    assert "process 1" not in text and "left" not in text and "--retry" not in text


def test_a_folder_whose_sweep_said_nothing_has_its_runs_and_no_total(answer, tmp_path):
    text = answer("status", folder_of(tmp_path))
    assert "stopped" in text
    assert " runs done; how many are asked for the next sweep says" in text and " of 0" not in text


def test_what_is_no_run_folder_is_one_sentence(lab, tmp_path):
    outcome = lab("status", tmp_path)
    assert outcome.code == 2 and outcome.err.count("\n") == 1 and outcome.err.startswith("error: ")
