# pyright: reportCallIssue=false, reportIndexIssue=false, reportArgumentType=false
# A kernel that is launched takes arguments of the launch as well, which its type does not know.
"""Forgetting attention in one pass over the keys, forward and backward, in Triton.

As in ``blocks.fox`` the decay is a bias of the key alone, counted from the start of the queries' block: back
to the keys before it, on to those of the block. Blocks of keys lie on the grid of the queries, and a program
goes through them away from the diagonal, adding up what whole blocks have lost, so that no two long sums are
ever subtracted. Scores, weights and gates are float32; products take the type of the inputs.

B batch, T new tokens, P cached keys, S = P + T, H query heads, G key-value heads, K head width, N blocks.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from blocks.kernels.triton_tiles import block_sums, columns, dot, load_row, load_tile, store_tile

__all__ = ["WIDEST", "forgetting_attention"]

BLOCK = 32
"""Queries, and keys, that a program holds at once; with 64 the backward pass spills registers (sm_80)."""

WIDEST = 128
"""Of a head: beyond it the backward pass spills."""


@triton.jit
def _fox_forward(
    q_ptr, k_ptr, v_ptr, within_ptr, ends_ptr, totals_ptr, o_ptr, lse_ptr,
    T, P, H, G, N, scale,
    K: tl.constexpr, BLOCK: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    m, bh = tl.program_id(0), tl.program_id(1).to(tl.int64)
    b, h = bh // H, bh % H
    S, at_q, at_k = P + T, (b * T * H + h) * K, (b * (P + T) * G + h // (H // G)) * K
    here = tl.arange(0, BLOCK)
    q = load_tile(q_ptr + at_q, m * BLOCK, T, H * K, K, BLOCK, BK)

    first = P + m * BLOCK
    k = load_tile(k_ptr + at_k, first, S, G * K, K, BLOCK, BK)
    v = load_tile(v_ptr + at_k, first, S, G * K, K, BLOCK, BK)
    scores = dot(q, tl.trans(k)) * scale - load_row(within_ptr + bh * T, m * BLOCK, T, BLOCK)[None, :]
    seen = (here[:, None] >= here[None, :]) & (first + here < S)[None, :]
    scores = tl.where(seen, scores, float("-inf"))
    top = tl.max(scores, axis=1)
    p = tl.exp(scores - top[:, None])
    total, o = tl.sum(p, axis=1), dot(p.to(v.dtype), v)

    carry = 0.0
    for step in range(1, tl.cdiv(first, BLOCK) + 1):
        before = first - step * BLOCK
        k = load_tile(k_ptr + at_k, before, S, G * K, K, BLOCK, BK)
        v = load_tile(v_ptr + at_k, before, S, G * K, K, BLOCK, BK)
        bias = carry + load_row(ends_ptr + bh * S, before, S, BLOCK)
        scores = tl.where(
            (before + here >= 0)[None, :], dot(q, tl.trans(k)) * scale + bias[None, :], float("-inf")
        )
        higher = tl.maximum(top, tl.max(scores, axis=1))
        shrink = tl.exp(top - higher)
        p = tl.exp(scores - higher[:, None])
        total = total * shrink + tl.sum(p, axis=1)
        o = o * shrink[:, None] + dot(p.to(v.dtype), v)
        top = higher
        carry += tl.load(totals_ptr + bh * N + m - step, mask=m >= step, other=0.0)
    store_tile(o_ptr + at_q, o / total[:, None], m * BLOCK, T, H * K, K, BLOCK, BK)
    i = m * BLOCK + here
    tl.store(lse_ptr + bh * T + i, top + tl.log(total), mask=i < T)


@triton.jit
def _fox_backward_q(
    q_ptr, k_ptr, v_ptr, within_ptr, ends_ptr, totals_ptr, lse_ptr, delta_ptr, d_o_ptr, d_q_ptr, d_rows_ptr,
    T, P, H, G, N, scale,
    K: tl.constexpr, BLOCK: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    m, bh = tl.program_id(0), tl.program_id(1).to(tl.int64)
    b, h = bh // H, bh % H
    S, at_q, at_k = P + T, (b * T * H + h) * K, (b * (P + T) * G + h // (H // G)) * K
    here, first = tl.arange(0, BLOCK), P + m * BLOCK
    q = load_tile(q_ptr + at_q, m * BLOCK, T, H * K, K, BLOCK, BK)
    d_o = load_tile(d_o_ptr + at_q, m * BLOCK, T, H * K, K, BLOCK, BK)
    lse, delta = (
        load_row(lse_ptr + bh * T, m * BLOCK, T, BLOCK),
        load_row(delta_ptr + bh * T, m * BLOCK, T, BLOCK),
    )
    d_q, d_rows = tl.zeros((BLOCK, BK), dtype=tl.float32), tl.zeros((BLOCK,), dtype=tl.float32)
    within = load_row(within_ptr + bh * T, m * BLOCK, T, BLOCK)
    carry = 0.0
    for step in range(0, tl.cdiv(first, BLOCK) + 1):
        before = first - step * BLOCK
        k = load_tile(k_ptr + at_k, before, S, G * K, K, BLOCK, BK)
        v = load_tile(v_ptr + at_k, before, S, G * K, K, BLOCK, BK)
        bias = tl.where(step == 0, -within, carry + load_row(ends_ptr + bh * S, before, S, BLOCK))
        at = before + here
        seen = (at >= 0)[None, :] & (first + here[:, None] >= at[None, :]) & (first + here < S)[:, None]
        scores = dot(q, tl.trans(k)) * scale + bias[None, :]
        p = tl.exp(tl.where(seen, scores - lse[:, None], float("-inf")))
        d_scores = p * (dot(d_o, tl.trans(v)) - delta[:, None])
        d_rows += tl.sum(d_scores, axis=1)
        d_q += dot(d_scores.to(k.dtype), k)
        carry += tl.load(totals_ptr + bh * N + m - step, mask=(step > 0) & (m >= step), other=0.0)
    store_tile(d_q_ptr + at_q, d_q * scale, m * BLOCK, T, H * K, K, BLOCK, BK)
    i = m * BLOCK + here
    tl.store(d_rows_ptr + bh * T + i, d_rows, mask=i < T)


@triton.jit
def _fox_backward_kv(
    q_ptr, k_ptr, v_ptr, within_ptr, ends_ptr, totals_ptr, lse_ptr, delta_ptr, d_o_ptr,
    d_k_ptr, d_v_ptr, d_columns_ptr,
    T, P, H, G, N, scale,
    K: tl.constexpr, BLOCK: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    # Blocks of cached keys have numbers below 0.
    n, bg = tl.program_id(0) - tl.cdiv(P, BLOCK), tl.program_id(1).to(tl.int64)
    b, g, each = bg // G, bg % G, H // G
    S, at_k, here = P + T, (b * (P + T) * G + g) * K, tl.arange(0, BLOCK)
    first = P + n * BLOCK
    at = first + here
    k = load_tile(k_ptr + at_k, first, S, G * K, K, BLOCK, BK)
    v = load_tile(v_ptr + at_k, first, S, G * K, K, BLOCK, BK)
    d_k, d_v = tl.zeros((BLOCK, BK), dtype=tl.float32), tl.zeros((BLOCK, BK), dtype=tl.float32)
    for r in range(0, each):
        bh = b * H + g * each + r
        at_q = (b * T * H + g * each + r) * K
        within, ends = (
            load_row(within_ptr + bh * T, n * BLOCK, T, BLOCK),
            load_row(ends_ptr + bh * S, first, S, BLOCK),
        )
        d_columns = tl.zeros((BLOCK,), dtype=tl.float32)
        carry = 0.0
        for m in range(tl.maximum(n, 0), N):
            q = load_tile(q_ptr + at_q, m * BLOCK, T, H * K, K, BLOCK, BK)
            d_o = load_tile(d_o_ptr + at_q, m * BLOCK, T, H * K, K, BLOCK, BK)
            lse, delta = (
                load_row(lse_ptr + bh * T, m * BLOCK, T, BLOCK),
                load_row(delta_ptr + bh * T, m * BLOCK, T, BLOCK),
            )
            bias = tl.where(m == n, -within, carry + ends)
            i = m * BLOCK + here
            seen = (at >= 0)[:, None] & (at[:, None] <= P + i[None, :]) & (i < T)[None, :]
            scores = dot(k, tl.trans(q)) * scale + bias[:, None]
            p = tl.exp(tl.where(seen, scores - lse[None, :], float("-inf")))
            d_v += dot(p.to(d_o.dtype), d_o)
            d_scores = p * (dot(v, tl.trans(d_o)) - delta[None, :])
            d_columns += tl.sum(d_scores, axis=1)
            d_k += dot(d_scores.to(q.dtype), q)
            carry += tl.load(totals_ptr + bh * N + m, mask=m > n, other=0.0)
        tl.store(d_columns_ptr + bh * S + at, d_columns, mask=(at >= 0) & (at < S))
    store_tile(d_k_ptr + at_k, d_k * scale, first, S, G * K, K, BLOCK, BK)
    store_tile(d_v_ptr + at_k, d_v, first, S, G * K, K, BLOCK, BK)


def forgetting_attention(
    q_BTHK: Tensor, k_BSGK: Tensor, v_BSGK: Tensor, log_f_BTH: Tensor, faded_BPH: Tensor
) -> Tensor:
    """``blocks.fox.forgetting_attention_reference`` without its second result: o_BTHK.

    Queries, keys and values of one type; the gates in float32.
    """
    return _Fox.apply(q_BTHK, k_BSGK, v_BSGK, log_f_BTH, faded_BPH)


class _Fox(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        q, k, v = (x.contiguous() for x in tensors[:3])
        # What queries of a block add for its own keys (less), for those before it, and for blocks between.
        within, after, totals = block_sums(tensors[3], BLOCK)
        biases = within, torch.cat([tensors[4].transpose(1, 2), after], dim=-1), totals
        batch, length, heads, width = q.shape
        count = -(-length // BLOCK)
        o, lse = torch.empty_like(q), q.new_empty(batch, heads, length, dtype=torch.float32)
        ctx.sizes = length, k.shape[1] - length, heads, k.shape[2], count, width**-0.5
        ctx.tiles = {"K": width, "BLOCK": BLOCK, "BK": columns(width)}
        ctx.warps = {"num_warps": 4, "num_stages": 2}
        _fox_forward[(count, batch * heads)](q, k, v, *biases, o, lse, *ctx.sizes, **ctx.tiles, **ctx.warps)
        ctx.save_for_backward(q, k, v, *biases, o, lse)
        return o

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, k, v, *biases, o, lse = ctx.saved_tensors
        d_o = grad_outputs[0].contiguous()
        (batch, _, groups, _), (_, past, heads, _, count, _) = k.shape, ctx.sizes
        delta = (o.float() * d_o.float()).sum(-1).transpose(1, 2).contiguous()
        d_q, d_k, d_v = (torch.empty_like(x) for x in (q, k, v))
        d_rows, d_columns = torch.empty_like(lse), lse.new_empty(batch, heads, k.shape[1])
        given = q, k, v, *biases, lse, delta, d_o
        how = {**ctx.tiles, **ctx.warps}
        _fox_backward_q[(count, batch * heads)](*given, d_q, d_rows, *ctx.sizes, **how)
        grid = count + -(-past // BLOCK), batch * groups
        _fox_backward_kv[grid](*given, d_k, d_v, d_columns, *ctx.sizes, **how)
        # A gate moves the keys before it against those from it on. A row's gradients sum to 0 but for
        # rounding, which would add up over time, were it not taken off again.
        d_log_f = (d_rows - d_columns[..., past:]).flip(-1).cumsum(-1).flip(-1)
        return d_q, d_k, d_v, d_log_f.transpose(1, 2), d_columns[..., :past].transpose(1, 2)
