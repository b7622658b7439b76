"""Packed documents: a row may hold several, and a mixer must see each of them alone.

Every mixer is causal and keeps the rows of a batch apart (contract laws 2 and 9). So the documents of a
packed batch are laid out as rows of their own, filled up at the end, run through the mixer as it is, and laid
back: state, short convolutions, positions, windows and blocks of one's own all begin anew with each document,
and no block has to know of it.

B rows, T tokens of a row, D width; N documents of a bucket, L tokens of its longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from blocks.base import Context

__all__ = ["DOCUMENTS", "SEGMENTS", "Layout", "SegmentError", "layout_of"]

SEGMENTS = "segments"
"""Under which a context holds the document of every token: whole numbers [B, T], rising along a row."""

DOCUMENTS = "documents"
"""Under which a pass over packed rows leaves the contexts that its mixers were given, one per bucket."""

SHORT = 16
"""Documents up to this length share a bucket: one more call costs more than the tokens that fill them up."""


class SegmentError(ValueError):
    """Segment ids do not fit the batch, or come together with a state."""


@dataclass(frozen=True)
class Layout:
    """Where each token of packed rows stands once every document has a row of its own.

    shape: (B, T). buckets: per bucket, int64 [N, L], the place in B*T of each token; what fills a document up
    repeats its last token, which no earlier output can see. back: int64 [B*T], the place of each token among
    the rows of all buckets, one after another.
    """

    shape: tuple[int, int]
    buckets: tuple[Tensor, ...]
    back: Tensor

    def contexts(self, context: Context) -> tuple[Context, ...]:
        """One context per bucket, tensors [B, T, ...] laid out likewise; left in ``context`` as well."""
        contexts = tuple({k: self._out(v, at) for k, v in context.items()} for at in self.buckets)
        for one in contexts:
            one.pop(SEGMENTS, None)
            one.pop(DOCUMENTS, None)
        context[DOCUMENTS] = contexts
        return contexts

    def run(self, mixer: nn.Module, x_BTD: Tensor, contexts: Sequence[Context]) -> Tensor:
        """``mixer(x)``, [B, T, D], of every document alone."""
        parts = [
            mixer(self._out(x_BTD, at_NL), None, context)[0].flatten(0, 1)
            for at_NL, context in zip(self.buckets, contexts, strict=True)
        ]
        return torch.cat(parts).index_select(0, self.back).unflatten(0, self.shape)

    def _out(self, value: Any, at_NL: Tensor) -> Any:
        if not isinstance(value, Tensor) or value.shape[:2] != self.shape:
            return value
        return value.flatten(0, 1).index_select(0, at_NL.flatten()).unflatten(0, at_NL.shape)


def layout_of(segments_BT: Tensor, like_BTD: Tensor) -> Layout | None:
    """The layout of rows shaped like ``like_BTD``, on its device; None where each row is one document.

    A document shorter than the longest of its bucket is filled up to at most twice its length, and to at most
    ``SHORT``. Raises SegmentError.
    """
    shape = (like_BTD.shape[0], like_BTD.shape[1])
    if not isinstance(segments_BT, Tensor) or segments_BT.is_floating_point() or segments_BT.shape != shape:
        given = (
            f"{segments_BT.dtype} {list(segments_BT.shape)}"
            if isinstance(segments_BT, Tensor)
            else type(segments_BT).__name__
        )
        raise SegmentError(
            f"segments are {given}; whole numbers {list(shape)} are wanted, one per token, its document"
        )
    ids_BT = segments_BT.detach().cpu()
    step_BT = ids_BT.diff(dim=1)
    if bool((step_BT < 0).any()):
        row = int((step_BT < 0).any(1).nonzero()[0])
        raise SegmentError(
            f"segments of row {row} go down from a token to the next; number its documents in order, 0, 1, 2"
        )
    starts_BT = torch.ones_like(ids_BT, dtype=torch.bool)
    starts_BT[:, 1:] = step_BT != 0
    first_M = starts_BT.flatten().nonzero()[:, 0]
    if len(first_M) == shape[0]:
        return None
    length_M = torch.diff(first_M, append=first_M.new_tensor([ids_BT.numel()]))
    buckets, back, done = [], torch.empty(ids_BT.numel(), dtype=torch.int64), 0
    for members in _bucketed(length_M.tolist()):
        first_N1, length_N1 = first_M[members][:, None], length_M[members][:, None]
        at_L = torch.arange(int(length_N1.max()))
        at_NL = first_N1 + torch.minimum(at_L, length_N1 - 1)
        real = at_L < length_N1
        back[at_NL[real]] = done + real.flatten().nonzero()[:, 0]
        done += at_NL.numel()
        buckets.append(at_NL.to(like_BTD.device))
    return Layout(shape, tuple(buckets), back.to(like_BTD.device))


def _bucketed(lengths: list[int]) -> list[list[int]]:
    """The documents, in buckets whose lengths lie within a factor of two, or are at most ``SHORT``."""

    def size(document: int) -> int:
        return (max(lengths[document], SHORT) - 1).bit_length()

    return [list(some) for _, some in groupby(sorted(range(len(lengths)), key=size), key=size)]
