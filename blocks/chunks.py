"""Time cut into chunks: what the chunked forms of the linear mixers share.

B batch, T time, H heads, K key width; C tokens of a chunk, N chunks of all heads and sequences together,
S = C + C*C spans inside a chunk; i and j are tokens of a chunk.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["channel_decays", "join_chunks", "on_grid", "span_sums", "split_chunks"]


def on_grid(place: int, length: int, chunk: int) -> tuple[int, int]:
    """(lead, size) of the chunks for ``length`` tokens where ``place`` tokens of one went before.

    What fits into the chunk under way is one piece of its own. Else chunks are whole, and the first is filled
    up in front with ``lead`` tokens in place of those that went before.
    """
    return (place, chunk) if place + length > chunk else (0, length)


def split_chunks(x_BTHX: Tensor, chunk: int, lead: int = 0) -> Tensor:
    """[B, T, H, ...] -> [N, C, ...], the chunks of one head in a row.

    The first begins with ``lead`` tokens of zeros, the last is filled up with zeros.
    """
    x = x_BTHX.transpose(1, 2)
    missing = -(lead + x.shape[2]) % chunk
    if lead or missing:
        x = F.pad(x, (0, 0) * (x.ndim - 3) + (lead, missing))
    return x.reshape(-1, chunk, *x.shape[3:])


def join_chunks(x_NCX: Tensor, batch: int, heads: int, length: int, lead: int = 0) -> Tensor:
    """The inverse of ``split_chunks``: [N, C, ...] -> [B, T, H, ...]."""
    return x_NCX.reshape(batch, heads, -1, *x_NCX.shape[2:])[:, :, lead : lead + length].transpose(1, 2)


def span_sums(chunk: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """(sum_CS, mask_S): ``log_a_NC @ sum + mask`` are the log decays of all spans of a chunk.

    The first C run from the chunk's start to token i, the rest, row by row, from token j (exclusive) to i.
    Every span is summed by itself, so no two long sums are subtracted; where j > i the mask is -inf, so that
    exp meets nothing above 0 and no gradient of a gate can overflow. Type and device are those of ``like``.
    """
    at = torch.arange(chunk, device=like.device)
    upto_Ci = at[:, None] <= at
    inside_Cij = upto_Ci[:, :, None] & (at[:, None] > at)[:, None]
    sums = torch.cat([upto_Ci, inside_Cij.flatten(1)], dim=1).to(like.dtype)
    mask = like.new_zeros(chunk + 1, chunk)
    mask[1:].masked_fill_(at > at[:, None], -math.inf)
    return sums, mask.flatten()


def channel_decays(log_a_NCK: Tensor) -> tuple[Tensor, Tensor]:
    """(start_NCK, pairs_NijK): what is left of each key channel from the chunk's start to i, and from j to i.

    For j > i that is 0. The exponent is formed for every pair: factoring it into one factor of i and one of
    j, as a plain matrix product would need, overflows as soon as the decay is strong. Every value here is at
    most 1.
    """
    chunk = log_a_NCK.shape[1]
    sums_CS, mask_S = span_sums(chunk, log_a_NCK)
    spans_NSK = torch.matmul(sums_CS.T, log_a_NCK).add(mask_S[:, None]).exp()
    start_NCK, pairs = spans_NSK.split([chunk, chunk * chunk], dim=1)
    return start_NCK, pairs.unflatten(1, (chunk, chunk))
