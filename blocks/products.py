"""The product of every linear layer: x W^T + bias, by the routine that is fastest for its size and device.

N rows (batch and time together), I inputs, O outputs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["FEW_ROWS", "WIDE", "WORK", "Linear", "linear"]

FEW_ROWS = 8
WORK = 1 << 22
"""Multiply-adds from which a float32 product goes to oneDNN; below, handing it over costs what it gains."""

WIDE = 1 << 18
"""Weights from which transposed factors are copied first: oneDNN walks them by columns, which costs a third
of its rate at a width of 576, and two thirds where the rows are a power of two (LOG.md, 2026-11-27)."""


class Linear(nn.Linear):
    """``nn.Linear``, faster on CPU: ``linear`` says how."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + bias, in autocast's type where that is on.

    On CPU two products that PyTorch's own form is slow at go another way. Up to ``FEW_ROWS`` rows without
    gradients are multiplied weights first, W x^T, a lone row doubled: read by rows, the weights come from
    memory on one core and at half its speed. Large ones in float32 go to oneDNN, forward and backward, where
    PyTorch takes MKL unless it may round: the same precision, 1.25 to 1.9 times the speed.
    """
    if x.device.type != "cpu" or x.dtype != weight.dtype or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    if torch.compiler.is_compiling():  # which knows the products of ``F.linear`` alone
        return F.linear(x, weight, bias)
    rows = x.numel() // x.shape[-1]
    if 0 < rows <= FEW_ROWS and not torch.is_grad_enabled():
        return _few_rows(x, weight, bias, rows)
    if x.dtype == torch.float32 and rows * weight.numel() >= WORK and torch.backends.mkldnn.is_available():
        y = _Product.apply(x, weight)
        return y if bias is None else y + bias
    return F.linear(x, weight, bias)


def _few_rows(x: Tensor, weight: Tensor, bias: Tensor | None, rows: int) -> Tensor:
    flat = x.reshape(rows, -1)
    if rows == 1:
        flat = torch.cat([flat, flat])
    y = torch.mm(weight, flat.T)[:, :rows].T.reshape(*x.shape[:-1], -1)
    return y if bias is None else y + bias


def _times(a_NI: Tensor, b_OI: Tensor) -> Tensor:
    """a b^T by oneDNN, in float32."""
    return torch.ops.mkldnn._linear_pointwise(a_NI, b_OI, None, "none", [], "")


class _Product(torch.autograd.Function):
    """x W^T with its backward pass, all three products by oneDNN."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        x, weight = tensors
        flat = x.reshape(-1, x.shape[-1])
        ctx.save_for_backward(flat, weight)
        return _times(flat, weight).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x, weight), d_y = ctx.saved_tensors, grad_outputs[0]
        flat = d_y.reshape(-1, d_y.shape[-1])
        d_x = d_weight = None
        wide = weight.numel() >= WIDE
        if ctx.needs_input_grad[0]:
            across = weight.T.contiguous() if wide else weight.T
            d_x = _times(flat, across).view(*d_y.shape[:-1], -1)
        if ctx.needs_input_grad[1]:
            if wide:
                d_weight = _times(flat.T.contiguous(), x.T.contiguous())
            elif weight.shape[0] <= weight.shape[1]:
                # Fewer rows than columns is the faster way round.
                d_weight = _times(flat.T, x.T)
            else:
                d_weight = _times(x.T, flat.T).T
        return d_x, d_weight
