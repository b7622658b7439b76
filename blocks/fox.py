"""Forgetting attention: softmax attention in which what lies between a key and a query fades the key.

B batch, T new tokens, P cached keys, S = P + T, C tokens of a piece, D model width, H query heads,
G key-value heads, R = H / G queries per key, K head width. Linear layers start at U(-1, 1) / sqrt(inputs).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.attention import key_value_heads, keys_seen
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
    split_heads_dim,
)
from blocks.kernels import gpu, ops
from blocks.parts import ShortConv, apart, gated, make_norm
from blocks.products import Linear

__all__ = ["CORES", "FoX", "forgetting_attention", "forgetting_attention_reference"]

PIECE = 64
"""Queries that the fast form handles at once: on CPU the best figure from 64 to 512 tokens."""


def forgetting_attention_reference(
    q_BTHK: Tensor, k_BSGK: Tensor, v_BSGK: Tensor, log_f_BTH: Tensor, faded_BPH: Tensor
) -> tuple[Tensor, Tensor]:
    """softmax(q_i k_j / sqrt(K) + log f_{j+1} + ... + log f_i) v_j over j <= i (Lin et al. 2025, eq. 5).

    The queries are the last T of S positions. ``faded_BPH`` is what each cached key has already lost: the sum
    of log f over the tokens that came after it. Query head h reads key-value head h // R. Returns o_BTHK and
    the same sums for all S keys as of the last token.
    """
    past, heads = faded_BPH.shape[1], (k_BSGK.shape[2], -1)
    q_BTGRK = q_BTHK.unflatten(2, heads) * q_BTHK.shape[3] ** -0.5
    faded, out = faded_BPH, []
    for t in range(q_BTHK.shape[1]):
        end = past + t + 1
        faded = torch.cat([faded + log_f_BTH[:, t : t + 1], torch.zeros_like(log_f_BTH[:, :1])], dim=1)
        scores = at_least_fp32(torch.einsum("bgrk,bsgk->bgrs", q_BTGRK[:, t], k_BSGK[:, :end]))
        weights = (scores + faded.movedim(1, 2).unflatten(1, heads)).softmax(-1).to(v_BSGK.dtype)
        out.append(torch.einsum("bgrs,bsgk->bgrk", weights, v_BSGK[:, :end]).flatten(1, 2))
    return torch.stack(out, dim=1), faded


def forgetting_attention(
    q_BTHK: Tensor, k_BSGK: Tensor, v_BSGK: Tensor, log_f_BTH: Tensor, faded_BPH: Tensor
) -> tuple[Tensor, Tensor]:
    """The same function, ``PIECE`` queries at a time.

    Within a row of scores the sum of log f up to query i is a constant, which softmax drops: the bias belongs
    to the key alone. It is counted from the start of each piece, back to earlier keys and on to those of the
    piece: no two long sums are ever subtracted, and no query's bias depends on what comes after it.
    """
    past, repeat = faded_BPH.shape[1], q_BTHK.shape[2] // k_BSGK.shape[2]
    if repeat > 1:
        k_BSGK, v_BSGK = (x.repeat_interleave(repeat, dim=2) for x in (k_BSGK, v_BSGK))
    q, k, v = (x.transpose(1, 2) for x in (q_BTHK, k_BSGK, v_BSGK))
    faded, out = faded_BPH, []
    for start in range(0, q.shape[2], PIECE):
        end = min(start + PIECE, q.shape[2])
        log_f = log_f_BTH[:, start:end]
        bias = torch.cat([faded, -log_f.cumsum(1)], dim=1).transpose(1, 2)
        seen = slice(0, past + end)
        out.append(_attend(q[:, :, start:end], k[:, :, seen], v[:, :, seen], bias))
        faded = _fade(faded, log_f)
    return torch.cat(out, dim=2).transpose(1, 2), faded


def _fade(faded_BPH: Tensor, log_f_BCH: Tensor) -> Tensor:
    """The sums of all keys after C more tokens: old ones lose their total, each new one what follows it."""
    from_BCH = log_f_BCH.flip(1).cumsum(1).flip(1)
    return torch.cat([faded_BPH + from_BCH[:, :1], from_BCH[:, 1:], torch.zeros_like(from_BCH[:, :1])], dim=1)


def _attend(q_BHCK: Tensor, k_BHSK: Tensor, v_BHSK: Tensor, bias_BHS: Tensor) -> Tensor:
    """Causal attention of the last C positions with a bias per key."""
    q, k, v = (x.flatten(0, 1) for x in (q_BHCK, k_BHSK, v_BHSK))
    bias = bias_BHS.flatten(0, 1)[:, None]
    scale, later = q.shape[2] ** -0.5, k.shape[1] - q.shape[1] + 1
    if q.dtype == bias.dtype:
        scores = torch.baddbmm(bias, q, k.mT, alpha=scale)
    else:
        # Half types: the product may round, the sums of gates may not.
        scores = torch.bmm(q, k.mT).to(bias.dtype) * scale + bias
    hidden = torch.ones(scores.shape[1:], dtype=torch.bool, device=q.device).triu(later)
    weights = scores.masked_fill_(hidden, -torch.inf).softmax(-1).to(v.dtype)
    return torch.bmm(weights, v).unflatten(0, q_BHCK.shape[:2])


def _by_c(
    q_BTHK: Tensor, k_BSGK: Tensor, v_BSGK: Tensor, log_f_BTH: Tensor, faded_BPH: Tensor
) -> tuple[Tensor, Tensor]:
    o_BTHK = ops.attention(q_BTHK, k_BSGK, v_BSGK, log_f_BTH, faded_BPH)
    return o_BTHK, _fade(faded_BPH, log_f_BTH)


def _on_gpu(
    backend: gpu.Backend,
    q_BTHK: Tensor,
    k_BSGK: Tensor,
    v_BSGK: Tensor,
    log_f_BTH: Tensor,
    faded_BPH: Tensor,
) -> tuple[Tensor, Tensor]:
    o_BTHK = gpu.forgetting_attention(q_BTHK, k_BSGK, v_BSGK, log_f_BTH, faded_BPH, backend)
    return o_BTHK, _fade(faded_BPH, log_f_BTH)


CORES: Cores = {
    "torch": forgetting_attention,
    "c": _by_c,
    "triton": partial(_on_gpu, "triton"),
    "fla": partial(_on_gpu, "fla"),
    "reference": forgetting_attention_reference,
}


class _Mixer(nn.Module):
    def __init__(self, block: FoX, shape: Shape, kernel: Kernel) -> None:
        super().__init__()
        groups, self.width = block.widths(shape)
        self.kernel: Kernel = kernel
        self.exclusive = block.exclusive
        self.core = core_of(CORES, kernel)
        inner, kept = shape.heads * self.width, groups * self.width
        self.q = Linear(shape.dim, inner, bias=False)
        self.k = Linear(shape.dim, kept, bias=False)
        self.v = Linear(shape.dim, kept, bias=False)
        self.forget = Linear(shape.dim, shape.heads)
        nn.init.constant_(self.forget.bias, block.forget_bias)
        self.k_conv = ShortConv(kept, block.conv, kernel=kernel) if block.conv else None
        self.v_conv = ShortConv(kept, block.conv, kernel=kernel) if block.conv else None
        self.q_norm = make_norm(shape, self.width, kernel) if block.qk_norm else None
        self.k_norm = make_norm(shape, self.width, kernel) if block.qk_norm else None
        self.out_norm = make_norm(shape, self.width, kernel) if block.output_norm else None
        self.gate = Linear(shape.dim, inner, bias=False) if block.output_gate else None
        self.gate_act = block.output_gate
        self.out = Linear(inner, shape.dim, bias=False)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, context: Context | None = None
    ) -> tuple[Tensor, State]:
        before: Mapping[str, Any] = state or {}
        after: dict[str, Tensor | int] = {}
        q, k, v = self.q(x_BTD), self.k(x_BTD), self.v(x_BTD)
        if self.k_conv is not None and self.v_conv is not None:
            k, after["k_conv"] = self.k_conv(k, before.get("k_conv"))
            v, after["v_conv"] = self.v_conv(v, before.get("v_conv"))
        q, k, v = (x.unflatten(-1, (-1, self.width)) for x in (q, k, v))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        log_f, own = F.logsigmoid(at_least_fp32(self.forget(x_BTD))), v
        faded = log_f[:, :0]
        if before:
            k, v = torch.cat([before["k"], k], dim=1), torch.cat([before["v"], v], dim=1)
            faded = before["faded"]
        after["k"], after["v"] = k, v
        if self.exclusive and self.out_norm is not None:
            # What is left may be little of what was read, and the norm would magnify the rounding of that.
            with torch.autocast(x_BTD.device.type, enabled=False):
                o, after["faded"] = self.core(*(at_least_fp32(x) for x in (q, k, v)), log_f, faded)
            o = self.out_norm(apart(o, own).to(own.dtype))
        else:
            o, after["faded"] = self.core(q, k, v, log_f, faded)
            if self.exclusive:
                o = apart(o, own)
            if self.out_norm is not None:
                o = self.out_norm(o)
        o = o.flatten(2)
        if self.gate is not None:
            gate = self.gate(x_BTD)
            o = gated(gate, o, self.kernel) if self.gate_act == "silu" else o * gate.sigmoid()
        return self.out(o), after


@dataclass(frozen=True, kw_only=True)
class FoX:
    """Forgetting attention (Lin et al. 2025, eq. 5), without positions: the forget gate orders the keys.

    o_i = sum_j softmax_j(q_i . k_j / sqrt(K) + log f_{j+1} + ... + log f_i) v_j over j <= i, with
    f = sigmoid(W x + forget_bias) per head; the bias is learned and starts at 0 as in the authors' code, so
    that a key loses half its weight per token. Its state is the keys, the values, and per head what each key
    has lost so far, counted back from the last token.

    The parts of the paper's "Pro" form: output_gate (multiply the output by sigmoid(W x), or silu),
    output_norm (RMSNorm of each head's output), qk_norm (RMSNorm on each head's query and key) and conv
    (taps of a short convolution with SiLU on keys and on values, 0 for none; it takes the place of the
    paper's token shift). kv_heads: heads of keys and values, a divisor of the query heads; None for as many.
    exclusive: heads read nothing along the token's own value (``parts.apart``).
    """

    kv_heads: int | None = None
    forget_bias: float = 0.0
    output_gate: Literal["sigmoid", "silu"] | None = None
    output_norm: bool = False
    qk_norm: bool = False
    conv: int = 0
    exclusive: bool = False

    def __post_init__(self) -> None:
        if self.kv_heads is not None and self.kv_heads < 1:
            raise OptionError(f"fox: kv_heads is {self.kv_heads}; it must be at least 1, or None")
        if self.output_gate not in (None, "sigmoid", "silu"):
            raise OptionError(f"fox: output_gate is {self.output_gate!r}; known are None, sigmoid and silu")
        check_taps("fox", self.conv)

    @property
    def role(self) -> Role:
        return "full"

    def widths(self, shape: Shape) -> tuple[int, int]:
        """(G, K): key-value heads and the width of a head. Raises OptionError where they do not fit."""
        width = split_heads_dim(shape.dim, shape.heads, "fox: the model")
        return key_value_heads("fox", self.kv_heads, shape), width

    def build(self, shape: Shape, kernel: Kernel = "torch") -> nn.Module:
        """A freshly initialised mixer. Raises OptionError where the heads do not fit."""
        return _Mixer(self, shape, kernel)

    def _products(self, shape: Shape) -> int:
        """Weights that multiply every token: projections, gates, convolutions."""
        groups, width = self.widths(shape)
        inner, kept = shape.heads * width, groups * width
        gate = shape.dim * inner if self.output_gate else 0
        return 2 * shape.dim * (inner + kept) + shape.dim * shape.heads + gate + 2 * self.conv * kept

    def params(self, shape: Shape) -> int:
        width = self.widths(shape)[1]
        norms = (2 * width if self.qk_norm else 0) + (width if self.output_norm else 0)
        return self._products(shape) + shape.heads + norms

    def state_size(self, shape: Shape, length: int) -> int:
        groups, width = self.widths(shape)
        kept = 2 * groups * width
        return length * (kept + shape.heads) + kept * max(self.conv - 1, 0)

    def flops(self, shape: Shape, length: int) -> int:
        inner = shape.heads * self.widths(shape)[1]
        return round(2 * (self._products(shape) + 2 * inner * keys_seen(length)))
