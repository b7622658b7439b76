"""Forgetting attention against code that no one here wrote, and where long sums of gates lose precision."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.attention import attention_reference
from blocks.base import Kernel
from blocks.fox import CORES, forgetting_attention, forgetting_attention_reference
from tests.blocks.conftest import NEEDS_COMPILER
from tests.blocks.harness import assert_same, noise
from tests.blocks.tolerances import HARD_FLOAT32

with warnings.catch_warnings():
    # fla announces on import that this machine has no GPU.
    warnings.simplefilter("ignore")
    from fla.ops.forgetting_attn.naive import naive_forgetting_attn

B, H, K = 2, 4, 8


def inputs(length: int, groups: int) -> tuple[Tensor, ...]:
    q, k, v = noise(B, length, H, K), noise(B, length, groups, K, seed=2), noise(B, length, groups, K, seed=3)
    return q, k, v, F.logsigmoid(noise(B, length, H, seed=4) + 1), torch.zeros(B, 0, H, dtype=torch.float64)


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 130])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("form", [forgetting_attention, forgetting_attention_reference])
def test_agrees_with_fla(form: Callable[..., Any], groups: int, length: int) -> None:
    """In float32, which is all that fla's form computes in; gradients included."""
    ours = [t.float().requires_grad_() for t in inputs(length, groups)]
    theirs = [t.detach().clone().requires_grad_() for t in ours[:4]]
    got, expected = form(*ours)[0], naive_forgetting_attn(theirs[0], theirs[1], theirs[2], theirs[3])
    assert_same(got, expected, "output", 1e-5)
    weight = noise(*got.shape, seed=5).float()
    got_grads = torch.autograd.grad((got * weight).sum(), ours[:4])
    expected_grads = torch.autograd.grad((expected * weight).sum(), theirs)
    for name, one, two in zip(("q", "k", "v", "log f"), got_grads, expected_grads, strict=True):
        assert_same(one, two, f"gradient of {name}", 1e-4)


def test_the_query_itself_loses_nothing() -> None:
    """The sum runs over j+1..i: with gates shut, each token sees itself alone."""
    q, k, v, log_f, faded = inputs(65, H)
    o, _ = forgetting_attention(q, k, v, torch.full_like(log_f, -1e4), faded)
    assert_same(o, v, "output")


def test_open_gates_are_plain_attention() -> None:
    q, k, v, log_f, faded = inputs(65, H)
    o, lost = forgetting_attention(q, k, v, torch.zeros_like(log_f), faded)
    plain = attention_reference(q, k, v, window=None)
    assert_same(o, plain, "output")
    assert not lost.any()


@pytest.mark.parametrize("form", ["torch", pytest.param("c", marks=NEEDS_COMPILER)])
def test_a_long_past_does_not_blur_the_present(form: Kernel) -> None:
    """After 4,000 tokens at -20 the sums reach -80,000, where float32 steps by 0.008: only a part of them,
    that of one piece, may reach the keys that count."""
    length, last = 4000, 100
    q, k, v = (noise(1, length, 1, K, seed=i) for i in (1, 2, 3))
    log_f = torch.full((1, length, 1), -20.0, dtype=torch.float64)
    log_f[:, -last + 1 :] = -0.01
    # What lies before the last tokens weighs e^-20: they alone are the truth.
    q_end, k_end, v_end, log_f_end = (t[:, -last:].float().double() for t in (q, k, v, log_f))
    nothing = torch.zeros(1, 0, 1, dtype=torch.float64)
    expected, lost = forgetting_attention_reference(q_end, k_end, v_end, log_f_end, nothing)
    got, kept = CORES[form](q.float(), k.float(), v.float(), log_f.float(), torch.zeros(1, 0, 1))
    assert (got[:, -last:] - expected).abs().max() < HARD_FLOAT32[form]
    assert (kept[:, -last:] - lost).abs().max() < 1e-6
