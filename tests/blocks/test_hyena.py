"""Hyena: its convolutions against NumPy and against transforms, its filters, and the layers of the papers."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from blocks.base import OptionError
from blocks.hyena import (
    Hyena,
    ImplicitFilter,
    MultiHeadHyena,
    head_convolution,
    long_convolution,
    long_convolution_reference,
)
from tests.blocks.harness import LENGTHS, SHAPE, assert_same, build, noise

B, H, P = 2, 3, 4
lengths = pytest.mark.parametrize("length", [*LENGTHS, 257])


@lengths
@pytest.mark.parametrize("form", [long_convolution, long_convolution_reference])
def test_a_long_convolution_is_numpys(form: Any, length: int) -> None:
    u, h = noise(1, length, 3, seed=1), noise(length, 3, seed=2)
    columns = [np.convolve(u[0, :, c].numpy(), h[:, c].numpy())[:length] for c in range(3)]
    assert_same(form(u, h, length), torch.from_numpy(np.stack(columns, axis=1))[None], "convolution")


@lengths
def test_products_of_matrices_are_the_transform_of_keys_times_values(length: int) -> None:
    """As published: every product of a channel of k and one of v is convolved by the FFT, then read by q."""
    q, k, v = (noise(B, length, H, P, seed=i) for i in (1, 2, 3))
    h = noise(length, H, seed=4)
    kv = torch.einsum("bthp,bthr->bthpr", k, v).flatten(2)
    states = long_convolution(kv, h.repeat_interleave(P * P, dim=1), length).view(B, length, H, P, P)
    if length > 1:  # a lone token takes no transform
        assert not torch.equal(states, kv.view_as(states))
    expected = torch.einsum("bthp,bthpr->bthr", q, states)
    assert_same(head_convolution(q, k, v, h), expected, "read-out")


# Filters.


def filters(count: int, max_length: int, seed: int = 0) -> ImplicitFilter:
    torch.manual_seed(seed)
    return ImplicitFilter(count, bands=8, hidden=32, max_length=max_length).double()


def test_a_filter_is_the_same_at_every_length() -> None:
    made = filters(5, 100)
    with torch.no_grad():
        long = made(301)
        for size in LENGTHS:
            assert_same(made(size), long[:size], f"the first {size} lags")


def test_windows_are_down_to_a_hundredth_after_their_share_of_the_length() -> None:
    made, steady = filters(7, 1000), filters(7, 1000)
    with torch.no_grad():
        steady.second.weight.zero_()  # a network that says the same of every lag
        steady.skip.zero_()
        made.skip.zero_()
        h = steady(1501)
    assert_same(h[300, 0] / h[0, 0], torch.tensor(0.01).double(), "first")
    assert_same(h[1500, -1] / h[0, -1], torch.tensor(0.01).double(), "last")
    assert (h.abs().diff(dim=0) < 0).all()


@pytest.mark.parametrize("max_length", [64, 1024])
def test_filters_start_with_an_energy_of_about_one(max_length: int) -> None:
    """So that what they give is as large as what they take, whatever the length: mean of 4,096 filters."""
    made = filters(4096, max_length)
    with torch.no_grad():
        made.skip.zero_()
        energy = made(4 * max_length).square().sum(0)
    assert 0.5 < energy.mean() < 2, f"{energy.mean():.2f}"
    # The slow half as loud as the fast half.
    assert 0.5 < energy[:2048].mean() / energy[2048:].mean() < 2


def test_a_filter_tells_neighbouring_lags_apart() -> None:
    """From one lag to the next of its length a filter turns, not only fades: its signs change."""
    with torch.no_grad():
        h = filters(64, 128)(128)[1:]
    changes = (h.diff(dim=0).sign().diff(dim=0) != 0).sum(0)
    assert changes.min() >= 4, changes.tolist()


# The layers of the papers, from their weights.


def short(x: Tensor, taps: Tensor) -> Tensor:
    """The short convolution, token by token; the last tap is the token itself."""
    width, out = taps.shape[1], torch.zeros_like(x)
    for t in range(x.shape[1]):
        for lag in range(min(width, t + 1)):
            out[:, t] += taps[:, width - 1 - lag] * x[:, t - lag]
    return out


@pytest.mark.parametrize("order", [2, 3])
def test_the_module_is_the_layer_of_the_paper(order: int) -> None:
    module, x = build(Hyena(order=order)), noise(2, 37, SHAPE.dim)
    p, filters = dict(module.named_parameters()), module.filter
    assert isinstance(filters, ImplicitFilter)
    with torch.no_grad():
        z, *gates = short(x @ p["project.weight"].T, p["conv.weight"]).chunk(order + 1, dim=-1)
        h = filters(37)
        for n in range(order - 1):
            u, z = z * gates[n], torch.zeros_like(z)
            for t in range(37):
                for s in range(t + 1):
                    z[:, t] += h[t - s, n * SHAPE.dim : (n + 1) * SHAPE.dim] * u[:, s]
        assert_same(module(x)[0], (z * gates[-1]) @ p["out.weight"].T, "output")


def test_the_multi_head_module_is_the_layer_of_the_paper() -> None:
    module, x, p = build(MultiHeadHyena()), noise(2, 37, SHAPE.dim), SHAPE.dim // SHAPE.heads
    weights, filters = dict(module.named_parameters()), module.filter
    assert isinstance(filters, ImplicitFilter)
    with torch.no_grad():
        mixed = short(x @ weights["project.weight"].T, weights["conv.weight"])
        q, k, v = (t.unflatten(-1, (SHAPE.heads, p)) for t in mixed.chunk(3, dim=-1))
        h, o = filters(37), torch.zeros(2, 37, SHAPE.heads, p, dtype=torch.float64)
        for t in range(37):
            for s in range(t + 1):
                o[:, t] += h[t - s, :, None] * (q[:, t] * k[:, s]).sum(-1, keepdim=True) * v[:, s]
        assert_same(module(x)[0], (o * p**-0.5).flatten(2) @ weights["out.weight"].T, "output")


IMPOSSIBLE: list[tuple[type[Hyena] | type[MultiHeadHyena], dict[str, Any]]] = [
    (Hyena, {"order": 1}),
    *[(cls, {"conv": -1}) for cls in (Hyena, MultiHeadHyena)],
    *[(cls, {name: 0}) for cls in (Hyena, MultiHeadHyena) for name in ("bands", "hidden", "max_length")],
]


@pytest.mark.parametrize("cls,options", IMPOSSIBLE)
def test_impossible_options_are_refused(cls: Any, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"^{cls.word}: {next(iter(options))} is .*must be"):
        cls(**options)
