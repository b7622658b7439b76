"""Gated linear attention: a linear memory whose every key channel forgets at a pace chosen by the token.

B batch, T time, D model width, H heads, K key width, V value width; C tokens of a chunk, N chunks of all
heads and sequences together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

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
    check_expansions,
    check_taps,
    core_of,
    head_widths,
    on_gpu,
)
from blocks.chunks import channel_decays, join_chunks, split_chunks
from blocks.kernels import gpu, ops
from blocks.parts import ShortConv, apart, gated, make_norm
from blocks.products import Linear

__all__ = ["GLA", "gla_chunked", "gla_reference"]

TEMPERATURE = 16.0
"""The decay is sigmoid(.) ** (1 / TEMPERATURE), so that it starts slow (Yang et al. 2024, section 4.4)."""


def gla_reference(
    q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, log_a_BTHK: Tensor, s_BHKV: Tensor
) -> tuple[Tensor, Tensor]:
    """S_t = diag(a_t) S_{t-1} + k_t v_t^T and o_t = S_t^T q_t (Yang et al. 2024, eq. 3), token by token.

    Queries are expected scaled. Returns (o_BTHV, last state).
    """
    a_BTHK, s, out = log_a_BTHK.exp(), s_BHKV, []
    for t in range(q_BTHK.shape[1]):
        s = a_BTHK[:, t, :, :, None] * s + torch.einsum("bhk,bhv->bhkv", k_BTHK[:, t], v_BTHV[:, t])
        out.append(torch.einsum("bhk,bhkv->bhv", q_BTHK[:, t], s))
    return torch.stack(out, dim=1), s


def gla_chunked(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_a_BTHK: Tensor,
    s_BHKV: Tensor,
    chunk: int = 16,
) -> tuple[Tensor, Tensor]:
    """The same function in chunks of ``chunk`` tokens, stable at any decay.

    Inside a chunk the score of token i with token j is sum_k q_ik k_jk exp(log a_{j+1} + ... + log a_i)_k.
    """
    batch, length, heads, _ = k_BTHK.shape
    chunk = min(chunk, length)
    with torch.autocast(q_BTHK.device.type, enabled=False):
        q, k, v, log_a = (split_chunks(x, chunk) for x in (q_BTHK, k_BTHK, v_BTHV, log_a_BTHK))
        start_NCK, decay_NijK = channel_decays(log_a)
        scores = ((decay_NijK * k[:, None]) @ q[..., None]).squeeze(-1)
        adds = torch.bmm((k * decay_NijK[:, -1]).mT, v).unflatten(0, (batch * heads, -1)).unbind(1)
        carries = start_NCK[:, -1, :, None].unflatten(0, (batch * heads, -1)).unbind(1)
        s, states = s_BHKV.flatten(0, 1), []
        for carry, add in zip(carries, adds, strict=True):
            states.append(s)
            s = torch.addcmul(add, carry, s)
        before = torch.stack(states, dim=1).flatten(0, 1)
        out = torch.baddbmm(torch.bmm(scores, v), q * start_NCK, before)
        return join_chunks(out, batch, heads, length), s.view(s_BHKV.shape)


class _Mixer(nn.Module):
    def __init__(self, block: GLA, shape: Shape, kernel: Kernel) -> None:
        super().__init__()
        self.heads, self.k, self.v = shape.heads, *block.widths(shape)
        self.kernel: Kernel = kernel
        self.core, self.exclusive = core_of(_CORES, kernel), block.exclusive
        keys, values = self.heads * self.k, self.heads * self.v
        # One projection: queries, keys and values, the narrow input of the decay, the output gate.
        self.split = [2 * keys + values, block.rank, values if block.gate else 0]
        self.project = Linear(shape.dim, sum(self.split), bias=False)
        self.decay = Linear(block.rank, keys)
        self.conv = ShortConv(self.split[0], block.conv, kernel=kernel) if block.conv else None
        self.norm = make_norm(shape, self.v, kernel) if block.norm else None
        self.out = Linear(values, shape.dim, bias=False)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, context: Context | None = None
    ) -> tuple[Tensor, State]:
        state = state or {}
        mixed, narrow, gate = self.project(x_BTD).split(self.split, dim=-1)
        after: dict[str, Tensor | int] = {}
        if self.conv is not None:
            mixed, after["conv"] = self.conv(mixed, state.get("conv"))
        kind, mixed = mixed.dtype, at_least_fp32(mixed)
        q, k, v = mixed.split([self.heads * w for w in (self.k, self.k, self.v)], dim=-1)
        log_a = F.logsigmoid(at_least_fp32(self.decay(narrow))) / TEMPERATURE
        s = state.get("s")
        if s is None:
            s = v.new_zeros(v.shape[0], self.heads, self.k, self.v)
        q, k, v, log_a = (x.unflatten(-1, (self.heads, -1)) for x in (q * self.k**-0.5, k, v, log_a))
        if on_gpu(self.kernel):
            q, k, v = (z.to(kind) for z in (q, k, v))
        o, after["s"] = self.core(q, k, v, log_a, s)
        if self.exclusive:
            o = apart(o, v)
        if on_gpu(self.kernel) and self.norm is not None and gate.shape[-1]:
            return self.out(self.norm.gated(o, gate)), after
        if self.norm is not None:
            o = self.norm(o)
        o = o.flatten(2).to(x_BTD.dtype)
        return self.out(gated(gate, o, self.kernel) if gate.shape[-1] else o), after


_CORES: Cores = {
    "torch": gla_chunked,
    "c": ops.gated_linear,
    "triton": gpu.gated_linear,
    "fla": partial(gpu.gated_linear, backend="fla"),
    "reference": gla_reference,
}


@dataclass(frozen=True, kw_only=True)
class GLA:
    """Gated linear attention (Yang et al. 2024, eq. 3 and section 4.4). Linear in T; state H*K*V.

    S_t = diag(a_t) S_{t-1} + k_t v_t^T, o_t = S_t^T q_t with q times K^-1/2 and the decay of each key channel
    a = sigmoid(W2 W1 x + c) ** (1/16), W1 of ``rank`` rows.

    expand_k, expand_v: widths of all keys and of all values over D. conv: taps of a short convolution (with
    SiLU) over q, k and v, 0 for none. gate: multiply the output by silu(W x). norm: RMSNorm of each head's
    output, before the gate. exclusive: heads read nothing along the token's own value (``parts.apart``).
    """

    expand_k: float = 0.5
    expand_v: float = 1.0
    rank: int = 16
    conv: int = 0
    gate: bool = True
    norm: bool = True
    exclusive: bool = False

    def __post_init__(self) -> None:
        check_expansions("gla", self.expand_k, self.expand_v)
        if self.rank < 1:
            raise OptionError(f"gla: rank is {self.rank}; it must be at least 1")
        check_taps("gla", self.conv)

    @property
    def role(self) -> Role:
        return "linear"

    def widths(self, shape: Shape) -> tuple[int, int]:
        """(K, V) of one head. Raises OptionError where they do not split evenly."""
        return head_widths("gla", shape, self.expand_k, self.expand_v)

    def build(self, shape: Shape, kernel: Kernel = "torch") -> nn.Module:
        """A freshly initialised mixer. Raises OptionError where heads do not split the widths."""
        return _Mixer(self, shape, kernel)

    def _weights(self, shape: Shape) -> int:
        """Entries of the matrices and the convolution: each is one multiply-add per token."""
        k, v = self.widths(shape)
        rows = shape.heads * (2 * k + (3 if self.gate else 2) * v) + self.rank
        return shape.dim * rows + shape.heads * (self.rank * k + self.conv * (2 * k + v))

    def params(self, shape: Shape) -> int:
        k, v = self.widths(shape)
        return self._weights(shape) + shape.heads * k + (v if self.norm else 0)

    def state_size(self, shape: Shape, length: int) -> int:
        k, v = self.widths(shape)
        return shape.heads * (k * v + max(self.conv - 1, 0) * (2 * k + v))

    def flops(self, shape: Shape, length: int) -> int:
        k, v = self.widths(shape)
        return 2 * (self._weights(shape) + 2 * shape.heads * k * v)  # the scan: write, read
