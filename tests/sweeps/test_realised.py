"""Two spellings are one candidate exactly if they build the same model."""

import dataclasses
import itertools
import random
import typing
from pathlib import Path

import pytest
import torch

from blocks import BLOCKS
from blocks.base import Block, OptionError, Shape
from blocks.schedule import parse
from blocks.values import Embedding, Values, widths_of
from sweeps import space
from sweeps.realised import realised, realised_block
from sweeps.recipe import Recipe, loads
from sweeps.roster import Roster
from tests.blocks.harness import block_of, cases

SHAPE = Shape(dim=32, heads=4)

TEXT = """\
name: x
pattern: (gdn, m)
shape: {dim: 32, heads: 2}
tasks: ["recall(vocab=8, length=16)"]
search: {m: [swiglu(expand=2.66), swiglu(expand=2.65625), swiglu, swiglu(expand=2.0)]}
"""


def neighbours(block: Block, rng: random.Random) -> list[Block]:
    """``block`` with one option changed, a little or much, where that makes a block."""
    hints = typing.get_type_hints(type(block))
    found: list[Block] = []
    for field in dataclasses.fields(block):
        value, hint = getattr(block, field.name), hints[field.name]
        tried: list[object] = []
        if hint is float:
            tried = [value * (1 + sign * 10.0 ** -rng.randint(1, 5)) for sign in (-1, 1)]
        elif hint is int:
            tried = [value + 1]
        elif hint is bool:
            tried = [not value]
        elif hint == int | None:
            tried = [None, 1, SHAPE.heads]
        else:
            tried = [one for one in typing.get_args(hint) if isinstance(one, str)]
        for other in tried:
            try:
                changed = dataclasses.replace(block, **{field.name: other})
                changed.params(SHAPE)
            except OptionError:
                continue
            found.append(changed)
    return found


def function(block: Block) -> list[torch.Tensor]:
    """Weights and outputs of a block off its start; equal for equal functions, drawn with the same seed."""
    torch.manual_seed(0)
    module = block.build(SHAPE).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += torch.randn_like(parameter)
        y_BTD, _ = module(torch.randn(2, 80, SHAPE.dim, dtype=torch.float64), None, embedded(block))
    return [*module.state_dict().values(), y_BTD]


def embedded(block: Block) -> dict[str, object]:
    """The context of a model that embeds values, as ``block`` asks for them."""
    context: dict[str, object] = {}
    if widths := widths_of([block], SHAPE):
        Values(Embedding(dim=4), 5, widths).double()(torch.arange(160).view(2, 80) % 5, context)
    return context


@pytest.mark.parametrize("text", cases(BLOCKS))
def test_blocks_are_realised_alike_exactly_if_they_are_one_function(text: str) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    block = block_of(text, BLOCKS)
    was, stands_for = function(block), realised_block(block, SHAPE)
    assert all(map(torch.equal, was, function(stands_for)))
    assert realised_block(stands_for, SHAPE) == stands_for
    for other in neighbours(block, random.Random(seed)):
        now = function(other)
        same = len(was) == len(now) and all(
            a.shape == b.shape and bool(torch.equal(a, b)) for a, b in zip(was, now, strict=True)
        )
        assert (realised_block(other, SHAPE) == stands_for) == same, other


def test_layers_only_group_blocks() -> None:
    one, two = parse("2*(gdn, swiglu)"), parse("gdn + (swiglu, gdn) + swiglu")
    assert realised(one, SHAPE) == realised(two, SHAPE) != realised(parse("2*(swiglu, gdn)"), SHAPE)


def test_a_block_of_the_users_own_is_as_it_is() -> None:
    class Mine(BLOCKS["swiglu"]):  # pyright: ignore[reportGeneralTypeIssues]
        pass

    one, two = Mine(expand=2.66), Mine(expand=2.65625)  # pyright: ignore[reportCallIssue]
    assert realised_block(one, SHAPE) == one != realised_block(two, SHAPE)


def recipe(*overrides: str) -> Recipe:
    return loads(TEXT, "x.yaml", overrides)


def test_spellings_of_one_model_are_one_candidate() -> None:
    found = space.candidates(recipe())
    assert [one.label for one in found] == ["m=swiglu(expand=2.66)", "m=swiglu(expand=2.0)"]
    assert found[0].also == ("m=swiglu(expand=2.65625)", "m=swiglu")
    assert "expand=2.66)" in found[0].schedule  # the text is the recipe's own: stored runs have it
    wider = space.candidates(recipe("shape.dim=1024"))
    assert len(wider) == 4  # where they differ, they are two


def test_optuna_is_given_each_model_once(tmp_path: Path) -> None:
    roster = Roster(tmp_path, recipe("trials=3"), BLOCKS)
    numbers = [roster.grow() for _ in range(3)]
    assert numbers.count(None) == 1 and len(roster.candidates) == 2
    for one, two in itertools.combinations(roster.candidates.values(), 2):
        assert space.identity(one) != space.identity(two)
