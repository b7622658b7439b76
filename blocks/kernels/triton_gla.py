# pyright: reportCallIssue=false, reportIndexIssue=false, reportArgumentType=false
# A kernel that is launched takes arguments of the launch as well, which its type does not know.
"""Gated linear attention in chunks, forward and backward, in Triton.

Two parts of ``blocks.gla.gla_chunked`` are no plain products of matrices, and are kernels: the scores inside
a chunk, whose decay is another for each pair of tokens and each channel, and the scan that carries the state
from chunk to chunk, S = a S + (f k)^T v. The rest is left to torch, whose batched products are the vendor's.

Decays and the state that is carried are float32; products take the type of the inputs. N chunks of C tokens
of all heads and sequences together, G = B*H of them in a row, K key width, V value width.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from blocks.chunks import join_chunks, split_chunks
from blocks.kernels.triton_tiles import columns, dot, load_tile, store_tile

__all__ = ["WIDEST", "gated_linear"]

CHUNK = 16
"""Tokens: decays are formed for all pairs, and a product takes no fewer."""

WIDEST = 128
"""Of a key: a program holds all its channels."""


@triton.jit
def _left(log_a, j, C: tl.constexpr):
    """[C, BK]: what is left of each channel from token j at token i; 0 for j > i."""
    i = tl.arange(0, C)[:, None]
    spans = tl.cumsum(tl.where(i > j, log_a, 0.0), axis=0)
    return tl.exp(tl.where(i >= j, spans, float("-inf")))


@triton.jit
def _gla_scores(
    q_ptr, k_ptr, log_a_ptr, scores_ptr, K: tl.constexpr, C: tl.constexpr, BK: tl.constexpr
):  # fmt: skip
    n, at = tl.program_id(0).to(tl.int64), tl.arange(0, C)
    q = load_tile(q_ptr + n * C * K, 0, C, K, K, C, BK).to(tl.float32)
    k = load_tile(k_ptr + n * C * K, 0, C, K, K, C, BK).to(tl.float32)
    log_a = load_tile(log_a_ptr + n * C * K, 0, C, K, K, C, BK)
    scores = tl.zeros((C, C), dtype=tl.float32)
    for j in range(0, C):
        key = tl.sum(tl.where(at[:, None] == j, k, 0.0), axis=0)
        column = tl.sum(q * key[None, :] * _left(log_a, j, C), axis=1)
        scores = tl.where(at[None, :] == j, column[:, None], scores)
    store_tile(scores_ptr + n * C * C, scores, 0, C, C, C, C, C)


@triton.jit
def _gla_scores_back(
    q_ptr, k_ptr, log_a_ptr, d_scores_ptr, d_q_ptr, d_k_ptr, d_from_ptr,
    K: tl.constexpr, C: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    n, at = tl.program_id(0).to(tl.int64), tl.arange(0, C)
    q = load_tile(q_ptr + n * C * K, 0, C, K, K, C, BK).to(tl.float32)
    k = load_tile(k_ptr + n * C * K, 0, C, K, K, C, BK).to(tl.float32)
    log_a = load_tile(log_a_ptr + n * C * K, 0, C, K, K, C, BK)
    d_scores = load_tile(d_scores_ptr + n * C * C, 0, C, C, C, C, C).to(tl.float32)
    d_q, d_k = tl.zeros((C, BK), dtype=tl.float32), tl.zeros((C, BK), dtype=tl.float32)
    for j in range(0, C):
        key = tl.sum(tl.where(at[:, None] == j, k, 0.0), axis=0)
        d_column = tl.sum(tl.where(at[None, :] == j, d_scores, 0.0), axis=1)
        part = d_column[:, None] * _left(log_a, j, C)
        d_q += part * key[None, :]
        d_k = tl.where(at[:, None] == j, tl.sum(part * q, axis=0)[None, :], d_k)
    store_tile(d_q_ptr + n * C * K, d_q, 0, C, K, K, C, BK)
    store_tile(d_k_ptr + n * C * K, d_k, 0, C, K, K, C, BK)
    store_tile(d_from_ptr + n * C * K, d_q * q - d_k * k, 0, C, K, K, C, BK)


@triton.jit
def _gla_scan(
    k_end_ptr, v_ptr, keep_ptr, s_ptr, states_ptr, last_ptr, N,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    column, g = tl.program_id(0) * BV, tl.program_id(1).to(tl.int64)
    s = load_tile(s_ptr + g * K * V + column, 0, K, V, V - column, BK, BV)
    channel = tl.arange(0, BK)
    for n in range(0, N):
        at = g * N + n
        store_tile(states_ptr + at * K * V + column, s, 0, K, V, V - column, BK, BV)
        k_end = load_tile(k_end_ptr + at * C * K, 0, C, K, K, C, BK)
        v = load_tile(v_ptr + at * C * V + column, 0, C, V, V - column, C, BV)
        keep = tl.load(keep_ptr + at * K + channel, mask=channel < K, other=0.0)
        s = s * keep[:, None] + dot(tl.trans(k_end), v)
    store_tile(last_ptr + g * K * V + column, s, 0, K, V, V - column, BK, BV)


@triton.jit
def _gla_scan_back(
    keep_ptr, d_states_ptr, d_last_ptr, d_after_ptr, d_s_ptr, N,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    column, g = tl.program_id(0) * BV, tl.program_id(1).to(tl.int64)
    d_s = load_tile(d_last_ptr + g * K * V + column, 0, K, V, V - column, BK, BV)
    channel = tl.arange(0, BK)
    for step in range(0, N):
        at = g * N + N - 1 - step
        store_tile(d_after_ptr + at * K * V + column, d_s, 0, K, V, V - column, BK, BV)
        keep = tl.load(keep_ptr + at * K + channel, mask=channel < K, other=0.0)
        d_s = d_s * keep[:, None] + load_tile(d_states_ptr + at * K * V + column, 0, K, V, V - column, BK, BV)
    store_tile(d_s_ptr + g * K * V + column, d_s, 0, K, V, V - column, BK, BV)


class _Scores(torch.autograd.Function):
    """Of the queries with the keys of a chunk, [N, C, C]."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        q, k, log_a = (x.contiguous() for x in tensors)
        (count, chunk, width), ctx.tiles = q.shape, {"C": CHUNK, "BK": columns(q.shape[2])}
        scores = q.new_empty(count, chunk, chunk)
        _gla_scores[(count,)](q, k, log_a, scores, K=width, **ctx.tiles)
        ctx.save_for_backward(q, k, log_a)
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, k, log_a = ctx.saved_tensors
        d_q, d_k, d_from = (torch.empty_like(x) for x in (q, k, log_a))
        given = q, k, log_a, grad_outputs[0].contiguous(), d_q, d_k, d_from
        _gla_scores_back[(len(q),)](*given, K=q.shape[2], **ctx.tiles)
        # A decay is in what the tokens from it on read of those before it.
        return d_q, d_k, d_from.flip(1).cumsum(1).flip(1)


class _Scan(torch.autograd.Function):
    """(states before each chunk [N, K, V], the last) of S = keep S + k_end^T v."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Any:
        k_end, v, keep, s = (x.contiguous() for x in tensors)
        (heads, width, values), ctx.count = s.shape, len(keep) // len(s)
        block = min(64, columns(values))
        ctx.tiles = {"K": width, "V": values, "BK": columns(width), "BV": block}
        ctx.grid = -(-values // block), heads
        states, last = k_end.new_empty(len(keep), width, values), torch.empty_like(s)
        _gla_scan[ctx.grid](k_end, v, keep, s, states, last, ctx.count, **ctx.tiles, C=CHUNK, num_stages=2)
        ctx.save_for_backward(k_end, v, keep, states)
        return states, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        k_end, v, keep, states = ctx.saved_tensors
        d_states, d_last = (d.contiguous() for d in grad_outputs)
        d_after, d_s = torch.empty_like(states), torch.empty_like(d_last)
        _gla_scan_back[ctx.grid](keep, d_states, d_last, d_after, d_s, ctx.count, **ctx.tiles, num_stages=2)
        d_keep = (d_after.float() * states).sum(-1)
        return torch.bmm(v, d_after.mT), torch.bmm(k_end, d_after), d_keep, d_s


def gated_linear(
    q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, log_a_BTHK: Tensor, s_BHKV: Tensor
) -> tuple[Tensor, Tensor]:
    """``blocks.gla.gla_reference``: (o_BTHV, last state).

    Queries, keys and values of one type, the rest in float32.
    """
    batch, length, heads, _ = k_BTHK.shape
    q, k, v, log_a = (split_chunks(x, CHUNK) for x in (q_BTHK, k_BTHK, v_BTHV, log_a_BTHK))
    within = log_a.cumsum(1)
    after = torch.nn.functional.pad(log_a[:, 1:], (0, 0, 0, 1)).flip(1).cumsum(1).flip(1)
    k_end, q_start = ((x * sums.exp()).to(x.dtype) for x, sums in ((k, after), (q, within)))
    states, last = _Scan.apply(k_end, v, within[:, -1].exp(), s_BHKV.flatten(0, 1))
    o = torch.baddbmm(torch.bmm(_Scores.apply(q, k, log_a), v), q_start, states)
    return join_chunks(o, batch, heads, length), last.view(s_BHKV.shape)
