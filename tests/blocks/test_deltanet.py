"""DeltaNet against code that no one here wrote, and against Gated DeltaNet that forgets nothing."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.base import OptionError, Shape
from blocks.deltanet import DeltaNet
from blocks.gdn import GDN, gated_delta_chunked, gated_delta_reference
from tests.blocks.harness import SHAPE, assert_same, build, noise

with warnings.catch_warnings():
    # fla announces on import that this machine has no GPU.
    warnings.simplefilter("ignore")
    from fla.ops.delta_rule.naive import delta_rule_chunkwise, delta_rule_recurrence

B, H, K, V = 2, 3, 8, 12
Form = Callable[..., Any]


def fla_recurrent(q: Tensor, k: Tensor, v: Tensor, b: Tensor, s: Tensor) -> Any:
    o, last = delta_rule_recurrence(*(x.transpose(1, 2) for x in (q, k, v, b)), s)
    return o.transpose(1, 2), last


def fla_chunk(q: Tensor, k: Tensor, v: Tensor, b: Tensor, s: Tensor) -> Any:
    """fla's chunks begin from no state and are whole: ``s`` is laid down first, by full writes."""
    size, (length, width) = 32, k.shape[1::2]
    before = torch.eye(width).expand(B, H, width, width).transpose(1, 2)
    fill = (0, 0, 0, 0, 0, -(length + width) % size)
    padded = [
        F.pad(torch.cat([first, x], 1), fill).transpose(1, 2)
        for first, x in ((0 * before, q), (before, k), (s.transpose(1, 2), v))
    ]
    strength = F.pad(torch.cat([torch.ones(B, width, H), b], 1), fill[2:]).transpose(1, 2)
    o, last = delta_rule_chunkwise(*padded, strength, size)
    return o.transpose(1, 2)[:, width : width + length], last


def with_gradients(form: Form, values: list[Tensor]) -> list[Tensor]:
    """Output, last state and the gradients of a random function of both."""
    values = [t.detach().clone().requires_grad_() for t in values]
    out = list(form(*values))
    loss = sum((t * noise(*t.shape, seed=7 + i).to(t.dtype)).sum() for i, t in enumerate(out))
    assert isinstance(loss, Tensor)
    return [*out, *torch.autograd.grad(loss, values)]


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 63, 64, 65, 130])
@pytest.mark.parametrize("strongest", [1.0, 2.0])
@pytest.mark.parametrize("ours", [gated_delta_chunked, gated_delta_reference])
@pytest.mark.parametrize("fla", [fla_recurrent, fla_chunk])
def test_agrees_with_fla(ours: Form, fla: Form, strongest: float, length: int) -> None:
    """In float32, which is all that fla's forms compute in; from a state, gradients included."""
    q, k = (F.normalize(noise(B, length, H, K, seed=i), dim=-1) for i in (1, 2))
    v, s = noise(B, length, H, V, seed=3), noise(B, H, K, V, seed=4)
    values = [x.float() for x in (q, k, v, strongest * noise(B, length, H, seed=6).sigmoid(), s)]

    def delta_rule(q: Tensor, k: Tensor, v: Tensor, b: Tensor, s: Tensor) -> Any:
        return ours(q * K**-0.5, k, v, torch.zeros_like(b), b, s)

    got, expected = with_gradients(delta_rule, values), with_gradients(fla, values)
    for name, one, two in zip(("o", "s", "dq", "dk", "dv", "db", "ds"), got, expected, strict=True):
        assert_same(one, two, name, 1e-4)


def test_it_is_gated_deltanet_that_forgets_nothing() -> None:
    """The weights of one in the other, whose pace of decay is turned down to nothing."""
    block, gated = DeltaNet(), GDN(expand_k=1.0, expand_v=1.0, gate=False)
    ours, theirs = build(block), build(gated)
    channels, heads = 3 * SHAPE.dim, SHAPE.heads
    with torch.no_grad():
        rows = theirs.get_parameter("project.weight")
        kept = ours.get_parameter("project.weight")
        rows[:channels], rows[channels + heads :] = kept[:channels], kept[channels:]
        for name in ("conv.weight", "norm.weight", "out.weight"):
            theirs.get_parameter(name).copy_(ours.get_parameter(name))
        theirs.get_parameter("log_pace").fill_(-torch.inf)
    x = noise(2, 70, SHAPE.dim)
    for one, two in zip(_results(ours, x), _results(theirs, x), strict=True):
        assert_same(one, two, "output and state")
    assert block.params(SHAPE) == gated.params(SHAPE) - SHAPE.dim * heads - 2 * heads


def _results(module: nn.Module, x_BTD: Tensor) -> tuple[Tensor, ...]:
    y, state = module(x_BTD)
    return y, state["s"], state["conv"]


def test_what_is_not_written_over_is_kept_for_good() -> None:
    """A value is read back as it was after any number of writes under other, orthogonal keys."""
    keys = torch.eye(K, dtype=torch.float64)[[0] + [1, 2, 3] * 100][None, :, None]
    v, ones = noise(1, 301, 1, V), torch.ones(1, 301, 1).double()
    _, s = gated_delta_chunked(keys, keys, v, 0 * ones, ones, torch.zeros(1, 1, K, V).double())
    assert_same(s[0, 0, :4], v[0, [0, 298, 299, 300], 0], "read back")


@pytest.mark.parametrize("options", [{"expand_k": 0.0}, {"expand_v": -1.0}, {"conv": -1}, {"beta_max": 2.5}])
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"^deltanet: .*{next(iter(options))} is"):
        DeltaNet(**options)


def test_a_shape_that_does_not_fit_names_the_block() -> None:
    with pytest.raises(OptionError, match=r"^deltanet: with expand_k=1 the key is 17 wide over 2 heads"):
        DeltaNet().build(Shape(dim=17, heads=2))
