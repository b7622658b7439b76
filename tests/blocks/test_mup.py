"""muP: every parameter in one group, by what grows with the width; at the base width nothing changes."""

from collections.abc import Mapping

import pytest
import torch
from torch import nn

from blocks.base import Block, Shape
from blocks.mamba import Mamba
from blocks.model import LanguageModel
from blocks.mup import MupError, check_base, groups
from tests.blocks.harness import block_of

SHAPE = Shape(dim=64, heads=4)
FIXED = {
    "inner_weight",
    "inner_bias",
    "inner_norm_gain",
    "inner_norm_bias",
    "log_pace",
    "step_bias",
    "rate_bias",
    "skip",
}
"""Decays, biases, and the inner model of ttt: they have no input that grows."""


def model(block: Block, mup: int | None, shape: Shape = SHAPE, tied: bool = False) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(((block,),), shape, vocab=11, tied=tied, mup=mup)


@pytest.fixture
def block(block_text: str, known: Mapping[str, type[Block]]) -> Block:
    return block_of(block_text, known)


@pytest.mark.parametrize("tied", [False, True])
def test_every_parameter_is_in_exactly_one_group_under_its_name(block: Block, tied: bool) -> None:
    net, before = model(block, 16, tied=tied), torch.get_rng_state()
    listed = [pair for group in groups(net) for pair in zip(group.names, group.params, strict=True)]
    assert torch.equal(before, torch.get_rng_state()), "no random number is drawn"
    named = dict(net.named_parameters())
    assert len(listed) == len(named) and all(named[name] is one for name, one in listed)


def reads_more_if_wider(block: Block, path: str, weight: nn.Parameter) -> bool:
    """All D channels or a multiple; of few channels, the step of Mamba alone, whose rank is a share of D.

    The network of Hyena's filters reads lags, at any width.
    """
    if ".filter." in path:
        return False
    if isinstance(block, Mamba) and path.endswith(".step"):
        return block.dt_rank is None
    return weight.shape[1] >= SHAPE.dim // 2


def test_what_a_parameter_is_follows_from_its_module(block: Block) -> None:
    """The same said by hand: layers that read all D channels are hidden, all else keeps its rate."""
    net = model(block, 16)
    kinds = {name: group for group in groups(net) for name in group.names}
    modules = dict(net.named_modules())
    for name, parameter in net.named_parameters():
        path, _, last = name.rpartition(".")
        group, linear = kinds[name], isinstance(modules[path], nn.Linear)
        hidden = (
            linear and last == "weight" and path != "head" and reads_more_if_wider(block, path, parameter)
        )
        assert group.lr == (0.25 if hidden else 1.0), name
        assert group.matrix == hidden, name
        assert group.decays == (last == "weight" and (linear or path == "embedding")), name
        assert last not in FIXED or not (group.decays or hidden), name


@pytest.mark.parametrize("tied", [False, True])
def test_hidden_matrices_start_with_one_over_their_inputs_and_all_else_as_it_was(
    block: Block, tied: bool
) -> None:
    narrow, wide = (model(block, 16, Shape(dim=dim, heads=dim // 16), tied) for dim in (64, 256))
    for small, large in zip(groups(narrow), groups(wide), strict=True):
        for name, one, other in zip(small.names, small.params, large.params, strict=True):
            if one.numel() < 300:
                continue  # too few to tell a deviation
            expected = (one.shape[1] / other.shape[1]) ** 0.5 if small.lr != 1 else 1.0
            assert (other.std() / one.std()).item() == pytest.approx(expected, rel=0.15), name


@pytest.mark.parametrize("tied", [False, True])
def test_at_its_base_width_it_is_the_model_without_bit_for_bit(block: Block, tied: bool) -> None:
    with_mup, without = model(block, SHAPE.dim, tied=tied), model(block, None, tied=tied)
    ids = torch.arange(10).view(2, 5)
    assert torch.equal(with_mup(ids)[0], without(ids)[0])
    assert [vars(group)["lr"] for group in groups(with_mup)] == [1.0] * len(groups(without))


@pytest.mark.parametrize("tied", [False, True])
def test_logits_are_multiplied_by_base_over_width(block: Block, tied: bool) -> None:
    net, ids = model(block, 16, tied=tied), torch.arange(10).view(2, 5)
    logits = net(ids)[0]
    net.mup = None
    torch.testing.assert_close(logits, net(ids)[0] / 4)


@pytest.mark.parametrize("base,said", [(0, "at least 1"), (True, "whole number"), (24, "1.5 heads of 16")])
def test_a_base_that_does_not_fit_is_refused_in_one_sentence(base: int, said: str) -> None:
    with pytest.raises(MupError, match=f"^mup: [^\n]*{said}[^\n]*$"):
        check_base(base, SHAPE)


def test_a_block_that_cannot_be_widened_is_named() -> None:
    from blocks.linear import LinearAttention

    class Odd(LinearAttention):
        def build(self, shape: Shape, kernel="torch") -> nn.Module:  # pyright: ignore
            module = super().build(shape, kernel)
            assert module.get_parameter("out.weight").sum().item() == module.get_parameter("out.weight").sum()
            return module

    with pytest.raises(MupError, match="Odd cannot be built without memory"):
        groups(model(Odd(), 16))
