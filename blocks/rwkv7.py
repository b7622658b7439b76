"""RWKV-7's time mixing: a generalised delta rule, what is removed under a key and what replaces it set apart.

B batch, T time, D model width, H heads, K width of a head's keys and values alike; C tokens of a chunk, N
chunks of all heads and sequences together; i and j are tokens of a chunk, X its 2 C writes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
from blocks.chunks import channel_decays, join_chunks, split_chunks
from blocks.gdn import delta_scan
from blocks.parts import HeadNorm, apart, l2_normalise
from blocks.products import Linear

__all__ = ["RWKV7", "rwkv7_chunked", "rwkv7_reference"]

LEAST_LOG_DECAY = -math.exp(-0.5)
"""A channel keeps at least exp(-exp(-1/2)) = 0.545 of itself in a token (Peng et al. 2025, section 4.1)."""

NORM_EPS = 64e-5
"""Of the heads' GroupNorm, the authors'. The first token reads (r . k) v, of which a smaller eps would leave
the sign of r . k alone: where that is near 0, rounding would decide it."""

MIXED = {"r": 0.2, "w": 0.9, "k": 0.7, "v": 0.7, "a": 0.9, "g": 0.2}
"""What is read off x_t and x_{t-1} mixed, and the exponent of its start, that of the authors' first layer."""


def rwkv7_reference(
    r_BTHK: Tensor,
    log_w_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHK: Tensor,
    remove_BTHK: Tensor,
    replace_BTHK: Tensor,
    s_BHKV: Tensor,
) -> tuple[Tensor, Tensor]:
    """The generalised delta rule, token by token (Peng et al. 2025, section 4.1, transposed: S is K x V).

    S_t = (diag(w_t) - replace_t remove_t^T) S_{t-1} + k_t v_t^T and o_t = S_t^T r_t, from ``s_BHKV``, where
    the paper has replace = a * remove and ``remove`` at unit length. Returns (o_BTHK, last state).
    """
    w_BTHK, s, out = log_w_BTHK.exp(), s_BHKV, []
    for t in range(r_BTHK.shape[1]):
        removed_BHV = torch.einsum("bhk,bhkv->bhv", remove_BTHK[:, t], s)
        s = w_BTHK[:, t, :, :, None] * s - torch.einsum("bhk,bhv->bhkv", replace_BTHK[:, t], removed_BHV)
        s = s + torch.einsum("bhk,bhv->bhkv", k_BTHK[:, t], v_BTHK[:, t])
        out.append(torch.einsum("bhk,bhkv->bhv", r_BTHK[:, t], s))
    return torch.stack(out, dim=1), s


def rwkv7_chunked(
    r_BTHK: Tensor,
    log_w_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHK: Tensor,
    remove_BTHK: Tensor,
    replace_BTHK: Tensor,
    s_BHKV: Tensor,
    chunk: int = 16,
) -> tuple[Tensor, Tensor]:
    """The same function in chunks of ``chunk`` tokens, stable at any decay.

    A token writes twice: minus what it removes, y, under ``replace``, and v under ``k``. With (i, j) the sum
    over channels of a vector of i, one of j and the decay between them, y_i = remove_i^T S_{i-1} solves the
    unit lower triangular system y_i + sum_j (remove_i, replace_j) y_j = (e_i remove_i)^T S + sum_j
    (remove_i, k_j) v_j over j < i, e_i being the decay from the chunk's start to the token before i.
    """
    batch, length, heads, width = k_BTHK.shape
    chunk = min(chunk, length)
    tokens = r_BTHK, log_w_BTHK, k_BTHK, v_BTHK, remove_BTHK, replace_BTHK
    with torch.autocast(r_BTHK.device.type, enabled=False):
        r, log_w, k, v, remove, replace = (split_chunks(x, chunk) for x in tokens)
        start_NCK, decay_NijK = channel_decays(log_w)
        # The state that token i removes from is decayed as token i - 1 reads it: one row up.
        reads_NiK2 = torch.stack([r, F.pad(remove[:, 1:], (0, 0, 0, 1))], dim=-1)
        keys_NiXK = torch.cat([decay_NijK * replace[:, None], decay_NijK * k[:, None]], dim=2)
        scores_NiX, below = (keys_NiXK @ reads_NiK2).unbind(-1)
        with_replace, with_k = F.pad(below[:, :-1], (0, 0, 1, 0)).chunk(2, dim=-1)
        before = F.pad(start_NCK[:, :-1], (0, 0, 1, 0), value=1.0)
        x = torch.cat([remove * before, torch.bmm(with_k, v)], dim=-1)
        x = torch.linalg.solve_triangular(with_replace, x, upper=False, unitriangular=True)
        w_NXK = F.pad(x[..., :width], (0, 0, 0, chunk))
        u_NXV = torch.cat([-x[..., width:], v], dim=1)
        keep_NK1 = start_NCK[:, -1, :, None]
        states, writes, s = delta_scan(w_NXK, u_NXV, keys_NiXK[:, -1], keep_NK1, s_BHKV)
        out = torch.baddbmm(torch.bmm(scores_NiX, writes), r * start_NCK, states)
        return join_chunks(out, batch, heads, length), s


class _Mixer(nn.Module):
    def __init__(self, block: RWKV7, shape: Shape, kernel: Kernel) -> None:
        super().__init__()
        dim, rank = shape.dim, block.narrow(shape)
        self.heads, self.exclusive, self.core = shape.heads, block.exclusive, core_of(_CORES, kernel)
        # From 0 to 1 over all channels, and from -1 to 1 over those of a head, bent towards 0.
        along = torch.arange(dim) / max(1, dim - 1)
        head = torch.linspace(-1, 1, dim // shape.heads).repeat(shape.heads)
        head = head * head.abs()
        share = torch.arange(dim) / dim
        self.mix = nn.Parameter(torch.stack([1 - share**power for power in MIXED.values()], dim=1))
        self.r = Linear(dim, dim, bias=False)
        self.k = Linear(dim, dim, bias=False)
        self.v = Linear(dim, dim, bias=False)
        self.decay_in = Linear(dim, rank, bias=False)
        self.decay = Linear(rank, dim)
        self.rate_in = Linear(dim, rank, bias=False)
        self.rate = Linear(rank, dim)
        self.gate_in = Linear(dim, rank, bias=False)
        self.gate = Linear(rank, dim, bias=False)
        with torch.no_grad():
            self.decay.bias.copy_(-5.5 + 6 * along + 2.5 * head)
            self.rate.bias.copy_(-0.19 + 0.4 * (along - 0.5) + 0.3 * head)
        self.removal = nn.Parameter(0.71 - 0.1 * (along - 0.5))
        self.replacement = nn.Parameter(torch.full((dim,), 1.02))
        self.bonus = nn.Parameter(torch.full((dim,), -0.04))
        self.norm = HeadNorm(shape.heads, dim // shape.heads, NORM_EPS)
        self.out = Linear(dim, dim, bias=False)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, context: Context | None = None
    ) -> tuple[Tensor, State]:
        before: Mapping[str, Any] = state or {}
        last, s = before.get("x"), before.get("s")
        if last is None:
            last = torch.zeros_like(x_BTD[:, :1])
        step_BTD = torch.cat([last, x_BTD[:, :-1]], dim=1) - x_BTD
        x_r, x_w, x_k, x_v, x_a, x_g = (x_BTD + step_BTD * mix_D for mix_D in self.mix.unbind(-1))
        decay = at_least_fp32(self.decay(self.decay_in(x_w).tanh()))
        a = at_least_fp32(self.rate(self.rate_in(x_a))).sigmoid()
        r, k, v = (at_least_fp32(t) for t in (self.r(x_r), self.k(x_k), self.v(x_v)))
        removal, replacement, bonus = map(at_least_fp32, (self.removal, self.replacement, self.bonus))
        remove = l2_normalise(self._heads(k * removal))
        r, a, v, log_w, k, bonus = (
            self._heads(t)
            for t in (r, a, v, LEAST_LOG_DECAY * decay.sigmoid(), k + k * (a - 1) * replacement, bonus)
        )
        if s is None:
            s = v.new_zeros(v.shape[0], *v.shape[2:], v.shape[3])
        o, s = self.core(r, log_w, k, v, remove, a * remove, s)
        if self.exclusive:
            # Before the bonus, which is the token's own value on purpose.
            o = apart(o, v)
        o = self.norm(o) + (r * k * bonus).sum(-1, keepdim=True) * v
        o = o.flatten(2).to(x_BTD.dtype) * self.gate(self.gate_in(x_g).sigmoid())
        return self.out(o), {"x": x_BTD[:, -1:], "s": s}

    def _heads(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., H, K]."""
        return x.unflatten(-1, (self.heads, -1))


_CORES: Cores = {"torch": rwkv7_chunked, "reference": rwkv7_reference}


@dataclass(frozen=True, kw_only=True)
class RWKV7:
    """Time mixing of RWKV-7 "Goose" (Peng et al. 2025, section 4.1). Linear in T; state H*K*K and the last x.

    S_t = (diag(w_t) - (a_t * c_t) c_t^T) S_{t-1} + k'_t v_t^T, o_t = S_t^T r_t: c, the key times a learned
    vector at unit length, says what is removed, a, the learning rate of each channel, how much of it;
    k' = k (1 + (a - 1) * replacement) says under what the value is written. w = exp(-e^(-1/2) sigmoid(.)).
    Each head's output by GroupNorm, plus (r . bonus k') v, times W2 sigmoid(W1 x), projected. All are read
    off x_t and x_{t-1} mixed (the token shift); w, a and the gate through ``rank`` channels.

    rank: None for as many as a head has channels, the paper's for decay and learning rate (its gate has twice
    as many). Vectors start as in the authors' first layer, matrices as all here. The paper's mixing of the
    first layer's values into those of later ones is left out: a block is the same at any depth.
    exclusive: heads read nothing along the token's own value (``parts.apart``); the bonus, which gives them
    that on purpose, stays.
    """

    rank: int | None = None
    exclusive: bool = False

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise OptionError(f"rwkv7: rank is {self.rank}; it must be at least 1, or None")

    @property
    def role(self) -> Role:
        return "linear"

    def width(self, shape: Shape) -> int:
        """K of one head. Raises OptionError where heads do not split the width."""
        return split_heads_dim(shape.dim, shape.heads, "rwkv7: the model")

    def narrow(self, shape: Shape) -> int:
        """The rank in ``shape``."""
        width = self.width(shape)
        return width if self.rank is None else self.rank

    def build(self, shape: Shape, kernel: Kernel = "torch") -> nn.Module:
        """A freshly initialised mixer. Raises OptionError where heads do not split the width."""
        return _Mixer(self, shape, kernel)

    def _weights(self, shape: Shape) -> int:
        """Entries of the matrices: each is one multiply-add per token."""
        return shape.dim * (4 * shape.dim + 6 * self.narrow(shape))

    def params(self, shape: Shape) -> int:
        return self._weights(shape) + (len(MIXED) + 7) * shape.dim

    def state_size(self, shape: Shape, length: int) -> int:
        return shape.dim * (1 + self.width(shape))

    def flops(self, shape: Shape, length: int) -> int:
        # The scan: read what is removed, write its replacement, write the value, read.
        return 2 * (self._weights(shape) + 4 * shape.dim * self.width(shape))
