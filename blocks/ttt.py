"""Test-time training: a memory that is a small model, trained on the tokens as they pass.

B batch, T time, D model width, H heads, K head width, J = K + 1 (a head with a constant 1 appended, which
carries the inner bias); C tokens of a mini-batch, N mini-batches of all heads and sequences, G = B*H.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    on_gpu,
    split_heads_dim,
)
from blocks.chunks import join_chunks, on_grid, split_chunks
from blocks.kernels import gpu
from blocks.parts import ShortConv, make_norm
from blocks.products import Linear

__all__ = ["TTT", "Inner", "ttt_dual", "ttt_reference"]


class Inner(NamedTuple):
    """Where the inner model stands: weights at the mini-batch's start, steps summed since, tokens since."""

    w_BHJK: Tensor
    step_BHJK: Tensor
    place: int


def _normal(z: Tensor, gain: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """LayerNorm over the last axis: (its output, z standardised, 1 / standard deviation)."""
    centred = z - z.mean(-1, keepdim=True)
    rate = torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps)
    unit = centred * rate
    return torch.addcmul(bias, unit, gain), unit, rate


def _error(z: Tensor, target: Tensor, gain: Tensor, bias: Tensor, eps: float) -> Tensor:
    """d/dz of half the squared distance of LN(z) to ``target``."""
    y, unit, rate = _normal(z, gain, bias, eps)
    g = (y - target) * gain
    return rate * (g - g.mean(-1, keepdim=True) - unit * (g * unit).mean(-1, keepdim=True))


def ttt_reference(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHK: Tensor,
    rate_BTH: Tensor,
    gain_HK: Tensor,
    bias_HK: Tensor,
    inner: Inner,
    mini_batch: int,
    eps: float,
) -> tuple[Tensor, Inner]:
    """TTT-Linear token by token (Sun et al. 2024, sections 2.1 to 2.5 and 2.7).

    The inner model is f(x) = x + LN(x W + b), its loss on a token |f(k) - v|^2 / 2. With W' the weights at
    the start of the mini-batch: W_t = W' - sum over its tokens s <= t of rate_s grad loss_s(W'), and the
    output is f(q_t) with W_t. Returns (o_BTHK, the inner model after the last token).
    """
    w, step, place = inner
    q_BTHJ, k_BTHJ = F.pad(q_BTHK, (0, 1), value=1.0), F.pad(k_BTHK, (0, 1), value=1.0)
    out = []
    for t in range(q_BTHK.shape[1]):
        z = torch.einsum("bhj,bhjk->bhk", k_BTHJ[:, t], w)
        error = _error(z, v_BTHK[:, t] - k_BTHK[:, t], gain_HK, bias_HK, eps)
        step = step + torch.einsum("bhj,bhk->bhjk", k_BTHJ[:, t], rate_BTH[:, t, :, None] * error)
        z = torch.einsum("bhj,bhjk->bhk", q_BTHJ[:, t], w - step)
        out.append(q_BTHK[:, t] + _normal(z, gain_HK, bias_HK, eps)[0])
        place += 1
        if place == mini_batch:
            w, step, place = w - step, torch.zeros_like(step), 0
    return torch.stack(out, dim=1), Inner(w, step, place)


def ttt_dual(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHK: Tensor,
    rate_BTH: Tensor,
    gain_HK: Tensor,
    bias_HK: Tensor,
    inner: Inner,
    mini_batch: int,
    eps: float,
) -> tuple[Tensor, Inner]:
    """The same function, a mini-batch at a time: its dual form (Sun et al. 2024, section 2.5 and eq. 9).

    All gradients of a mini-batch are taken at W', so its outputs are q W' minus causal scores of q and k
    times the steps. Tokens that fill up the first and the last mini-batch have rate 0 and change nothing.
    """
    batch, length, heads, _ = q_BTHK.shape
    w, step, place = inner
    end = (place + length) % mini_batch
    lead, size = on_grid(place, length, mini_batch)
    with torch.autocast(q_BTHK.device.type, enabled=False):
        q, k, v = (split_chunks(x, size, lead) for x in (q_BTHK, k_BTHK, v_BTHK))
        rate = split_chunks(rate_BTH, size, lead)[..., None]
        gain, bias = gain_HK.repeat(batch, 1)[:, None], bias_HK.repeat(batch, 1)[:, None]
        q_J, k_J = F.pad(q, (0, 1), value=1.0), F.pad(k, (0, 1), value=1.0)
        keys, targets, rates = (x.unflatten(0, (batch * heads, -1)).unbind(1) for x in (k_J, v - k, rate))
        w, step = w.flatten(0, 1), step.flatten(0, 1)
        reads, errors = [], []
        for key, target, rate in zip(keys, targets, rates, strict=True):
            error = rate * _error(torch.bmm(key, w), target, gain, bias, eps)
            reads.append(w - step)
            errors.append(error)
            step = torch.baddbmm(step, key.mT, error)
            if len(reads) < len(keys) or end == 0:
                w, step = w - step, torch.zeros_like(step)
        read, error = torch.stack(reads, dim=1).flatten(0, 1), torch.stack(errors, dim=1).flatten(0, 1)
        z = torch.baddbmm(torch.bmm(q_J, read), torch.bmm(q_J, k_J.mT).tril(), error, alpha=-1)
        z = join_chunks(z, batch, heads, length, lead)
        out = q_BTHK + _normal(z, gain_HK, bias_HK, eps)[0]
    shape = inner.w_BHJK.shape
    return out, Inner(w.view(shape), step.view(shape), end)


def _by_triton(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHK: Tensor,
    rate_BTH: Tensor,
    gain_HK: Tensor,
    bias_HK: Tensor,
    inner: Inner,
    mini_batch: int,
    eps: float,
) -> tuple[Tensor, Inner]:
    given = q_BTHK, k_BTHK, v_BTHK, rate_BTH, gain_HK, bias_HK
    out, w, step = gpu.ttt_dual(*given, *inner, mini_batch, eps)
    return out, Inner(w, step, (inner.place + q_BTHK.shape[1]) % mini_batch)


_CORES: Cores = {"torch": ttt_dual, "triton": _by_triton, "reference": ttt_reference}


class _Mixer(nn.Module):
    def __init__(self, block: TTT, shape: Shape, kernel: Kernel) -> None:
        super().__init__()
        self.heads, self.width, self.eps = shape.heads, block.width(shape), shape.eps
        self.mini_batch, self.lr = block.mini_batch, block.lr
        # Wider heads have no form in Triton: a program would not hold them.
        self.kernel: Kernel = "torch" if on_gpu(kernel) and self.width > gpu.TTT_WIDEST else kernel
        self.core = core_of(_CORES, self.kernel)
        # One projection: queries, keys and values, the inner learning rate, the output gate.
        self.split = [3 * shape.dim, self.heads, shape.dim if block.gate else 0]
        self.project = Linear(shape.dim, sum(self.split), bias=False)
        self.conv = ShortConv(3 * shape.dim, block.conv, act=False, kernel=kernel) if block.conv else None
        self.rate_bias = nn.Parameter(torch.zeros(self.heads))
        self.inner_weight = nn.Parameter(torch.randn(self.heads, self.width, self.width) * 0.02)
        self.inner_bias = nn.Parameter(torch.zeros(self.heads, self.width))
        self.inner_norm_gain = nn.Parameter(torch.ones(self.heads, self.width))
        self.inner_norm_bias = nn.Parameter(torch.zeros(self.heads, self.width))
        self.norm = make_norm(shape, shape.dim, kernel)
        self.out = Linear(shape.dim, shape.dim, bias=False)

    def _start(self, batch: int) -> Inner:
        """The learned inner model, before any token."""
        w_HJK = torch.cat([self.inner_weight, self.inner_bias[:, None]], dim=1)
        w = at_least_fp32(w_HJK).expand(batch, -1, -1, -1)
        return Inner(w, torch.zeros_like(w), 0)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, context: Context | None = None
    ) -> tuple[Tensor, State]:
        state = state or {}
        mixed, rate, gate = self.project(x_BTD).split(self.split, dim=-1)
        kind = mixed.dtype
        after: dict[str, Tensor | int] = {}
        if self.conv is not None:
            mixed, after["conv"] = self.conv(mixed, state.get("conv"))
        mixed = mixed.to(kind) if on_gpu(self.kernel) else at_least_fp32(mixed)
        q, k, v = mixed.unflatten(-1, (3, self.heads, self.width)).unbind(2)
        rate = (at_least_fp32(rate) + at_least_fp32(self.rate_bias)).sigmoid() * (self.lr / self.width)
        norm = at_least_fp32(self.inner_norm_gain), at_least_fp32(self.inner_norm_bias)
        if "w" in state:
            inner = Inner(cast(Tensor, state["w"]), cast(Tensor, state["step"]), cast(int, state["place"]))
        else:
            inner = self._start(q.shape[0])
        o, inner = self.core(q, k, v, rate, *norm, inner, self.mini_batch, self.eps)
        after |= {"w": inner.w_BHJK, "step": inner.step_BHJK, "place": inner.place}
        o = self.norm(o.flatten(2)).to(x_BTD.dtype)
        return self.out(o * F.gelu(gate, approximate="tanh") if gate.shape[-1] else o), after


@dataclass(frozen=True, kw_only=True)
class TTT:
    """TTT-Linear (Sun et al. 2024). Linear in T; state 2*H*K*(K+1): inner weights and the step under way.

    Implemented: f(x) = x + LN(x W + b) with learned W, b and LN of each head; loss |f(k) - v|^2 / 2; inner
    learning rate of token s and head h lr * sigmoid(w_h x_s + c_h) / K; gradients taken at the start of each
    mini-batch, summed up to the current token; output f(q) with the weights of that token, then RMSNorm
    over D and the gate. Not implemented: RoPE, the averaging of a mini-batch's gradients by position.

    mini_batch: tokens per inner step. lr: inner base learning rate, 1 as in the paper. conv: taps of a short
    convolution over q, k and v, 0 for none. gate: multiply the output by gelu(W x).
    """

    mini_batch: int = 16
    lr: float = 1.0
    conv: int = 4
    gate: bool = True

    def __post_init__(self) -> None:
        if self.mini_batch < 1:
            raise OptionError(f"ttt: mini_batch is {self.mini_batch}; it must be at least 1 token")
        if not self.lr > 0:
            raise OptionError(f"ttt: lr is {self.lr}; it must be above 0")
        check_taps("ttt", self.conv)

    @property
    def role(self) -> Role:
        return "linear"

    def width(self, shape: Shape) -> int:
        """K of one head. Raises OptionError where heads do not split the width, or leave 1 channel each."""
        width = split_heads_dim(shape.dim, shape.heads, "ttt: the model")
        if width < 2:
            raise OptionError("ttt: heads of 1 channel have nothing to normalise; use fewer heads")
        return width

    def build(self, shape: Shape, kernel: Kernel = "torch") -> nn.Module:
        """A freshly initialised mixer. Raises OptionError where heads do not split the width."""
        return _Mixer(self, shape, kernel)

    def _weights(self, shape: Shape) -> int:
        """Entries of the matrices and the convolution: each is one multiply-add per token."""
        rows = (5 if self.gate else 4) * shape.dim + shape.heads + 3 * self.conv
        return shape.dim * rows

    def params(self, shape: Shape) -> int:
        inner = shape.dim * (self.width(shape) + 3)
        return self._weights(shape) + inner + shape.heads + shape.dim

    def state_size(self, shape: Shape, length: int) -> int:
        return 2 * shape.dim * (self.width(shape) + 1) + max(self.conv - 1, 0) * 3 * shape.dim

    def flops(self, shape: Shape, length: int) -> int:
        scan = 3 * shape.dim * (self.width(shape) + 1)  # read under the key, step, read under the query
        return 2 * (self._weights(shape) + scan)
