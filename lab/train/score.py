"""How well a model predicts held-out text: nats of every target, summed over all processes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import nn

from blocks.base import LOSSES, Losses
from blocks.segments import SEGMENTS
from lab.train.loss import IGNORE, summed_loss
from lab.train.parallel import Crew
from lab.train.rows import Batch, HeldOut, batch_of

__all__ = ["called_with", "nats_of"]


def called_with(model: nn.Module, batch: Batch, losses: Losses | None = None) -> torch.Tensor:
    """Logits [B, T, V]; with segments each document is seen alone. ``losses`` takes those of blocks out."""
    context: dict[str, object] = {} if batch.segments is None else {SEGMENTS: batch.segments}
    if losses is not None:
        context[LOSSES] = losses
    return model(batch.inputs, None, context or None)[0]


@torch.no_grad()
def nats_of(
    model: nn.Module,
    held_out: HeldOut,
    indices: Sequence[int],
    rows: int,
    documents: bool,
    precision: AbstractContextManager[object],
    crew: Crew,
) -> tuple[float, int]:
    """Nats and the number of targets over the rows ``indices``, ``rows`` of them at a time and process."""
    pieces = [list(indices[at : at + rows]) for at in range(0, len(indices), rows)]
    nats, counted = 0.0, 0
    # Sharded weights are gathered by all processes at once: whoever has no rows left runs along on the first.
    for turn in range(-(-len(pieces) // crew.world)):
        number = turn * crew.world + crew.rank
        batch = batch_of(held_out.rows(pieces[min(number, len(pieces) - 1)]), documents).to(crew.device)
        with precision:
            logits_BTV = called_with(model, batch)
        if number < len(pieces):
            nats += float(summed_loss(logits_BTV, batch.targets)[0])
            counted += int((batch.targets != IGNORE).sum())
    total, number = crew.total(nats, counted)
    return total, int(number)
