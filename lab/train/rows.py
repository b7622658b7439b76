"""What a training reads: its rows, the same for any number of processes, and the text held out from it.

B rows, S = T + 1 tokens of a row: T inputs and the target of the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lab.train.loss import targets_of
from lab.train.parallel import Crew

__all__ = ["Batch", "HeldOut", "Rows", "Source", "batch_of", "share_of", "windows"]


class Rows(Protocol):
    """Rows [B, S]: token ids, the number of the document within the row, and whether a target counts."""

    @property
    def tokens(self) -> np.ndarray: ...
    @property
    def segments(self) -> np.ndarray: ...
    @property
    def mask(self) -> np.ndarray: ...


class Source(Protocol):
    """Where rows come from: a pure function of step (from 0) and index, so that any process finds its own."""

    def rows(self, step: int, indices: Sequence[int]) -> Rows: ...


@dataclass(frozen=True)
class Batch:
    """One forward pass: inputs and targets [B, T] int64; segments [B, T] where documents are kept apart."""

    inputs: Tensor
    targets: Tensor
    segments: Tensor | None

    def to(self, device: torch.device) -> Batch:
        segments = None if self.segments is None else self.segments.to(device)
        return Batch(self.inputs.to(device), self.targets.to(device), segments)


def batch_of(rows: Rows, documents: bool) -> Batch:
    """Rows as a model takes them; ``documents`` keeps their segments apart."""
    return Batch(
        torch.from_numpy(rows.tokens[:, :-1].astype(np.int64)),
        targets_of(rows.tokens, rows.segments, rows.mask, documents),
        torch.from_numpy(rows.segments[:, :-1].astype(np.int64)) if documents else None,
    )


def share_of(batch: int, micro: int, crew: Crew) -> list[range]:
    """The rows of an optimiser step that this process takes: contiguous, ``micro`` a pass."""
    mine = batch // crew.world
    begin = crew.rank * mine
    return [range(at, at + micro) for at in range(begin, begin + mine, micro)]


@dataclass(frozen=True)
class Window:
    """Rows of held-out tokens."""

    tokens: np.ndarray
    segments: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class HeldOut:
    """Held-out tokens as one stream, in rows that overlap by one token: each but the first is a target once.

    stream, mask: [N] ids, and whether each counts (all where it is None). separator: the id that ends a
    document. text: the bytes that the tokens that count stand for.
    """

    stream: np.ndarray
    mask: np.ndarray | None
    separator: int
    length: int
    text: bytes

    @property
    def bytes_per_token(self) -> float:
        """Of tokens that count. Separators count and stand for no byte: a model pays for them."""
        counted = len(self.stream) if self.mask is None else int(self.mask.astype(bool).sum())
        return len(self.text) / counted

    @property
    def count(self) -> int:
        """Whole rows; what is left over at the end is not used."""
        return (len(self.stream) - 1) // self.length

    def rows(self, indices: Sequence[int]) -> Window:
        cuts = [slice(i * self.length, (i + 1) * self.length + 1) for i in indices]
        tokens_BS = np.stack([self.stream[cut] for cut in cuts]).astype(np.int64)
        # A separator ends its document and belongs to it.
        ends_BS = tokens_BS == self.separator
        segments_BS = ends_BS.cumsum(axis=1) - ends_BS
        mask_BS = np.ones_like(ends_BS)
        if self.mask is not None:
            mask_BS = np.stack([self.mask[cut] for cut in cuts]).astype(bool)
        return Window(tokens_BS, segments_BS, mask_BS)


def windows(count: int, wanted: int) -> list[int]:
    """``wanted`` of ``count`` rows, evenly spread; all where there are no more."""
    if wanted >= count:
        return list(range(count))
    return [i * count // wanted for i in range(wanted)]
