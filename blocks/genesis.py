"""The two mixers of Genesis-152M, under its own name, so that ``gdn`` and ``fox`` stay exact and clean.

``genesis_gla`` is called GLA by its model card and described there as Gated DeltaNet; which recurrence it
runs is the option ``rule``. ``genesis_fox`` is forgetting attention with values on all heads. Names, shapes
and formulas follow the released package; docs/genesis.md sets what is documented against what is shipped.

B batch, T time, D model width, H heads, G key-value heads, K key width, V value width; C tokens of a chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
    check_expansions,
    core_of,
    head_widths,
    split_heads_dim,
)
from blocks.fox import CORES as FOX_CORES
from blocks.gdn import gated_delta_chunked, gated_delta_reference
from blocks.genesis_rules import chunk_delta, chunk_delta_reference, decayed, decayed_reference
from blocks.kernels import ops
from blocks.parts import RMSNorm, ShortConv, apart, gated, slow_steps
from blocks.products import Linear

__all__ = ["GenesisFoX", "GenesisGLA", "Rule", "l2_normalise_outside"]

Rule = Literal["gated_delta", "decay", "chunk_delta"]
NORM_EPS = 1e-5
"""Of the output norm of ``genesis_gla``; early outputs are small enough for it to matter."""


def l2_normalise_outside(x: Tensor, eps: float = 1e-6) -> Tensor:
    """x / (|x| + eps): the epsilon is added to the norm, not to its square as elsewhere here."""
    return x / (torch.linalg.vector_norm(x, dim=-1, keepdim=True) + eps)


def turns(start: int, length: int, rotary: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines [T, 1, F] of positions from ``start``, computed in float32, in ``like``'s type."""
    channel = torch.arange(0, rotary, 2, dtype=torch.float32, device=like.device)
    rate_F = 1.0 / 10_000.0 ** (channel / rotary)
    position = torch.arange(start, start + length, dtype=torch.float32, device=like.device)
    angle_T1F = (position[:, None] * rate_F)[:, None]
    return angle_T1F.cos().to(like.dtype), angle_T1F.sin().to(like.dtype)


def narrow_rope(x_BTHK: Tensor, cos_T1F: Tensor, sin_T1F: Tensor) -> Tensor:
    """Rotate the first 2 F channels of each head; the pairs are those of ``parts.rope``."""
    rotary, cos, sin = 2 * cos_T1F.shape[-1], cos_T1F, sin_T1F
    a, b, rest = x_BTHK.split([rotary // 2, rotary // 2, x_BTHK.shape[-1] - rotary], dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=-1)


class _GLA(nn.Module):
    def __init__(self, block: GenesisGLA, shape: Shape, kernel: Kernel) -> None:
        super().__init__()
        self.heads, self.groups, self.k, self.v = shape.heads, *block.widths(shape)
        self.rule: Rule = block.rule
        self.chunk, self.rotary, self.exclusive = block.chunk, block.rotary(shape), block.exclusive
        self.kernel: Kernel = kernel
        self.core = core_of(_CORES[block.rule], kernel)
        keys, values = self.groups * self.k, self.groups * self.v
        inner = self.heads * self.v
        # One projection: queries, keys, values (mixed over time together), decay, output gate.
        self.split = [self.heads * self.k + keys + values, self.heads, inner]
        self.project = Linear(shape.dim, sum(self.split), bias=False)
        self.write = Linear(shape.dim, self.heads)
        self.conv = ShortConv(self.split[0], block.conv, kernel=kernel)
        self.log_pace = nn.Parameter(torch.empty(self.heads).uniform_(0.5, 8).log())
        self.step_bias = nn.Parameter(slow_steps(self.heads))
        self.norm = RMSNorm(self.v, NORM_EPS, kernel=kernel)
        self.out = Linear(inner, shape.dim, bias=False)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, context: Context | None = None
    ) -> tuple[Tensor, State]:
        before: Mapping[str, Any] = state or {}
        position = before.get("position", 0)
        mixed, step, gate = self.project(x_BTD).split(self.split, dim=-1)
        mixed, tail = self.conv(mixed, before.get("conv"))
        after: dict[str, Tensor | int] = {"conv": tail, "position": position + x_BTD.shape[1]}
        qk, v = mixed.split([(self.heads + self.groups) * self.k, self.groups * self.v], dim=-1)
        qk, v = qk.unflatten(-1, (-1, self.k)), at_least_fp32(v).unflatten(-1, (-1, self.v))
        qk = narrow_rope(at_least_fp32(l2_normalise_outside(qk)), *self._turns(position, v, context))
        q, k = qk.split([self.heads, self.groups], dim=2)
        # Tiled, not grouped: query head h reads key-value head h mod G.
        k, v = (torch.cat([x] * (self.heads // self.groups), dim=2) for x in (k, v))
        step = F.softplus(at_least_fp32(step) + at_least_fp32(self.step_bias))
        log_a = -at_least_fp32(self.log_pace).exp() * step
        memory = before or _start(self.rule, v, self.heads, self.k, self.v)
        given = [q * self.k**-0.5, k, v, log_a]
        if self.rule != "decay":
            given.append(at_least_fp32(self.write(x_BTD)).sigmoid())
        if self.rule == "chunk_delta":
            o, memory = self.core(*given, memory, position, self.chunk)
            after |= memory
        else:
            o, after["s"] = self.core(*given, memory["s"])
        if self.exclusive:
            o = apart(o, v)
        o = self.norm(o).flatten(2).to(x_BTD.dtype)
        return self.out(gated(gate, o, self.kernel)), after

    def _turns(self, start: int, like: Tensor, context: Context | None) -> tuple[Tensor, Tensor]:
        """The rotations of this call; with a ``context``, all layers of a model share them."""
        key = f"genesis turns {start} {like.shape[1]} {self.rotary}"
        if context is None or key not in context:
            found = turns(start, like.shape[1], self.rotary, like)
            if context is None:
                return found
            context[key] = found
        return context[key]


def _start(rule: Rule, like: Tensor, heads: int, k: int, v: int) -> dict[str, Tensor]:
    """An empty memory."""
    empty = like.new_zeros(like.shape[0], heads, k, v)
    if rule != "chunk_delta":
        return {"s": empty}
    return {"s": empty, "base": empty, "writes": empty, "gram": like.new_zeros(like.shape[0], heads, k, k)}


_CORES: dict[Rule, Cores] = {
    "gated_delta": {"torch": gated_delta_chunked, "c": ops.gated_delta, "reference": gated_delta_reference},
    "decay": {"torch": decayed, "reference": decayed_reference},
    "chunk_delta": {"torch": chunk_delta, "reference": chunk_delta_reference},
}


@dataclass(frozen=True, kw_only=True)
class GenesisGLA:
    """The linear mixer of Genesis-152M: gated memory, shared keys, positions by rotation of half the key.

    q, k, v from a short convolution and SiLU; q and k at unit length, half of each rotated; query head h
    reads key-value head h mod kv_heads; log a = -exp(log_pace) softplus(W x + step_bias),
    b = sigmoid(W x + c); output norm and SiLU gate. ``rule`` is the recurrence between them:

    - ``gated_delta``: Gated DeltaNet (Yang et al. 2025, eq. 10), what the model card describes;
    - ``decay``: S_t = a_t S_{t-1} + k_t v_t^T, what the released package runs on CPU in evaluation, in
      generation, and on CUDA with flash-linear-attention. The write strength b has weights and no effect;
    - ``chunk_delta``: what it runs in training on CPU. Inside a chunk of ``chunk`` tokens, counted from
      position 0, the output is that of ``decay``; only the state handed to the next chunk is corrected.

    expand_k, expand_v: widths of all query-side keys and values over D. kv_heads: None for as many as heads.
    exclusive, which the package does not have: heads read nothing along the token's own value
    (``parts.apart``).
    """

    rule: Rule = "gated_delta"
    kv_heads: int | None = None
    expand_k: float = 0.75
    expand_v: float = 1.5
    conv: int = 4
    chunk: int = 64
    exclusive: bool = False

    def __post_init__(self) -> None:
        if self.rule not in ("gated_delta", "decay", "chunk_delta"):
            raise OptionError(
                f"genesis_gla: rule is {self.rule!r}; known are gated_delta, decay and chunk_delta"
            )
        check_expansions("genesis_gla", self.expand_k, self.expand_v)
        for name, value in (("kv_heads", self.kv_heads), ("conv", self.conv), ("chunk", self.chunk)):
            if value is not None and value < 1:
                raise OptionError(f"genesis_gla: {name} is {value}; it must be at least 1")

    @property
    def role(self) -> Role:
        return "linear"

    def widths(self, shape: Shape) -> tuple[int, int, int]:
        """(G, K, V): key-value heads, widths of a head. Raises OptionError where they do not split evenly."""
        groups = key_value_heads("genesis_gla", self.kv_heads, shape)
        return groups, *head_widths("genesis_gla", shape, self.expand_k, self.expand_v)

    def rotary(self, shape: Shape) -> int:
        """Channels of each key that are rotated: half of them, rounded down to an even number."""
        return 2 * (self.widths(shape)[1] // 4)

    def build(self, shape: Shape, kernel: Kernel = "torch") -> nn.Module:
        """A freshly initialised mixer. Raises OptionError where heads do not split the widths."""
        return _GLA(self, shape, kernel)

    def _rows(self, shape: Shape) -> tuple[int, int]:
        """Channels under the convolution; rows of all projections from D."""
        groups, k, v = self.widths(shape)
        mixed = shape.heads * k + groups * (k + v)
        return mixed, mixed + shape.heads * (2 + v)

    def params(self, shape: Shape) -> int:
        mixed, rows = self._rows(shape)
        v = self.widths(shape)[2]
        return shape.dim * (rows + shape.heads * v) + self.conv * mixed + 3 * shape.heads + v

    def state_size(self, shape: Shape, length: int) -> int:
        _, k, v = self.widths(shape)
        memory = 3 * k * v + k * k if self.rule == "chunk_delta" else k * v
        return shape.heads * memory + (self.conv - 1) * self._rows(shape)[0]

    def flops(self, shape: Shape, length: int) -> int:
        _, k, v = self.widths(shape)
        mixed, rows = self._rows(shape)
        if self.rule == "decay":  # the write strength is not even computed
            rows -= shape.heads
        scan: float = {"gated_delta": 3 * k * v, "decay": 2 * k * v, "chunk_delta": 3 * k * v + k * k}[
            self.rule
        ]
        if self.rule == "chunk_delta":  # at a chunk's end the gram matrix meets the state
            scan += k * k * v * (length // self.chunk) / length
        return round(2 * (shape.dim * (rows + shape.heads * v) + self.conv * mixed + shape.heads * scan))


class _HeadNorm(nn.Module):
    """RMSNorm of each head with gains of its own: one weight [H * K] over [B, T, H, K]."""

    def __init__(self, heads: int, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps, self.weight = eps, nn.Parameter(torch.ones(heads * width))

    def forward(self, x_BTHK: Tensor) -> Tensor:
        wide = at_least_fp32(x_BTHK)
        gain_HK = at_least_fp32(self.weight).view(x_BTHK.shape[2:])
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps) * gain_HK).to(
            x_BTHK.dtype
        )


class _FoX(nn.Module):
    def __init__(self, block: GenesisFoX, shape: Shape, kernel: Kernel) -> None:
        super().__init__()
        self.heads, (self.groups, self.width) = shape.heads, block.widths(shape)
        self.kernel: Kernel = kernel
        self.exclusive, self.core = block.exclusive, core_of(FOX_CORES, kernel)
        inner, kept = self.heads * self.width, self.groups * self.width
        # One projection: keys and values (mixed over time together), queries, output gate.
        self.split = [kept + inner, inner, inner]
        self.project = Linear(shape.dim, sum(self.split), bias=False)
        self.forget = Linear(shape.dim, self.heads)
        self.conv = ShortConv(kept + inner, block.conv, kernel=kernel)
        self.q_norm, self.k_norm = _HeadNorm(self.heads, self.width), _HeadNorm(self.groups, self.width)
        self.norm = RMSNorm(self.width, kernel=kernel)
        self.out = Linear(inner, shape.dim, bias=False)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, context: Context | None = None
    ) -> tuple[Tensor, State]:
        before: Mapping[str, Any] = state or {}
        mixed, q, gate = self.project(x_BTD).split(self.split, dim=-1)
        mixed, tail = self.conv(mixed, before.get("conv"))
        k, v = mixed.split([self.groups * self.width, self.heads * self.width], dim=-1)
        q, k, v = (x.unflatten(-1, (-1, self.width)) for x in (q, k, v))
        q, k = self.q_norm(q), self.k_norm(k)
        log_f, own = F.logsigmoid(at_least_fp32(self.forget(x_BTD))), v
        faded = log_f[:, :0]
        if before:
            k, v = torch.cat([before["k"], k], dim=1), torch.cat([before["v"], v], dim=1)
            faded = before["faded"]
        # Grouped here, not tiled: query head h reads key head h // (H / G).
        shared = k.repeat_interleave(self.heads // self.groups, dim=2)
        if self.exclusive:
            # What is left may be little of what was read, and the norm would magnify the rounding of that.
            with torch.autocast(x_BTD.device.type, enabled=False):
                o, faded = self.core(*(at_least_fp32(x) for x in (q, shared, v)), log_f, faded)
            o = apart(o, own).to(own.dtype)
        else:
            o, faded = self.core(q, shared, v, log_f, faded)
        o = self.norm(o).flatten(2)
        return self.out(gated(gate, o, self.kernel)), {"conv": tail, "k": k, "v": v, "faded": faded}


@dataclass(frozen=True, kw_only=True)
class GenesisFoX:
    """The full mixer of Genesis-152M: forgetting attention (Lin et al. 2025, eq. 5) with shared keys.

    o_i = sum_j softmax_j(q_i . k_j / sqrt(K) + log f_{j+1} + ... + log f_i) v_j over j <= i, with
    f = sigmoid(W x + c) per head; then W_out (silu(W_gate x) * RMSNorm(o)).
    Its keys are shared by groups of query heads, its values are not. Keys and values pass a short convolution
    and SiLU; each head's query and key has an RMSNorm with gains of its own, its output one whose gains all
    heads share; the output gate is SiLU. kv_heads: heads of keys, None for as many as query heads.
    exclusive, which the package does not have: heads read nothing along the token's own value
    (``parts.apart``).
    """

    kv_heads: int | None = None
    conv: int = 4
    exclusive: bool = False

    def __post_init__(self) -> None:
        for name, value in (("kv_heads", self.kv_heads), ("conv", self.conv)):
            if value is not None and value < 1:
                raise OptionError(f"genesis_fox: {name} is {value}; it must be at least 1")

    @property
    def role(self) -> Role:
        return "full"

    def widths(self, shape: Shape) -> tuple[int, int]:
        """(G, K): heads of keys and the width of a head. Raises OptionError where they do not fit."""
        width = split_heads_dim(shape.dim, shape.heads, "genesis_fox: the model")
        return key_value_heads("genesis_fox", self.kv_heads, shape), width

    def build(self, shape: Shape, kernel: Kernel = "torch") -> nn.Module:
        """A freshly initialised mixer. Raises OptionError where the heads do not fit."""
        return _FoX(self, shape, kernel)

    def _mixed(self, shape: Shape) -> int:
        """Channels under the convolution."""
        groups, width = self.widths(shape)
        return (groups + shape.heads) * width

    def _products(self, shape: Shape) -> int:
        inner = shape.heads * self.widths(shape)[1]
        return shape.dim * (self._mixed(shape) + 3 * inner + shape.heads) + self.conv * self._mixed(shape)

    def params(self, shape: Shape) -> int:
        groups, width = self.widths(shape)
        return self._products(shape) + shape.heads + (shape.heads + groups + 1) * width

    def state_size(self, shape: Shape, length: int) -> int:
        return length * (self._mixed(shape) + shape.heads) + (self.conv - 1) * self._mixed(shape)

    def flops(self, shape: Shape, length: int) -> int:
        inner = shape.heads * self.widths(shape)[1]
        return round(2 * (self._products(shape) + 2 * inner * keys_seen(length)))
