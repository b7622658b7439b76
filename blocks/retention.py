"""Multi-scale retention: a linear memory that fades at a fixed pace, another one in each head.

B batch, T time, D model width, H heads, K key width, V value width. The recurrence, S_n = g S_{n-1} + k_n
v_n^T and o_n = S_n^T q_n (Sun et al. 2023, eq. 6), is the plain decay of ``blocks.genesis_rules`` with the
same decay at every token; the form in chunks there is eq. 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
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
    check_expansions,
    core_of,
    head_widths,
)
from blocks.genesis_rules import decayed, decayed_reference
from blocks.parts import HeadNorm, apart, gated, rope
from blocks.products import Linear

__all__ = ["RetNet", "log_decays"]


def log_decays(heads: int, like: Tensor) -> Tensor:
    """log g_H with g = 1 - 2^(-5-h) for head h = 0, 1, ... (Sun et al. 2023, eq. 8).

    Type and device are those of ``like``. By log1p: from head 20 on float32 would round g to 1.
    """
    head = torch.arange(heads, dtype=like.dtype, device=like.device)
    return torch.log1p(-torch.exp2(-5 - head))


class _Mixer(nn.Module):
    def __init__(self, block: RetNet, shape: Shape, kernel: Kernel) -> None:
        super().__init__()
        self.heads, self.k, self.v = shape.heads, *block.widths(shape)
        self.base, self.exclusive, self.core = block.base, block.exclusive, core_of(_CORES, kernel)
        self.kernel: Kernel = kernel
        keys, values = self.heads * self.k, self.heads * self.v
        # One projection: queries, keys, values, output gate.
        self.split = [keys, keys, values, values]
        self.project = Linear(shape.dim, sum(self.split), bias=False)
        self.norm = HeadNorm(self.heads, self.v, shape.eps)
        self.out = Linear(values, shape.dim, bias=False)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, context: Context | None = None
    ) -> tuple[Tensor, State]:
        before: Mapping[str, Any] = state or {}
        *qkv, gate = self.project(x_BTD).split(self.split, dim=-1)
        q, k, v = (at_least_fp32(x).unflatten(-1, (self.heads, -1)) for x in qkv)
        # Keys stay in memory as they were turned, so that positions count from the sequence's start.
        position = before.get("position", 0)
        q, k = (rope(x, position, self.k - self.k % 2, self.base) for x in (q, k))
        s = before.get("s")
        if s is None:
            s = v.new_zeros(v.shape[0], self.heads, self.k, self.v)
        log_a_BTH = log_decays(self.heads, v).expand(v.shape[:3])
        o, s = self.core(q * self.k**-0.5, k, v, log_a_BTH, s)
        if self.exclusive:
            o = apart(o, v)
        o = self.norm(o).flatten(2).to(x_BTD.dtype)
        return self.out(gated(gate, o, self.kernel)), {"s": s, "position": position + x_BTD.shape[1]}


_CORES: Cores = {"torch": decayed, "reference": decayed_reference}


@dataclass(frozen=True, kw_only=True)
class RetNet:
    """Multi-scale retention (Sun et al. 2023, eq. 5 to 8). Linear in T; state H*K*V.

    S_n = g S_{n-1} + k_n v_n^T, o_n = S_n^T q_n with g = 1 - 2^(-5-h) in head h; q (times K^-1/2) and k
    turned by position, which together with g is xPos; each head's output by GroupNorm, times silu(W x).

    expand_k, expand_v: widths of all keys and of all values over D; 1 and 2 are the paper's. base: of the
    rotation's wavelengths. exclusive: heads read nothing along the token's own value (``parts.apart``).
    """

    expand_k: float = 1.0
    expand_v: float = 2.0
    base: float = 10_000.0
    exclusive: bool = False

    def __post_init__(self) -> None:
        check_expansions("retnet", self.expand_k, self.expand_v)
        if not self.base > 1:
            raise OptionError(f"retnet: base is {self.base:g}; it must be above 1")

    @property
    def role(self) -> Role:
        return "linear"

    def widths(self, shape: Shape) -> tuple[int, int]:
        """(K, V) of one head. Raises OptionError where they do not split evenly."""
        return head_widths("retnet", shape, self.expand_k, self.expand_v)

    def build(self, shape: Shape, kernel: Kernel = "torch") -> nn.Module:
        """A freshly initialised mixer. Raises OptionError where heads do not split the widths."""
        return _Mixer(self, shape, kernel)

    def _weights(self, shape: Shape) -> int:
        """Entries of the matrices: each is one multiply-add per token."""
        k, v = self.widths(shape)
        return shape.dim * shape.heads * (2 * k + 3 * v)

    def params(self, shape: Shape) -> int:
        return self._weights(shape) + 2 * shape.heads * self.widths(shape)[1]

    def state_size(self, shape: Shape, length: int) -> int:
        k, v = self.widths(shape)
        return shape.heads * k * v

    def flops(self, shape: Shape, length: int) -> int:
        scan = 2 * self.state_size(shape, length)  # write, read
        return 2 * (self._weights(shape) + scan)
