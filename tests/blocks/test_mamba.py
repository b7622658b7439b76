"""The selective scan against its closed form, at any chunk, and the block against the paper's equations."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.base import OptionError, Shape
from blocks.mamba import Mamba, selective_scan_chunked, selective_scan_reference
from tests.blocks.harness import assert_same, noise
from tests.blocks.test_gla import Form, with_gradients

B, E, N = 2, 6, 5


def inputs(length: int) -> list[Tensor]:
    """x, step, b, c, pace, h."""
    x, b, c = noise(B, length, E, seed=1), noise(B, length, N, seed=2), noise(B, length, N, seed=3)
    return [
        x,
        F.softplus(noise(B, length, E, seed=4)),
        b,
        c,
        noise(E, N, seed=5).exp(),
        noise(B, E, N, seed=6),
    ]


@pytest.mark.parametrize("chunk", [1, 2, 7, 8, 64, 200])
def test_any_chunk_gives_the_same(chunk: int) -> None:
    for length in (1, 2, 33, 63, 64, 65, 130):
        values = inputs(length)
        got = with_gradients(lambda *x: selective_scan_chunked(*x, chunk), values)
        for i, (one, two) in enumerate(
            zip(got, with_gradients(selective_scan_reference, values), strict=True)
        ):
            assert_same(one, two, f"result {i} at length {length}")


def test_written_gradients_are_those_of_differences() -> None:
    values = [t.requires_grad_() for t in inputs(11)]
    assert torch.autograd.gradcheck(lambda *x: selective_scan_chunked(*x, 4), values)


@pytest.mark.parametrize("form", [selective_scan_chunked, selective_scan_reference])
def test_it_is_the_sum_over_all_writes(form: Form) -> None:
    """y_t = c_t (exp(-pace d_1..t) h_0 + sum_j exp(-pace d_j+1..t) d_j x_j b_j): the recurrence, unrolled."""
    x, d, b, c, pace, h = inputs(20)
    total = d.cumsum(1)
    spans = torch.exp(-(total[:, :, None] - total[:, None])[..., None] * pace)
    spans = torch.where(torch.ones(20, 20).tril().bool()[..., None, None], spans, 0.0)
    states = torch.einsum("bijen,bje,bjn->bien", spans, d * x, b)
    states = states + torch.exp(-total[..., None] * pace) * h[:, None]
    y, last = form(x, d, b, c, pace, h)
    assert_same(y, torch.einsum("bien,bin->bie", states, c), "output")
    assert_same(last, states[:, -1], "state")


def test_the_block_is_the_paper() -> None:
    """Algorithm 2 and figure 3, token by token and by hand."""
    torch.manual_seed(0)
    module = Mamba(d_state=3, dt_rank=2, conv=0, expand=1.5).build(Shape(dim=8, heads=2)).double()
    named = dict(module.named_parameters())
    with torch.no_grad():
        named["skip"] += noise(12)
    u, h, ys = noise(B, 9, 8), torch.zeros(B, 12, 3).double(), []
    for t in range(9):
        x, z = (u[:, t] @ named["project.weight"].T).chunk(2, dim=-1)
        x = F.silu(x)
        narrow, b, c = (x @ named["select.weight"].T).split([2, 3, 3], dim=-1)
        delta = F.softplus(narrow @ named["step.weight"].T + named["step_bias"])
        a = torch.exp(delta[:, :, None] * -torch.exp(named["log_pace"]))
        h = a * h + delta[:, :, None] * b[:, None] * x[:, :, None]
        ys.append(((h * c[:, None]).sum(-1) + named["skip"] * x) * F.silu(z))
    assert_same(module(u)[0], torch.stack(ys, 1) @ named["out.weight"].T, "output")


def test_it_starts_as_the_paper_says() -> None:
    seed = torch.seed()
    print(f"seed {seed}")
    named = {k: p.detach() for k, p in Mamba().build(Shape(dim=512)).named_parameters()}
    step = F.softplus(named["step_bias"])
    assert step.min() > 0.999e-3 and step.max() < 1.001e-1 and -2.2 < step.log10().mean() < -1.8
    torch.testing.assert_close(named["log_pace"].exp(), torch.arange(1.0, 17).expand(1024, 16))
    assert (named["skip"] == 1).all()
    assert named["step.weight"].shape == (1024, 32) and named["step.weight"].abs().max() <= 32**-0.5


@pytest.mark.parametrize("options", [{"expand": 0.0}, {"d_state": 0}, {"dt_rank": 0}, {"conv": -1}])
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"^mamba: {next(iter(options))} is "):
        Mamba(**options)


def test_a_width_of_nothing_is_refused() -> None:
    with pytest.raises(
        OptionError, match=r"^mamba: expand is 0\.01, which leaves no hidden channel at dim 8"
    ):
        Mamba(expand=0.01).build(Shape(dim=8))
