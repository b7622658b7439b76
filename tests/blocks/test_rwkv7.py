"""RWKV-7's time mixing against code that no one here wrote, and the delta rule as a case of it."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.base import OptionError
from blocks.gdn import gated_delta_chunked
from blocks.rwkv7 import NORM_EPS, RWKV7, rwkv7_chunked, rwkv7_reference
from tests.blocks.harness import SHAPE, assert_same, build, noise

with warnings.catch_warnings():
    # fla announces on import that this machine has no GPU.
    warnings.simplefilter("ignore")
    from fla.ops.generalized_delta_rule.dplr.naive import dplr_chunkwise, dplr_recurrence
    from fla.ops.rwkv7.fused_k_update import k_update_ref
    from fla.ops.rwkv7.gate_output_correction import gate_output_correction_ref

B, H, K = 2, 3, 8
Form = Callable[..., Any]


def inputs(length: int) -> list[Tensor]:
    """r, log w, k, v, remove, replace, s with queries still to be scaled; decays to 0.545 and far below."""
    r, k, v, remove, rate = (noise(B, length, H, K, seed=i) for i in (1, 2, 3, 4, 5))
    log_w = -(noise(B, length, H, K, seed=6) + torch.arange(K) % 4).sigmoid()
    remove = F.normalize(remove, dim=-1)
    return [r, log_w, k, v, remove, rate.sigmoid() * remove, noise(B, H, K, K, seed=7)]


def fla_recurrent(r: Tensor, log_w: Tensor, k: Tensor, v: Tensor, remove: Tensor, replace: Tensor, s: Tensor):
    tokens = (x.transpose(1, 2) for x in (r * K**0.5, k, v, -remove, replace, log_w))
    o, last = dplr_recurrence(*tokens, initial_state=s)
    return o.transpose(1, 2), last


def fla_chunk(r: Tensor, log_w: Tensor, k: Tensor, v: Tensor, remove: Tensor, replace: Tensor, s: Tensor):
    """Filled up to whole chunks: a token of zeros neither writes nor forgets."""
    fill = (0, 0, 0, -r.shape[1] % 32)
    tokens = (F.pad(x.transpose(1, 2), fill) for x in (r * K**0.5, k, v, -remove, replace, log_w))
    o, last = dplr_chunkwise(*tokens, initial_state=s)
    return o.transpose(1, 2)[:, : r.shape[1]], last


def with_gradients(form: Form, values: list[Tensor]) -> list[Tensor]:
    """Output, last state and the gradients of a random function of both."""
    values = [t.detach().clone().requires_grad_() for t in values]
    out = list(form(*values))
    loss = sum((t * noise(*t.shape, seed=8 + i).to(t.dtype)).sum() for i, t in enumerate(out))
    assert isinstance(loss, Tensor)
    return [*out, *torch.autograd.grad(loss, values)]


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 63, 64, 65, 130])
@pytest.mark.parametrize("ours", [rwkv7_chunked, rwkv7_reference])
def test_agrees_with_fla(ours: Form, length: int) -> None:
    """In float32, which is all that fla's form computes in; from a state, gradients included."""
    values = [t.float() for t in inputs(length)]
    names = ("o", "s", "dr", "dlog w", "dk", "dv", "dremove", "dreplace", "ds")
    got, expected = with_gradients(ours, values), with_gradients(fla_recurrent, values)
    for name, one, two in zip(names, got, expected, strict=True):
        assert_same(one, two, name, 1e-4)


@pytest.mark.parametrize("length", [1, 31, 32, 33, 130])
def test_agrees_with_the_chunks_of_fla(length: int) -> None:
    """Without gradients, which do not pass fla's writes in place."""
    values = [t.float() for t in inputs(length)]
    for name, one, two in zip(("o", "s"), rwkv7_chunked(*values), fla_chunk(*values), strict=True):
        assert_same(one, two, name, 1e-4)


@pytest.mark.parametrize("chunk", [1, 2, 7, 16, 64, 200])
def test_any_chunk_gives_the_same(chunk: int) -> None:
    for length in (1, 33, 130):
        values = inputs(length)
        got = with_gradients(lambda *x: rwkv7_chunked(*x, chunk=chunk), values)
        for one, two in zip(got, with_gradients(rwkv7_reference, values), strict=True):
            assert_same(one, two, f"length {length}")


def test_where_one_key_is_removed_and_written_it_is_the_delta_rule() -> None:
    r, log_w, _, v, key, _, s = inputs(70)
    b = noise(B, 70, H, seed=9).sigmoid()
    strong = b[..., None] * key
    got = rwkv7_chunked(r, 0 * log_w, strong, v, key, strong, s)
    for ours, theirs in zip(got, gated_delta_chunked(r, key, v, 0 * b, b, s), strict=True):
        assert_same(ours, theirs, "output and state")


def test_the_module_is_the_layer_of_the_paper() -> None:
    """From its weights, step by step, with fla's parts and recurrence."""
    module, x = build(RWKV7()).float(), noise(2, 37, SHAPE.dim).float()
    p, heads = {k.removesuffix(".weight"): t for k, t in module.named_parameters()}, SHAPE.heads
    past = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)
    x_r, x_w, x_k, x_v, x_a, x_g = (torch.lerp(x, past, p["mix"][:, i]) for i in range(6))
    w = p["decay.bias"] + (x_w @ p["decay_in"].T).tanh() @ p["decay"].T
    a = (p["rate.bias"] + x_a @ p["rate_in"].T @ p["rate"].T).sigmoid()
    r, k, v = x_r @ p["r"].T, x_k @ p["k"].T, x_v @ p["v"].T
    g = (x_g @ p["gate_in"].T).sigmoid() @ p["gate"].T
    remove = k * p["removal"]
    k = k_update_ref(k, a, p["replacement"])
    r, k, v, remove, a, w = (t.unflatten(-1, (heads, -1)) for t in (r, k, v, remove, a, w))
    remove = F.normalize(remove, dim=-1)
    s = torch.zeros(2, heads, r.shape[-1], r.shape[-1])
    o, _ = fla_recurrent_of(r, -0.6065306597126334 * w.sigmoid(), k, v, remove, a * remove, s)
    flat = o.flatten(0, 1).flatten(1)
    flat = F.group_norm(flat, heads, p["norm"].flatten(), p["norm.bias"].flatten(), NORM_EPS)
    bonus = p["bonus"].unflatten(-1, (heads, -1))
    o = gate_output_correction_ref(flat.view(2, 37, -1), r, k, bonus, v, g)
    assert_same(module(x)[0], o @ p["out"].T, "output", 1e-4)


def fla_recurrent_of(r: Tensor, *rest: Tensor) -> Any:
    """fla scales queries by the root of their own width."""
    return fla_recurrent(r * (r.shape[-1] / K) ** 0.5, *rest)


def test_a_channel_keeps_more_than_half_of_itself() -> None:
    """w = exp(-exp(-1/2)) at the strongest: seen in the state, where nothing else is written."""
    module, x = build(RWKV7()), torch.zeros(1, 1, SHAPE.dim, dtype=torch.float64)
    torch.nn.init.constant_(module.get_parameter("decay.bias"), 80.0)
    width = SHAPE.dim // SHAPE.heads
    s = noise(1, SHAPE.heads, width, width)
    _, state = module(x, {"x": x, "s": s})
    assert_same(state["s"], 0.5452392118926050 * s, "the state")


def test_an_impossible_rank_is_refused() -> None:
    with pytest.raises(OptionError, match=r"^rwkv7: rank is 0; it must be at least 1, or None"):
        RWKV7(rank=0)
