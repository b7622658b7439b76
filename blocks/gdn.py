"""Gated DeltaNet: a linear memory that erases what it held under a key before it writes.

B batch, T time, D model width, H heads, K key width, V value width; C tokens of a chunk, N chunks of all
heads and sequences together, G = B*H; S log decays of all spans inside a chunk (C from its start, then C*C).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

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
    check_expansions,
    check_taps,
    core_of,
    head_widths,
    on_gpu,
)
from blocks.chunks import join_chunks, span_sums, split_chunks
from blocks.kernels import gpu, ops
from blocks.kernels.layers import DeltaSizes, delta_layer, narrow
from blocks.parts import ShortConv, apart, gated, make_norm, slow_steps, unit_heads
from blocks.products import Linear

__all__ = ["GDN", "decay_start", "delta_scan", "gated_delta_chunked", "gated_delta_reference"]


def gated_delta_reference(
    q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, log_a_BTH: Tensor, b_BTH: Tensor, s_BHKV: Tensor
) -> tuple[Tensor, Tensor]:
    """The gated delta rule, token by token (Yang et al. 2025, eq. 10, transposed: the state is K x V).

    S_t = a_t S_{t-1} + b_t k_t (v_t - a_t S_{t-1}^T k_t)^T and o_t = S_t^T q_t, from the state ``s_BHKV``.
    Keys are expected at unit length and queries scaled. Returns (o_BTHV, last state).
    """
    a_BTH, s, out = log_a_BTH.exp(), s_BHKV, []
    for t in range(q_BTHK.shape[1]):
        s = a_BTH[:, t, :, None, None] * s
        wrong_BHV = v_BTHV[:, t] - torch.einsum("bhk,bhkv->bhv", k_BTHK[:, t], s)
        s = s + torch.einsum("bhk,bhv->bhkv", k_BTHK[:, t], b_BTH[:, t, :, None] * wrong_BHV)
        out.append(torch.einsum("bhk,bhkv->bhv", q_BTHK[:, t], s))
    return torch.stack(out, dim=1), s


def gated_delta_chunked(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_a_BTH: Tensor,
    b_BTH: Tensor,
    s_BHKV: Tensor,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The same function in chunks of ``chunk`` tokens (default: about K/2, from 16 to 64), for training.

    Inside a chunk the writes u solve a unit lower triangular system, (I + A) U = diag(b) (V - diag(e) K S),
    A_ij = b_i exp(log a_{j+1} + ... + log a_i) k_i.k_j for j < i (the WY representation, Yang et al. 2025,
    section 3.3). Solved once against [e K | V] for all chunks, it leaves two small products per chunk that
    wait for the chunk before. Gradients are written by hand and cannot be differentiated again.
    """
    length, width = k_BTHK.shape[1], k_BTHK.shape[3]
    if chunk is None:
        chunk = min(64, max(16, 1 << math.ceil(math.log2(width / 2)))) if width > 1 else 16
    with torch.autocast(q_BTHK.device.type, enabled=False):
        return _ChunkedDelta.apply(q_BTHK, k_BTHK, v_BTHV, log_a_BTH, b_BTH, s_BHKV, min(chunk, length))


class _ChunkedDelta(torch.autograd.Function):
    """``gated_delta_chunked`` with its backward pass; a zero-filled tail (k = b = log a = 0) is inert."""

    @staticmethod
    def forward(ctx: Any, *tensors: Any) -> Any:
        q, k, v, log_a, b, s, chunk = tensors
        batch, length, heads, width = q.shape
        ctx.sizes = batch, heads, length
        q, k, v, log_a, b = (split_chunks(x, chunk) for x in (q, k, v, log_a, b))
        b = b[..., None]
        sums_CS, mask_S = span_sums(chunk, k)
        decay_NS = torch.addmm(mask_S, log_a, sums_CS).exp_()
        start = decay_NS[:, :chunk, None]
        decay = decay_NS[:, chunk:].view(-1, chunk, chunk)
        qk = torch.cat([q, k], dim=1)
        # Decayed scores of queries (they feed the output) and of keys (they make the system) with keys.
        scores = torch.bmm(qk, k.mT).view(-1, 2, chunk, chunk).mul_(decay[:, None])
        system = scores[:, 1] * b
        x = torch.cat([k * (b * start), v * b], dim=-1)
        x = torch.linalg.solve_triangular(system, x, upper=False, unitriangular=True)
        k_end, q_start = k * decay[:, -1, :, None], q * start
        states, writes, last = delta_scan(x[..., :width], x[..., width:], k_end, start[:, -1:], s)
        out = torch.baddbmm(torch.bmm(scores[:, 0], writes), q_start, states)
        ctx.save_for_backward(qk, v, b, sums_CS, decay_NS, scores, system, x, k_end, q_start, states, writes)
        return join_chunks(out, *ctx.sizes), last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        qk, v, b, sums_CS, decay_NS, scores, system, x, k_end, q_start, states, writes = ctx.saved_tensors
        chunk, width = v.shape[1], k_end.shape[2]
        q, k = qk[:, :chunk], qk[:, chunk:]
        start, decay = decay_NS[:, :chunk, None], decay_NS[:, chunk:].view(-1, chunk, chunk)
        d_out = split_chunks(grad_outputs[0], chunk)
        d_after, d_writes, d_s = _scan_back(
            x[..., :width],
            k_end,
            start[:, -1:],
            torch.bmm(scores[:, 0].mT, d_out),
            torch.bmm(q_start.mT, d_out),
            grad_outputs[1],
        )
        d_q_start, d_k_end = torch.bmm(d_out, states.mT), torch.bmm(writes, d_after.mT)
        d_x = torch.cat([torch.bmm(d_writes, states.mT).neg_(), d_writes], dim=-1)
        y = torch.linalg.solve_triangular(system.mT, d_x, upper=True, unitriangular=True)

        d_scores = torch.stack([torch.bmm(d_out, writes.mT), torch.bmm(y, x.mT).neg_()], dim=1)
        # Above the diagonal the decay is 0 already; on it the system has a constant 1.
        d_system = d_scores[:, 1]
        d_system.diagonal(dim1=-2, dim2=-1).zero_()
        along = d_system * scores[:, 1]
        d_b = along.sum(-1, keepdim=True)
        d_log_decay = along.mul_(b).addcmul_(d_scores[:, 0], scores[:, 0])
        d_system.mul_(b)
        d_scores = d_scores.mul_(decay[:, None]).flatten(1, 2)
        d_qk = torch.bmm(d_scores, k)

        y_k, y_v = y[..., :width], y[..., width:]
        start_b = start * b
        d_q = torch.addcmul(d_qk[:, :chunk], start, d_q_start)
        d_k = torch.baddbmm(d_qk[:, chunk:], d_scores.mT, qk)
        d_k.addcmul_(decay[:, -1, :, None], d_k_end).addcmul_(start_b, y_k)
        along_k = (y_k * k).sum(-1, keepdim=True)
        d_b.addcmul_(start, along_k).add_((y_v * v).sum(-1, keepdim=True))
        d_log_start = start * (d_q_start * q).sum(-1, keepdim=True) + start_b * along_k
        d_log_start[:, -1, 0] += start[:, -1, 0] * (d_after * states).sum((1, 2))
        d_log_decay[:, -1] += (d_k_end * k_end).sum(-1)
        d_log_a = torch.addmm(
            d_log_start[..., 0] @ sums_CS[:, :chunk].T, d_log_decay.flatten(1), sums_CS[:, chunk:].T
        )
        back = (join_chunks(d, *ctx.sizes) for d in (d_q, d_k, y_v * b, d_log_a, d_b[..., 0]))
        return *back, d_s, None


def delta_scan(
    w_NCK: Tensor, u_NCV: Tensor, k_end_NCK: Tensor, keep_NX1: Tensor, s_BHKV: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Chunk after chunk of each head: the writes u - w S, and S = keep S + k_end^T (u - w S).

    ``keep`` is one number for all key channels (X = 1) or one for each (X = K).
    Returns all S before their chunk, all writes, and the last S.
    """
    s = s_BHKV.flatten(0, 1)
    parts = (x.unflatten(0, (s.shape[0], -1)).unbind(1) for x in (w_NCK, u_NCV, k_end_NCK, keep_NX1))
    states, writes = [], []
    for w, u, k_end, keep in zip(*parts, strict=True):
        states.append(s)
        writes.append(torch.baddbmm(u, w, s, alpha=-1))
        s = torch.baddbmm(keep * s, k_end.mT, writes[-1])
    return _chunks(states), _chunks(writes), s.view(s_BHKV.shape)


def _scan_back(
    w_NCK: Tensor, k_end_NCK: Tensor, keep_N11: Tensor, d_u_NCV: Tensor, d_s_NKV: Tensor, d_last_BHKV: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """``delta_scan`` backwards, from what the outputs say of all writes (d_u) and of each S (d_s).

    Returns the gradients of all S after their chunk, of all writes, and of the first S.
    """
    d = d_last_BHKV.flatten(0, 1)
    inputs = w_NCK, k_end_NCK, keep_N11, d_u_NCV, d_s_NKV
    parts = [x.unflatten(0, (d.shape[0], -1)).unbind(1)[::-1] for x in inputs]
    after, writes = [], []
    for w, k_end, keep, d_u, d_s in zip(*parts, strict=True):
        after.append(d)
        writes.append(torch.baddbmm(d_u, k_end, d))
        d = torch.baddbmm(torch.addcmul(d_s, keep, d), w.mT, writes[-1], alpha=-1)
    return _chunks(after[::-1]), _chunks(writes[::-1]), d.view(d_last_BHKV.shape)


def _chunks(per_chunk: list[Tensor]) -> Tensor:
    """Tensors [B*H, ...], one per chunk, as [N, ...]."""
    return torch.stack(per_chunk, dim=1).flatten(0, 1)


class _Mixer(nn.Module):
    def __init__(self, block: GDN, shape: Shape, kernel: Kernel) -> None:
        super().__init__()
        self.heads, self.k, self.v = shape.heads, *block.widths(shape)
        self.beta_max, self.exclusive, self.core = block.beta_max, block.exclusive, core_of(_CORES, kernel)
        self.kernel: Kernel = kernel
        keys, values = self.heads * self.k, self.heads * self.v
        # One projection: queries, keys and values (mixed over time together), decay, write strength, gate.
        steps, gates = self.heads if block.decay else 0, values if block.gate else 0
        self.split = [2 * keys + values, steps, self.heads, gates]
        self.project = Linear(shape.dim, sum(self.split), bias=False)
        self.conv = ShortConv(self.split[0], block.conv, kernel=kernel) if block.conv else None
        self.log_pace, self.step_bias = decay_start(self.heads, self.heads) if block.decay else (None, None)
        self.norm = make_norm(shape, self.v, kernel) if block.norm else None
        self.out = Linear(values, shape.dim, bias=False)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, context: Context | None = None
    ) -> tuple[Tensor, State]:
        state = state or {}
        log_pace, step_bias = self.log_pace, self.step_bias
        decay = None if log_pace is None or step_bias is None else (log_pace, step_bias)
        if decay and not self.exclusive and self.kernel == "c" and narrow(x_BTD, self.project.weight):
            return self._whole(x_BTD, state, *decay)
        mixed, step, write, gate = self.project(x_BTD).split(self.split, dim=-1)
        after: dict[str, Tensor | int] = {}
        if self.conv is None:
            mixed = F.silu(mixed)
        else:
            mixed, after["conv"] = self.conv(mixed, state.get("conv"))
        kind, mixed = mixed.dtype, at_least_fp32(mixed)
        qk, v = mixed.split([2 * self.heads * self.k, self.heads * self.v], dim=-1)
        q, k = unit_heads(qk, self.heads, self.kernel)
        b = self.beta_max * at_least_fp32(write).sigmoid()
        if decay is None:
            log_a = torch.zeros_like(b)
        else:
            log_pace, step_bias = map(at_least_fp32, decay)
            log_a = -log_pace.exp() * F.softplus(at_least_fp32(step) + step_bias)
        s = state.get("s")
        if s is None:
            s = v.new_zeros(v.shape[0], self.heads, self.k, self.v)
        v = v.unflatten(-1, (self.heads, -1))
        if on_gpu(self.kernel):
            q, k, v = (z.to(kind) for z in (q, k, v))
        o, after["s"] = self.core(q, k, v, log_a, b, s)
        if self.exclusive:
            o = apart(o, v)
        if on_gpu(self.kernel) and self.norm is not None and gate.shape[-1]:
            return self.out(self.norm.gated(o, gate)), after
        if self.norm is not None:
            o = self.norm(o)
        o = o.flatten(2).to(x_BTD.dtype)
        return self.out(gated(gate, o, self.kernel) if gate.shape[-1] else o), after

    def _whole(
        self, x_BTD: Tensor, state: State, log_pace_H: Tensor, step_bias_H: Tensor
    ) -> tuple[Tensor, State]:
        """The same in one piece."""
        before: Mapping[str, Any] = state
        tail, s, channels = before.get("conv"), before.get("s"), self.split[0]
        taps = x_BTD.new_ones(channels, 1) if self.conv is None else self.conv.weight
        if tail is None:
            tail = x_BTD.new_zeros(len(x_BTD), taps.shape[1] - 1, channels)
        if s is None:
            s = x_BTD.new_zeros(len(x_BTD), self.heads, self.k, self.v)
        norm = self.norm
        sizes = DeltaSizes(
            heads=self.heads,
            key=self.k,
            value=self.v,
            taps=taps.shape[1],
            beta_max=self.beta_max,
            gate=bool(self.split[-1]),
            gain=norm is not None,
            eps=norm.eps if norm else 0.0,
            shift=float(norm.zero_centred) if norm else 0.0,
        )
        gain = x_BTD.new_ones(self.v) if norm is None else norm.weight
        weights = taps, tail, log_pace_H, step_bias_H, gain, self.out.weight, s
        y, conv, s = delta_layer(sizes, x_BTD, self.project.weight, *weights)
        return y, {"s": s} if self.conv is None else {"conv": conv, "s": s}


def decay_start(heads: int, steps: int) -> tuple[nn.Parameter, nn.Parameter]:
    """(log_pace [heads], step_bias [steps]) at Mamba-2's start (Dao & Gu 2024).

    The decay is exp(-exp(log_pace) softplus(. + step_bias)): a pace from 1 to 16, a step from 1e-3 to 1e-1,
    log-uniform.
    """
    log_pace = torch.empty(heads).uniform_(1, 16).log()
    return nn.Parameter(log_pace), nn.Parameter(slow_steps(steps))


_CORES: Cores = {
    "torch": gated_delta_chunked,
    "c": ops.gated_delta,
    "triton": gpu.gated_delta,
    "fla": partial(gpu.gated_delta, backend="fla"),
    "reference": gated_delta_reference,
}


@dataclass(frozen=True, kw_only=True)
class GDN:
    """Gated DeltaNet (Yang, Kautz & Hatamizadeh 2025, eq. 10). Linear in T; state H*K*V and the conv's tail.

    S_t = a_t S_{t-1} + b_t (v_t - a_t S_{t-1} k_t) k_t^T, o_t = S_t q_t; q and k from a short convolution,
    SiLU and L2 normalisation (q times K^-1/2), v from the convolution and SiLU;
    log a = -exp(log_pace) softplus(W x + step_bias), b = beta_max sigmoid(W x).

    expand_k, expand_v: widths of all keys and of all values over D; 0.75 and 1.5 are the paper's, with which
    the layer holds 6 D^2 weights. conv: taps of the short convolution, 0 for none. beta_max: the largest
    write strength; above 1 the memory can flip the sign of what it holds (Grazzi et al. 2025). gate: multiply
    the output by silu(W x). norm: RMSNorm of each head's output, before the gate. exclusive: heads read
    nothing along the token's own value (``parts.apart``).
    """

    word: ClassVar[str] = "gdn"
    decay: ClassVar[bool] = True

    expand_k: float = 0.75
    expand_v: float = 1.5
    conv: int = 4
    beta_max: float = 1.0
    gate: bool = True
    norm: bool = True
    exclusive: bool = False

    def __post_init__(self) -> None:
        check_expansions(self.word, self.expand_k, self.expand_v)
        check_taps(self.word, self.conv)
        if not 0 < self.beta_max <= 2:
            raise OptionError(
                f"{self.word}: beta_max is {self.beta_max}; beyond (0, 2] the memory is not stable"
            )

    @property
    def role(self) -> Role:
        return "linear"

    def widths(self, shape: Shape) -> tuple[int, int]:
        """(K, V) of one head. Raises OptionError where they do not split evenly."""
        return head_widths(self.word, shape, self.expand_k, self.expand_v)

    def build(self, shape: Shape, kernel: Kernel = "torch") -> nn.Module:
        """A freshly initialised mixer. Raises OptionError where heads do not split the widths."""
        return _Mixer(self, shape, kernel)

    def _weights(self, shape: Shape) -> int:
        """Entries of the matrices and the convolution: each is one multiply-add per token."""
        k, v = self.widths(shape)
        rows = 2 * k + (3 if self.gate else 2) * v + (2 if self.decay else 1)
        return shape.heads * (shape.dim * rows + self.conv * (2 * k + v))

    def params(self, shape: Shape) -> int:
        decay = 2 * shape.heads if self.decay else 0
        return self._weights(shape) + decay + (self.widths(shape)[1] if self.norm else 0)

    def state_size(self, shape: Shape, length: int) -> int:
        k, v = self.widths(shape)
        tail = max(self.conv - 1, 0) * (2 * k + v)
        return shape.heads * (k * v + tail)

    def flops(self, shape: Shape, length: int) -> int:
        k, v = self.widths(shape)
        scan = 3 * shape.heads * k * v  # read under the key, write, read under the query
        return 2 * (self._weights(shape) + scan)
