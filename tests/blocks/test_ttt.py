"""TTT-Linear against the inner loss differentiated by autograd, and against code that no one here wrote."""

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.base import OptionError, Shape
from blocks.ttt import TTT, Inner, ttt_dual, ttt_reference
from tests.blocks.harness import assert_same, noise

with warnings.catch_warnings():
    # fla announces on import that this machine has no GPU.
    warnings.simplefilter("ignore")
    from fla.ops.ttt.naive import chunk_ttt_linear_ref

B, H, K, EPS = 2, 3, 8, 1e-6


def inputs(length: int) -> tuple[list[Tensor], Inner]:
    """q, k, v, rate, gain, bias; the inner model at the start of a mini-batch."""
    q, k, v = (noise(B, length, H, K, seed=i) for i in (1, 2, 3))
    rate = noise(B, length, H, seed=4).sigmoid() / K
    gain, bias = 1 + 0.1 * noise(H, K, seed=5), 0.1 * noise(H, K, seed=6)
    w = noise(B, H, K + 1, K, seed=7)
    return [q, k, v, rate, gain, bias], Inner(w, torch.zeros_like(w), 0)


def test_steps_are_the_gradient_of_the_inner_loss() -> None:
    """One sequence and head at a time: f and its loss as the paper writes them, the gradient by autograd."""
    (q, k, v, rate, gain, bias), inner = inputs(7)
    out, after = ttt_dual(q, k, v, rate, gain, bias, inner, 4, EPS)
    for i, h in ((0, 0), (1, 2)):

        def f(x: Tensor, w: Tensor, b: Tensor, h: int = h) -> Tensor:
            return x + F.layer_norm(x @ w + b, (K,), gain[h], bias[h], EPS)

        w, b = inner.w_BHJK[i, h, :K], inner.w_BHJK[i, h, K]
        for start in (0, 4):
            dw, db = torch.zeros_like(w), torch.zeros_like(b)
            for t in range(start, min(start + 4, 7)):
                at = [p.detach().clone().requires_grad_() for p in (w, b)]
                loss = (f(k[i, t, h], *at) - v[i, t, h]).square().sum() / 2
                grads = torch.autograd.grad(loss, at)
                dw, db = dw + rate[i, t, h] * grads[0], db + rate[i, t, h] * grads[1]
                assert_same(out[i, t, h], f(q[i, t, h], w - dw, b - db), f"token {t}")
            if start == 0:
                w, b = w - dw, b - db
        assert_same(after.w_BHJK[i, h], torch.cat([w, b[None]]), "weights")
        assert_same(after.step_BHJK[i, h], torch.cat([dw, db[None]]), "step under way")
    assert after.place == 3


@pytest.mark.parametrize("mini_batch", [1, 5, 16])
def test_the_inner_model_agrees_with_fla(mini_batch: int) -> None:
    """Weights after whole mini-batches at a constant rate, in float32, which is all that fla computes in.

    Its outputs differ by design: it adds the inner product, not the query, to the normalised read.
    """
    (q, k, v, _, gain, bias), inner = inputs(5 * 16)
    rate = 0.05
    fixed = [t.float() for t in (q, k, v, torch.full((B, 80, H), rate), gain, bias)]
    w = inner.w_BHJK.float()
    # fla scales the query in place.
    _, weight, offset = chunk_ttt_linear_ref(
        *(t.clone() for t in fixed[:3]),
        *fixed[4:],
        torch.full((B, 80, H, 1), rate),
        1.0,
        EPS,
        mini_batch,
        w[:, :, :K].clone(),
        w[:, :, K:].clone(),
        True,
    )
    for form in (ttt_dual, ttt_reference):
        _, after = form(*fixed, Inner(w, torch.zeros_like(w), 0), mini_batch, EPS)
        assert after.place == 0 and not after.step_BHJK.any()
        assert_same(after.w_BHJK, torch.cat([weight, offset], dim=2), "weights", 1e-3)


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 63, 64, 65])
@pytest.mark.parametrize("place", [0, 1, 15])
def test_dual_form_from_anywhere_in_a_mini_batch(place: int, length: int) -> None:
    tokens, inner = inputs(length)
    inner = Inner(inner.w_BHJK, 0.1 * noise(B, H, K + 1, K, seed=8), place)
    one, after = ttt_dual(*tokens, inner, 16, EPS)
    two, expected = ttt_reference(*tokens, inner, 16, EPS)
    assert_same(one, two, "output")
    assert_same(after.w_BHJK, expected.w_BHJK, "weights")
    assert_same(after.step_BHJK, expected.step_BHJK, "step under way")
    assert after.place == expected.place == (place + length) % 16


@pytest.mark.parametrize("options", [{"mini_batch": 0}, {"lr": 0.0}, {"conv": -1}])
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        TTT(**options)


def test_heads_of_one_channel_are_refused() -> None:
    with pytest.raises(OptionError, match="fewer heads"):
        TTT().build(Shape(dim=8, heads=8))


def test_products_on_a_gpu_take_half_types_and_rates_stay_wide() -> None:
    """Under autocast the convolution returns float32, which would keep the products off the tensor cores."""
    given: list[torch.dtype] = []

    def core(*tensors: torch.Tensor | Inner | float) -> None:
        given.extend(x.dtype for x in tensors if isinstance(x, torch.Tensor))
        raise InterruptedError

    module = TTT().build(Shape(dim=16, heads=2), "triton")
    module.core = core
    with pytest.raises(InterruptedError), torch.autocast("cpu", torch.bfloat16):
        module(torch.zeros(1, 5, 16))
    assert given == [torch.bfloat16] * 3 + [torch.float32] * 3


@pytest.mark.parametrize(("dim", "form"), [(128, "triton"), (130, "torch")])
def test_heads_that_a_program_does_not_hold_take_the_form_in_torch(dim: int, form: str) -> None:
    module = TTT().build(Shape(dim=dim, heads=2), "triton")
    assert module.kernel == form and (module.core is ttt_dual) == (form == "torch")
