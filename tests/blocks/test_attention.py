"""Softmax attention against code that no one here wrote, and its laws: distances, windows, options."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from blocks.attention import Attention, attention, attention_reference, keys_seen
from blocks.base import OptionError, Shape
from blocks.fox import FoX
from blocks.parts import rope
from tests.blocks.harness import SHAPE, assert_same, build, noise

with warnings.catch_warnings():
    # fla announces on import that this machine has no GPU.
    warnings.simplefilter("ignore")
    from fla.ops.attn.naive import naive_parallel_attn


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 130])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("window", [None, 1, 5, 64, 130])
@pytest.mark.parametrize("form", [attention, attention_reference])
def test_agrees_with_fla(form: Callable[..., Any], window: int | None, groups: int, length: int) -> None:
    """With grouped keys and windows; gradients included."""
    q, k, v = ours = [
        noise(2, length, n, 8, seed=i).requires_grad_() for i, n in enumerate((4, groups, groups))
    ]
    got, expected = form(q, k, v, window), naive_parallel_attn(q, k, v, window_size=window)[0]
    assert_same(got, expected, "output")
    weight = noise(*got.shape, seed=9)
    grads = (torch.autograd.grad((y * weight).sum(), ours) for y in (got, expected))
    for name, one, two in zip("qkv", *grads, strict=True):
        assert_same(one, two, f"gradient of {name}")


@pytest.mark.parametrize("window", [None, 1, 5, 64, 130])
def test_the_number_of_keys_seen_is_counted(window: int | None) -> None:
    for length in (1, 5, 64, 130):
        seen = [min(t + 1, window or length) for t in range(length)]
        assert keys_seen(length, window) == pytest.approx(sum(seen) / length)


@pytest.mark.parametrize("window", [3, 32, 64, 100])
def test_a_window_hides_what_lies_before_it(window: int) -> None:
    q, k, v = (noise(1, 200, 2, 8, seed=i).requires_grad_() for i in (1, 2, 3))
    for t in (0, 63, 64, 65, 127, 199):
        (grad,) = torch.autograd.grad(attention(q, k, v, window)[:, t].sum(), v)
        seen = grad.abs().sum((0, 2, 3)) > 0
        assert seen.nonzero().flatten().tolist() == list(range(max(0, t - window + 1), t + 1))


def test_scores_depend_on_distance_alone() -> None:
    q, k = noise(1, 9, 2, 8), noise(1, 9, 2, 8, seed=2)
    near, far = (torch.einsum("bthk,bshk->bhts", rope(q, start, 6), rope(k, start, 6)) for start in (0, 1000))
    assert_same(near, far, "scores")


@pytest.mark.parametrize("share,rotary", [(0.0, 0), (0.2, 0), (0.25, 2), (0.5, 4), (0.7, 4), (1.0, 8)])
def test_the_rotated_width_is_even(share: float, rotary: int) -> None:
    assert Attention(rope=share).rotary(SHAPE) == rotary


def test_without_rotation_the_order_of_the_past_is_unknown() -> None:
    """NoPE: the last output does not change when earlier tokens swap places; with rotation it does."""
    x = noise(1, 6, SHAPE.dim)
    swapped = x[:, [1, 0, 2, 3, 4, 5]]
    for share, same in ((0.0, True), (1.0, False)):
        module = build(Attention(rope=share))
        got = (module(x)[0][:, -1] - module(swapped)[0][:, -1]).abs().max().item()
        assert (got < 1e-12) == same


@pytest.mark.parametrize(
    "make",
    [
        lambda: Attention(kv_heads=0),
        lambda: Attention(window=0),
        lambda: Attention(rope=1.5),
        lambda: Attention(base=0.0),
        lambda: Attention(kv_heads=3).build(Shape(heads=4)),
        lambda: FoX(kv_heads=3).build(Shape(heads=4)),
        lambda: FoX(kv_heads=-1),
        lambda: FoX(conv=-1),
        lambda: FoX(output_gate="tanh"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_impossible_options_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(OptionError, match=r"^(attn|fox): \w+ is "):
        make()
