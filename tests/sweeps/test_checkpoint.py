"""A run that is stopped anywhere and taken up by another process gives the rows of one that never was."""

import random
from pathlib import Path

import pytest
import torch

from blocks import BLOCKS
from sweeps import results, space
from sweeps.checkpoint import Checkpoint
from sweeps.pool import use_one_thread
from sweeps.recipe import loads
from sweeps.run import Run, execute, runs_of
from synthetics.fit import Trainer

TEXT = """\
name: tiny
pattern: (gdn(conv=2), swiglu) + (fox, sparse) + gla + linear
shape: {dim: 16, heads: 2}
tasks: ["recall(vocab=8, length=16, train_examples=64)", "compression(vocab=8, length=8, train_examples=64)"]
train: {steps: 30, batch: 8, eval_every: 5, eval_examples: 16, lr: 1e-2}
"""


class Killed(Exception):
    pass


def runs(*overrides: str) -> list[Run]:
    recipe = loads(TEXT, "tiny", overrides)
    (candidate,) = space.candidates(recipe)
    return list(runs_of(recipe, candidate, space.task_texts(recipe), seed=3))


def stopped_after(run: Run, evaluations: int, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train as far as that, with a checkpoint after every evaluation, and vanish."""
    advance, count = Trainer.advance, 0

    def until_then(self: Trainer) -> object:
        nonlocal count
        if count == evaluations:
            raise Killed
        count += 1
        return advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "advance", until_then)
        with pytest.raises(Killed):
            execute(run, 0, "code", BLOCKS, 0.0, Checkpoint(path, every=0.0))


@pytest.mark.slow
@pytest.mark.parametrize("train", ["kernel=torch", "kernel=c", "precision=bf16"])
def test_a_continued_run_is_the_same_run(train: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    use_one_thread()
    for number, run in enumerate(runs(f"train.{train}")):
        path = tmp_path / f"{number}" / "x.pt"
        whole = results.to_frame(execute(run, 0, "code"))
        stopped_after(run, rng.randrange(1, 5), path, monkeypatch)
        far = len(torch.load(path, weights_only=True)["curve"])
        torch.manual_seed(rng.randrange(99))  # nothing hangs on what a process did before
        continued = results.to_frame(execute(run, 0, "code", BLOCKS, 0.0, Checkpoint(path)))
        assert continued.drop("seconds").equals(whole.drop("seconds"))
        kept = [point["seconds"] for point in torch.load(path, weights_only=True)["curve"]]
        assert continued["seconds"].to_list()[:far] == kept, "it was continued, not begun anew"
        Checkpoint(path).clear()
        assert not path.exists()


def test_what_is_no_checkpoint_is_removed_and_said(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    run = runs("train.kernel=torch")[0]
    for content in (b"", b"nonsense", b"PK\x03\x04 and so on"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is removed"):
            execute(run, 0, "code", BLOCKS, 0.0, Checkpoint(path))
        assert not path.exists()


def test_a_short_run_writes_none(tmp_path: Path) -> None:
    execute(runs("train.kernel=torch")[0], 0, "code", BLOCKS, 0.0, Checkpoint(tmp_path / "no" / "x.pt"))
    assert list(tmp_path.iterdir()) == []
