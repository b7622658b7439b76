"""``lab train``: the whole way in one command, killed and stopped on it, and what it refuses."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from lab.model.spec import read_model
from lab.train.folder import steps_of
from lab.train.shipped import load, shipped
from tests.lab.train.small import TEXT

ROOT = Path(__file__).parents[3]


@pytest.fixture
def spec(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(TEXT.format(data=data), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return path


def test_a_training_ends_with_its_rate_beside_a_bigram_and_xz_and_a_model_that_says_what_it_is(
    spec: Path, answer, lab
) -> None:
    document = json.loads(answer("train", spec, "--json", "--peak", "0.001"))
    folder = Path("models/small")
    assert document["state"] == "finished" and document["folder"] == str(folder)
    assert 2 < document["bigram"] < 6 and 2 < document["xz"] < 8 and 4 < document["bits"] < 9
    model, kept = read_model(folder / "model.safetensors")
    assert kept.name == "small" and document["params"] == sum(p.numel() for p in model.parameters())
    steps = steps_of(folder)
    assert [one.step for one in steps] == [1, 2, 3, 4, 5, 6]
    assert [one.valid_bpb is not None for one in steps] == [False, False, True] * 2
    env = json.loads((folder / "env.json").read_text())
    assert env["peak_flops"] == 1e9 and env["peak_from"] == "stated" and env["processes"] == 1
    # Three forward passes' worth of FLOPs, over the second that the tokens took, over the peak.
    assert steps[3].mfu / steps[3].tokens_per_s == pytest.approx(steps[4].mfu / steps[4].tokens_per_s)
    # Again: nothing is trained, and the end is told once more.
    before = (folder / "log.jsonl").read_bytes()
    text = answer("train", spec)
    assert f"{document['bits']:.3f}" in text and f"{document['bigram']:.3f}" in text and "xz -9" in text
    assert (folder / "log.jsonl").read_bytes() == before
    told = lab("status", folder)
    assert told.code == 0 and "finished" in told.out and "6 of 6 steps" in told.out


def start(spec: Path, folder: Path) -> subprocess.Popen[str]:
    words = ["train", str(spec), "--out", str(folder), "--peak", "1", "--set", "train.save_every=5"]
    return subprocess.Popen(
        [sys.executable, "-m", "lab", *words, "--set", "train.steps=60"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def reached(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Wait until the log has this step."""
    while process.poll() is None and (not (found := steps_of(folder)) or found[-1].step < step):
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_and_stopped_it_ends_with_the_weights_of_a_training_left_alone(
    spec: Path, tmp_path: Path, lab, answer
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    kill, stop = random.Random(seed).sample(range(6, 50), 2)
    sets = ("--set", "train.save_every=5", "--set", "train.steps=60", "--peak", "1")
    answer("train", spec, "--out", "alone", *sets)
    broken = tmp_path / "broken"
    process = start(spec, broken)
    reached(broken, min(kill, stop), process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not (broken / "model.safetensors").exists()
    # As if it had died while it saved, and while it wrote a line.
    shutil.copytree(next((broken / "checkpoints").glob("step-*")), broken / "checkpoints" / ".tmp-55")
    with (broken / "log.jsonl").open("a") as log:
        log.write('{"step": 5')
    process = start(spec, broken)
    reached(broken, max(kill, stop), process)
    process.terminate()
    told, _ = process.communicate()
    assert process.returncode == 143
    last = steps_of(broken)[-1].step
    assert (broken / "checkpoints" / f"step-{last}").is_dir() and f"saved at step {last} of 60" in told
    assert f"stopped at step {last}" in lab("status", broken).out
    answer("train", spec, "--out", broken, *sets)
    one, two = (load_file(folder / "model.safetensors") for folder in (Path("alone"), broken))
    assert one.keys() == two.keys() and all((one[name] == two[name]).all() for name in one)
    lost = ("seconds", "tokens_per_s", "mfu", "memory")
    logs = [
        [{k: v for k, v in vars(step).items() if k not in lost} for step in steps_of(folder)]
        for folder in (Path("alone"), broken)
    ]
    assert logs[0] == logs[1]


REFUSED = {
    ("--set", "train.optimiser.lr=0.5"): ("train.optimiser.lr = 0.001", "0.5", "--out"),
    ("--set", "model.vocab=256"): ("model.vocab: is 256", "257"),
    ("--set", "data.length=100000"): ("100,001", "length"),
    ("--set", "train.micro=3"): ("micro", "3", "4"),
    ("--set", "data.train=[{data: nowhere}]"): ("nowhere",),
    ("--out", "taken"): ("taken", "holds other files", "--out"),
    ("--out", "small.yaml"): ("small.yaml", "no folder"),
    ("--peak", "0"): ("--peak",),
    ("--set", "train.kernel=triton"): ("train.kernel is triton", "GPUs alone", "train.kernel=torch or auto"),
    ("--set", "train.kernel=fla"): ("train.kernel is fla", "GPUs alone", "train.kernel=torch or auto"),
}


@pytest.mark.parametrize("words", list(REFUSED), ids=" ".join)
def test_what_cannot_be_trained_is_refused_in_a_sentence_and_nothing_is_written(
    spec: Path, lab, answer, words: tuple[str, ...]
) -> None:
    Path("taken").mkdir()
    Path("taken/notes.txt").write_text("mine")
    if words[1].startswith("train.optimiser"):
        answer("train", spec, "--peak", "1", "--set", "train.steps=1")
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    told = lab("train", spec, *words)
    assert told.code == 2 and told.out == "" and told.err.startswith("error: ")
    for word in REFUSED[words]:
        assert word in told.err, told.err
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before


def test_without_a_cpp_compiler_compiling_is_refused_in_a_sentence(
    spec: Path, lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    told = lab("train", spec, "--peak", "1", "--set", "train.compile=true")
    assert told.code == 2 and told.out == "" and told.err.count("\n") == 1
    assert "g++" in told.err and "train.compile=false" in told.err and not Path("models").exists()


@pytest.mark.parametrize("name", list(shipped()))
def test_shipped_specifications_are_valid(name: str) -> None:
    assert load(name).name == name
