"""Two processes over gloo do what one does, within float tolerance; and one goes on where two stopped."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.lab.train.small import in_crew, spec_of, trained

ROOT = Path(__file__).parents[3]
PROGRAM = "import sys; from tests.lab.train.small import in_crew; in_crew(*sys.argv[1:])"


@pytest.fixture(scope="module")
def by_two(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes under torchrun trained, by DDP and by FSDP."""
    out = tmp_path_factory.mktemp("two")
    script = out / "program.py"
    script.write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, str(script), str(data), str(out)], env=env, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def test_two_processes_train_what_one_does(data: Path, by_two: Path, tmp_path: Path) -> None:
    in_crew(str(data), str(tmp_path))
    for way in ("ddp", "fsdp"):
        one, two = torch.load(tmp_path / f"{way}.pt"), torch.load(by_two / f"{way}.pt")
        assert torch.tensor(two["lines"]) == pytest.approx(torch.tensor(one["lines"]), rel=1e-5)
        assert two["bits"] == pytest.approx(one["bits"], rel=1e-5)
        assert list(one["weights"]) == list(two["weights"])
        for name, value in one["weights"].items():
            torch.testing.assert_close(two["weights"][name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_one_process_goes_on_where_two_stopped(data: Path, by_two: Path, tmp_path: Path, way: str) -> None:
    sets = ("data.documents=true", "train.average={kind: ema, decay: 0.5}")
    through, lines = trained(spec_of(data, *sets), tmp_path / "through")
    last = by_two / way / "step-4"
    (tmp_path / "on").mkdir()
    (tmp_path / "on" / "step-4").symlink_to(last)
    resumed, rest = trained(spec_of(data, *sets), tmp_path / "on")
    assert [one.step for one in rest] == [5, 6]
    assert [one.loss for one in rest] == pytest.approx([one.loss for one in lines[4:]], rel=1e-5)
    for name, value in through.weights().items():
        torch.testing.assert_close(resumed.weights()[name], value, rtol=1e-4, atol=1e-5)
