"""A model small enough for tests, on real tokens: what its specification says, and trainings of it."""

from __future__ import annotations

from pathlib import Path

import torch

from blocks import BLOCKS
from blocks.base import Kernel
from lab.model.form import Spec
from lab.model.spec import loads
from lab.train.checkpoint import latest
from lab.train.feed import open_feed
from lab.train.folder import Step
from lab.train.loop import Trainer
from lab.train.parallel import Crew

ALONE = Crew(0, 1, torch.device("cpu"))

TEXT = """
kind: model
name: small
model: {{schedule: "(gdn, swiglu) + (attn, swiglu)", shape: {{dim: 16, heads: 2}}, vocab: 257}}
data: {{train: [{{data: {data}}}], length: 24}}
train: {{steps: 6, batch: 4, save_every: 2, eval_every: 3, eval_rows: 4}}
"""


def spec_of(data: Path, *overrides: str) -> Spec:
    """The small specification on the tokens in ``data``."""
    return loads(TEXT.format(data=data), "small.yaml", overrides)


def trainer_of(spec: Spec, crew: Crew = ALONE, kernel: Kernel = "torch") -> Trainer:
    feed = open_feed(spec)
    return Trainer(spec, feed.source, feed.held_out, crew, kernel, BLOCKS, peak=1e9)


def trained(
    spec: Spec, folder: Path, until: int | None = None, crew: Crew = ALONE
) -> tuple[Trainer, list[Step]]:
    """A training in ``folder``, gone on with where a checkpoint is; ``until``: stopped after this step."""
    trainer, lines = trainer_of(spec, crew), []
    folder.mkdir(parents=True, exist_ok=True)
    if (last := latest(folder)) is not None:
        trainer.restore(last)
    trainer.run(folder, lines.append, lambda: trainer.progress.step == until)
    return trainer, lines
