# pyright: reportCallIssue=false, reportIndexIssue=false, reportArgumentType=false
# A kernel that is launched takes arguments of the launch as well, which its type does not know.
"""The dual form of TTT-Linear, forward and backward, in Triton.

What is no plain product of matrices in ``blocks.ttt.ttt_dual`` is a kernel: the walk over the mini-batches,
in which an inner model reads the keys of one, is told how wrong it was through its LayerNorm, and takes the
step that the next begins with. A program walks for one head of one sequence. What a mini-batch's queries read
of its start and of its steps is left to torch, whose batched products are the vendor's.

Inner weights, steps, LayerNorm and rates are float32; products take the type of the keys, and what a query
reads is rounded to it. A program holds the inner weights, their step, and going back the gradients of both.
In it channels are rows and tokens columns: with a mini-batch's 16 tokens as rows, three of four warps would
repeat the first.

N mini-batches of M tokens, G = B*H walks, K head width; inner weights and bias lie in one [K + 1, K].
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from blocks.chunks import join_chunks, on_grid, split_chunks
from blocks.kernels.triton_tiles import columns, dot, load_row, load_tile, store_row, store_tile

__all__ = ["ttt_dual"]

ROWS = 16
"""Tokens a program reads at once: a mini-batch as the paper has it, and no product takes fewer."""


@triton.jit
def _layer_norm(z, target, gain, bias, eps, K: tl.constexpr, BK: tl.constexpr):
    """(u, which is z standardised; 1 / deviation; LN(z) - target; the raw error; the mean of h u).

    The raw error is dloss/dz times the deviation, h = (LN(z) - target) gain is dloss/du.
    """
    seen = (tl.arange(0, BK) < K)[:, None]
    centred = tl.where(seen, z - tl.sum(z, axis=0)[None, :] / K, 0.0)
    inverse = tl.rsqrt(tl.sum(centred * centred, axis=0) / K + eps)
    unit = centred * inverse[None, :]
    missed = unit * gain[:, None] + bias[:, None] - target
    h = missed * gain[:, None]
    along = tl.sum(h * unit, axis=0) / K
    raw = tl.where(seen, h - tl.sum(h, axis=0)[None, :] / K - unit * along[None, :], 0.0)
    return unit, inverse, missed, raw, along


@triton.jit
def _ttt_walk(
    k_ptr, v_ptr, rate_ptr, gain_ptr, bias_ptr, w_ptr, step_ptr,
    states_ptr, errors_ptr, last_ptr, N, M, eps,
    K: tl.constexpr, BK: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    g = tl.program_id(0).to(tl.int64)
    size = (K + 1) * K
    gain, ln_bias = load_row(gain_ptr + g * K, 0, K, BK), load_row(bias_ptr + g * K, 0, K, BK)
    w = tl.trans(load_tile(w_ptr + g * size, 0, K, K, K, BK, BK))
    b = load_row(w_ptr + g * size + K * K, 0, K, BK)
    step = tl.trans(load_tile(step_ptr + g * size, 0, K, K, K, BK, BK))
    step_b = load_row(step_ptr + g * size + K * K, 0, K, BK)
    for n in range(0, N):
        at = g * N + n
        if n > 0:
            w, b = w - step, b - step_b
            step, step_b = tl.zeros((BK, BK), dtype=tl.float32), tl.zeros((BK,), dtype=tl.float32)
        store_tile(states_ptr + at * size, tl.trans(w), 0, K, K, K, BK, BK)
        store_row(states_ptr + at * size + K * K, b, 0, K, BK)
        for first in range(0, M, R):
            k = load_tile(k_ptr + at * M * K, first, M, K, K, R, BK)
            v = load_tile(v_ptr + at * M * K, first, M, K, K, R, BK)
            target = tl.trans(v.to(tl.float32) - k.to(tl.float32))
            rate = load_row(rate_ptr + at * M, first, M, R)
            z = dot(w.to(k.dtype), tl.trans(k)) + b[:, None]
            _, inverse, _, raw, _ = _layer_norm(z, target, gain, ln_bias, eps, K, BK)
            # The step of the bias is of the same rounded numbers that the outputs read.
            error = (raw * (inverse * rate)[None, :]).to(k.dtype)
            store_tile(errors_ptr + at * M * K, tl.trans(error), first, M, K, K, R, BK)
            step += dot(error, k)
            step_b += tl.sum(error.to(tl.float32), axis=1)
    store_tile(last_ptr + g * size, tl.trans(step), 0, K, K, K, BK, BK)
    store_row(last_ptr + g * size + K * K, step_b, 0, K, BK)


@triton.jit
def _ttt_walk_back(
    k_ptr, v_ptr, rate_ptr, gain_ptr, bias_ptr, states_ptr, d_states_ptr, d_errors_ptr, d_last_ptr,
    d_z_ptr, d_v_ptr, d_rate_ptr, d_gain_ptr, d_bias_ptr, d_w_ptr, d_steps_ptr, N, M, eps,
    K: tl.constexpr, BK: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    g = tl.program_id(0).to(tl.int64)
    size = (K + 1) * K
    seen = (tl.arange(0, BK) < K)[:, None]
    gain, ln_bias = load_row(gain_ptr + g * K, 0, K, BK), load_row(bias_ptr + g * K, 0, K, BK)
    d_gain, d_ln_bias = tl.zeros((BK,), dtype=tl.float32), tl.zeros((BK,), dtype=tl.float32)
    # Of the weights that the mini-batch after this one starts from.
    d_w, d_b = tl.zeros((BK, BK), dtype=tl.float32), tl.zeros((BK,), dtype=tl.float32)
    d_step = tl.trans(load_tile(d_last_ptr + g * size, 0, K, K, K, BK, BK))
    d_step_b = load_row(d_last_ptr + g * size + K * K, 0, K, BK)
    for back in range(0, N):
        at = g * N + N - 1 - back
        if back > 0:
            d_step, d_step_b = -d_w, -d_b
        store_tile(d_steps_ptr + at * size, tl.trans(d_step), 0, K, K, K, BK, BK)
        store_row(d_steps_ptr + at * size + K * K, d_step_b, 0, K, BK)
        w = tl.trans(load_tile(states_ptr + at * size, 0, K, K, K, BK, BK)).to(k_ptr.dtype.element_ty)
        b = load_row(states_ptr + at * size + K * K, 0, K, BK)
        d_w += tl.trans(load_tile(d_states_ptr + at * size, 0, K, K, K, BK, BK))
        d_b += load_row(d_states_ptr + at * size + K * K, 0, K, BK)
        for first in range(0, M, R):
            k = load_tile(k_ptr + at * M * K, first, M, K, K, R, BK)
            v = load_tile(v_ptr + at * M * K, first, M, K, K, R, BK)
            target = tl.trans(v.to(tl.float32) - k.to(tl.float32))
            rate = load_row(rate_ptr + at * M, first, M, R)
            z = dot(w, tl.trans(k)) + b[:, None]
            unit, inverse, missed, raw, along = _layer_norm(z, target, gain, ln_bias, eps, K, BK)

            # The step is error k^T: what reaches it reaches the error.
            d_error = tl.trans(load_tile(d_errors_ptr + at * M * K, first, M, K, K, R, BK)).to(tl.float32)
            d_error = tl.where(seen, d_error + dot(d_step.to(k.dtype), tl.trans(k)) + d_step_b[:, None], 0.0)
            store_row(d_rate_ptr + at * M, tl.sum(d_error * raw, axis=0) * inverse, first, M, R)

            # error = rate * inverse * raw; raw = h - mean h - u mean(h u); h = (u gain + bias - target) gain.
            d_error = d_error * rate[None, :]
            d_inverse = tl.sum(d_error * raw, axis=0)
            d_raw = d_error * inverse[None, :]
            d_along = -tl.sum(d_raw * unit, axis=0) / K
            d_h = d_raw - tl.sum(d_raw, axis=0)[None, :] / K + d_along[None, :] * unit
            d_missed = d_h * gain[:, None]
            store_tile(d_v_ptr + at * M * K, tl.trans(-d_missed), first, M, K, K, R, BK)
            d_gain += tl.sum(d_h * missed + d_missed * unit, axis=1)
            d_ln_bias += tl.sum(d_missed, axis=1)
            d_unit = (d_missed + d_along[None, :] * missed) * gain[:, None] - d_raw * along[None, :]

            # u = centred * inverse, and the inverse is of the centred: its derivative is -inverse^2 u / K.
            pull = d_inverse * inverse + tl.sum(d_unit * unit, axis=0)
            d_centred = (d_unit - unit * (pull / K)[None, :]) * inverse[None, :]
            d_z = tl.where(seen, d_centred - tl.sum(d_centred, axis=0)[None, :] / K, 0.0)
            d_b += tl.sum(d_z, axis=1)
            d_z = d_z.to(k.dtype)
            store_tile(d_z_ptr + at * M * K, tl.trans(d_z), first, M, K, K, R, BK)
            d_w += dot(d_z, k)
    store_row(d_gain_ptr + g * K, d_gain, 0, K, BK)
    store_row(d_bias_ptr + g * K, d_ln_bias, 0, K, BK)
    store_tile(d_w_ptr + g * size, tl.trans(d_w), 0, K, K, K, BK, BK)
    store_row(d_w_ptr + g * size + K * K, d_b, 0, K, BK)


class _Walk(torch.autograd.Function):
    """(weights at the start of each mini-batch [GN, K+1, K], rate times error of each token [GN, M, K], the
    step summed in the last mini-batch [G, K+1, K])."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        k, v, rate, gain, bias, w, step = (x.contiguous() for x in inputs[:7])
        (pieces, size, width), walks = k.shape, len(w)
        ctx.counts = pieces // walks, size, inputs[7]
        ctx.tiles = {"K": width, "BK": columns(width), "R": ROWS, "num_stages": 1}
        states, errors, last = w.new_empty(pieces, *w.shape[1:]), torch.empty_like(k), torch.empty_like(step)
        given = k, v, rate, gain, bias, w, step
        _ttt_walk[(walks,)](*given, states, errors, last, *ctx.counts, **ctx.tiles)
        ctx.save_for_backward(*given[:5], states, errors)
        return states, errors, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        k, *given, states, errors = ctx.saved_tensors
        upstream = [d.contiguous() for d in grad_outputs]
        d_z, d_w, d_steps = torch.empty_like(k), torch.empty_like(upstream[2]), torch.empty_like(states)
        found = [torch.empty_like(x) for x in given]
        _ttt_walk_back[(len(d_w),)](
            *(k, *given, states, *upstream), *(d_z, *found, d_w, d_steps), *ctx.counts, **ctx.tiles
        )
        # A key is read by the inner weights, written into their step, and taken off the value.
        w, d_step = (x[:, :-1].to(k.dtype) for x in (states, d_steps))
        d_k = torch.baddbmm(torch.bmm(d_z, w.mT), errors, d_step.mT) - found[0]
        return d_k, *found, d_w, d_steps.unflatten(0, (len(d_w), -1))[:, 0], None


def ttt_dual(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHK: Tensor,
    rate_BTH: Tensor,
    gain_HK: Tensor,
    bias_HK: Tensor,
    w_BHJK: Tensor,
    step_BHJK: Tensor,
    place: int,
    mini_batch: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """``blocks.ttt.ttt_dual``: (o_BTHK, the last w_BHJK, its step_BHJK).

    Queries, keys and values of one type, the rest in float32.
    """
    batch, length, heads, _ = q_BTHK.shape
    lead, size = on_grid(place, length, mini_batch)
    q, k, v = (split_chunks(x, size, lead) for x in (q_BTHK, k_BTHK, v_BTHK))
    rate = split_chunks(rate_BTH, size, lead)
    gain, bias = gain_HK.repeat(batch, 1), bias_HK.repeat(batch, 1)
    w, step = w_BHJK.flatten(0, 1), step_BHJK.flatten(0, 1)
    states, errors, last = _Walk.apply(k, v, rate, gain, bias, w, step, eps)

    reads = states.unflatten(0, (len(w), -1))
    reads = torch.cat([reads[:, :1] - step[:, None], reads[:, 1:]], dim=1).flatten(0, 1)
    # A query's constant 1 reads the bias, and adds 1 to each of its scores.
    scores = (torch.bmm(q, k.mT) + 1).tril()
    z = torch.bmm(q, reads[:, :-1].to(q.dtype)).float() + reads[:, -1:] - torch.bmm(scores, errors)
    z = join_chunks(z, batch, heads, length, lead)
    normal = F.layer_norm(z, z.shape[-1:], eps=eps) * gain_HK + bias_HK
    out = (q_BTHK + normal).to(q_BTHK.dtype)
    w = states.unflatten(0, (len(w), -1))[:, -1].clone()  # not a view that keeps all of them
    if (place + length) % mini_batch == 0:
        w, last = w - last, torch.zeros_like(last)
    return out, w.reshape(w_BHJK.shape), last.view(step_BHJK.shape)
