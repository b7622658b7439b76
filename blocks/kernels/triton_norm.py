# pyright: reportCallIssue=false, reportIndexIssue=false, reportArgumentType=false
# A kernel that is launched takes arguments of the launch as well, which its type does not know.
"""RMSNorm with its gate in one pass over memory, forward and backward, in Triton.

y = x / sqrt(mean x^2 + eps) * (gain + shift) * silu(gate), each row by itself; shift is 1 where the stored
gain is centred at zero. Everything is computed in float32. R rows of D channels, H rows (heads) to a row of
the gate, P programs.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["rms_norm"]

TILE = 2048
"""Entries that a program holds at once: 16 registers a thread of each tensor."""

PROGRAMS = 512
"""At most so many programs go backward, each with a sum of gains of its own: about four to a processor."""


@triton.jit
def _norm_forward(
    x_ptr,
    gate_ptr,
    gain_ptr,
    y_ptr,
    rate_ptr,
    rows,
    heads,
    gate_stride,
    eps,
    shift,
    D: tl.constexpr,
    BR: tl.constexpr,
    BD: tl.constexpr,
    GATED: tl.constexpr,
):
    r = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    d = tl.arange(0, BD)
    seen = (r < rows)[:, None] & (d < D)[None, :]
    at = r[:, None] * D + d[None, :]
    x = tl.load(x_ptr + at, mask=seen, other=0.0).to(tl.float32)
    gain = tl.load(gain_ptr + d, mask=d < D, other=0.0).to(tl.float32) + shift
    rate = 1 / tl.sqrt(tl.sum(x * x, axis=1) / D + eps)
    y = x * rate[:, None] * gain[None, :]
    if GATED:
        at_gate = (r // heads)[:, None] * gate_stride + (r % heads)[:, None] * D + d[None, :]
        g = tl.load(gate_ptr + at_gate, mask=seen, other=0.0).to(tl.float32)
        y = y * g * tl.sigmoid(g)
    tl.store(rate_ptr + r, rate, mask=r < rows)
    tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=seen)


@triton.jit
def _norm_backward(
    x_ptr,
    gate_ptr,
    gain_ptr,
    rate_ptr,
    d_y_ptr,
    d_x_ptr,
    d_gate_ptr,
    d_gain_ptr,
    rows,
    heads,
    gate_stride,
    shift,
    D: tl.constexpr,
    BR: tl.constexpr,
    BD: tl.constexpr,
    GATED: tl.constexpr,
):
    d = tl.arange(0, BD)
    gain = tl.load(gain_ptr + d, mask=d < D, other=0.0).to(tl.float32) + shift
    d_gain = tl.zeros((BR, BD), dtype=tl.float32)
    for first in range(tl.program_id(0) * BR, rows, tl.num_programs(0) * BR):
        r = first + tl.arange(0, BR).to(tl.int64)
        seen = (r < rows)[:, None] & (d < D)[None, :]
        at = r[:, None] * D + d[None, :]
        rate = tl.load(rate_ptr + r, mask=r < rows, other=0.0)
        unit = tl.load(x_ptr + at, mask=seen, other=0.0).to(tl.float32) * rate[:, None]
        d_y = tl.load(d_y_ptr + at, mask=seen, other=0.0).to(tl.float32)
        if GATED:
            at_gate = (r // heads)[:, None] * gate_stride + (r % heads)[:, None] * D + d[None, :]
            g = tl.load(gate_ptr + at_gate, mask=seen, other=0.0).to(tl.float32)
            open_ = tl.sigmoid(g)
            d_gate = d_y * unit * gain[None, :] * open_ * (1 + g * (1 - open_))
            tl.store(d_gate_ptr + at, d_gate.to(d_gate_ptr.dtype.element_ty), mask=seen)
            d_y = d_y * g * open_
        d_gain += d_y * unit
        d_unit = d_y * gain[None, :]
        along = tl.sum(d_unit * unit, axis=1) / D
        d_x = (d_unit - unit * along[:, None]) * rate[:, None]
        tl.store(d_x_ptr + at, d_x.to(d_x_ptr.dtype.element_ty), mask=seen)
    tl.store(d_gain_ptr + tl.program_id(0) * D + d, tl.sum(d_gain, axis=0), mask=d < D)


def rms_norm(x: Tensor, gain_D: Tensor, eps: float, shift: float, gate: Tensor | None = None) -> Tensor:
    """The norm of x [..., D] by (gain + shift), in x's type; times silu(gate) in the gate's, if there is one.

    The gate has x's entries in the same order, with any number of rows of x to one of its own ([B, T, H*D]
    of [B, T, H, D]), and y has its shape.
    """
    return _Norm.apply(x, gain_D, eps, shift, gate)


def _tiles(width: int, rows: int) -> tuple[dict[str, int], int]:
    """(what the kernels are specialised on, programs that cover all rows)."""
    columns = 1 << (width - 1).bit_length()
    at_once = max(1, TILE // columns)
    return {"D": width, "BR": at_once, "BD": columns}, -(-rows // at_once)


def _warps(width: int) -> int:
    return 4 if width <= TILE else 8 if width <= 2 * TILE else 16


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        x, gain, eps, shift, gate = inputs
        x, gain = x.contiguous(), gain.contiguous()
        width, rows, gated = len(gain), x.numel() // len(gain), gate is not None
        # A gate may be a part of wider rows: its own have to lie in one piece, at one distance.
        g = gate.reshape(-1, gate.shape[-1]) if gated else x
        g = g if g.stride(-1) == 1 else g.contiguous()
        heads = g.shape[-1] // width if gated else 1
        y = x.new_empty(gate.shape, dtype=gate.dtype) if gated else torch.empty_like(x)
        rates = x.new_empty(rows, dtype=torch.float32)
        tiles, programs = _tiles(width, rows)
        sizes = rows, heads, g.stride(0)
        if rows:
            _norm_forward[(programs,)](
                x, g, gain, y, rates, *sizes, eps, shift, **tiles, GATED=gated, num_warps=_warps(width)
            )
        ctx.save_for_backward(x, gain, g, rates)
        ctx.sizes, ctx.shift, ctx.gate = sizes, shift, gate.shape if gated else None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, gain, g, rates = ctx.saved_tensors
        gated, (rows, width) = ctx.gate is not None, (ctx.sizes[0], len(gain))
        d_y, d_x = grad_outputs[0].contiguous(), torch.empty_like(x)
        d_gate = g.new_empty(ctx.gate) if gated else d_x
        tiles, programs = _tiles(width, rows)
        programs = min(PROGRAMS, programs)
        d_gain = x.new_empty(programs, width, dtype=torch.float32)
        if rows:
            _norm_backward[(programs,)](
                *(x, g, gain, rates, d_y, d_x, d_gate, d_gain),
                *(*ctx.sizes, ctx.shift),
                **tiles,
                GATED=gated,
                num_warps=_warps(width),
            )
        return d_x, d_gain.sum(0).to(gain.dtype), None, None, d_gate if gated else None
