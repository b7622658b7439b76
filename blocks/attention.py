"""Softmax attention: grouped queries, rotary positions on part of the head, sliding window, QK-norm.

B batch, T new tokens, S keys (cached and new), D model width, H query heads, G key-value heads, R = H / G
queries per key, K head width. Linear layers start at U(-1, 1) / sqrt(inputs) and have no bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

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
    core_of,
    split_heads_dim,
)
from blocks.kernels import ops
from blocks.parts import apart, make_norm, rope, unit_rms
from blocks.products import Linear
from blocks.values import embedded_values

__all__ = [
    "Attention",
    "AttentionMixer",
    "attention",
    "attention_reference",
    "key_value_heads",
    "keys_seen",
]

PIECE = 64
"""The fewest queries that are handled at once under a window."""


def attention_reference(q_BTHK: Tensor, k_BSGK: Tensor, v_BSGK: Tensor, window: int | None) -> Tensor:
    """softmax(q k / sqrt(K)) v, query by query over the keys it sees (Vaswani et al. 2017, eq. 1).

    The queries are the last T of S positions; each sees itself and what lies before it, ``window`` keys at
    most. Query head h reads key-value head h // R. Returns o_BTHK.
    """
    past = k_BSGK.shape[1] - q_BTHK.shape[1]
    q_BTGRK = q_BTHK.unflatten(2, (k_BSGK.shape[2], -1)) * q_BTHK.shape[3] ** -0.5
    out = []
    for t in range(q_BTHK.shape[1]):
        end = past + t + 1
        seen = slice(0 if window is None else max(0, end - window), end)
        scores = torch.einsum("bgrk,bsgk->bgrs", q_BTGRK[:, t], k_BSGK[:, seen])
        weights = at_least_fp32(scores).softmax(-1).to(v_BSGK.dtype)
        out.append(torch.einsum("bgrs,bsgk->bgrk", weights, v_BSGK[:, seen]).flatten(1, 2))
    return torch.stack(out, dim=1)


def attention(q_BTHK: Tensor, k_BSGK: Tensor, v_BSGK: Tensor, window: int | None) -> Tensor:
    """The same function by PyTorch's fused attention.

    A window is taken in pieces of as many queries as it is wide, so that the work grows with T times window.
    """
    length, size, repeat = q_BTHK.shape[1], k_BSGK.shape[1], q_BTHK.shape[2] // k_BSGK.shape[2]
    if repeat > 1:
        k_BSGK, v_BSGK = (x.repeat_interleave(repeat, dim=2) for x in (k_BSGK, v_BSGK))
    q, k, v = (x.transpose(1, 2) for x in (q_BTHK, k_BSGK, v_BSGK))
    if window is None or window >= size:
        return _attend(q, k, v, None).transpose(1, 2)
    piece, past, out = max(window, PIECE), size - length, []
    for start in range(0, length, piece):
        end = min(start + piece, length)
        keys = slice(max(0, past + start - window + 1), past + end)
        out.append(_attend(q[:, :, start:end], k[:, :, keys], v[:, :, keys], window))
    return torch.cat(out, dim=2).transpose(1, 2)


def _attend(q_BHTK: Tensor, k_BHSK: Tensor, v_BHSK: Tensor, window: int | None) -> Tensor:
    """Attention of the last T of S positions, all at once."""
    length, size = q_BHTK.shape[2], k_BHSK.shape[2]
    if q_BHTK.dtype == torch.bfloat16 and q_BHTK.device.type == "cpu":
        # The backward pass of the fused kernel is slow there: three times the explicit form's.
        scores = torch.matmul(q_BHTK, k_BHSK.mT).float() * q_BHTK.shape[3] ** -0.5
        scores = scores.masked_fill(~_visible(length, size, window, q_BHTK.device), -torch.inf)
        return torch.matmul(scores.softmax(-1).to(v_BHSK.dtype), v_BHSK)
    if length == size and window is None:
        return F.scaled_dot_product_attention(q_BHTK, k_BHSK, v_BHSK, is_causal=True)
    # A lone query is the last position: all keys that it was given are before it.
    mask = None if length == 1 else _visible(length, size, window, q_BHTK.device)
    return F.scaled_dot_product_attention(q_BHTK, k_BHSK, v_BHSK, attn_mask=mask)


def _visible(length: int, size: int, window: int | None, device: torch.device) -> Tensor:
    """[T, S] True where one of the last ``length`` of ``size`` positions sees a key."""
    query = torch.arange(size - length, size, device=device)[:, None]
    age = query - torch.arange(size, device=device)
    return age >= 0 if window is None else (age >= 0) & (age < window)


def key_value_heads(name: str, kv_heads: int | None, shape: Shape) -> int:
    """G, by default H. Raises OptionError where the query heads do not share them evenly."""
    groups = shape.heads if kv_heads is None else kv_heads
    if shape.heads % groups:
        raise OptionError(
            f"{name}: kv_heads is {groups}, which does not divide the {shape.heads} heads of the shape; "
            f"choose a divisor of {shape.heads}"
        )
    return groups


def keys_seen(length: int, window: int | None = None) -> float:
    """Keys that a query sees, the mean over ``length`` tokens: (T + 1) / 2, less with a window."""
    width = length if window is None else min(window, length)
    return (width * (width + 1) / 2 + (length - width) * width) / length


def _by_c(q_BTHK: Tensor, k_BSGK: Tensor, v_BSGK: Tensor, window: int | None) -> Tensor:
    if window is None or window >= k_BSGK.shape[1]:
        return ops.attention(q_BTHK, k_BSGK, v_BSGK)
    return attention(q_BTHK, k_BSGK, v_BSGK, window)


_CORES: Cores = {
    "torch": attention,
    "c": _by_c,
    "reference": attention_reference,
}


class AttentionMixer(nn.Module):
    """The module of ``Attention``, and the base of those that do more with what it reads."""

    def __init__(self, block: Attention, shape: Shape, kernel: Kernel) -> None:
        super().__init__()
        self.groups, self.width = block.widths(shape)
        self.window, self.base, self.rotary = block.window, block.base, block.rotary(shape)
        self.core = core_of(_CORES, kernel)
        inner, kept = shape.heads * self.width, self.groups * self.width
        self.q = Linear(shape.dim, inner, bias=False)
        self.k = Linear(shape.dim, kept, bias=False)
        self.v = Linear(shape.dim, kept, bias=False)
        self.q_norm = make_norm(shape, self.width, kernel) if block.qk_norm else None
        self.k_norm = make_norm(shape, self.width, kernel) if block.qk_norm else None
        self.eps, self.exclusive = shape.eps, block.exclusive
        self.q_gain: nn.Parameter | None = (
            None if block.qk_gain is None else nn.Parameter(torch.full((shape.heads,), block.qk_gain))
        )
        self.share: nn.Parameter | None = nn.Parameter(torch.ones(())) if block.values else None
        self.out = Linear(inner, shape.dim, bias=False)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, context: Context | None = None
    ) -> tuple[Tensor, State]:
        o_BTHK, after = self.attend(x_BTD, state, context)
        return self.out(o_BTHK.flatten(2)), after

    def attend(self, x_BTD: Tensor, state: State | None, context: Context | None) -> tuple[Tensor, State]:
        """What each head reads, before the last projection, and the state afterwards."""
        q, k, v = self.q(x_BTD), self.k(x_BTD), self.v(x_BTD)
        if self.share is not None:
            v = v + self.share * embedded_values(context, v.shape[-1])
        q, k, v = (x.unflatten(-1, (-1, self.width)) for x in (q, k, v))
        own = v
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.q_gain is not None:
            q, k = unit_rms(q, self.eps) * self.q_gain[:, None].to(q.dtype), unit_rms(k, self.eps)
        before: Mapping[str, Any] = state or {}
        if before:
            k, v = torch.cat([before["k"], k], dim=1), torch.cat([before["v"], v], dim=1)
        size = k.shape[1]
        start = 0 if self.window is None else max(0, size - self.window + 1)
        after: State = {"k": k[:, start:], "v": v[:, start:]}
        # Only distances matter, so positions count from the first key still held.
        q = rope(q, size - q.shape[1], self.rotary, self.base)
        k = rope(k, 0, self.rotary, self.base)
        o = self.core(q, k, v, self.window)
        return apart(o, own) if self.exclusive else o, after


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Softmax attention (Vaswani et al. 2017, eq. 1). Its state is the keys (before rotation) and the values.

    o_i = sum_j softmax_j(q_i . k_j / sqrt(K)) v_j over the tokens j <= i that the window leaves; R = H / G
    query heads in a row share a head of keys and values (Ainslie et al. 2023), and q and k are turned by
    position (Su et al. 2021, eq. 34).

    kv_heads: G, heads of keys and values, a divisor of the query heads; None for as many.
    rope: the share of each head that is rotated by position, 0 for no positions at all; the rotated width is
    rounded down to an even number. base: of the rotation's wavelengths. window: the keys that a token sees,
    itself included; None for all. qk_norm: RMSNorm on each head's query and key, one gain for all heads.

    qk_gain: the same norms without gains, and each query head times a learned gain that starts at this.
    exclusive: heads read nothing along the token's own value (``parts.apart``). values: a learned share,
    at first 1, of the model's embedding of values (``blocks.values``) is added to the values.
    """

    word: ClassVar[str] = "attn"

    kv_heads: int | None = None
    rope: float = 1.0
    base: float = 10_000.0
    window: int | None = None
    qk_norm: bool = False
    qk_gain: float | None = None
    exclusive: bool = False
    values: bool = False

    def __post_init__(self) -> None:
        if self.qk_norm and self.qk_gain is not None:
            raise OptionError(f"{self.word}: qk_gain has norms of its own; give qk_norm=False with it")
        for name, value in (("kv_heads", self.kv_heads), ("window", self.window)):
            if value is not None and value < 1:
                raise OptionError(f"{self.word}: {name} is {value}; it must be at least 1, or None")
        if not 0 <= self.rope <= 1:
            raise OptionError(
                f"{self.word}: rope is {self.rope:g}; it is a share of the head and lies in [0, 1]"
            )
        if not self.base > 1:
            raise OptionError(f"{self.word}: base is {self.base:g}; it must be above 1")

    @property
    def role(self) -> Role:
        return "full" if self.window is None else "window"

    def widths(self, shape: Shape) -> tuple[int, int]:
        """(G, K): key-value heads and the width of a head. Raises OptionError where they do not fit."""
        width = split_heads_dim(shape.dim, shape.heads, f"{self.word}: the model")
        return key_value_heads(self.word, self.kv_heads, shape), width

    def value_width(self, shape: Shape) -> int | None:
        """The width of all values of a token, where the model's embedding of values is asked for."""
        groups, width = self.widths(shape)
        return groups * width if self.values else None

    def rotary(self, shape: Shape) -> int:
        """Channels of each head that are rotated."""
        return 2 * int(self.rope * self.widths(shape)[1] / 2)

    def build(self, shape: Shape, kernel: Kernel = "torch") -> nn.Module:
        """A freshly initialised mixer. Raises OptionError where the heads do not fit."""
        return AttentionMixer(self, shape, kernel)

    def params(self, shape: Shape) -> int:
        groups, width = self.widths(shape)
        few = (2 * width if self.qk_norm else 0) + (0 if self.qk_gain is None else shape.heads) + self.values
        return 2 * shape.dim * width * (shape.heads + groups) + few

    def state_size(self, shape: Shape, length: int) -> int:
        groups, width = self.widths(shape)
        return 2 * groups * width * (length if self.window is None else min(length, self.window - 1))

    def flops(self, shape: Shape, length: int) -> int:
        groups, width = self.widths(shape)
        projections = 2 * shape.dim * width * (shape.heads + groups)
        return round(2 * (projections + 2 * shape.heads * width * keys_seen(length, self.window)))
