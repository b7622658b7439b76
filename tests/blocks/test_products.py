"""The product of every linear layer is PyTorch's own, whichever routine computes it."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.products import FEW_ROWS, WORK, Linear, linear

EXACT = {"atol": 1e-12, "rtol": 1e-12}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sizes", [(0,), (1,), (2,), (1, FEW_ROWS), (FEW_ROWS + 1,), (3, 5)])
@pytest.mark.parametrize("bias", [False, True])
def test_a_linear_layer_is_pytorchs_with_and_without_gradients(sizes: tuple[int, ...], bias: bool) -> None:
    layer, x = Linear(7, 5, bias=bias).double(), noise(*sizes, 7)
    expected = F.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), expected, **EXACT)
    with torch.no_grad():
        got = layer(x)
    torch.testing.assert_close(got, expected.detach(), **EXACT)
    assert not got.requires_grad


@pytest.mark.parametrize(("inputs", "outputs"), [(96, 160), (160, 96), (129, 1), (450, 600)])
@pytest.mark.parametrize("strided", [False, True])
def test_large_float32_products_and_their_gradients_round_as_float32_does(
    inputs: int, outputs: int, strided: bool
) -> None:
    """Against float64: no worse than a few times PyTorch's own form here, so no half precision in between.

    How a sum of tens of thousands is split, and so how it is rounded, differs from processor to processor.
    """
    rows = WORK // (inputs * outputs) + 3
    x, weight, bias = noise(2, rows, inputs), noise(outputs, inputs, seed=1), noise(outputs, seed=2)
    d_y = noise(2, rows, outputs, seed=3)
    wide = [t.clone().requires_grad_() for t in (x, weight, bias)]
    narrow = [t.float().requires_grad_() for t in (x, weight, bias)]
    if strided:
        given = narrow[0].transpose(0, 1).contiguous().transpose(0, 1), narrow[1].T.contiguous().T, narrow[2]
        upstream = d_y.float().transpose(0, 1).contiguous().transpose(0, 1)
    else:
        given, upstream = tuple(narrow), d_y.float()
    y = linear(*given)
    assert type(y.grad_fn).__name__ == "AddBackward0", "the product took another way than this test is for"
    expected = F.linear(*wide)
    ours = [y, *torch.autograd.grad(y, narrow, upstream)]
    true_ones = [expected, *torch.autograd.grad(expected, wide, d_y)]
    plain = F.linear(*narrow)
    theirs = [plain, *torch.autograd.grad(plain, narrow, d_y.float())]
    for got, true, other in zip(ours, true_ones, theirs, strict=True):
        assert got.dtype == torch.float32
        few = max(1e-6, 4 * float((other - true).detach().abs().max() / true.detach().abs().max()))
        assert (got - true).abs().max() <= few * true.abs().max()


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_large_product_leaves_out_the_gradient_that_nobody_asked_for(frozen: int) -> None:
    given = [noise(WORK // 64**2 + 1, 64).float(), noise(64, 64, seed=1).float()]
    given[1 - frozen].requires_grad_()
    linear(given[0], given[1]).sum().backward()
    assert given[frozen].grad is None
    assert given[1 - frozen].grad is not None


def test_a_large_product_has_the_same_bits_each_time() -> None:
    x, weight = noise(WORK // 64**2 + 1, 64).float(), noise(64, 64, seed=1).float().requires_grad_()
    runs = [linear(x, weight) for _ in range(2)]
    assert torch.equal(*runs)
    assert torch.equal(*(torch.autograd.grad(y, weight, y.detach())[0] for y in runs))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, WORK // 64**2 + 1])
def test_under_autocast_a_product_is_autocasts(kind: torch.dtype, rows: int) -> None:
    x, weight = noise(rows, 64).float(), noise(64, 64, seed=1).float()
    with torch.autocast("cpu", kind):
        assert torch.equal(linear(x, weight), F.linear(x, weight))
        assert linear(x, weight).dtype == kind
