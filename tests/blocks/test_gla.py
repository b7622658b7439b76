"""Gated and plain linear attention against code that no one here wrote."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.base import OptionError, Shape
from blocks.gla import GLA, gla_chunked, gla_reference
from blocks.linear import LinearAttention, linear_chunked, linear_reference
from tests.blocks.harness import assert_same, noise

with warnings.catch_warnings():
    # fla announces on import that this machine has no GPU.
    warnings.simplefilter("ignore")
    from fla.ops.gla.naive import naive_recurrent_gla
    from fla.ops.linear_attn.naive import naive_recurrent_linear_attn

B, H, K, V = 2, 3, 8, 12
LENGTHS = [1, 2, 15, 16, 17, 63, 64, 65, 130]
Form = Callable[..., Any]


def inputs(length: int) -> list[Tensor]:
    """q, k, v, log a, s with queries still to be scaled; one channel in four hardly forgets."""
    q, k = noise(B, length, H, K, seed=1), noise(B, length, H, K, seed=2)
    log_a = F.logsigmoid(noise(B, length, H, K, seed=4) + torch.arange(K) % 4)
    return [q, k, noise(B, length, H, V, seed=3), log_a, noise(B, H, K, V, seed=5)]


def with_gradients(form: Form, values: list[Tensor]) -> list[Tensor]:
    """Output, last state and the gradients of a random function of both."""
    values = [t.detach().clone().requires_grad_() for t in values]
    out = list(form(*values))
    loss = sum((t * noise(*t.shape, seed=7 + i).to(t.dtype)).sum() for i, t in enumerate(out))
    assert isinstance(loss, Tensor)
    return [*out, *torch.autograd.grad(loss, values)]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("ours", [gla_chunked, gla_reference])
def test_gla_agrees_with_fla(ours: Form, length: int) -> None:
    """In float32, which is all that fla's form computes in; from a state, gradients included."""
    values = [t.float() for t in inputs(length)]
    got = with_gradients(lambda q, *rest: ours(q * K**-0.5, *rest), values)
    # fla adds to the state it is given in place.
    theirs = with_gradients(lambda *x: naive_recurrent_gla(*x[:4], x[4] + 0, output_final_state=True), values)
    for name, one, two in zip(("o", "s", "dq", "dk", "dv", "dlog a", "ds"), got, theirs, strict=True):
        assert_same(one, two, name, 1e-4)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("ours", [linear_chunked, linear_reference])
def test_linear_agrees_with_fla(ours: Form, length: int) -> None:
    q, k, v, _, s = (t.float() for t in inputs(length))
    got = with_gradients(ours, [q, k, v, s])
    theirs = with_gradients(
        lambda q, k, v, s: naive_recurrent_linear_attn(q, k, v, 1.0, s, True), [q, k, v, s]
    )
    for name, one, two in zip(("o", "s", "dq", "dk", "dv", "ds"), got, theirs, strict=True):
        assert_same(one, two, name, 1e-4)


def test_the_normalised_block_is_attention_with_elu_features() -> None:
    """o_t is the mean of the values up to t, weighted by the products of features: checked on the module."""
    torch.manual_seed(0)
    module = LinearAttention().build(Shape(dim=16, heads=2, eps=1e-12)).double()
    x = noise(B, 37, 16)
    q, k, v = module.get_submodule("project")(x).unflatten(-1, (3, 2, 8)).unbind(2)
    q, k = (torch.where(t > 0, t + 1, t.exp()) for t in (q, k))
    weights = torch.einsum("bihk,bjhk->bhij", q, k).tril()
    o = torch.einsum("bhij,bjhv->bihv", weights / weights.sum(-1, keepdim=True), v)
    assert_same(module(x)[0], module.get_submodule("out")(o.flatten(2)), "output")


@pytest.mark.parametrize("chunk", [1, 2, 7, 16, 64, 200])
def test_any_chunk_gives_the_same(chunk: int) -> None:
    for length in (1, 33, 130):
        q, k, v, log_a, s = inputs(length)
        for one, two in zip(
            gla_chunked(q, k, v, log_a, s, chunk), gla_reference(q, k, v, log_a, s), strict=True
        ):
            assert_same(one, two, f"gla, length {length}")
        for one, two in zip(linear_chunked(q, k, v, s, chunk), linear_reference(q, k, v, s), strict=True):
            assert_same(one, two, f"linear, length {length}")


def test_without_decay_gla_is_linear_attention() -> None:
    q, k, v, log_a, s = inputs(65)
    for one, two in zip(gla_chunked(q, k, v, 0 * log_a, s), linear_chunked(q, k, v, s), strict=True):
        assert_same(one, two, "no decay")


@pytest.mark.parametrize("options", [{"expand_k": 0.0}, {"expand_v": -1.0}, {"rank": 0}, {"conv": -1}])
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        GLA(**options)


def test_the_identity_cannot_be_normalised() -> None:
    with pytest.raises(OptionError, match="normalise=False"):
        LinearAttention(feature="identity")
