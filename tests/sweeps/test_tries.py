"""A run that goes wrong or kills its process: tried twice, set aside with its reason, again when asked."""

from pathlib import Path

import polars as pl
import pytest

from blocks import BLOCKS
from blocks.user import load_blocks
from sweeps import results
from sweeps.events import News
from sweeps.recipe import loads
from sweeps.study import Event, Outcome, RunFailed, sweep

BLOCKS_FILE = '''
import os, signal
from dataclasses import dataclass
from typing import ClassVar
from torch import nn

class Layer(nn.Module):
    def __init__(self, what, dim):
        super().__init__()
        self.what, self.line = what, nn.Linear(dim, dim)
    def forward(self, x, state=None, context=None):
        if self.what == "raise":
            raise RuntimeError("no such luck")
        if self.what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return self.line(x) * (float("nan") if self.what == "nan" else 1.0), {}

@dataclass(frozen=True, kw_only=True)
class Odd:
    """A block that goes wrong as told."""
    role: ClassVar[str] = "linear"
    what: str = "fine"
    def build(self, shape, kernel="torch"):
        return Layer(self.what, shape.dim)
    def params(self, shape):
        return shape.dim * (shape.dim + 1)
    def state_size(self, shape, length):
        return 0
    def flops(self, shape, length):
        return 2 * shape.dim**2
'''

ODD = """\
name: odd
pattern: odd(what=w)
search: {w: [die, fine, nan, raise]}
shape: {dim: 16, heads: 2}
tasks: ["recall(vocab=8, length=16, train_examples=128)"]
train: {steps: 4, batch: 8, eval_every: 2, eval_examples: 32}
seeds: 1
"""


@pytest.mark.slow
def test_one_bad_candidate_does_not_stop_the_others(tmp_path: Path) -> None:
    file = tmp_path / "odd.py"
    file.write_text(BLOCKS_FILE)
    events: list[Event] = []
    recipe = loads(ODD, "odd", blocks=BLOCKS | load_blocks(file))
    outcome = sweep(recipe, tmp_path / "runs" / "odd", workers=1, blocks_file=file, on_event=events.append)
    reasons = {failure.label: failure.reason for failure in outcome.failures}
    assert set(reasons) == {"w=die", "w=raise"}
    assert "SIGKILL" in reasons["w=die"]
    assert reasons["w=die"].endswith("twice")
    assert reasons["w=raise"] == "RuntimeError: no such luck"
    assert len([e for e in events if isinstance(e, RunFailed)]) == 2
    assert (outcome.trained, outcome.rounds, outcome.stopped) == (2, 0, "complete")
    found = results.read(outcome.folder)
    assert {failure.label for failure in found.failures} == {"w=die", "w=raise"}
    nan = found.frame.filter((pl.col("label") == "w=nan") & pl.col("final"))
    assert nan["status"].to_list() == ["diverged"]
    assert "step 1" in nan["reason"][0]
    assert nan["acc"].to_list() == nan["chance"].to_list()

    def anew(retry: bool) -> tuple[Outcome, list[str]]:
        news: list[Event] = []
        again = sweep(recipe, outcome.folder, workers=1, blocks_file=file, retry=retry, on_event=news.append)
        return again, [one.text for one in news if isinstance(one, News)]

    again, news = anew(retry=False)
    assert again.failures == outcome.failures and again.trained == 0
    assert news == ["left out, since they failed before: 2 of the runs; --retry tries them again"]
    again, news = anew(retry=True)
    assert {failure.label for failure in again.failures} == {"w=die", "w=raise"} and again.stored == 2
    assert len(news) == 2 and all(text.startswith("again: ") for text in news)


def test_tries_are_counted_over_restarts(tmp_path: Path) -> None:
    """A run that was lost once before the sweep was stopped is tried once more and no oftener."""
    file = tmp_path / "odd.py"
    file.write_text(BLOCKS_FILE)
    recipe = loads(ODD, "odd", ("search.w=[die]",), blocks=BLOCKS | load_blocks(file))
    folder = tmp_path / "runs" / "odd"

    def stop(event: Event) -> None:
        if isinstance(event, News):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(recipe, folder, workers=1, blocks_file=file, on_event=stop)
    assert results.failures(folder) == ()
    with (folder / "tries.jsonl").open("a") as torn:
        torn.write('{"run": "')
    outcome = sweep(recipe, folder, workers=1, blocks_file=file, on_event=stop)
    assert [failure.label for failure in outcome.failures] == ["w=die"]
    assert (folder / "tries.jsonl").read_text().count("\n") == 1
