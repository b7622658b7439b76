"""Laws of the shared parts, each held against PyTorch's own operators or the defining equation."""

import pytest
import torch
import torch.nn.functional as F

from blocks.parts import RMSNorm, ShortConv, inverse_softplus, l2_normalise, rope

EXACT = {"atol": 1e-12, "rtol": 1e-12}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 3, 9])
def test_the_short_convolution_is_a_causal_depthwise_conv1d_gradients_included(
    width: int, length: int
) -> None:
    conv = ShortConv(5, width, act=False).double()
    x, weight = noise(2, length, 5).requires_grad_(), conv.weight.detach().clone().requires_grad_()
    ours, _ = conv(x)
    padded = F.pad(x.transpose(1, 2), (width - 1, 0))
    theirs = F.conv1d(padded, weight[:, None], groups=5).transpose(1, 2)
    torch.testing.assert_close(ours, theirs, **EXACT)
    upstream = noise(2, length, 5, seed=1)
    for mine, other in zip(
        torch.autograd.grad(ours, [x, conv.weight], upstream),
        torch.autograd.grad(theirs, [x, weight], upstream),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, **EXACT)


def test_the_short_convolution_passes_gradients_to_the_tail_it_was_given() -> None:
    conv = ShortConv(3, 4).double()
    inputs = (noise(2, 5, 3).requires_grad_(), noise(2, 3, 3, seed=1).requires_grad_())
    assert torch.autograd.gradcheck(lambda x, tail: conv(x, tail)[0], inputs)


@pytest.mark.parametrize("zero_centred", [False, True])
def test_a_norm_gives_unit_mean_square_at_the_start_and_ignores_scale(zero_centred: bool) -> None:
    norm, x = RMSNorm(8, eps=0.0, zero_centred=zero_centred).double(), noise(3, 8)
    torch.testing.assert_close(norm(x).square().mean(-1), torch.ones(3).double(), **EXACT)
    torch.testing.assert_close(norm(7 * x), norm(x), **EXACT)


def test_rope_sees_distances_only_and_leaves_the_rest_alone() -> None:
    q, k = noise(1, 6, 2, 8), noise(1, 6, 2, 8, seed=1)
    here, far = ((rope(q, s, 4) * rope(k, s + 3, 4)).sum(-1) for s in (0, 50))
    torch.testing.assert_close(here, far, **EXACT)
    assert torch.equal(rope(q, 5, 4)[..., 4:], q[..., 4:])
    assert torch.equal(rope(q, 5, 0), q)
    torch.testing.assert_close(rope(q, 5, 8).norm(dim=-1), q.norm(dim=-1), **EXACT)


def test_inverse_softplus_inverts_from_tiny_to_large() -> None:
    x = torch.logspace(-6, 1.5, 40, dtype=torch.float64)
    torch.testing.assert_close(F.softplus(inverse_softplus(x)), x, atol=0, rtol=1e-9)


def test_l2_normalise_is_finite_and_flat_at_zero() -> None:
    x = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)
    l2_normalise(x).sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()
    y = 1e3 * noise(2, 4)
    torch.testing.assert_close(l2_normalise(y).norm(dim=-1), torch.ones(2).double(), atol=1e-9, rtol=0)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_norms_stay_wide_under_autocast_with_and_without_gradients(kind: torch.dtype) -> None:
    """A sum of squares beyond 65,504 is infinite in half precision."""
    norm, x = RMSNorm(576), 15 * noise(2, 3, 576).float()
    expected = norm(x)
    with torch.autocast("cpu", kind):
        torch.testing.assert_close(norm(x), expected)
        with torch.no_grad():
            torch.testing.assert_close(norm(x), expected.detach())


def test_the_backward_pass_of_the_norm_is_autograds() -> None:
    norm, x = RMSNorm(7).double(), noise(2, 3, 7).requires_grad_()
    with torch.no_grad():
        norm.weight += noise(7, seed=1)
    assert torch.autograd.gradcheck(
        lambda x, gain: torch.func.functional_call(norm, {"weight": gain}, (x,)),
        (x, norm.weight.detach().requires_grad_()),
    )
