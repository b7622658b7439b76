# pyright: reportCallIssue=false, reportIndexIssue=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false
# A kernel that is launched takes arguments of the launch as well, which its type does not know.
"""The hidden activations of SwiGLU and the choice of their largest, in one pass over memory, in Triton.

u = silu(gate) * up, of which each token keeps the k largest by magnitude, ties to the lowest index. The k-th
magnitude is found bit by bit: those of floats that are not negative order like whole numbers. Everything is
computed in float32 and rounded afterwards, so that a half type does not make ties. Kept for the backward pass
are two numbers a row. R rows of F channels; a program takes one.

And the product that reads them, for a row or a few: the columns of a matrix that meet a zero are masked out
of the load, so that memory which holds nothing else (32 bytes in a row) is not read.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["WIDEST", "gated_largest", "skipping_product"]

WIDEST = 16384
"""Channels of a row: a program holds them all."""


@triton.jit
def _activation(gate_ptr, up_ptr, at, seen):
    gate = tl.load(gate_ptr + at, mask=seen, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + at, mask=seen, other=0.0).to(tl.float32)
    opened = tl.sigmoid(gate)
    u = gate * opened * up
    return gate, up, opened, u, tl.abs(u).to(tl.int32, bitcast=True)


@triton.jit
def _largest_forward(
    gate_ptr, up_ptr, y_ptr, cut_ptr, last_ptr, k, F: tl.constexpr, BF: tl.constexpr
):  # fmt: skip
    row, c = tl.program_id(0).to(tl.int64), tl.arange(0, BF)
    seen = c < F
    _, _, _, u, size = _activation(gate_ptr, up_ptr, row * F + c, seen)
    size = tl.where(seen, size, -1)
    cut = 0
    for bit in range(0, 31):
        higher = cut | (1 << (30 - bit))
        cut = tl.where(tl.sum((size >= higher).to(tl.int32)) >= k, higher, cut)
    tied = (size == cut).to(tl.int32)
    room = k - tl.sum((size > cut).to(tl.int32))
    # The last of those at the cut that is kept: no more of them lie up to it than there is room for.
    last = tl.max(tl.where((tied > 0) & (tl.cumsum(tied, axis=0) <= room), c, -1))
    y = tl.where((size > cut) | ((size == cut) & (c <= last)), u, 0.0)
    tl.store(y_ptr + row * F + c, y.to(y_ptr.dtype.element_ty), mask=seen)
    tl.store(cut_ptr + row, cut)
    tl.store(last_ptr + row, last)


@triton.jit
def _largest_backward(
    gate_ptr, up_ptr, cut_ptr, last_ptr, d_y_ptr, d_gate_ptr, d_up_ptr, F: tl.constexpr, BF: tl.constexpr
):  # fmt: skip
    row, c = tl.program_id(0).to(tl.int64), tl.arange(0, BF)
    seen, at = c < F, row * F + c
    gate, up, opened, _, size = _activation(gate_ptr, up_ptr, at, seen)
    cut, last = tl.load(cut_ptr + row), tl.load(last_ptr + row)
    d_y = tl.load(d_y_ptr + at, mask=seen, other=0.0).to(tl.float32)
    d_u = tl.where((size > cut) | ((size == cut) & (c <= last)), d_y, 0.0)
    d_gate = d_u * up * opened * (1 + gate * (1 - opened))
    tl.store(d_gate_ptr + at, d_gate.to(d_gate_ptr.dtype.element_ty), mask=seen)
    tl.store(d_up_ptr + at, (d_u * gate * opened).to(d_up_ptr.dtype.element_ty), mask=seen)


def gated_largest(gate: Tensor, up: Tensor, k: int) -> Tensor:
    """``blocks.ffn.keep_largest`` of silu(gate) * up, both [..., F] and of one type."""
    return _Largest.apply(gate, up, k)


class _Largest(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        gate, up, k = inputs[0].contiguous(), inputs[1].contiguous(), inputs[2]
        width, rows = gate.shape[-1], gate.numel() // gate.shape[-1]
        block = max(64, 1 << (width - 1).bit_length())
        ctx.tiles = {"F": width, "BF": block, "num_warps": min(16, max(1, block // 512))}
        y = torch.empty_like(gate)
        cut, last = (gate.new_empty(rows, dtype=torch.int32) for _ in range(2))
        if rows:
            _largest_forward[(rows,)](gate, up, y, cut, last, k, **ctx.tiles)
        ctx.save_for_backward(gate, up, cut, last)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        gate, up, cut, last = ctx.saved_tensors
        d_gate, d_up = torch.empty_like(gate), torch.empty_like(up)
        if len(cut):
            _largest_backward[(len(cut),)](
                *(gate, up, cut, last, grad_outputs[0].contiguous(), d_gate, d_up), **ctx.tiles
            )
        return d_gate, d_up, None


@triton.jit
def _skipping(y_ptr, w_ptr, out_ptr, D, F, BD: tl.constexpr, BF: tl.constexpr):
    d, row = tl.program_id(0) * BD + tl.arange(0, BD), tl.program_id(1).to(tl.int64)
    total = tl.zeros((BD, BF), dtype=tl.float32)
    for first in range(0, F, BF):
        c = first + tl.arange(0, BF)
        y = tl.load(y_ptr + row * F + c, mask=c < F, other=0.0).to(tl.float32)
        wanted = (d < D)[:, None] & (y != 0)[None, :]
        w = tl.load(w_ptr + (d.to(tl.int64) * F)[:, None] + c[None, :], mask=wanted, other=0.0)
        total += w.to(tl.float32) * y[None, :]
    out = tl.sum(total, axis=1)
    tl.store(out_ptr + row * D + d, out.to(out_ptr.dtype.element_ty), mask=d < D)


def skipping_product(y: Tensor, weight_DF: Tensor) -> Tensor:
    """weight y over the last axis of y [..., F], of y's type."""
    return _Skipping.apply(y, weight_DF)


class _Skipping(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        y, weight = (x.contiguous() for x in tensors)
        (outputs, width), rows = weight.shape, y.numel() // y.shape[-1]
        out = y.new_empty(*y.shape[:-1], outputs)
        if rows:
            _skipping[(-(-outputs // 16), rows)](y, weight, out, outputs, width, BD=16, BF=128)
        ctx.save_for_backward(y, weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (y, weight), d_out = ctx.saved_tensors, grad_outputs[0]
        d_y = torch.matmul(d_out.to(weight.dtype), weight).to(y.dtype)
        rows, d_rows = y.flatten(0, -2).to(weight.dtype), d_out.flatten(0, -2).to(weight.dtype)
        return d_y, torch.mm(d_rows.T, rows)
