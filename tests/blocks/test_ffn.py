"""The sparse activation: what is kept, how ties are broken, and what gradients see."""

import math
from collections.abc import Callable

import pytest
import torch

from blocks.base import OptionError, Shape
from blocks.ffn import MLP, Sparse, SwiGLU, keep_largest, keep_largest_reference, soft_largest
from tests.blocks.harness import assert_same, noise

FORMS = pytest.mark.parametrize("form", [keep_largest, keep_largest_reference])


@FORMS
def test_ties_go_to_the_lowest_index(form: Callable[..., torch.Tensor]) -> None:
    u = torch.tensor([[1.0, -2.0, 1.0, 2.0, -1.0, 1.0]])
    assert form(u, 4).tolist() == [[1.0, -2.0, 1.0, 2.0, 0.0, 0.0]]
    assert form(u, 1).tolist() == [[0.0, -2.0, 0.0, 0.0, 0.0, 0.0]]
    assert form(u, 6).tolist() == u.tolist()
    assert form(torch.ones(1, 5), 2).tolist() == [[1.0, 1.0, 0.0, 0.0, 0.0]]
    assert form(torch.zeros(1, 5), 2).tolist() == [[0.0] * 5]


@FORMS
def test_exactly_k_are_kept_also_in_bf16_where_ties_abound(form: Callable[..., torch.Tensor]) -> None:
    u = noise(50, 344).bfloat16()
    for k in (1, 172, 343, 344):
        assert ((form(u, k) != 0).sum(-1) == k).all()
        assert torch.equal(form(u, k), keep_largest_reference(u, k))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("block", [1, 2, 5, 30])
def test_blocks_are_kept_whole_and_none_that_is_dropped_is_larger(block: int, dtype: torch.dtype) -> None:
    u = noise(50, 60).to(dtype)
    for k in {1, (60 // block + 1) // 2, 60 // block}:
        y = keep_largest(u, k, block)
        assert torch.equal(y, keep_largest_reference(u, k, block))
        kept = (y.unflatten(-1, (-1, block)) != 0).sum(-1)
        assert ((kept == block) | (kept == 0)).all() and ((kept > 0).sum(-1) == k).all()
        assert torch.equal(y[y != 0], u[y != 0])
        size = u.double().unflatten(-1, (-1, block)).square().sum(-1)
        least = size.where(kept > 0, math.inf).amin(-1)
        most = size.where(kept == 0, -math.inf).amax(-1)
        # In bf16 a block is summed in float32.
        assert (most <= least * (1 + 1e-6)).all()


@FORMS
def test_kept_values_pass_their_gradient_and_others_none(form: Callable[..., torch.Tensor]) -> None:
    u = noise(7, 33).requires_grad_()
    y = form(u, 10)
    (grad,) = torch.autograd.grad(y.sum(), u)
    assert torch.equal(grad, (y != 0).double())


def test_the_soft_mask_is_its_formula_with_the_cut_held_fixed() -> None:
    u = noise(7, 33).requires_grad_()
    cut = u.detach().abs().sort(dim=-1, descending=True).values[:, 9:10]
    expected = u / (1 + torch.exp((cut - u.abs()) / 0.2))
    got = soft_largest(u, 10, 0.2)
    assert_same(got, expected, "output")
    weight = noise(7, 33, seed=2)
    got_grad, expected_grad = (torch.autograd.grad((y * weight).sum(), u)[0] for y in (got, expected))
    assert_same(got_grad, expected_grad, "gradient")


def test_a_cold_soft_mask_is_the_hard_one_but_for_the_cut_itself() -> None:
    u = noise(7, 33)
    soft, hard = soft_largest(u, 10, 1e-6), keep_largest(u, 10)
    cut = hard.abs().where(hard != 0, math.inf).amin(-1, keepdim=True)
    at_cut = hard.abs() == cut
    assert_same(soft, torch.where(at_cut, u / 2, hard), "output")


@pytest.mark.parametrize(
    "ratio,hidden,kept", [(0.07, 100, 7), (0.85, 1440, 1224), (0.5, 43, 22), (1e-9, 43, 1), (1.0, 43, 43)]
)
def test_k_is_the_rounded_up_share(ratio: float, hidden: int, kept: int) -> None:
    assert Sparse(expand=float(hidden), k_ratio=ratio).kept(Shape(dim=1, heads=1)) == kept


def test_what_a_token_reads_is_counted_and_decides_whether_zeros_are_skipped() -> None:
    """By enumeration: of 16 columns in a row, those of which any block is kept, for blocks kept at random."""
    shape = Shape(dim=96)
    for ratio, block, tokens in (
        (0.85, 1, 0),
        (0.5, 1, 0),
        (0.1, 1, 0),
        (0.03, 1, 1),
        (0.5, 16, 1),
        (0.25, 48, 2),
    ):
        sparse = Sparse(expand=10.0, k_ratio=ratio, block=block)
        kept, rng = sparse.kept(shape) // block, torch.Generator().manual_seed(0)
        order = torch.rand(4000, 960 // block, generator=rng).argsort(dim=-1)
        columns = (order < kept).repeat_interleave(block, dim=-1)
        read = columns.unflatten(-1, (-1, 16)).any(-1).double().mean()
        assert sparse.reads(shape) == pytest.approx(float(read), abs=0.01)
        assert sparse.build(shape, "triton").skip == tokens
        assert sparse.build(shape, "torch").skip == 0


@pytest.mark.parametrize("slope", [0.0, 0.5, 0.9])
def test_a_leaky_relu_squared_is_its_formula(slope: float) -> None:
    """x^2 above 0 and slope^2 x^2 below, its derivative 2 x and 2 slope^2 x: no channel is dead."""
    x = torch.cat([noise(40), torch.zeros(1)]).requires_grad_()
    act = MLP(act="relu2", slope=slope).build(Shape(dim=4)).act
    assert isinstance(act, Callable)
    y = act(x)
    share = torch.where(x.detach() > 0, 1.0, slope**2)
    assert_same(y, share * x.square(), "output")
    assert_same(torch.autograd.grad(y.sum(), x)[0], 2 * share * x, "gradient")


@pytest.mark.parametrize(
    "make",
    [
        lambda: SwiGLU(expand=0.0),
        lambda: SwiGLU(expand=0.01).build(Shape(dim=16)),
        lambda: MLP(act="tanh"),  # pyright: ignore[reportArgumentType]
        lambda: MLP(expand=-1.0),
        lambda: MLP(act="relu2", slope=1.0),
        lambda: MLP(act="relu", slope=-0.1),
        lambda: MLP(slope=0.5),
        lambda: Sparse(k_ratio=0.0),
        lambda: Sparse(k_ratio=1.1),
        lambda: Sparse(mask="firm"),  # pyright: ignore[reportArgumentType]
        lambda: Sparse(temperature=0.0),
        lambda: Sparse(block=0),
        lambda: Sparse(block=2, mask="soft"),
        lambda: Sparse(expand=1.5, block=16).build(Shape(dim=16)),
    ],
)
def test_impossible_options_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(OptionError, match=r"^(swiglu|mlp|sparse): \w+ is "):
        make()
