"""Mamba-2 against code that no one here wrote, and against its dual: one masked matrix for all tokens."""

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.base import OptionError, Shape
from blocks.mamba2 import Mamba2, ssd_chunked, ssd_reference
from tests.blocks.harness import assert_same, noise
from tests.blocks.test_gla import LENGTHS, Form, with_gradients

with warnings.catch_warnings():
    # fla announces on import that this machine has no GPU.
    warnings.simplefilter("ignore")
    from fla.ops.simple_gla.naive import naive_recurrent_simple_gla

B, H, G, N, P = 2, 6, 2, 8, 12
FORMS = pytest.mark.parametrize("ours", [ssd_chunked, ssd_reference])


def inputs(length: int) -> list[Tensor]:
    """c, b, x, log a, s; one head in four hardly forgets."""
    c, b = noise(B, length, G, N, seed=1), noise(B, length, G, N, seed=2)
    log_a = F.logsigmoid(noise(B, length, H, seed=4) + 2 * (torch.arange(H) % 4))
    return [c, b, noise(B, length, H, P, seed=3), log_a, noise(B, H, N, P, seed=5)]


def to_heads(z_BTGN: Tensor) -> Tensor:
    """What each head reads: heads of a group stand beside each other."""
    return z_BTGN[:, :, :, None].expand(-1, -1, -1, H // G, -1).flatten(2, 3)


@FORMS
@pytest.mark.parametrize("length", LENGTHS)
def test_it_agrees_with_fla(ours: Form, length: int) -> None:
    """In float32, which is all that fla's form computes in; from a state, gradients included."""
    values = [t.float() for t in inputs(length)]
    got = with_gradients(ours, values)
    theirs = with_gradients(
        lambda c, b, x, a, s: naive_recurrent_simple_gla(to_heads(c), to_heads(b), x, a, 1.0, s), values
    )
    for name, one, two in zip(("y", "s", "dc", "db", "dx", "dlog a", "ds"), got, theirs, strict=True):
        assert_same(one, two, name, 1e-4)


@pytest.mark.parametrize("chunk", [1, 2, 7, 16, 64, 200])
def test_any_chunk_gives_the_same(chunk: int) -> None:
    for length in (1, 33, 130):
        values = inputs(length)
        got, right = (
            with_gradients(lambda *x: ssd_chunked(*x, chunk), values),
            with_gradients(ssd_reference, values),
        )
        for i, (one, two) in enumerate(zip(got, right, strict=True)):
            assert_same(one, two, f"result {i} at length {length}")


def test_the_block_is_its_dual_attention() -> None:
    """Y = (L * C B^T) (d X) + skip X, L_ij the product of a from j + 1 to i (Dao & Gu 2024, section 5.1)."""
    torch.manual_seed(0)
    shape = Shape(dim=16, heads=4, eps=1e-12)
    module = Mamba2(d_state=5, groups=2, conv=0, expand=1.5).build(shape).double()
    named = dict(module.named_parameters())
    with torch.no_grad():
        named["skip"] += 0.3 * noise(4)
    u = noise(B, 37, 16)
    x, b, c, step, gate = (u @ named["project.weight"].T).split([24, 10, 10, 4, 24], dim=-1)
    x, b, c = (F.silu(z).unflatten(-1, (heads, -1)) for z, heads in ((x, 4), (b, 2), (c, 2)))
    b, c = (z.repeat_interleave(2, dim=2) for z in (b, c))
    d = F.softplus(step + named["step_bias"])
    log_a = -named["log_pace"].exp() * d
    spans = log_a.cumsum(1)[:, :, None] - log_a.cumsum(1)[:, None]
    mask = torch.where(torch.ones(37, 37).tril().bool()[..., None], spans.exp(), 0.0)
    scores = torch.einsum("bihn,bjhn->bijh", c, b) * mask
    y = torch.einsum("bijh,bjhp->bihp", scores, d[..., None] * x) + named["skip"][:, None] * x
    z = y.flatten(2) * F.silu(gate)
    expected = (z / z.square().mean(-1, keepdim=True).sqrt() * named["norm.weight"]) @ named["out.weight"].T
    assert_same(module(u)[0], expected, "output")


def test_it_starts_as_the_paper_says() -> None:
    seed = torch.seed()
    print(f"seed {seed}")
    named = dict(Mamba2().build(Shape(dim=512, heads=256)).named_parameters())
    pace, step = named["log_pace"].detach().exp(), F.softplus(named["step_bias"].detach())
    assert pace.min() > 0.999 and pace.max() < 16.001 and 7 < pace.mean() < 10
    assert step.min() > 0.999e-3 and step.max() < 1.001e-1 and -2.2 < step.log10().mean() < -1.8
    assert (named["skip"] == 1).all()


@pytest.mark.parametrize("options", [{"expand": 0.0}, {"d_state": 0}, {"groups": 0}, {"conv": -1}])
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"^mamba2: {next(iter(options))} is "):
        Mamba2(**options)


def test_groups_divide_the_heads() -> None:
    with pytest.raises(OptionError, match="groups is 3, which does not divide the 4 heads; choose"):
        Mamba2(groups=3).build(Shape(dim=16, heads=4))
