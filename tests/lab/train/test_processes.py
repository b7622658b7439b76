"""``torchrun ... -m lab train``: two processes do what one does; either goes on where the other was."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lab.train.folder import steps_of
from tests.lab.train.exact_muon import kept
from tests.lab.train.small import TEXT, spec_of, trained

ROOT = Path(__file__).parents[3]
WAYS = ("ddp", "fsdp")
SETS = ("data.documents=true", "train.average={kind: ema, decay: 0.5}")
MUON = "train.optimiser.name=muon"


def words(spec: Path, out: Path, *sets: str) -> list[str]:
    told = [word for one in (*SETS, *sets) for word in ("--set", one)]
    return ["train", str(spec), "--out", str(out), "--peak", "1", "--json", *told]


@pytest.fixture(scope="module")
def spec(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spec") / "small.yaml"
    path.write_text(TEXT.format(data=data), encoding="utf-8")
    return path


def by_torchrun(*told: str, module: str = "lab") -> dict[str, Any]:
    """What the command says that two processes run."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, "-m", module, *told],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)  # one document: the leader alone speaks


def same_training(folder: Path, other: Path) -> None:
    """Hold steps and weights of two folders to be one, but for the order of float32 sums."""
    for one, two in zip(steps_of(folder), steps_of(other), strict=True):
        assert (two.loss, two.grad_norm) == pytest.approx((one.loss, one.grad_norm), rel=1e-5)
        assert two.valid_bpb == (None if one.valid_bpb is None else pytest.approx(one.valid_bpb, rel=1e-5))
    weights, others = (load_file(at / "model.safetensors") for at in (folder, other))
    assert list(weights) == list(others)
    for name, value in weights.items():
        torch.testing.assert_close(others[name], value, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module", params=WAYS)
def by_two(request: pytest.FixtureRequest, spec: Path) -> tuple[Path, dict[str, Any]]:
    """The folder of a training by two processes, and what the command said."""
    out = spec.parent / request.param
    return out, by_torchrun(*words(spec, out, f"train.parallel={request.param}", "train.micro=1"))


@pytest.mark.slow
def test_two_processes_train_what_one_does(by_two, spec: Path, tmp_path: Path, answer) -> None:
    folder, said = by_two
    alone = json.loads(answer(*words(spec, tmp_path / "alone")))
    assert said["bits"] == pytest.approx(alone["bits"], rel=1e-5)
    assert (said["tokens"], said["held_out"]) == (alone["tokens"], alone["held_out"])
    assert json.loads((folder / "env.json").read_text())["processes"] == 2
    same_training(tmp_path / "alone", folder)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_muon_differs_by_the_rounding_of_its_iteration_alone(
    way: str, spec: Path, tmp_path: Path, answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = (MUON, f"train.parallel={way}", "train.micro=1")
    by_torchrun(*words(spec, tmp_path / "exact", *sets), module="tests.lab.train.exact_muon")
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "bfloat16", kept)
        answer(*words(spec, tmp_path / "exact-alone", MUON))
    same_training(tmp_path / "exact-alone", tmp_path / "exact")

    # As it is, the iteration is in bfloat16: a gradient that differs in its last bit of float32 may round to
    # another neighbour, 2^-8 of an entry away, and five steps of it with slopes of up to 3.4 make more of it.
    by_torchrun(*words(spec, tmp_path / "two", *sets))
    answer(*words(spec, tmp_path / "alone", MUON))
    weights, others = (load_file(tmp_path / at / "model.safetensors") for at in ("alone", "two"))
    far = max(float((others[name] - value).abs().max()) for name, value in weights.items())
    # 0.002 was measured; six steps at a rate of 0.02 move a weight by far more.
    assert far < 0.01
    for one, two in zip(steps_of(tmp_path / "alone"), steps_of(tmp_path / "two"), strict=True):
        assert two.loss == pytest.approx(one.loss, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_two_processes_go_on_where_one_stopped(way: str, spec: Path, tmp_path: Path, answer) -> None:
    answer(*words(spec, tmp_path / "through"))
    shutil.copytree(tmp_path / "through", tmp_path / "on")
    # As after a kill before the last checkpoint.
    shutil.rmtree(tmp_path / "on" / "checkpoints" / "step-6")
    (tmp_path / "on" / "model.safetensors").unlink()
    by_torchrun(*words(spec, tmp_path / "on", f"train.parallel={way}", "train.micro=1"))
    same_training(tmp_path / "through", tmp_path / "on")


@pytest.mark.slow
def test_one_process_goes_on_where_two_stopped(data: Path, by_two, tmp_path: Path) -> None:
    through, lines = trained(spec_of(data, *SETS), tmp_path / "through")
    (tmp_path / "on").mkdir()
    (tmp_path / "on" / "step-4").symlink_to(by_two[0] / "checkpoints" / "step-4")
    resumed, rest = trained(spec_of(data, *SETS), tmp_path / "on")
    assert [one.step for one in rest] == [5, 6]
    assert [one.loss for one in rest] == pytest.approx([one.loss for one in lines[4:]], rel=1e-5)
    for name, value in through.weights().items():
        torch.testing.assert_close(resumed.weights()[name], value, rtol=1e-4, atol=1e-5)
