"""Gated DeltaNet against code that no one here wrote, and what is special to its fast form."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.base import OptionError, Shape
from blocks.gdn import GDN, gated_delta_chunked, gated_delta_reference
from tests.blocks.harness import assert_same, noise

with warnings.catch_warnings():
    # fla announces on import that this machine has no GPU.
    warnings.simplefilter("ignore")
    from fla.ops.gated_delta_rule.naive import naive_chunk_gated_delta_rule, naive_recurrent_gated_delta_rule

B, H, K, V = 2, 3, 8, 12
LENGTHS = [1, 2, 15, 16, 17, 63, 64, 65, 130]
NAMES = ("q", "k", "v", "log a", "b", "s")


def inputs(length: int) -> list[Tensor]:
    """q, k, v, log a, b, s with queries still to be scaled."""
    q, k = (F.normalize(noise(B, length, H, K, seed=i), dim=-1) for i in (1, 2))
    v, s = noise(B, length, H, V, seed=3), noise(B, H, K, V, seed=4)
    return [q, k, v, -F.softplus(noise(B, length, H, seed=5)), noise(B, length, H, seed=6).sigmoid(), s]


def fla_recurrent(q: Tensor, k: Tensor, v: Tensor, log_a: Tensor, b: Tensor, s: Tensor) -> Any:
    return naive_recurrent_gated_delta_rule(q, k, v, b, log_a, 1.0, s, output_final_state=True)


def fla_chunk(q: Tensor, k: Tensor, v: Tensor, log_a: Tensor, b: Tensor, s: Tensor) -> Any:
    return naive_chunk_gated_delta_rule(q, k, v, log_a, b, 32, 1.0, s, output_final_state=True)


def with_gradients(form: Callable[..., Any], values: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """(output and last state, gradients of a random function of both)."""
    values = [t.detach().clone().requires_grad_() for t in values]
    out = list(form(*values))
    loss = sum((t * noise(*t.shape, seed=7 + i).to(t.dtype)).sum() for i, t in enumerate(out))
    assert isinstance(loss, Tensor)
    return out, list(torch.autograd.grad(loss, values))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("ours", [gated_delta_chunked, gated_delta_reference])
@pytest.mark.parametrize("fla", [fla_recurrent, fla_chunk])
def test_agrees_with_fla(ours: Callable[..., Any], fla: Callable[..., Any], length: int) -> None:
    """In float32, which is all that fla's forms compute in; from a state, gradients included."""
    values = [t.float() for t in inputs(length)]
    got, got_grads = with_gradients(ours, values)
    expected, expected_grads = with_gradients(fla, values)
    for what, one, two in zip(("output", "last state"), got, expected, strict=True):
        assert_same(one, two, what, 2e-5)
    for name, one, two in zip(NAMES, got_grads, expected_grads, strict=True):
        assert_same(one, two, f"gradient of {name}", 1e-4)


@pytest.mark.parametrize("chunk", [1, 2, 7, 16, 32, 64, 200])
def test_any_chunk_gives_the_same(chunk: int) -> None:
    for length in (1, 33, 130):
        values = inputs(length)
        got, got_grads = with_gradients(lambda *x: gated_delta_chunked(*x, chunk=chunk), values)
        expected, expected_grads = with_gradients(gated_delta_reference, values)
        for one, two in zip(got + got_grads, expected + expected_grads, strict=True):
            assert_same(one, two, f"length {length}")


def test_hand_written_gradients_are_those_of_finite_differences() -> None:
    values = [t.requires_grad_() for t in inputs(5)]
    assert torch.autograd.gradcheck(lambda *x: gated_delta_chunked(*x, chunk=2), values)


def test_gradients_where_some_are_not_asked_for() -> None:
    """Only the state is learned, or only the output is used: the missing parts count as nothing."""
    values = inputs(20)
    values[5].requires_grad_()
    got = torch.autograd.grad(gated_delta_chunked(*values)[0].sum(), values[5])[0]
    expected = torch.autograd.grad(gated_delta_reference(*values)[0].sum(), values[5])[0]
    assert_same(got, expected, "gradient of s")
    values[0].requires_grad_()
    (unused,) = torch.autograd.grad(gated_delta_chunked(*values)[1].sum(), values[0])
    assert not unused.any(), "the state does not depend on queries"


def test_the_delta_rule_replaces_what_a_key_held() -> None:
    """Written twice under one key at strength 1, without decay, the second value alone comes back."""
    k = F.normalize(noise(1, 1, 1, K), dim=-1).expand(1, 2, 1, K)
    v, s = noise(1, 2, 1, V, seed=2), torch.zeros(1, 1, K, V, dtype=torch.float64)
    none, full = torch.zeros(1, 2, 1).double(), torch.ones(1, 2, 1).double()
    o, _ = gated_delta_chunked(k, k, v, none, full, s)
    assert_same(o, v, "read back")


def test_a_write_strength_of_two_flips_the_sign() -> None:
    k, s = F.normalize(noise(1, 1, 1, K), dim=-1), noise(1, 1, K, V, seed=2)
    nothing = torch.zeros(1, 1, 1, V, dtype=torch.float64), torch.zeros(1, 1, 1).double()
    before = torch.einsum("bthk,bhkv->bthv", k, s)
    o, _ = gated_delta_chunked(k, k, *nothing, torch.full((1, 1, 1), 2.0).double(), s)
    assert_same(o, -before, "read back")


def test_the_gate_starts_in_the_published_range() -> None:
    torch.manual_seed(0)
    module = GDN().build(Shape(dim=1024, heads=256))
    pace, step = module.get_parameter("log_pace").exp(), F.softplus(module.get_parameter("step_bias"))
    assert 1 <= pace.min() < 2 and 15 < pace.max() <= 16
    # A log-uniform step: half of them lie below the geometric mean of the ends.
    assert step.min() >= 0.99e-3 and step.max() <= 1.01e-1
    assert abs((step < 1e-2).double().mean() - 0.5) < 0.15


@pytest.mark.parametrize(
    "options,word",
    [
        ({"expand_k": 0.0}, "expand_k"),
        ({"expand_v": -1.0}, "expand_v"),
        ({"conv": -1}, "conv"),
        ({"beta_max": 2.5}, "beta_max"),
        ({"beta_max": 0.0}, "beta_max"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(OptionError, match=word):
        GDN(**options)
