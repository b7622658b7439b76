"""Laws of whole models: one code path to train and to decode, costs by formula equal to what is built."""

import itertools

import pytest
import torch

from blocks import BLOCKS
from blocks.base import Shape
from blocks.cost import counts, flops_per_token, params_by_part, state_size, strip
from blocks.model import AutoEncoder, LanguageModel
from blocks.schedule import parse

SHAPE = Shape(dim=32, heads=2)
MIXED = "2*[2*(gdn, swiglu) + (fox, sparse)] + attn(window=4) + (gla, mlp) + linear + ttt"


def build(text: str, tied: bool = False, shape: Shape = SHAPE) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(parse(text), shape, vocab=11, tied=tied).double()


def tokens(length: int) -> torch.Tensor:
    return torch.randint(11, (2, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("cuts", [(1,) * 9, (4, 5), (8, 1)])
def test_decoding_in_pieces_equals_one_pass(cuts: tuple[int, ...]) -> None:
    model, ids = build(MIXED), tokens(9)
    whole, _ = model(ids)
    state, parts = None, []
    for piece in ids.split(cuts, dim=1):
        logits, state = model(piece, state)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-8, rtol=1e-8)


def test_the_model_is_causal() -> None:
    model, ids = build(MIXED), tokens(9)
    changed = ids.clone()
    changed[:, 5:] = (changed[:, 5:] + 3) % 11
    torch.testing.assert_close(model(ids)[0][:, :5], model(changed)[0][:, :5], atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "text,tied,norm",
    list(itertools.product([*sorted(BLOCKS), MIXED], [False, True], ["rms", "rms_zero"])),
)
def test_parameters_by_part_add_up_to_what_is_built(text: str, tied: bool, norm: str) -> None:
    shape = Shape(dim=32, heads=2, norm=norm)  # pyright: ignore[reportArgumentType]
    parts = params_by_part(parse(text), shape, vocab=11, tied=tied)
    assert sum(parts.values()) == sum(p.numel() for p in build(text, tied, shape).parameters())


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_the_last_projection_of_mixers_alone_starts_smaller_in_a_deeper_model(name: str) -> None:
    torch.manual_seed(0)
    alone = BLOCKS[name]().build(SHAPE).get_parameter("out.weight")
    first = build(f"9*{name}").get_parameter("stack.layers.0.0.block.out.weight")
    expected = 1 if BLOCKS[name]().role == "channel" else 1 / 3
    assert (first.std() / alone.std()).item() == pytest.approx(expected, rel=0.15)


def test_state_by_formula_is_the_state_held() -> None:
    _, state = build(MIXED)(tokens(9))
    held = sum(
        t.numel() // t.shape[0]
        for layer in state
        for part in layer
        for t in part.values()
        if isinstance(t, torch.Tensor) and t.is_floating_point()
    )
    assert held == state_size(parse(MIXED), SHAPE, 9)


def test_counts_and_strip_tell_the_layers() -> None:
    found = counts(parse(MIXED))
    assert (found.linear, found.window, found.full, found.depth) == (7, 1, 2, 10)
    assert strip(parse("(gdn, swiglu) + fox")) == ["gdn swiglu", "fox"]
    assert counts(parse("swiglu")).depth == 1


def test_flops_of_a_model_are_its_blocks_and_its_head() -> None:
    one, two = (flops_per_token(parse(t), SHAPE, 11, 64) for t in ("gdn", "2*gdn"))
    assert two - one == BLOCKS["gdn"]().flops(SHAPE, 64)
    assert one - (two - one) == 2 * 32 * 11


def test_the_auto_encoder_answers_every_position_from_the_last_one() -> None:
    torch.manual_seed(0)
    model = AutoEncoder(parse("(gdn, swiglu)"), SHAPE, vocab=11, length=7).double()
    ids = tokens(9)
    logits, _ = model(ids)
    assert logits.shape == (2, 7, 11)
    changed = ids.clone()
    changed[:, 0] = (changed[:, 0] + 1) % 11
    # Through the gdn state the first token reaches the last vector, and from there every position.
    assert ((model(changed)[0] - logits).abs().amax((0, 2)) > 0).all()
