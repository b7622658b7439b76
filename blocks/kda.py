"""Kimi Delta Attention: a delta-rule memory whose every key channel forgets at a pace chosen by the token.

B batch, T time, D model width, H heads, K key width, V value width; C tokens of a chunk, N chunks of all
heads and sequences together; i and j are tokens of a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.base import Context, Cores, Kernel, OptionError, Shape, State, at_least_fp32, core_of
from blocks.chunks import channel_decays, join_chunks, split_chunks
from blocks.gdn import GDN, decay_start, delta_scan
from blocks.parts import ShortConv, apart, make_norm, unit_heads
from blocks.products import Linear

__all__ = ["KDA", "kda_chunked", "kda_reference"]


def kda_reference(
    q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, log_a_BTHK: Tensor, b_BTH: Tensor, s_BHKV: Tensor
) -> tuple[Tensor, Tensor]:
    """The delta rule with a decay per key channel, token by token (Kimi Team 2025, eq. 1).

    S_t = (I - b_t k_t k_t^T) diag(a_t) S_{t-1} + b_t k_t v_t^T and o_t = S_t^T q_t, from the state
    ``s_BHKV``. Keys are expected at unit length and queries scaled. Returns (o_BTHV, last state).
    """
    a_BTHK, s, out = log_a_BTHK.exp(), s_BHKV, []
    for t in range(q_BTHK.shape[1]):
        s = a_BTHK[:, t, :, :, None] * s
        wrong_BHV = v_BTHV[:, t] - torch.einsum("bhk,bhkv->bhv", k_BTHK[:, t], s)
        s = s + torch.einsum("bhk,bhv->bhkv", k_BTHK[:, t], b_BTH[:, t, :, None] * wrong_BHV)
        out.append(torch.einsum("bhk,bhkv->bhv", q_BTHK[:, t], s))
    return torch.stack(out, dim=1), s


def kda_chunked(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_a_BTHK: Tensor,
    b_BTH: Tensor,
    s_BHKV: Tensor,
    chunk: int = 16,
) -> tuple[Tensor, Tensor]:
    """The same function in chunks of ``chunk`` tokens, stable at any decay.

    As for Gated DeltaNet the writes u of a chunk solve a unit lower triangular system, (I + A) U = diag(b)
    (V - (e K) S), here with A_ij = b_i sum_k k_ik k_jk exp(log a_{j+1} + ... + log a_i)_k for j < i and e the
    decay of each channel from the chunk's start (the WY representation, Kimi Team 2025, section 3.1).
    """
    batch, length, heads, width = k_BTHK.shape
    chunk = min(chunk, length)
    with torch.autocast(q_BTHK.device.type, enabled=False):
        q, k, v, log_a, b = (split_chunks(x, chunk) for x in (q_BTHK, k_BTHK, v_BTHV, log_a_BTHK, b_BTH))
        b = b[..., None]
        start_NCK, decay_NijK = channel_decays(log_a)
        # Scores of queries (they feed the output) and of keys (they make the system) with decayed keys.
        both_NijX = (decay_NijK * k[:, None]) @ torch.stack([q, b * k], dim=-1)
        scores, system = both_NijX.unbind(-1)
        x = torch.cat([k * (b * start_NCK), v * b], dim=-1)
        x = torch.linalg.solve_triangular(system, x, upper=False, unitriangular=True)
        keep_NK1 = start_NCK[:, -1, :, None]
        states, writes, s = delta_scan(
            x[..., :width], x[..., width:], k * decay_NijK[:, -1], keep_NK1, s_BHKV
        )
        out = torch.baddbmm(torch.bmm(scores, writes), q * start_NCK, states)
        return join_chunks(out, batch, heads, length), s


class _Mixer(nn.Module):
    def __init__(self, block: KDA, shape: Shape, kernel: Kernel) -> None:
        super().__init__()
        self.heads, self.k, self.v = shape.heads, *block.widths(shape)
        self.beta_max, self.exclusive, self.core = block.beta_max, block.exclusive, core_of(_CORES, kernel)
        self.kernel: Kernel = kernel
        keys, values, rank = self.heads * self.k, self.heads * self.v, block.narrow(shape)
        # One projection: queries, keys and values (mixed over time together), write strength, the narrow
        # inputs of the decay and of the gate.
        self.split = [2 * keys + values, self.heads, rank, rank if block.gate else 0]
        self.project = Linear(shape.dim, sum(self.split), bias=False)
        self.decay = Linear(rank, keys, bias=False)
        self.gate = Linear(rank, values, bias=False) if block.gate else None
        self.conv = ShortConv(self.split[0], block.conv, kernel=kernel) if block.conv else None
        self.log_pace, self.step_bias = decay_start(self.heads, keys)
        self.norm = make_norm(shape, self.v, kernel) if block.norm else None
        self.out = Linear(values, shape.dim, bias=False)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, context: Context | None = None
    ) -> tuple[Tensor, State]:
        state = state or {}
        mixed, write, narrow, gate = self.project(x_BTD).split(self.split, dim=-1)
        after: dict[str, Tensor | int] = {}
        if self.conv is None:
            mixed = F.silu(mixed)
        else:
            mixed, after["conv"] = self.conv(mixed, state.get("conv"))
        qk, v = at_least_fp32(mixed).split([2 * self.heads * self.k, self.heads * self.v], dim=-1)
        q, k = unit_heads(qk, self.heads, self.kernel)
        step = F.softplus(at_least_fp32(self.decay(narrow)) + at_least_fp32(self.step_bias))
        log_a = -at_least_fp32(self.log_pace).exp()[:, None] * step.unflatten(-1, (self.heads, -1))
        b = self.beta_max * at_least_fp32(write).sigmoid()
        s = state.get("s")
        if s is None:
            s = v.new_zeros(v.shape[0], self.heads, self.k, self.v)
        v = v.unflatten(-1, (self.heads, -1))
        o, after["s"] = self.core(q, k, v, log_a, b, s)
        if self.exclusive:
            o = apart(o, v)
        if self.norm is not None:
            o = self.norm(o)
        o = o.flatten(2).to(x_BTD.dtype)
        return self.out(o if self.gate is None else o * self.gate(gate).sigmoid()), after


_CORES: Cores = {"torch": kda_chunked, "reference": kda_reference}


@dataclass(frozen=True, kw_only=True)
class KDA(GDN):
    """Kimi Delta Attention (Kimi Team 2025, eq. 1 and section 4). Linear in T; state as for ``gdn``.

    S_t = (I - b_t k_t k_t^T) diag(a_t) S_{t-1} + b_t k_t v_t^T, o_t = S_t^T q_t: Gated DeltaNet with a decay
    for each key channel. q, k, v and b as for ``gdn``; log a = -exp(log_pace) softplus(W2 W1 x + step_bias),
    the pace one for each head, W1 of ``rank`` rows.

    rank: rows of W1, and of the first matrix of the gate; None for as many as a head has key channels, the
    paper's. gate: multiply the output by sigmoid(W4 W3 x). The other options are those of
    ``gdn``.
    """

    word: ClassVar[str] = "kda"

    expand_k: float = 1.0
    expand_v: float = 1.0
    rank: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank is not None and self.rank < 1:
            raise OptionError(f"kda: rank is {self.rank}; it must be at least 1, or None")

    def narrow(self, shape: Shape) -> int:
        """The rank in ``shape``."""
        return self.widths(shape)[0] if self.rank is None else self.rank

    def build(self, shape: Shape, kernel: Kernel = "torch") -> nn.Module:
        """A freshly initialised mixer. Raises OptionError where heads do not split the widths."""
        return _Mixer(self, shape, kernel)

    def _weights(self, shape: Shape) -> int:
        (k, v), rank = self.widths(shape), self.narrow(shape)
        wide = shape.heads * (shape.dim * (2 * k + 2 * v + 1) + self.conv * (2 * k + v))
        gate = rank * (shape.dim + shape.heads * v) if self.gate else 0
        return wide + rank * (shape.dim + shape.heads * k) + gate

    def params(self, shape: Shape) -> int:
        k, v = self.widths(shape)
        return self._weights(shape) + shape.heads * (1 + k) + (v if self.norm else 0)
