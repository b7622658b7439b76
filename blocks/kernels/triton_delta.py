# pyright: reportCallIssue=false, reportIndexIssue=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false
# A kernel that is launched takes arguments of the launch as well, which its type does not know.
"""The gated delta rule in chunks, forward and backward, in Triton.

Inside a chunk the writes w solve (I + A) w = r with r = diag(b) (v - diag(e) k S), A_ij = b_i D_ij k_i.k_j
for j < i (``blocks.gdn.gated_delta_chunked``), D_ij what is left from token j at token i, e_i from the start
of the chunk. The inverse of I + A is built by doubling its diagonal blocks, two products each time: exact at
any keys, where a series of powers of A overflows. Then, chunk after chunk, w = (I + A)^-1 r and
S = a S + (f k)^T w, f what is left at the chunk's end; and for all chunks at once o = e q S + scores w.
Backward likewise: with y = (I + A)^-T dw the gradient of A is -y w^T, so that of the inverse nothing is kept
but itself.

Decays, the state that is carried and all sums are float32; products take the type of the inputs, but for
those of the inverse. B batch, T time, H heads, K key width, V value width, N chunks of C tokens.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from blocks.kernels.triton_tiles import block_sums, columns, dot, load_row, load_tile, store_row, store_tile

__all__ = ["CHUNK", "WIDEST", "gated_delta"]

CHUNK = 32
"""Tokens: with 64 the inverse alone would take more products than everything else."""

WIDEST = 128
"""Of a key: a program holds all its channels."""


@triton.jit
def _decays(log_a, C: tl.constexpr):
    """D [C, C]: what is left from token j at token i, each span summed by itself; 0 for j > i."""
    at = tl.arange(0, C)
    spans = tl.cumsum(tl.where(at[:, None] > at[None, :], log_a[:, None], 0.0), axis=0)
    return tl.exp(tl.where(at[:, None] >= at[None, :], spans, float("-inf")))


@triton.jit
def _inverse(a, C: tl.constexpr):
    """(I + a)^-1 of a strictly lower a, in float32 throughout."""
    i, j = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    inverse = tl.where(i == j, 1.0, 0.0) - tl.where((i // 2 == j // 2) & (i > j), a, 0.0)
    for level in tl.static_range(1, 5):
        size = 1 << level
        if size < C:
            below = tl.where((i // (2 * size) == j // (2 * size)) & (i // size > j // size), a, 0.0)
            below = dot(below, inverse)
            inverse -= dot(inverse, below)
    return inverse


@triton.jit
def _delta_prepare(
    q_ptr, k_ptr, log_a_ptr, b_ptr, scores_ptr, inverse_ptr, T, H, N,
    K: tl.constexpr, C: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    n, bh = tl.program_id(0), tl.program_id(1).to(tl.int64)
    at = (bh // H * T * H + bh % H) * K
    q = load_tile(q_ptr + at, n * C, T, H * K, K, C, BK)
    k = load_tile(k_ptr + at, n * C, T, H * K, K, C, BK)
    b = load_row(b_ptr + bh * T, n * C, T, C)
    decay = _decays(load_row(log_a_ptr + bh * T, n * C, T, C), C)
    i = tl.arange(0, C)
    a = tl.where(i[:, None] > i[None, :], dot(k, tl.trans(k)) * decay * b[:, None], 0.0)
    here = (bh * N + n) * C * C
    store_tile(scores_ptr + here, dot(q, tl.trans(k)) * decay, 0, C, C, C, C, C)
    store_tile(inverse_ptr + here, _inverse(a, C), 0, C, C, C, C, C)


@triton.jit
def _delta_scan(
    k_ptr, v_ptr, b_ptr, within_ptr, after_ptr, totals_ptr, inverse_ptr, s_ptr,
    states_ptr, writes_ptr, last_ptr, T, H, N,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    column, bh = tl.program_id(0) * BV, tl.program_id(1).to(tl.int64)
    at_k, at_v = (bh // H * T * H + bh % H) * K, (bh // H * T * H + bh % H) * V + column
    s = load_tile(s_ptr + bh * K * V + column, 0, K, V, V - column, BK, BV)
    for n in range(0, N):
        k = load_tile(k_ptr + at_k, n * C, T, H * K, K, C, BK)
        v = load_tile(v_ptr + at_v, n * C, T, H * V, V - column, C, BV)
        inverse = load_tile(inverse_ptr + (bh * N + n) * C * C, 0, C, C, C, C, C)
        b = load_row(b_ptr + bh * T, n * C, T, C)
        start = tl.exp(load_row(within_ptr + bh * T, n * C, T, C))
        left = tl.exp(load_row(after_ptr + bh * T, n * C, T, C))
        store_tile(states_ptr + (bh * N + n) * K * V + column, s, 0, K, V, V - column, BK, BV)
        wrong = b[:, None] * (v - start[:, None] * dot(k, s.to(k.dtype)))
        writes = dot(inverse, wrong.to(k.dtype)).to(k.dtype)
        store_tile(writes_ptr + at_v, writes, n * C, T, H * V, V - column, C, BV)
        k_end = (k * left[:, None]).to(k.dtype)
        s = s * tl.exp(tl.load(totals_ptr + bh * N + n)) + dot(tl.trans(k_end), writes)
    store_tile(last_ptr + bh * K * V + column, s, 0, K, V, V - column, BK, BV)


@triton.jit
def _delta_read(
    q_ptr, within_ptr, scores_ptr, states_ptr, writes_ptr, o_ptr, T, H, N,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    n, column, bh = tl.program_id(0), tl.program_id(1) * BV, tl.program_id(2).to(tl.int64)
    at_k, at_v = (bh // H * T * H + bh % H) * K, (bh // H * T * H + bh % H) * V + column
    q = load_tile(q_ptr + at_k, n * C, T, H * K, K, C, BK)
    s = load_tile(states_ptr + (bh * N + n) * K * V + column, 0, K, V, V - column, BK, BV)
    writes = load_tile(writes_ptr + at_v, n * C, T, H * V, V - column, C, BV)
    scores = load_tile(scores_ptr + (bh * N + n) * C * C, 0, C, C, C, C, C)
    start = tl.exp(load_row(within_ptr + bh * T, n * C, T, C))
    o = start[:, None] * dot(q, s) + dot(scores, writes)
    store_tile(o_ptr + at_v, o, n * C, T, H * V, V - column, C, BV)


@triton.jit
def _delta_scan_back(
    q_ptr, k_ptr, b_ptr, within_ptr, after_ptr, totals_ptr, scores_ptr, inverse_ptr, d_o_ptr, d_last_ptr,
    d_states_ptr, y_ptr, d_v_ptr, d_s_ptr, T, H, N,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    column, bh = tl.program_id(0) * BV, tl.program_id(1).to(tl.int64)
    at_k, at_v = (bh // H * T * H + bh % H) * K, (bh // H * T * H + bh % H) * V + column
    d_s = load_tile(d_last_ptr + bh * K * V + column, 0, K, V, V - column, BK, BV)
    for step in range(0, N):
        n = N - 1 - step
        q = load_tile(q_ptr + at_k, n * C, T, H * K, K, C, BK)
        k = load_tile(k_ptr + at_k, n * C, T, H * K, K, C, BK)
        d_o = load_tile(d_o_ptr + at_v, n * C, T, H * V, V - column, C, BV)
        scores = load_tile(scores_ptr + (bh * N + n) * C * C, 0, C, C, C, C, C)
        inverse = load_tile(inverse_ptr + (bh * N + n) * C * C, 0, C, C, C, C, C)
        b = load_row(b_ptr + bh * T, n * C, T, C)
        start = tl.exp(load_row(within_ptr + bh * T, n * C, T, C))
        left = tl.exp(load_row(after_ptr + bh * T, n * C, T, C))
        store_tile(d_states_ptr + (bh * N + n) * K * V + column, d_s, 0, K, V, V - column, BK, BV)
        k_end = (k * left[:, None]).to(k.dtype)
        d_writes = dot(tl.trans(scores), d_o) + dot(k_end, d_s.to(k.dtype))
        y = dot(tl.trans(inverse), d_writes.to(k.dtype))
        store_tile(y_ptr + at_v, y, n * C, T, H * V, V - column, C, BV)
        store_tile(d_v_ptr + at_v, y * b[:, None], n * C, T, H * V, V - column, C, BV)
        q_start, k_start = (q * start[:, None]).to(q.dtype), (k * (b * start)[:, None]).to(k.dtype)
        d_s = d_s * tl.exp(tl.load(totals_ptr + bh * N + n)) + dot(tl.trans(q_start), d_o)
        d_s -= dot(tl.trans(k_start), y.to(k.dtype))
    store_tile(d_s_ptr + bh * K * V + column, d_s, 0, K, V, V - column, BK, BV)


@triton.jit
def _delta_gradients(
    q_ptr, k_ptr, v_ptr, log_a_ptr, b_ptr, within_ptr, after_ptr, totals_ptr,
    states_ptr, writes_ptr, d_states_ptr, y_ptr, d_o_ptr,
    d_q_ptr, d_k_ptr, d_b_ptr, d_from_ptr, d_upto_ptr, d_totals_ptr, T, H, N,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    n, bh = tl.program_id(0), tl.program_id(1).to(tl.int64)
    at_k, at_v = (bh // H * T * H + bh % H) * K, (bh // H * T * H + bh % H) * V
    d_q, d_k_end = tl.zeros((C, BK), dtype=tl.float32), tl.zeros((C, BK), dtype=tl.float32)
    y_s = tl.zeros((C, BK), dtype=tl.float32)
    d_scores, d_a = tl.zeros((C, C), dtype=tl.float32), tl.zeros((C, C), dtype=tl.float32)
    d_b, d_total = tl.zeros((C,), dtype=tl.float32), 0.0
    for column in range(0, V, BV):
        of_state = (bh * N + n) * K * V + column
        s = load_tile(states_ptr + of_state, 0, K, V, V - column, BK, BV)
        d_s = load_tile(d_states_ptr + of_state, 0, K, V, V - column, BK, BV)
        d_total += tl.sum(s.to(tl.float32) * d_s.to(tl.float32))
        writes = load_tile(writes_ptr + at_v + column, n * C, T, H * V, V - column, C, BV)
        d_k_end += dot(writes, tl.trans(d_s))
        y = load_tile(y_ptr + at_v + column, n * C, T, H * V, V - column, C, BV)
        d_a -= dot(y, tl.trans(writes))
        y_s += dot(y, tl.trans(s))
        v = load_tile(v_ptr + at_v + column, n * C, T, H * V, V - column, C, BV)
        d_b += tl.sum(y.to(tl.float32) * v.to(tl.float32), axis=1)
        d_o = load_tile(d_o_ptr + at_v + column, n * C, T, H * V, V - column, C, BV)
        d_scores += dot(d_o, tl.trans(writes))
        d_q += dot(d_o, tl.trans(s))
    q = load_tile(q_ptr + at_k, n * C, T, H * K, K, C, BK)
    k = load_tile(k_ptr + at_k, n * C, T, H * K, K, C, BK)
    b = load_row(b_ptr + bh * T, n * C, T, C)
    start = tl.exp(load_row(within_ptr + bh * T, n * C, T, C))
    left = tl.exp(load_row(after_ptr + bh * T, n * C, T, C))
    # What reaches over the chunk's ends: decays from its start and to its end, and the chunk as a whole.
    d_q *= start[:, None]
    d_k_end *= left[:, None]
    along = start * tl.sum(y_s * k, axis=1)
    d_from = tl.sum(d_q * q, axis=1) - b * along
    d_b -= along
    store_row(d_upto_ptr + bh * T, tl.sum(d_k_end * k, axis=1), n * C, T, C)
    tl.store(d_totals_ptr + bh * N + n, d_total * tl.exp(tl.load(totals_ptr + bh * N + n)))
    d_k = d_k_end - y_s * (b * start)[:, None]
    # And what stays inside: scores of queries and of keys with keys, and the decays between them.
    decay = _decays(load_row(log_a_ptr + bh * T, n * C, T, C), C)
    i = tl.arange(0, C)
    d_scores *= decay
    d_spans = d_scores * dot(q, tl.trans(k))
    d_a = tl.where(i[:, None] > i[None, :], d_a * decay, 0.0)
    along_a = d_a * dot(k, tl.trans(k))
    d_b += tl.sum(along_a, axis=1)
    d_spans += along_a * b[:, None]
    d_from += tl.sum(d_spans, axis=1) - tl.sum(d_spans, axis=0)
    d_scores, d_a = d_scores.to(k.dtype), (d_a * b[:, None]).to(k.dtype)
    d_q += dot(d_scores, k)
    d_k += dot(tl.trans(d_scores), q) + dot(d_a, k) + dot(tl.trans(d_a), k)
    store_tile(d_q_ptr + at_k, d_q, n * C, T, H * K, K, C, BK)
    store_tile(d_k_ptr + at_k, d_k, n * C, T, H * K, K, C, BK)
    store_row(d_b_ptr + bh * T, d_b, n * C, T, C)
    store_row(d_from_ptr + bh * T, d_from, n * C, T, C)


def gated_delta(
    q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, log_a_BTH: Tensor, b_BTH: Tensor, s_BHKV: Tensor
) -> tuple[Tensor, Tensor]:
    """``blocks.gdn.gated_delta_reference``: (o_BTHV, last state).

    Queries, keys and values of one type, the rest in float32.
    """
    return _Delta.apply(q_BTHK, k_BTHK, v_BTHV, log_a_BTH, b_BTH, s_BHKV)


class _Delta(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Any:
        q, k, v, log_a, b, s = (x.contiguous() for x in tensors)
        sums = block_sums(log_a, CHUNK)
        log_a, b = (x.transpose(1, 2).contiguous() for x in (log_a, b))
        (batch, length, heads, width), values = q.shape, v.shape[3]
        count, of_all = sums[2].shape[2], batch * heads
        wide = {"K": width, "C": CHUNK, "BK": columns(width)}
        tall = {**wide, "V": values, "BV": min(64 if width <= 64 else 32, columns(values))}
        across, sizes = -(-values // tall["BV"]), (length, heads, count)
        scores, inverse = (q.new_empty(batch, heads, count, CHUNK, CHUNK) for _ in range(2))
        states, writes = q.new_empty(batch, heads, count, width, values), torch.empty_like(v)
        o, last = torch.empty_like(v), torch.empty_like(s)
        _delta_prepare[(count, of_all)](q, k, log_a, b, scores, inverse, *sizes, **wide)
        _delta_scan[(across, of_all)](
            k, v, b, *sums, inverse, s, states, writes, last, *sizes, **tall, num_stages=2
        )
        _delta_read[(count, across, of_all)](q, sums[0], scores, states, writes, o, *sizes, **tall)
        ctx.save_for_backward(q, k, v, log_a, b, *sums, scores, inverse, states, writes)
        ctx.sizes, ctx.tall = sizes, tall
        return o, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, k, v, log_a, b, *sums, scores, inverse, states, writes = ctx.saved_tensors
        d_o, d_last = (d.contiguous() for d in grad_outputs)
        (batch, length, heads, _), count, tall = q.shape, ctx.sizes[2], ctx.tall
        d_states, y, d_v, d_s = (torch.empty_like(x) for x in (states, v, v, d_last))
        grid = -(-v.shape[3] // tall["BV"]), batch * heads
        _delta_scan_back[grid](
            *(q, k, b, *sums, scores, inverse, d_o, d_last, d_states, y, d_v, d_s),
            *ctx.sizes,
            **tall,
            num_stages=1,
        )
        d_q, d_k, d_b, d_from, d_upto = (torch.empty_like(x) for x in (q, k, b, b, b))
        d_totals = torch.empty_like(sums[2])
        _delta_gradients[(count, batch * heads)](
            *(q, k, v, log_a, b, *sums, states, writes, d_states, y, d_o),
            *(d_q, d_k, d_b, d_from, d_upto, d_totals),
            *ctx.sizes,
            **tall,
            num_stages=1,
        )
        d_log_a = _of_steps(d_from, d_upto, d_totals, length).transpose(1, 2)
        return d_q, d_k, d_v, d_log_a, d_b.transpose(1, 2), d_s


def _of_steps(d_from_BHT: Tensor, d_upto_BHT: Tensor, d_totals_BHN: Tensor, length: int) -> Tensor:
    """Gradients of each log a from those of sums of them inside its chunk.

    It is in what runs to the tokens from it on (d_from), in what runs from the tokens before it (d_upto), and
    in the whole chunk.
    """
    pad = -length % CHUNK
    d_from, d_upto = (
        torch.nn.functional.pad(d, (0, pad)).unflatten(-1, (-1, CHUNK)) for d in (d_from_BHT, d_upto_BHT)
    )
    before = torch.nn.functional.pad(d_upto[..., :-1], (1, 0)).cumsum(-1)
    d = d_from.flip(-1).cumsum(-1).flip(-1) + before + d_totals_BHN[..., None]
    return d.flatten(-2)[..., :length]
