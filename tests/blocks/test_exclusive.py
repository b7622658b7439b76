"""Exclusive mixers: heads read nothing along the token's own value, which is the one that their core reads.

B batch, T new tokens, H heads, G heads of values, V value width.
"""

import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from blocks import BLOCKS
from blocks.base import Block, Context
from blocks.parts import apart
from blocks.values import Embedding, Values
from tests.blocks import tolerances
from tests.blocks.harness import BATCH, SHAPE, block_of, build, cases, noise

WITHOUT = {
    "mamba": "a state for each channel: there are no heads that read",
    "hyena": "a filter for each channel: there are no heads that read",
    "ttt": "what a token reads of itself is no multiple of its value (blocks.parts.apart)",
}
"""Mixer -> why it is without the option."""

ON_PURPOSE = {"mamba2": "skip", "rwkv7": "bonus"}
"""Mixer -> the weight by which it adds the token's own value to what its heads have read."""


def with_option(name: str) -> list[Block]:
    """Each variant of a block as it is when exclusive, and each with the model's embedding of values."""
    found = {replace(block_of(text, BLOCKS), exclusive=True) for text in cases({name: BLOCKS[name]})}  # pyright: ignore[reportCallIssue, reportArgumentType]
    if "values" in BLOCKS[name].__dataclass_fields__:
        found |= {replace(block, values=True) for block in found}  # pyright: ignore[reportCallIssue, reportArgumentType]
    return sorted(found, key=repr)


EXCLUSIVE = [name for name, block in BLOCKS.items() if "exclusive" in block.__dataclass_fields__]


def test_every_mixer_whose_heads_read_values_has_the_option() -> None:
    mixers = {name for name, block in BLOCKS.items() if block().role != "channel"}
    assert mixers - set(EXCLUSIVE) == set(WITHOUT)
    # The contract holds what some variant sets.
    set_by = {name for name in EXCLUSIVE for text in cases({name: BLOCKS[name]}) if "exclusive=True" in text}
    assert set_by == set(EXCLUSIVE)


class Read(NamedTuple):
    """What ``apart`` was given and gave back, and the values of all tokens that the core was given."""

    o_BTHV: Tensor
    own_BTGV: Tensor
    left_BTHV: Tensor
    values_BSGV: Tensor


def reads(module: nn.Module, monkeypatch: pytest.MonkeyPatch) -> list[Read]:
    """A list that every call of ``module`` adds to. The real core and the real ``apart`` run."""
    core: Callable[..., Any] = module.core  # pyright: ignore[reportAssignmentType]
    # The value is v in all papers but Mamba-2's, where it is x.
    order = list(inspect.signature(core).parameters)
    place = next(i for i, name in enumerate(order) if name.startswith(("v_", "x_")))
    seen: list[Tensor] = []
    found: list[Read] = []

    def watched_core(*given: Any) -> Any:
        seen.append(given[place])
        return core(*given)

    def watched_apart(o_BTHV: Tensor, v_BTGV: Tensor) -> Tensor:
        left = apart(o_BTHV, v_BTGV)
        found.append(Read(o_BTHV, v_BTGV, left, seen.pop()))
        return left

    monkeypatch.setattr(module, "core", watched_core)
    for kind in type(module).__mro__:
        if hasattr(sys.modules[kind.__module__], "apart"):
            monkeypatch.setattr(f"{kind.__module__}.apart", watched_apart)
    return found


def context_of(block: Block, length: int) -> Context:
    """What the model hands to ``block``: its embedding of values, where it is asked for."""
    context: Context = {}
    width = getattr(block, "value_width", lambda _: None)(SHAPE)
    if width is not None:
        torch.manual_seed(2)
        tokens = torch.randint(9, (BATCH, length))
        Values(Embedding(dim=4, scale=50.0), 9, [width]).double()(tokens, context)
    return context


@pytest.mark.parametrize("block", [block for name in EXCLUSIVE for block in with_option(name)], ids=repr)
def test_heads_read_nothing_along_the_value_that_the_core_reads(
    block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an empty state and from a carried one; at right angles, or where nothing is left, nothing."""
    module, state = build(block), None
    found = reads(module, monkeypatch)
    for call, length in enumerate((9, 1, 6)):
        x, context = noise(BATCH, length, SHAPE.dim, seed=call), context_of(block, length)
        with torch.no_grad():
            _, state = module(x, state, context)
        (read,) = found[call:]
        groups, width = read.own_BTGV.shape[2:]
        assert torch.equal(read.own_BTGV, read.values_BSGV[:, -length:, :, :width])
        assert read.values_BSGV.shape[2] == groups
        whole = read.own_BTGV.repeat_interleave(SHAPE.heads // groups, dim=2)
        along, size = (read.left_BTHV * whole).sum(-1).abs(), read.left_BTHV.norm(dim=-1)
        nothing = size <= 1e-10 * read.o_BTHV.norm(dim=-1)
        assert ((along < 1e-10 * size * whole.norm(dim=-1)) | nothing).all()
        alone = getattr(block, "window", None) == 1
        assert alone or not nothing[:, 1 if call == 0 else 0 :].any(), "others are read as well"


@pytest.mark.parametrize("name", EXCLUSIVE)
def test_who_reads_nothing_of_itself_reads_nothing_at_first(name: str) -> None:
    """A first token has nobody but itself to read; later ones read what others left."""
    # Ungated and unnormed, what multi-head Hyena reads is the third power of its input.
    x = (10 if name == "mh_hyena" else 1) * noise(2, 7, SHAPE.dim)
    found = {}
    for exclusive in (False, True):
        torch.manual_seed(0)
        module = BLOCKS[name](exclusive=exclusive).build(SHAPE).double()  # pyright: ignore[reportCallIssue]
        if name in ON_PURPOSE:
            nn.init.zeros_(module.get_parameter(ON_PURPOSE[name]))
        found[exclusive] = module(x)[0]
    assert found[True][:, 0].abs().max() < 1e-9 < found[False][:, 0].abs().max()
    assert (found[True][:, 1:].abs().amax(-1) > 1e-3).all()


@pytest.mark.parametrize("name", ON_PURPOSE)
def test_what_is_the_tokens_own_on_purpose_stays(name: str) -> None:
    module = BLOCKS[name](exclusive=True).build(SHAPE).double()  # pyright: ignore[reportCallIssue]
    assert (module(noise(2, 7, SHAPE.dim))[0][:, 0].abs().amax(-1) > 1e-3).all()


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_what_is_read_apart_is_at_right_angles_to_the_value(groups: int) -> None:
    o, v = (torch.randn(2, 5, heads, 6, dtype=torch.float64) for heads in (4, groups))
    left, whole = apart(o, v), v.repeat_interleave(4 // groups, dim=2)
    assert (left * whole).sum(-1).abs().max() < 1e-12
    along = o - left
    torch.testing.assert_close(along, whole * ((o * whole).sum(-1) / whole.square().sum(-1))[..., None])
    assert torch.equal(apart(o, torch.zeros_like(v)), o)


@pytest.mark.parametrize("length", [1, 2, 33])
@pytest.mark.parametrize("name", EXCLUSIVE)
def test_in_mixed_precision_what_is_left_is_not_the_rounding_of_what_was_read(name: str, length: int) -> None:
    for text in cases({name: BLOCKS[name]}):
        block, plain = (replace(block_of(text, BLOCKS), exclusive=one) for one in (True, False))  # pyright: ignore[reportCallIssue, reportArgumentType]
        exact, module, whole = build(block), build(block).float(), build(plain)
        x = noise(BATCH, length, SHAPE.dim)
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            found = module(x.float())[0].double()
        with torch.no_grad():
            off, size = (found - exact(x)[0]).norm(), max(exact(x)[0].norm(), whole(x)[0].norm())
        assert off <= tolerances.bf16(name) * size, f"{text}: {off / size:.2%} of what is read"
