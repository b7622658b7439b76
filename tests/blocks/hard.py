"""The hard inputs of each core function: where a careless fast form overflows, cancels or loses order.

One entry per core function; both forms take the same tensors. A row of the table is a case and what draws
its inputs from a generator, in float64 (the float32 test rounds them first).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from blocks.attention import attention, attention_reference
from blocks.ffn import keep_largest, keep_largest_reference
from blocks.fox import CORES as FOX
from blocks.fox import forgetting_attention_reference
from blocks.gdn import gated_delta_chunked, gated_delta_reference
from blocks.genesis_rules import chunk_delta, chunk_delta_reference, decayed, decayed_reference
from blocks.gla import gla_chunked, gla_reference
from blocks.hyena import (
    head_convolution,
    head_convolution_reference,
    long_convolution,
    long_convolution_reference,
)
from blocks.kda import kda_chunked, kda_reference
from blocks.kernels import ops
from blocks.linear import linear_chunked, linear_reference
from blocks.mamba import selective_scan_chunked, selective_scan_reference
from blocks.mamba2 import ssd_chunked, ssd_reference
from blocks.retention import log_decays
from blocks.rwkv7 import rwkv7_chunked, rwkv7_reference
from blocks.ttt import Inner, ttt_dual, ttt_reference
from tests.blocks.draws import B, Draw, H, K, T, V, normal, same_over_time, signs
from tests.blocks.draws_attention import (
    attention_same_keys,
    attention_sharp,
    fox_decay,
    fox_gates,
    fox_late_decay,
    fox_sharp,
)
from tests.blocks.draws_hyena import heads_level, heads_sharp, long_level, long_old, long_spike
from tests.blocks.draws_scans import (
    gla_decay,
    gla_gates,
    gla_late_decay,
    gla_same_keys,
    scan_decay,
    scan_gates,
    scan_late_decay,
    scan_same_keys,
)


@dataclass(frozen=True)
class Core:
    """A core function of ``block``: its reference, its fast forms by kernel, and its hard inputs by name."""

    block: str
    reference: Callable[..., Any]
    forms: Mapping[str, Callable[..., Any]]
    inputs: Mapping[str, Draw]


def _delta(rng: Generator, k: Tensor, log_a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    q, v, s = normal(rng, B, T, H, K), normal(rng, B, T, H, V), normal(rng, B, H, K, V)
    return q * K**-0.5, k, v, log_a, b, s


def _unit(rng: Generator) -> Tensor:
    return F.normalize(normal(rng, B, T, H, K), dim=-1)


def _delta_same_keys(rng: Generator, strength: float) -> tuple[Tensor, ...]:
    """One key over and over at the largest write strength, nearly no decay."""
    return _delta(
        rng, same_over_time(_unit(rng)), torch.full((B, T, H), -1e-3), torch.full((B, T, H), strength)
    )


def _delta_gates(rng: Generator) -> tuple[Tensor, ...]:
    """Gate logits of +-80: decay none or all, writes of strength 1 or none."""
    log_a, b = F.logsigmoid(80 * signs(rng, B, T, H)), torch.sigmoid(80 * signs(rng, B, T, H))
    return _delta(rng, _unit(rng), log_a, b)


def _delta_decay(rng: Generator) -> tuple[Tensor, ...]:
    return _delta(rng, _unit(rng), torch.full((B, T, H), -20.0), torch.ones(B, T, H))


def _delta_late_decay(rng: Generator) -> tuple[Tensor, ...]:
    """One loss of 1000 at every tenth token, small ones that matter between: sums of both lose the small."""
    log_a = -0.01 * torch.rand(B, T, H, dtype=torch.float64, generator=rng)
    log_a[:, 5::10] = -1000.0
    return _delta(rng, _unit(rng), log_a, torch.full((B, T, H), 0.5))


# The rules of Genesis: as the gated delta rule; the chunk rule begins five tokens into a chunk of sixteen.


def _decayed(draw: Draw) -> Draw:
    """A case of the gated delta rule without its write strengths."""

    def inputs(rng: Generator) -> tuple[Tensor, ...]:
        q, k, v, log_a, _, s = draw(rng)
        return q, k, v, log_a.double(), s

    return inputs


def _one_group(draw: Draw) -> Draw:
    """The same for Mamba-2, where all heads share the first one's queries and keys."""

    def inputs(rng: Generator) -> tuple[Tensor, ...]:
        q, k, *rest = _decayed(draw)(rng)
        return q[:, :, :1], k[:, :, :1], *rest

    return inputs


def _chunk_delta(draw: Draw) -> Draw:
    def inputs(rng: Generator) -> tuple[Tensor, ...]:
        q, k, v, log_a, b, s = draw(rng)
        base, writes = normal(rng, B, H, K, V), normal(rng, B, H, K, V)
        return q, k, v, log_a.double(), b.double(), s, base, writes, normal(rng, B, H, K, K, scale=0.1)

    return inputs


def _from_the_middle(form: Callable[..., Any], *inputs: Tensor) -> tuple[Tensor, ...]:
    names = ("s", "base", "writes", "gram")
    out, memory = form(*inputs[:5], dict(zip(names, inputs[5:], strict=True)), 5, 16)
    return out, *(memory[name] for name in names)


# Linear attention: features of q and of k, v, s.


def _linear_same_keys(rng: Generator) -> tuple[Tensor, ...]:
    q, k = (F.elu(normal(rng, B, T, H, K)) + 1 for _ in range(2))
    return q, same_over_time(k), normal(rng, B, T, H, V), normal(rng, B, H, K, V)


# Test-time training: q, k, v, rate, gain, bias, inner weights, step under way; five tokens into a mini-batch.


def _inner_model(form: Callable[..., Any], *inputs: Tensor) -> tuple[Tensor, ...]:
    *tokens, w, step = inputs
    out, inner = form(*tokens, inner=Inner(w, step, 5), mini_batch=16, eps=1e-6)
    return out, inner.w_BHJK, inner.step_BHJK


def _ttt(rng: Generator, k: Tensor, rate: Tensor) -> tuple[Tensor, ...]:
    q, v = normal(rng, B, T, H, K), normal(rng, B, T, H, K)
    gain, bias = 1 + normal(rng, H, K, scale=0.1), normal(rng, H, K, scale=0.1)
    w, step = normal(rng, B, H, K + 1, K), normal(rng, B, H, K + 1, K, scale=0.1)
    return q, k, v, rate, gain, bias, w, step


def _ttt_same_keys(rng: Generator) -> tuple[Tensor, ...]:
    """One key over and over at the largest inner learning rate."""
    rate = torch.full((B, T, H), 1 / K, dtype=torch.float64)
    return _ttt(rng, same_over_time(normal(rng, B, T, H, K)), rate)


def _ttt_gates(rng: Generator) -> tuple[Tensor, ...]:
    """Logits of the inner learning rate of +-80: a step in full or none."""
    return _ttt(rng, normal(rng, B, T, H, K), torch.sigmoid(80 * signs(rng, B, T, H)) / K)


# The sparse activation: u.


def _ties(rng: Generator) -> tuple[Tensor, ...]:
    """Three magnitudes among 12 channels: nearly every cut falls into a tie."""
    return (torch.randint(-2, 3, (B, T, 12), generator=rng).double(),)


def _without_decay(draw: Draw) -> Draw:
    """A case of the gated delta rule at a decay of 1."""

    def inputs(rng: Generator) -> tuple[Tensor, ...]:
        q, k, v, _, b, s = draw(rng)
        return q, k, v, b, s

    return inputs


def _delta_rule(form: Callable[..., Any], *inputs: Tensor) -> tuple[Tensor, ...]:
    q, k, v, b, s = inputs
    return form(q, k, v, torch.zeros_like(b), b, s)


def _by_channel(draw: Draw) -> Draw:
    """A case of the gated delta rule with its decay in three of four key channels alone."""

    def inputs(rng: Generator) -> tuple[Tensor, ...]:
        q, k, v, log_a, b, s = draw(rng)
        return q, k, v, log_a[..., None] * (torch.arange(K) % 4 > 0).double(), b, s

    return inputs


def _replacing(draw: Draw) -> Draw:
    """A case of the rule with a decay by channel, as RWKV-7's: remove under a key, write in its place."""

    def inputs(rng: Generator) -> tuple[Tensor, ...]:
        q, k, v, log_a, b, s = draw(rng)
        return q, log_a, b[..., None] * k, v, k, b[..., None] * k, s

    return inputs


# Retention: q, k, v, s; the decays are the heads' own.


def _retention(form: Callable[..., Any], *inputs: Tensor) -> tuple[Tensor, ...]:
    q, k, v, s = inputs
    return form(q, k, v, log_decays(H, v).expand(B, T, H), s)


def _retention_same_keys(rng: Generator) -> tuple[Tensor, ...]:
    q, k, v = normal(rng, B, T, H, K), normal(rng, B, T, H, K), normal(rng, B, T, H, V)
    return q * K**-0.5, same_over_time(k), v, normal(rng, B, H, K, V)


DELTA: dict[str, Draw] = {
    "same_keys": partial(_delta_same_keys, strength=1.0),
    "gates_80": _delta_gates,
    "decay_20": _delta_decay,
    "late_decay": _delta_late_decay,
}

FORGETTING = {kernel: form for kernel, form in FOX.items() if kernel in ("torch", "c")}

CORES: dict[str, Core] = {
    "attention": Core(
        "attn",
        partial(attention_reference, window=None),
        {"torch": partial(attention, window=None), "c": ops.attention},
        {"sharp": attention_sharp, "same_keys": attention_same_keys},
    ),
    "attention_window": Core(
        "attn",
        partial(attention_reference, window=9),
        {"torch": partial(attention, window=9)},
        {"sharp": attention_sharp, "same_keys": attention_same_keys},
    ),
    "gated_attention": Core(
        "gated_attn",
        partial(attention_reference, window=None),
        {"torch": partial(attention, window=None), "c": ops.attention},
        {"sharp": attention_sharp},
    ),
    "forgetting_attention": Core(
        "fox",
        forgetting_attention_reference,
        FORGETTING,
        {"gates_80": fox_gates, "decay_20": fox_decay, "late_decay": fox_late_decay, "sharp": fox_sharp},
    ),
    "gated_delta": Core(
        "gdn",
        gated_delta_reference,
        {"torch": gated_delta_chunked, "c": ops.gated_delta},
        {**DELTA, "same_keys_twice": partial(_delta_same_keys, strength=2.0)},
    ),
    "delta_rule": Core(
        "deltanet",
        partial(_delta_rule, gated_delta_reference),
        {"torch": partial(_delta_rule, gated_delta_chunked), "c": partial(_delta_rule, ops.gated_delta)},
        {
            "same_keys": _without_decay(partial(_delta_same_keys, strength=1.0)),
            "same_keys_twice": _without_decay(partial(_delta_same_keys, strength=2.0)),
            "gates_80": _without_decay(_delta_gates),
        },
    ),
    "kda": Core(
        "kda",
        kda_reference,
        {"torch": kda_chunked},
        {
            **{name: _by_channel(draw) for name, draw in DELTA.items()},
            "same_keys_twice": _by_channel(partial(_delta_same_keys, strength=2.0)),
        },
    ),
    "rwkv7": Core(
        "rwkv7",
        rwkv7_reference,
        {"torch": rwkv7_chunked},
        {
            **{name: _replacing(_by_channel(draw)) for name, draw in DELTA.items()},
            "same_keys_twice": _replacing(_by_channel(partial(_delta_same_keys, strength=2.0))),
        },
    ),
    "retention": Core(
        "retnet",
        partial(_retention, decayed_reference),
        {"torch": partial(_retention, decayed)},
        {"same_keys": _retention_same_keys},
    ),
    "gla": Core(
        "gla",
        gla_reference,
        {"torch": gla_chunked, "c": ops.gated_linear},
        {
            "gates_80": gla_gates,
            "decay_20": gla_decay,
            "late_decay": gla_late_decay,
            "same_keys": gla_same_keys,
        },
    ),
    "decayed": Core(
        "genesis_gla",
        decayed_reference,
        {"torch": decayed},
        {name: _decayed(draw) for name, draw in DELTA.items()},
    ),
    "chunk_delta": Core(
        "genesis_gla",
        partial(_from_the_middle, chunk_delta_reference),
        {"torch": partial(_from_the_middle, chunk_delta)},
        {name: _chunk_delta(draw) for name, draw in DELTA.items()},
    ),
    "genesis_fox": Core("genesis_fox", forgetting_attention_reference, FORGETTING, {"gates_80": fox_gates}),
    "linear": Core(
        "linear",
        linear_reference,
        {"torch": linear_chunked, "c": ops.linear_memory},
        {"same_keys": _linear_same_keys},
    ),
    "selective_scan": Core(
        "mamba",
        selective_scan_reference,
        {"torch": selective_scan_chunked},
        {
            "gates_80": scan_gates,
            "decay_20": scan_decay,
            "late_decay": scan_late_decay,
            "same_keys": scan_same_keys,
        },
    ),
    "ssd": Core(
        "mamba2",
        ssd_reference,
        {"torch": ssd_chunked},
        {name: _one_group(draw) for name, draw in DELTA.items()},
    ),
    "ttt": Core(
        "ttt",
        partial(_inner_model, ttt_reference),
        {"torch": partial(_inner_model, ttt_dual)},
        {"same_keys": _ttt_same_keys, "gates_80": _ttt_gates},
    ),
    "long_convolution": Core(
        "hyena",
        partial(long_convolution_reference, new=T),
        {"torch": partial(long_convolution, new=T)},
        {"spike": long_spike, "level": long_level, "old": long_old},
    ),
    "head_convolution": Core(
        "mh_hyena",
        head_convolution_reference,
        {"torch": head_convolution},
        {"sharp": heads_sharp, "level": heads_level},
    ),
    "keep_largest": Core(
        "sparse", partial(keep_largest_reference, k=5), {"torch": partial(keep_largest, k=5)}, {"ties": _ties}
    ),
}
