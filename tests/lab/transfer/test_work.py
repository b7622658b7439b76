"""The work of a study: branches are trainings of their own, and neither kill nor stop changes a row."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from blocks import BLOCKS
from lab.train.folder import CHECKPOINTS, MODEL, locked, steps_of
from lab.train.run import train
from lab.transfer import rows
from lab.transfer.form import Study
from lab.transfer.pieces import branch_step, pieces
from lab.transfer.work import Counted, Left
from tests.lab.transfer.small import Silent, load_study, measured, worker_of, write_study

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_a_branch_is_bit_for_bit_the_training_with_that_count_alone(study: Study, tmp_path: Path) -> None:
    piece = pieces(study)[2]
    first, last = study.tokens
    at = branch_step(study, first)

    def go(name: str, tokens: int, branch: Path | None = None, until: int | None = None) -> Path:
        folder = tmp_path / name
        pause = (lambda step: step >= until) if until else (lambda step: False)
        ended = train(piece.spec(tokens), folder, Silent(), BLOCKS, 1e9, branch=branch, pause=pause)
        assert (ended.state, ended.step) == (
            ("stopped", until) if until else ("finished", piece.spec(tokens).train.steps)
        )
        return folder

    torch.set_num_threads(1)
    trunk = go("trunk", last, until=at)
    branch = go("branch", first, branch=trunk / CHECKPOINTS / f"step-{at}")
    assert [one.step for one in steps_of(branch)] == list(range(at + 1, piece.spec(first).train.steps + 1))
    go("trunk", last)
    for name, tokens in (("branch", first), ("trunk", last)):
        alone, own = load_file(go(f"alone-{name}", tokens) / MODEL), load_file(tmp_path / name / MODEL)
        assert alone.keys() == own.keys() and all(torch.equal(alone[key], own[key]) for key in alone)


@pytest.mark.slow
def test_stopped_by_time_at_any_step_a_study_ends_with_the_same_rows(study: Study, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    todo = pieces(study)[1:]
    worker_of(study, tmp_path / "whole").run(todo)
    whole = measured(tmp_path / "whole")
    assert (
        whole.height == 4
        and set(whole["tokens"]) == set(study.tokens)
        and set(whole["status"]) == {"finished"}
    )
    stops = 0
    for _ in range(200):
        asked = rng.randrange(6, 13)  # of 36 steps and more, so that it is stopped twice at least
        ticks = iter(range(asked))
        try:
            worker_of(study, tmp_path / "pieces", lambda ticks=ticks: next(ticks, None) is None).run(todo)
            break
        except Left as left:
            assert left.code == 0
            stops += 1
    assert stops >= 2
    assert measured(tmp_path / "pieces").equals(whole)
    left_behind = [path for path in (tmp_path / "pieces" / "pieces").rglob("*") if path.name != "lock"]
    assert all(path.is_dir() and path.parent.name == "pieces" for path in left_behind)


def test_what_is_stored_is_never_trained_again_and_what_another_is_at_is_left_alone(
    study: Study, tmp_path: Path
) -> None:
    todo, folder = pieces(study), tmp_path / "run"
    told, told_again = Silent(), Silent()
    worker = worker_of(study, folder, listener=told)
    worker.run(todo[:1])
    assert worker.count(todo) == Counted(2, 6)
    packed = tmp_path / "pack.parquet"
    rows.pack(rows.read(folder), packed)
    again = worker_of(study, tmp_path / "other", packs=(packed,), listener=told_again)
    again.run(todo[:1])
    assert told_again.rows == [] and again.count(todo).done == 2
    place = folder / "pieces" / f"{todo[1].key}-{worker.made}"
    place.mkdir(parents=True)
    with locked(place):
        worker.run(todo[:2])
    assert {row["label"] for row in told.rows} == {todo[0].label}


def test_a_training_that_diverges_counts_as_a_uniform_guess(data: Path, tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path, data), "lr=1e30", "schedules=[attn, gdn, gdn+fox 3:1]")
    worker_of(study, tmp_path / "run").run(pieces(study)[:1])
    frame = rows.read(tmp_path / "run")
    assert frame["status"].to_list() == ["diverged"] * 2
    assert all(bits == pytest.approx(math.log2(257), rel=0.02) for bits in frame["bits"])


@pytest.mark.slow
def test_killed_in_the_middle_and_gone_on_with_a_study_has_the_rows_of_one_left_alone(
    data: Path, tmp_path: Path, answer, lab
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    path = write_study(tmp_path, data, steps=(20, 60))
    words = ["transfer", "run", str(path), "--out"]
    folder = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "lab", *words, str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    wanted = random.Random(seed).randrange(20, 45)  # in the trunk, after the branch
    while process.poll() is None:
        trunks = list(folder.glob("pieces/*/trunk"))
        if trunks and (steps := steps_of(trunks[0])) and steps[-1].step >= wanted:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = rows.read(folder).height
    assert process.returncode == -signal.SIGKILL and 1 <= done < 6
    told = answer(*words, folder)
    assert f"6 of 6 trainings done, {6 - done} of them now" in told
    answer(*words, tmp_path / "alone")
    assert measured(folder).equals(measured(tmp_path / "alone"))
    shown = answer("transfer", "show", path, "--out", folder, "--html", tmp_path / "toy.html")
    assert "Not yet" not in shown and "synthetic score" in shown and (tmp_path / "toy.html").is_file()
    assert answer("transfer", "show", folder, "--json") == answer(
        "transfer", "show", path, "--out", folder, "--json"
    )
    packed = answer("transfer", "pack", path, tmp_path / "toy.parquet", "--out", folder, "--json")
    assert (
        json.loads(packed)["rows"]
        == json.loads(packed)["asked"]
        == rows.read(tmp_path / "none", tmp_path / "toy.parquet").height
    )
    for wrong in (tmp_path / "toy.yaml", tmp_path):
        refused = lab(*words, wrong)
        assert refused.code == 2 and "give another --out" in refused.err
