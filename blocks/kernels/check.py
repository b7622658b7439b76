"""Each Triton kernel against the paper's loop: what a first use, ``lab doctor`` and the tests all compare.

B batch, T time, H heads, K key width, V value width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from blocks.kernels import fla, triton_delta, triton_fox, triton_gla, triton_norm, triton_sparse, triton_ttt
from blocks.kernels.gpu import Backend

__all__ = ["LENGTH", "OPS", "TOLERANCES", "Figure", "Op", "Sizes", "compare", "ops", "worst"]

LENGTH = 37
"""Tokens of the check at first use: more than a tile, and no multiple of one."""

TOLERANCES = {torch.float32: 2e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}
"""The largest deviation that is allowed, over the largest magnitude of the result.

A half type rounds each factor of a product (5e-4, 4e-3), and a chunk chains some five of them.
"""

FLOOR = 1e-2
"""A result that is smaller than this everywhere is held to this."""


class Sizes(NamedTuple):
    """Of the tensors that are drawn. No width here is a power of two: every edge of a tile is in use."""

    batch: int = 2
    heads: int = 2
    key: int = 24
    value: int = 40


@dataclass(frozen=True)
class Figure:
    """How far a result (``output 0``, ``gradient 3``) lies from the reference, over its largest magnitude."""

    result: str
    error: float


Draw = Callable[[Generator], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Op:
    """A kernel, its reference, its fast form in torch, and what draws their tensors in float64 for T tokens.

    wide: which of the tensors stay in float32 where the others are of a half type: gates and states.
    """

    name: str
    run: Callable[..., Any]
    reference: Callable[..., Any]
    torch: Callable[..., Any]
    draw: Callable[[Generator, int, Sizes], tuple[Tensor, ...]]
    wide: tuple[int, ...] = ()


def compare(
    op: Op, kind: torch.dtype, device: torch.device, length: int, seed: int = 0, draw: Draw | None = None
) -> list[Figure]:
    """Outputs, and gradients of a random function of them by every input, against float64 on the CPU.

    The reference is given the tensors as ``kind`` rounds them. ``draw``: other inputs than the kernel's own.
    """
    rng = torch.Generator().manual_seed(seed)
    drawn = draw(rng) if draw else op.draw(rng, length, Sizes())
    given = [x.to(torch.float32 if i in op.wide else kind) for i, x in enumerate(drawn)]
    got = _results(op.run, [x.to(device) for x in given], seed)
    right = _results(op.reference, [x.double() for x in given], seed)
    return [
        Figure(name, _apart(got[name].detach().cpu().double(), expected.detach()))
        for name, expected in right.items()
    ]


def worst(figures: list[Figure]) -> Figure:
    """The figure furthest off; what is not a number is further off than any."""
    return max(figures, key=lambda figure: figure.error)


def _results(function: Callable[..., Any], inputs: list[Tensor], seed: int) -> dict[str, Tensor]:
    inputs = [x.clone().requires_grad_() for x in inputs]
    out = function(*inputs)
    outs = [out] if isinstance(out, Tensor) else list(out)
    rng = torch.Generator().manual_seed(seed + 1)
    upstream = [torch.randn(y.shape, generator=rng, dtype=torch.float64).half().to(y) for y in outs]
    reached = [i for i, y in enumerate(outs) if y.requires_grad]  # a sum that starts anew is a plain zero
    upstream = [upstream[i] for i in reached]
    gradients = torch.autograd.grad([outs[i] for i in reached], inputs, upstream, materialize_grads=True)
    return {f"output {i}": y for i, y in enumerate(outs)} | {
        f"gradient {i}": d for i, d in enumerate(gradients)
    }


def _apart(got: Tensor, right: Tensor) -> float:
    if got.shape != right.shape:
        return float("inf")
    if not got.numel():
        return 0.0
    size = max(float(right.abs().amax()), FLOOR)
    return float(((got - right).abs() / size).nan_to_num(torch.inf, torch.inf).amax())


def _normal(rng: Generator, *sizes: int) -> Tensor:
    return torch.randn(*sizes, generator=rng, dtype=torch.float64)


# The norm: x, gain, gate. The gate is a part of wider rows, as it is in a layer.


def _draw_norm(rng: Generator, length: int, z: Sizes) -> tuple[Tensor, ...]:
    gate = 2 * _normal(rng, z.batch, length, z.heads * z.value)
    return _normal(rng, z.batch, length, z.heads, z.value), 0.3 * _normal(rng, z.value), gate


def _norm(x: Tensor, gain: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
    wide = torch.cat([gate, gate], dim=-1)[..., gate.shape[-1] :]
    return triton_norm.rms_norm(x, gain, 1e-5, 1.0, wide), triton_norm.rms_norm(x, gain, 1e-5, 0.0)


def _norm_torch(x: Tensor, gain: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
    wide, width = torch.cat([gate, gate], dim=-1)[..., gate.shape[-1] :], gain.shape
    normed = F.rms_norm(x.float(), width, gain + 1, 1e-5).to(x.dtype)
    return F.silu(wide) * normed.view(gate.shape), F.rms_norm(x.float(), width, gain, 1e-5).to(x.dtype)


def _norm_reference(x: Tensor, gain: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
    normed = F.rms_norm(x, gain.shape, gain + 1, 1e-5)
    return F.silu(gate) * normed.view(gate.shape), F.rms_norm(x, gain.shape, gain, 1e-5)


# Forgetting attention: q, k, v, log f, faded; seven cached keys, two query heads to a key.


def _draw_fox(rng: Generator, length: int, z: Sizes, past: int = 7) -> tuple[Tensor, ...]:
    heads = 2 * z.heads
    queries, keys = (z.batch, length, heads, z.key), (z.batch, length + past, z.heads, z.key)
    log_f = F.logsigmoid(_normal(rng, z.batch, length, heads) + 1)
    faded = F.logsigmoid(_normal(rng, z.batch, past, heads)).cumsum(1)
    return _normal(rng, *queries), _normal(rng, *keys), _normal(rng, *keys), log_f, faded


def _fox_reference(*inputs: Tensor) -> Tensor:
    from blocks.fox import forgetting_attention_reference

    return forgetting_attention_reference(*inputs)[0]


def _fox_torch(*inputs: Tensor) -> Tensor:
    from blocks.fox import forgetting_attention

    return forgetting_attention(*inputs)[0]


# The gated delta rule: q, k, v, log a, b, s.


def _draw_delta(rng: Generator, length: int, z: Sizes) -> tuple[Tensor, ...]:
    each = z.batch, length, z.heads
    q, k = (F.normalize(_normal(rng, *each, z.key), dim=-1) for _ in range(2))
    log_a, b = F.logsigmoid(_normal(rng, *each) + 1), _normal(rng, *each).sigmoid()
    s = _normal(rng, z.batch, z.heads, z.key, z.value)
    return z.key**-0.5 * q, k, _normal(rng, *each, z.value), log_a, b, s


def _delta_reference(*inputs: Tensor) -> tuple[Tensor, Tensor]:
    from blocks.gdn import gated_delta_reference

    return gated_delta_reference(*inputs)


def _delta_torch(*inputs: Tensor) -> tuple[Tensor, Tensor]:
    from blocks.gdn import gated_delta_chunked

    # As the layer calls it: everything in float32.
    q, k, v, log_a, b, s = (x.float() for x in inputs)
    return gated_delta_chunked(q, k, v, log_a, b, s)


# Gated linear attention: q, k, v, log a, s.


def _draw_gla(rng: Generator, length: int, z: Sizes) -> tuple[Tensor, ...]:
    each = z.batch, length, z.heads
    q, k, log_a = (_normal(rng, *each, z.key) for _ in range(3))
    s = _normal(rng, z.batch, z.heads, z.key, z.value)
    return z.key**-0.5 * q, k, _normal(rng, *each, z.value), F.logsigmoid(log_a + 1), s


def _gla_reference(*inputs: Tensor) -> tuple[Tensor, Tensor]:
    from blocks.gla import gla_reference

    return gla_reference(*inputs)


def _gla_torch(*inputs: Tensor) -> tuple[Tensor, Tensor]:
    from blocks.gla import gla_chunked

    q, k, v, log_a, s = (x.float() for x in inputs)
    return gla_chunked(q, k, v, log_a, s)


# Test-time training: q, k, v, rate, gain, bias, w, step; from the middle of a mini-batch, and of one that
# takes more than one tile of tokens.

_PLACES = ((5, 12), (0, 16), (0, 40))
"""Tokens of the mini-batch that have passed, and of a whole one: 16 is the block's own."""

_TTT_EPS = 1e-6


def _draw_ttt(rng: Generator, length: int, z: Sizes) -> tuple[Tensor, ...]:
    each, inner = (z.batch, length, z.heads), (z.batch, z.heads, z.key + 1, z.key)
    q, k, v = (_normal(rng, *each, z.key) for _ in range(3))
    rate = _normal(rng, *each).sigmoid() / z.key
    gain, bias = 1 + 0.3 * _normal(rng, z.heads, z.key), 0.3 * _normal(rng, z.heads, z.key)
    return q, k, v, rate, gain, bias, 0.2 * _normal(rng, *inner), 0.02 * _normal(rng, *inner)


def _ttt(
    q: Tensor, k: Tensor, v: Tensor, rate: Tensor, gain: Tensor, bias: Tensor, w: Tensor, step: Tensor
) -> tuple[Tensor, ...]:
    given = q, k, v, rate, gain, bias, w, step
    return tuple(x for place in _PLACES for x in triton_ttt.ttt_dual(*given, *place, _TTT_EPS))


def _ttt_by(name: str, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    from blocks import ttt

    function, (*tokens, w, step), found = getattr(ttt, name), inputs, list[Tensor]()
    for place, mini_batch in _PLACES:
        o, inner = function(*tokens, ttt.Inner(w, step, place), mini_batch, _TTT_EPS)
        found += [o, inner.w_BHJK, inner.step_BHJK]
    return tuple(found)


def _ttt_reference(*inputs: Tensor) -> tuple[Tensor, ...]:
    return _ttt_by("ttt_reference", inputs)


def _ttt_torch(*inputs: Tensor) -> tuple[Tensor, ...]:
    return _ttt_by("ttt_dual", tuple(x.float() for x in inputs))


# The largest hidden activations: gate, up. Of whole numbers, half of which tie, and of any.


def _draw_largest(rng: Generator, length: int, z: Sizes) -> tuple[Tensor, ...]:
    width = 3 * z.heads * z.value
    gate, up = (_normal(rng, z.batch, length, width) for _ in range(2))
    gate[:, ::2], up[:, ::2] = gate[:, ::2].round(), up[:, ::2].round()
    return gate, up


def _kept(gate: Tensor) -> int:
    return max(1, round(0.3 * gate.shape[-1]))


def _largest(gate: Tensor, up: Tensor) -> Tensor:
    return triton_sparse.gated_largest(gate, up, _kept(gate))


def _largest_reference(gate: Tensor, up: Tensor) -> Tensor:
    from blocks.ffn import keep_largest_reference

    return keep_largest_reference(F.silu(gate) * up, _kept(gate))


def _largest_torch(gate: Tensor, up: Tensor) -> Tensor:
    from blocks.ffn import keep_largest

    return keep_largest(F.silu(gate) * up, _kept(gate))


# The product of a few rows, most of whose channels are 0: y, weight.


def _draw_skipping(rng: Generator, length: int, z: Sizes) -> tuple[Tensor, ...]:
    width = 3 * z.heads * z.value
    y = _normal(rng, 1, min(length, 8), width)
    y[torch.rand(y.shape, generator=rng) < 0.8] = 0
    y[:, :, :128] = 0  # a whole tile of them
    return y, _normal(rng, z.heads * z.key, width) * width**-0.5


OPS = {
    op.name: op
    for op in (
        Op("rms_norm", _norm, _norm_reference, _norm_torch, _draw_norm, wide=(1,)),
        Op("fox", triton_fox.forgetting_attention, _fox_reference, _fox_torch, _draw_fox, wide=(3, 4)),
        Op(
            "gated_delta",
            triton_delta.gated_delta,
            _delta_reference,
            _delta_torch,
            _draw_delta,
            wide=(3, 4, 5),
        ),
        Op("gated_linear", triton_gla.gated_linear, _gla_reference, _gla_torch, _draw_gla, wide=(3, 4)),
        Op("ttt", _ttt, _ttt_reference, _ttt_torch, _draw_ttt, wide=(3, 4, 5, 6, 7)),
        Op("gated_largest", _largest, _largest_reference, _largest_torch, _draw_largest),
        Op("skipping_product", triton_sparse.skipping_product, F.linear, F.linear, _draw_skipping),
    )
}
"""Every kernel of ours by its name."""


def ops(backend: Backend) -> dict[str, Op]:
    """The kernels of ``triton``, ours, or of ``fla``, whose attention reads no cached keys."""
    if backend == "triton":
        return OPS
    fox = replace(OPS["fox"], run=fla.forgetting_attention, draw=partial(_draw_fox, past=0))
    delta, linear = OPS["gated_delta"], OPS["gated_linear"]
    return {
        "fox": fox,
        "gated_delta": replace(delta, run=fla.gated_delta),
        "gated_linear": replace(linear, run=fla.gated_linear),
    }
