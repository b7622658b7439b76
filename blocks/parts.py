"""Parts that several blocks share: norms, rotary positions, the short causal convolution.

B batch, T time, D width, C channels, H heads, K head width, W kernel width.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from blocks.base import Kernel, Shape, at_least_fp32, on_gpu
from blocks.kernels import gpu, ops

__all__ = [
    "HeadNorm",
    "RMSNorm",
    "ShortConv",
    "apart",
    "gated",
    "inverse_softplus",
    "l2_normalise",
    "make_norm",
    "rope",
    "slow_steps",
    "unit_heads",
    "unit_rms",
]


class RMSNorm(nn.Module):
    """x / rms(x) * gain over the last axis (Zhang & Sennrich 2019, eq. 4).

    zero_centred: the learned tensor is gain - 1 and starts at 0, so that weight decay pulls the gain to 1.
    Computed in at least float32 and returned in the input's type.
    """

    def __init__(
        self, dim: int, eps: float = 1e-6, zero_centred: bool = False, kernel: Kernel = "torch"
    ) -> None:
        super().__init__()
        self.eps, self.zero_centred = eps, zero_centred
        self.kernel: Kernel = kernel
        self.weight = nn.Parameter(torch.zeros(dim) if zero_centred else torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel == "c":
            return ops.rms_norm(x, self.weight, self.eps, float(self.zero_centred))
        if on_gpu(self.kernel):
            return gpu.rms_norm(x, self.weight, self.eps, float(self.zero_centred))
        gain = at_least_fp32(self.weight)
        if self.zero_centred:
            gain = gain + 1
        wide = at_least_fp32(x)
        if torch.is_grad_enabled():
            return _Normed.apply(wide, gain, self.eps).to(x.dtype)
        return F.rms_norm(wide, gain.shape, gain, self.eps).to(x.dtype)

    def gated(self, o_BTHV: Tensor, gate_BTE: Tensor) -> Tensor:
        """The norm of each head's o, times silu(gate), E = H*V: one kernel on a GPU."""
        return gpu.rms_norm(o_BTHV, self.weight, self.eps, float(self.zero_centred), gate_BTE)


class _Normed(torch.autograd.Function):
    """x / sqrt(mean x^2 + eps) * gain, with its backward pass: a third of autograd's time on wide tensors."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        x, gain, eps = inputs
        # No product in the eyes of autocast, which would take it in half precision.
        rate = torch.rsqrt(x.square().mean(-1, keepdim=True).add_(eps))
        unit = x * rate
        ctx.save_for_backward(unit, gain, rate)
        return unit * gain

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (unit, gain, rate), d_y = ctx.saved_tensors, grad_outputs[0]
        d_gain = (d_y * unit).flatten(0, -2).sum(0)
        d_unit = d_y * gain
        along = (d_unit * unit).mean(-1, keepdim=True)
        d_x = torch.addcmul(d_unit, unit, along, value=-1).mul_(rate)
        return d_x, d_gain, None


def apart(o_BTHV: Tensor, v_BTGV: Tensor) -> Tensor:
    """What heads read less its part along the token's own value (exclusive self-attention, Zhai 2026, eq. 3).

    o - <o, v> v / |v|^2, so that a token reads nothing of itself, which the residual has already. H heads, in
    groups of H / G that share a value. It is meant for heads whose part of the token itself is a multiple of
    v: that of ``ttt`` is not, which writes the gradient at (k, v), reads it through a norm and adds q.
    """
    o = at_least_fp32(o_BTHV).unflatten(2, (v_BTGV.shape[2], -1))
    unit = F.normalize(at_least_fp32(v_BTGV), dim=-1, eps=1e-12).unsqueeze(3)
    return (o - (o * unit).sum(-1, keepdim=True) * unit).flatten(2, 3).to(o_BTHV.dtype)


def unit_rms(x: Tensor, eps: float) -> Tensor:
    """x / rms(x) over the last axis, computed in at least float32 and returned in the input's type."""
    return F.rms_norm(at_least_fp32(x), x.shape[-1:], None, eps).to(x.dtype)


class HeadNorm(nn.Module):
    """GroupNorm (Wu & He 2018) with a group for each head: (x - mean) / sqrt(var + eps) * gain + bias.

    Of [..., H, K], with a gain and a bias for each channel of each head. Computed in at least float32 and
    returned in the input's type.
    """

    def __init__(self, heads: int, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(heads, width))
        self.bias = nn.Parameter(torch.zeros(heads, width))

    def forward(self, x_BTHK: Tensor) -> Tensor:
        unit = F.layer_norm(at_least_fp32(x_BTHK), x_BTHK.shape[-1:], eps=self.eps)
        return (unit * self.weight + self.bias).to(x_BTHK.dtype)


def make_norm(shape: Shape, dim: int, kernel: Kernel = "torch") -> RMSNorm:
    """The norm that ``shape`` names, over ``dim`` channels."""
    return RMSNorm(dim, shape.eps, zero_centred=shape.norm == "rms_zero", kernel=kernel)


def gated(gate: Tensor, x: Tensor, kernel: Kernel) -> Tensor:
    """silu(gate) * x."""
    return ops.gated(gate, x) if kernel == "c" else F.silu(gate) * x


def l2_normalise(x: Tensor, eps: float = 1e-6) -> Tensor:
    """x / sqrt(|x|^2 + eps) over the last axis; smooth at 0, so a zero vector gives a finite gradient."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + eps)


def unit_heads(qk_BTX: Tensor, heads: int, kernel: Kernel) -> tuple[Tensor, Tensor]:
    """Queries at length K^-1/2 and keys at length 1, [B, T, H, K] each, from both of all heads in a row."""
    if kernel == "c":
        return ops.unit_heads(qk_BTX, heads)
    q, k = l2_normalise(qk_BTX.unflatten(-1, (2, heads, -1))).unbind(2)
    return q * q.shape[-1] ** -0.5, k


def inverse_softplus(x: Tensor) -> Tensor:
    """y with softplus(y) = x, for x > 0; written so that small x does not cancel."""
    return x + torch.log(-torch.expm1(-x))


def slow_steps(count: int) -> Tensor:
    """``count`` values whose softplus is log-uniform from 1e-3 to 1e-1 (Gu & Dao 2023, section 3.6)."""
    return inverse_softplus(torch.empty(count).uniform_(math.log(1e-3), math.log(1e-1)).exp())


def rope(x_BTHK: Tensor, start: int, rotary: int, base: float = 10_000.0) -> Tensor:
    """Rotate the first ``rotary`` (even) channels of each head by position (Su et al. 2021, eq. 34).

    Positions count from ``start``; channels i and i + rotary/2 form a pair. The rest passes through.
    """
    if rotary == 0:
        return x_BTHK
    length, half = x_BTHK.shape[1], rotary // 2
    kind = at_least_fp32(x_BTHK).dtype
    channel = torch.arange(half, dtype=kind, device=x_BTHK.device)
    position = torch.arange(start, start + length, dtype=kind, device=x_BTHK.device)
    angle_T1F = (position[:, None] * base ** (-channel / half))[:, None]
    cos, sin = angle_T1F.cos(), angle_T1F.sin()
    a, b, rest = x_BTHK.split([half, half, x_BTHK.shape[-1] - rotary], dim=-1)
    turned = [(a * cos - b * sin).to(x_BTHK.dtype), (a * sin + b * cos).to(x_BTHK.dtype), rest]
    return torch.cat(turned, dim=-1)


def _shifted_sum(padded_BSC: Tensor, taps_WC: Tensor) -> Tensor:
    """y[t] = sum_i taps[i] padded[t + i]."""
    length = padded_BSC.shape[1] - len(taps_WC) + 1
    if length == 1:
        return (padded_BSC * taps_WC).sum(1, keepdim=True)
    y = padded_BSC[:, :length] * taps_WC[0]
    for i in range(1, len(taps_WC)):
        y.addcmul_(padded_BSC[:, i : i + length], taps_WC[i])
    return y


class _Taps(torch.autograd.Function):
    """``_shifted_sum`` with its backward pass.

    On CPU several times faster than a grouped conv1d of so few taps, and half the time of autograd on the
    same adds, which makes a tensor of zeros for every slice.
    """

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        padded_BSC, taps_WC = tensors[0], tensors[1].T.contiguous()
        ctx.save_for_backward(padded_BSC, taps_WC)
        return _shifted_sum(padded_BSC, taps_WC)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (padded_BSC, taps), d_y = ctx.saved_tensors, grad_outputs[0]
        length, d_padded, d_taps = d_y.shape[1], torch.zeros_like(padded_BSC), []
        for i, tap in enumerate(taps):
            d_padded[:, i : i + length].addcmul_(d_y, tap)
            d_taps.append((d_y * padded_BSC[:, i : i + length]).sum((0, 1)))
        return d_padded, torch.stack(d_taps, dim=1)


class ShortConv(nn.Module):
    """Causal depthwise convolution over the last ``width`` tokens, then SiLU if ``act``.

    y[t] = sum_i weight[:, i] x[t - width + 1 + i], plus a bias per channel where one is asked for. Its memory
    is the last width - 1 inputs, ``tail`` of shape [B, W-1, C]; None stands for zeros before the sequence.
    """

    def __init__(
        self, channels: int, width: int, act: bool = True, bias: bool = False, kernel: Kernel = "torch"
    ) -> None:
        super().__init__()
        self.width, self.act, self.kernel = width, act, kernel
        self.weight = nn.Parameter(torch.empty(channels, width))
        nn.init.uniform_(self.weight, -(width**-0.5), width**-0.5)
        self.bias: nn.Parameter | None = None
        if bias:
            self.bias = nn.Parameter(torch.empty(channels).uniform_(-(width**-0.5), width**-0.5))

    def forward(self, x_BTC: Tensor, tail: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if tail is None:
            tail = x_BTC.new_zeros(x_BTC.shape[0], self.width - 1, x_BTC.shape[2])
        if self.kernel == "c":
            last = torch.cat(
                [tail.to(x_BTC.dtype), x_BTC[:, max(0, x_BTC.shape[1] - self.width + 1) :]], dim=1
            )
            y = ops.short_conv(x_BTC, tail, self.weight, self.act and self.bias is None)
            return self._finished(y, self.act and self.bias is not None), last[
                :, last.shape[1] - self.width + 1 :
            ]
        padded = torch.cat([tail.to(x_BTC.dtype), x_BTC], dim=1)
        y = (
            _Taps.apply(padded, self.weight)
            if torch.is_grad_enabled()
            else _shifted_sum(padded, self.weight.T)
        )
        return self._finished(y, self.act), padded[:, x_BTC.shape[1] :]

    def _finished(self, y_BTC: Tensor, act: bool) -> Tensor:
        y_BTC = y_BTC if self.bias is None else y_BTC + self.bias
        return F.silu(y_BTC) if act else y_BTC
