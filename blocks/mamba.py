"""Mamba: every channel is a memory of its own of N numbers, whose pace, write and read the token selects.

B batch, T time, D model width, E inner channels, N state size of a channel, R rank of the step; C tokens of a
chunk. b, c and d are the paper's B, C and Delta: what is written with, what is read with, and the step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from blocks.base import (
    Context,
    Cores,
    Kernel,
    OptionError,
    Role,
    Shape,
    State,
    at_least_fp32,
    check_taps,
    core_of,
    inner_width,
)
from blocks.parts import ShortConv, gated, slow_steps
from blocks.products import Linear

__all__ = ["Mamba", "selective_scan_chunked", "selective_scan_reference"]


def selective_scan_reference(
    x_BTE: Tensor, d_BTE: Tensor, b_BTN: Tensor, c_BTN: Tensor, pace_EN: Tensor, h_BEN: Tensor
) -> tuple[Tensor, Tensor]:
    """h_t = exp(-d_t pace) h_{t-1} + d_t x_t b_t and y_t = h_t c_t, token by token.

    Gu & Dao 2023, eq. 2 with algorithm 2, A = -pace, and B discretised as d B, as in the paper's code.
    Returns (y_BTE, last state).
    """
    h, out = h_BEN, []
    for t in range(x_BTE.shape[1]):
        h = (-d_BTE[:, t, :, None] * pace_EN).exp() * h
        h = h + torch.einsum("be,bn->ben", d_BTE[:, t] * x_BTE[:, t], b_BTN[:, t])
        out.append(torch.einsum("ben,bn->be", h, c_BTN[:, t]))
    return torch.stack(out, dim=1), h


def selective_scan_chunked(
    x_BTE: Tensor,
    d_BTE: Tensor,
    b_BTN: Tensor,
    c_BTN: Tensor,
    pace_EN: Tensor,
    h_BEN: Tensor,
    chunk: int = 8,
) -> tuple[Tensor, Tensor]:
    """The same function with the states of ``chunk`` tokens at a time in memory, forward and backward.

    Each channel has N decays of its own, so that no matrix product stands for a chunk as in Mamba-2: states
    follow one another, one multiply-add each, and all else is done for a chunk at once. Kept for the backward
    pass are the states between chunks, and those inside are computed again (Gu & Dao 2023, section 3.3.2).
    No decay is divided by, so that none is too strong. Gradients cannot be differentiated again.
    """
    with torch.autocast(x_BTE.device.type, enabled=False):
        return _Scan.apply(x_BTE, d_BTE, b_BTN, c_BTN, pace_EN, h_BEN, chunk)


class _Scan(torch.autograd.Function):
    """``selective_scan_chunked`` with its backward pass; time comes first, so that a step is one piece."""

    @staticmethod
    def forward(ctx: Any, *tensors: Any) -> Any:
        *inputs, pace, h, chunk = tensors
        ys, starts = [], []
        for x, d, b, c in _pieces(inputs, chunk):
            starts.append(h)
            _, states = _states(x, d, b, pace, h)
            ys.append(_over_n(states, c))
            h = states[-1].clone()  # not a view, which would keep the states of the whole chunk
        ctx.chunk = chunk
        ctx.save_for_backward(*inputs, pace, torch.stack(starts))
        return torch.cat(ys).transpose(0, 1), h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        *inputs, pace, starts = ctx.saved_tensors
        d_pace, d_h = torch.zeros_like(pace), grad_outputs[1]
        pieces = zip(_pieces([*inputs, grad_outputs[0]], ctx.chunk), starts, strict=True)
        back: list[tuple[Tensor, ...]] = []
        for (x, d, b, c, d_y), start in reversed(list(pieces)):
            decays, states = _states(x, d, b, pace, start)
            # What every state is worth: by its own output, and by the states that come of it.
            worth = d_y[..., None] * c[:, :, None]
            worth[-1] += d_h
            for t in range(len(worth) - 1, 0, -1):
                worth[t - 1].addcmul_(decays[t], worth[t])
            d_c = _over_e(d_y, states)
            d_h = decays[0] * worth[0]
            written = _over_n(worth, b)
            d_b = _over_e(d * x, worth)
            along = decays.mul_(worth)  # times the state before, which the decay multiplies
            along[0].mul_(start)
            along[1:].mul_(states[:-1])
            d_d = written * x - torch.einsum("cben,en->cbe", along, pace)
            d_pace -= torch.einsum("cben,cbe->en", along, d)
            back.append((written * d, d_d, d_b, d_c))
        joined = (torch.cat(parts[::-1]).transpose(0, 1) for parts in zip(*back, strict=True))
        return *joined, d_pace, d_h, None


def _pieces(inputs: list[Tensor], chunk: int) -> Iterator[tuple[Tensor, ...]]:
    """Tensors [B, T, ...] as pieces [C, B, ...]."""
    return zip(*(z.transpose(0, 1).contiguous().split(chunk) for z in inputs), strict=True)


def _states(
    x_CBE: Tensor, d_CBE: Tensor, b_CBN: Tensor, pace_EN: Tensor, h_BEN: Tensor
) -> tuple[Tensor, Tensor]:
    """The decays of a chunk and its states, [C, B, E, N] each, from the state before it."""
    decays = (d_CBE[..., None] * -pace_EN).exp_()
    states = (d_CBE * x_CBE)[..., None] * b_CBN[:, :, None]
    for t in range(len(states)):
        h_BEN = states[t].addcmul_(decays[t], h_BEN)
    return decays, states


def _over_n(z_CBEN: Tensor, w_CBN: Tensor) -> Tensor:
    """sum over n of z w, [C, B, E]."""
    return (z_CBEN @ w_CBN[..., None]).squeeze(-1)


def _over_e(w_CBE: Tensor, z_CBEN: Tensor) -> Tensor:
    """sum over e of w z, [C, B, N]."""
    return (w_CBE[:, :, None] @ z_CBEN).squeeze(2)


class _Mixer(nn.Module):
    def __init__(self, block: Mamba, shape: Shape, kernel: Kernel) -> None:
        super().__init__()
        inner, n = block.inner(shape), block.d_state
        self.kernel: Kernel = kernel
        self.core = core_of(_CORES, kernel)
        self.split = [block.rank(shape), n, n]
        # One projection: the channels, mixed over time, and the gate.
        self.project = Linear(shape.dim, 2 * inner, bias=False)
        self.conv = ShortConv(inner, block.conv, bias=True, kernel=kernel) if block.conv else None
        self.select = Linear(inner, sum(self.split), bias=False)
        self.step = Linear(self.split[0], inner, bias=False)
        self.step_bias = nn.Parameter(slow_steps(inner))
        self.log_pace = nn.Parameter(torch.arange(1, n + 1).float().log().repeat(inner, 1))
        self.skip = nn.Parameter(torch.ones(inner))
        self.out = Linear(inner, shape.dim, bias=False)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, context: Context | None = None
    ) -> tuple[Tensor, State]:
        state = state or {}
        mixed, gate = self.project(x_BTD).chunk(2, dim=-1)
        after: dict[str, Tensor | int] = {}
        if self.conv is None:
            mixed = F.silu(mixed)
        else:
            mixed, after["conv"] = self.conv(mixed, state.get("conv"))
        narrow, b, c = self.select(mixed).split(self.split, dim=-1)
        d = F.softplus(at_least_fp32(self.step(narrow)) + at_least_fp32(self.step_bias))
        x, b, c = (at_least_fp32(z) for z in (mixed, b, c))
        h = state.get("h")
        if h is None:
            h = x.new_zeros(x.shape[0], *self.log_pace.shape)
        y, after["h"] = self.core(x, d, b, c, at_least_fp32(self.log_pace).exp(), h)
        y = (y + at_least_fp32(self.skip) * x).to(x_BTD.dtype)
        return self.out(gated(gate, y, self.kernel)), after


_CORES: Cores = {"torch": selective_scan_chunked, "reference": selective_scan_reference}


@dataclass(frozen=True, kw_only=True)
class Mamba:
    """Mamba (Gu & Dao 2023, algorithm 2 and section 3.4). Linear in T; state E*N and the conv's tail.

    h_t = exp(d_t A) h_{t-1} + d_t b_t x_t, y_t = h_t c_t + skip x_t for every channel of x, which comes from
    a short convolution with a bias, and SiLU; b, c and the R inputs of the step are W x, the step d =
    softplus(W' . + step_bias); the output is multiplied by silu(W u). Starts: A = -1, ..., -N, steps
    log-uniform in [1e-3, 1e-1], skip 1. Without heads.

    expand: E over D, rounded. d_state: N. dt_rank: R, None for D / 16 rounded up. conv: taps of the short
    convolution, 0 for none.
    """

    expand: float = 2.0
    d_state: int = 16
    dt_rank: int | None = None
    conv: int = 4

    def __post_init__(self) -> None:
        if not self.expand > 0:
            raise OptionError(f"mamba: expand is {self.expand:g}; it must be above 0")
        if self.d_state < 1:
            raise OptionError(f"mamba: d_state is {self.d_state}; it must be at least 1")
        if self.dt_rank is not None and self.dt_rank < 1:
            raise OptionError(f"mamba: dt_rank is {self.dt_rank}; it must be at least 1, or None")
        check_taps("mamba", self.conv)

    @property
    def role(self) -> Role:
        return "linear"

    def inner(self, shape: Shape) -> int:
        """E. Raises OptionError where no channel is left."""
        return inner_width("mamba", self.expand, shape.dim)

    def rank(self, shape: Shape) -> int:
        """R."""
        return -(-shape.dim // 16) if self.dt_rank is None else self.dt_rank

    def build(self, shape: Shape, kernel: Kernel = "torch") -> nn.Module:
        """A freshly initialised mixer. Raises OptionError where no channel is left."""
        return _Mixer(self, shape, kernel)

    def _weights(self, shape: Shape) -> int:
        """Entries of the matrices and the convolution: each is one multiply-add per token."""
        return self.inner(shape) * (3 * shape.dim + self.conv + 2 * (self.rank(shape) + self.d_state))

    def params(self, shape: Shape) -> int:
        return self._weights(shape) + self.inner(shape) * (self.d_state + 2 + (self.conv > 0))

    def state_size(self, shape: Shape, length: int) -> int:
        return self.inner(shape) * (self.d_state + max(self.conv - 1, 0))

    def flops(self, shape: Shape, length: int) -> int:
        scan = 2 * self.inner(shape) * self.d_state  # write, read
        return 2 * (self._weights(shape) + scan)
