# pyright: reportCallIssue=false, reportIndexIssue=false, reportArgumentType=false
"""What Triton kernels share: tiles in and out of memory, products, sums over blocks of time.

B batch, T time, H heads, N blocks of C tokens.
"""

from __future__ import annotations

import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["block_sums", "columns", "dot", "load_row", "load_tile", "store_row", "store_tile"]


@triton.jit
def dot(a, b):
    """Of half types the tensor cores' product; of float32 the exact one, not that of tf32."""
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def load_tile(ptr, first, rows, stride, width, R: tl.constexpr, C: tl.constexpr):
    """R rows from ``first`` on by C columns; 0 outside of 0 .. rows and 0 .. width."""
    r, c = first + tl.arange(0, R), tl.arange(0, C)
    seen = ((r >= 0) & (r < rows))[:, None] & (c < width)[None, :]
    return tl.load(ptr + (r[:, None] * stride + c[None, :]), mask=seen, other=0.0)


@triton.jit
def store_tile(ptr, x, first, rows, stride, width, R: tl.constexpr, C: tl.constexpr):
    r, c = first + tl.arange(0, R), tl.arange(0, C)
    seen = ((r >= 0) & (r < rows))[:, None] & (c < width)[None, :]
    tl.store(ptr + (r[:, None] * stride + c[None, :]), x.to(ptr.dtype.element_ty), mask=seen)


@triton.jit
def load_row(ptr, first, count, R: tl.constexpr):
    r = first + tl.arange(0, R)
    return tl.load(ptr + r, mask=(r >= 0) & (r < count), other=0.0)


@triton.jit
def store_row(ptr, x, first, count, R: tl.constexpr):
    r = first + tl.arange(0, R)
    tl.store(ptr + r, x, mask=(r >= 0) & (r < count))


def columns(width: int) -> int:
    """Of a tile that holds ``width``: a power of two, and as many as a product takes at least."""
    return max(16, 1 << (width - 1).bit_length())


def block_sums(log_BTH: Tensor, block: int) -> tuple[Tensor, Tensor, Tensor]:
    """(within_BHT, after_BHT, totals_BHN) of log decays over blocks of ``block`` tokens.

    Summed from a block's start to each token; from each token, exclusive, to its block's end; over each
    block. Each by itself: no two long sums are subtracted.
    """
    length = log_BTH.shape[1]
    blocks = F.pad(log_BTH.transpose(1, 2), (0, -length % block)).unflatten(-1, (-1, block))
    after = F.pad(blocks[..., 1:], (0, 1)).flip(-1).cumsum(-1).flip(-1)
    within, after = (x.flatten(-2)[..., :length].contiguous() for x in (blocks.cumsum(-1), after))
    return within, after, blocks.sum(-1)
