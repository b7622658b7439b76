"""Kimi Delta Attention against code that no one here wrote, and what sets it apart from Gated DeltaNet."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.base import OptionError
from blocks.gdn import gated_delta_chunked
from blocks.kda import KDA, kda_chunked, kda_reference
from tests.blocks.harness import SHAPE, assert_same, build, noise

with warnings.catch_warnings():
    # fla announces on import that this machine has no GPU.
    warnings.simplefilter("ignore")
    from fla.ops.kda.gate import naive_kda_gate
    from fla.ops.kda.naive import naive_chunk_kda, naive_recurrent_kda

B, H, K, V = 2, 3, 8, 12
Form = Callable[..., Any]


def inputs(length: int) -> list[Tensor]:
    """q, k, v, log a, b, s with queries still to be scaled; one channel in four hardly forgets."""
    q, k = (F.normalize(noise(B, length, H, K, seed=i), dim=-1) for i in (1, 2))
    log_a = F.logsigmoid(noise(B, length, H, K, seed=4) + torch.arange(K) % 4)
    v, s = noise(B, length, H, V, seed=3), noise(B, H, K, V, seed=6)
    return [q, k, v, log_a, noise(B, length, H, seed=5).sigmoid(), s]


def fla_recurrent(q: Tensor, k: Tensor, v: Tensor, log_a: Tensor, b: Tensor, s: Tensor) -> Any:
    return naive_recurrent_kda(q, k, v, log_a, b, 1.0, s, output_final_state=True)


def fla_chunk(q: Tensor, k: Tensor, v: Tensor, log_a: Tensor, b: Tensor, s: Tensor) -> Any:
    """Filled up to whole chunks: a token of zeros neither writes nor forgets."""
    length, missing = q.shape[1], -q.shape[1] % 32
    tokens = [F.pad(x, (0, 0) * (x.ndim - 2) + (0, missing)) for x in (q, k, v, log_a, b)]
    o, last = naive_chunk_kda(*tokens, 1.0, s, output_final_state=True, chunk_size=32)
    return o[:, :length], last


def with_gradients(form: Form, values: list[Tensor]) -> list[Tensor]:
    """Output, last state and the gradients of a random function of both."""
    values = [t.detach().clone().requires_grad_() for t in values]
    out = list(form(*values))
    loss = sum((t * noise(*t.shape, seed=7 + i).to(t.dtype)).sum() for i, t in enumerate(out))
    assert isinstance(loss, Tensor)
    return [*out, *torch.autograd.grad(loss, values)]


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 63, 64, 65, 130])
@pytest.mark.parametrize("ours", [kda_chunked, kda_reference])
@pytest.mark.parametrize("fla", [fla_recurrent, fla_chunk])
def test_agrees_with_fla(ours: Form, fla: Form, length: int) -> None:
    """In float32, which is all that fla's forms compute in; from a state, gradients included."""
    values = [t.float() for t in inputs(length)]
    if fla is fla_chunk:
        # It multiplies exp(-log a) of a whole chunk, and takes gradients of an overflow where that is large.
        values[3] = 0.3 * values[3]
    got, expected = with_gradients(ours, values), with_gradients(fla, values)
    names = ("o", "s", "dq", "dk", "dv", "dlog a", "db", "ds")
    for name, one, two in zip(names, got, expected, strict=True):
        assert_same(one, two, name, 1e-4)


@pytest.mark.parametrize("chunk", [1, 2, 7, 16, 64, 200])
def test_any_chunk_gives_the_same(chunk: int) -> None:
    for length in (1, 33, 130):
        values = inputs(length)
        got = with_gradients(lambda *x: kda_chunked(*x, chunk=chunk), values)
        for one, two in zip(got, with_gradients(kda_reference, values), strict=True):
            assert_same(one, two, f"length {length}")


def test_with_one_decay_for_all_channels_it_is_the_gated_delta_rule() -> None:
    q, k, v, log_a, b, s = inputs(70)
    one = log_a[..., 0]
    got = kda_chunked(q, k, v, one[..., None].expand(log_a.shape), b, s)
    for ours, theirs in zip(got, gated_delta_chunked(q, k, v, one, b, s), strict=True):
        assert_same(ours, theirs, "output and state")


def test_a_channel_forgets_at_its_own_pace() -> None:
    """Two values under the keys of two channels: one channel is emptied, the other read back as it was."""
    k = torch.eye(K, dtype=torch.float64)[[0, 1, 2]][None, :, None]
    v, ones = noise(1, 3, 1, V), torch.ones(1, 3, 1).double()
    log_a = torch.zeros(1, 3, 1, K).double()
    log_a[:, 2, :, 0] = -80.0
    _, s = kda_chunked(k, k, v, log_a, ones, torch.zeros(1, 1, K, V).double())
    assert s[0, 0, 0].abs().max() < 1e-30
    assert_same(s[0, 0, 1:3], v[0, 1:, 0], "the other channels")


def test_the_module_is_the_layer_of_the_paper() -> None:
    """From its weights, step by step, with fla's gate and recurrence."""
    module, x = build(KDA(conv=0)).float(), noise(B, 37, SHAPE.dim).float()
    weights, heads, width = dict(module.named_parameters()), SHAPE.heads, SHAPE.dim // SHAPE.heads
    rows = [SHAPE.dim] * 3 + [heads, width, width]
    q, k, v, write, narrow, gate = (x @ weights["project.weight"].T).split(rows, dim=-1)
    q, k, v = (F.silu(t).unflatten(-1, (heads, width)) for t in (q, k, v))
    q, k = (F.normalize(t, dim=-1) for t in (q, k))
    g = (narrow @ weights["decay.weight"].T).unflatten(-1, (heads, width))
    log_a = naive_kda_gate(g, weights["log_pace"], weights["step_bias"])
    o, _ = naive_recurrent_kda(q, k, v, log_a, write.sigmoid())
    o = F.rms_norm(o, (width,), weights["norm.weight"], SHAPE.eps).flatten(2)
    expected = (o * (gate @ weights["gate.weight"].T).sigmoid()) @ weights["out.weight"].T
    assert_same(module(x)[0], expected, "output", 1e-4)


@pytest.mark.parametrize("options", [{"expand_k": 0.0}, {"conv": -1}, {"beta_max": 2.5}, {"rank": 0}])
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"^kda: {next(iter(options))} is"):
        KDA(**options)
