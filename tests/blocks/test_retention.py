"""Multi-scale retention against code that no one here wrote, its decays, and that only distances matter."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.base import OptionError, Shape
from blocks.genesis_rules import decayed, decayed_reference
from blocks.parts import rope
from blocks.retention import RetNet, log_decays
from tests.blocks.harness import SHAPE, assert_same, build, noise

with warnings.catch_warnings():
    # fla announces on import that this machine has no GPU.
    warnings.simplefilter("ignore")
    from fla.ops.retention.naive import naive_retention

B, H, K, V = 2, 3, 8, 12
Form = Callable[..., Any]


def with_gradients(form: Form, values: list[Tensor]) -> list[Tensor]:
    """The output and the gradients of a random function of it."""
    values = [t.detach().clone().requires_grad_() for t in values]
    out = form(*values)
    return [out, *torch.autograd.grad((out * noise(*out.shape, seed=7).to(out.dtype)).sum(), values)]


@pytest.mark.parametrize("length", [1, 2, 15, 63, 64, 65, 130])
@pytest.mark.parametrize("ours", [decayed, decayed_reference])
def test_agrees_with_fla(ours: Form, length: int) -> None:
    """In float32, which is all that fla's form computes in; gradients included."""
    values = [noise(B, length, H, size, seed=i).float() for i, size in enumerate((K, K, V), 1)]

    def retention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        log_a = log_decays(H, v).expand(B, length, H)
        return ours(q * K**-0.5, k, v, log_a, torch.zeros(B, H, K, V))[0]

    def theirs(*qkv: Tensor) -> Tensor:
        return naive_retention(*(x.transpose(1, 2) for x in qkv)).transpose(1, 2)

    got, expected = with_gradients(retention, values), with_gradients(theirs, values)
    for name, one, two in zip(("o", "dq", "dk", "dv"), got, expected, strict=True):
        assert_same(one, two, name, 1e-4)


def test_heads_fade_at_the_paces_of_the_paper() -> None:
    """From 1/32 of it lost in a token, each head half as fast as the one before, down to the last bit."""
    lost = -torch.expm1(log_decays(30, torch.zeros(1, dtype=torch.float64)))
    assert_same(lost[:3], torch.tensor([1 / 32, 1 / 64, 1 / 128]).double(), "lost in a token")
    assert_same(lost[1:] / lost[:-1], torch.full((29,), 0.5).double(), "ratios")
    assert (log_decays(30, torch.zeros(1)) < 0).all(), "no head remembers for good in float32"


def test_the_module_is_the_layer_of_the_paper() -> None:
    """From its weights, all at once, with fla's form of retention."""
    module, x, heads = build(RetNet()).float(), noise(2, 37, SHAPE.dim).float(), SHAPE.heads
    p = dict(module.named_parameters())
    q, k, v, gate = (x @ p["project.weight"].T).split([SHAPE.dim] * 2 + [2 * SHAPE.dim] * 2, dim=-1)
    q, k, v = (t.unflatten(-1, (heads, -1)) for t in (q, k, v))
    q, k = rope(q, 0, 8), rope(k, 0, 8)
    o = naive_retention(*(t.transpose(1, 2) for t in (q, k, v))).transpose(1, 2)
    norm = p["norm.weight"].flatten(), p["norm.bias"].flatten(), SHAPE.eps
    o = F.group_norm(o.flatten(0, 1).flatten(1), heads, *norm).view(2, 37, -1)
    assert_same(module(x)[0], (F.silu(gate) * o) @ p["out.weight"].T, "output", 1e-4)


def test_only_distances_matter() -> None:
    """A sequence that begins late, in an empty memory, is read like one that begins at 0."""
    module, x = build(RetNet()), noise(2, 20, SHAPE.dim)
    empty = torch.zeros(2, SHAPE.heads, 8, 16, dtype=torch.float64)
    late, state = module(x, {"s": empty, "position": 1000})
    assert_same(late, module(x)[0], "output")
    assert state["position"] == 1020


@pytest.mark.parametrize("options", [{"expand_k": 0.0}, {"expand_v": -1.0}, {"base": 1.0}])
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"^retnet: .*{next(iter(options))} is"):
        RetNet(**options)


def test_a_shape_that_does_not_fit_names_the_block() -> None:
    with pytest.raises(OptionError, match=r"^retnet: with expand_k=1 the key is 17 wide over 2 heads"):
        RetNet().build(Shape(dim=17, heads=2))
