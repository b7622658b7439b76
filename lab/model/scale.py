"""A pattern found at small width, made a full-size model: tiled to a depth, one width solved.

What a sweep chose is kept as it stands, options included; only the expansion of the channel mixers (or
another option that is named) is solved, so that the parameters of the whole model, embedding and head with
it, come to those asked for.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch

from blocks import BLOCKS
from blocks.base import Block, Role, Shape
from blocks.cost import params_by_part
from blocks.design import PLAIN, Design
from blocks.schedule import Schedule, show, tile
from lab.model.form import DataPart, ModelPart, ShapePart, Source, Spec, TrainPart
from sweeps.form import DesignPart
from sweeps.match import WIDEST, Knob, nearest

__all__ = ["LIKE", "Mixer", "ScaleError", "Scaled", "Size", "mixers", "recipe", "scale", "unlike_practice"]

Blocks = Mapping[str, type[Block]]

WITHIN = Fraction(5, 1000)
"""How far the parameters may be from those asked for, as a share of them."""

EXPANSIONS = ("swiglu", "sparse", "mlp")
"""Blocks whose ``expand`` is solved where no other option is named, the first of them that a pattern has."""

STEPS = (64, 32, 16, 8, 1)
"""A solved width is a multiple of the first of these with which it is within the tolerance: kernels of
matrix products like such widths."""

HEAD = 64
"""Channels of a head where nothing else is asked for, as Genesis-152M and most models of its size have."""

USUAL = (32, 256)
"""Widths of keys in full-size models: 48 in Genesis-152M, 64 to 128 in attention, to 256 in DeltaNets."""


class ScaleError(ValueError):
    """A pattern cannot be brought to the size; one sentence."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a full-size model is to have. params: of all of it; its embedding depends on the vocabulary."""

    params: int
    dim: int
    depth: int
    heads: int


LIKE = {"genesis-152m": Size(params=151_757_837, dim=576, depth=30, heads=9)}
"""Sizes by name. Genesis-152M: all unique parameters, 28,960,704 of them a tied embedding of 50,279 ids."""


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """A full-size model. unit: the pattern that was tiled. solved: such as ``swiglu.expand``, None where the
    pattern met the size as it stood; values: what it was, width: what it is, in channels, a multiple of step.
    """

    schedule: Schedule
    unit: Schedule
    shape: Shape
    params: int
    target: int
    parts: Mapping[str, int]
    solved: str | None
    values: tuple[float, ...]
    width: int | None
    step: int | None

    @property
    def off(self) -> float:
        """Distance from the target as a share of it, below 0 for too few."""
        return self.params / self.target - 1


def heads_for(dim: int) -> int:
    """So many heads that each is ``HEAD`` wide. Raises ScaleError where the width is no multiple of that."""
    if dim % HEAD:
        raise ScaleError(f"width {dim} is no multiple of {HEAD}, the usual width of a head; give --heads")
    return dim // HEAD


def scale(
    pattern: Schedule,
    size: Size,
    vocab: int,
    *,
    tied: bool = True,
    norm: typing.Literal["rms", "rms_zero"] = "rms",
    solve: Knob | None = None,
    blocks: Blocks = BLOCKS,
    design: Design = PLAIN,
) -> Scaled:
    """``pattern`` tiled to the depth of ``size``, one option solved so that all parameters come to its own.

    solve: an option with which parameters grow; None for the expansion of the first of ``EXPANSIONS``.
    Raises ScaleError where no value comes within ``WITHIN``, OptionError where a block fits no such shape.
    """
    shape = Shape(dim=size.dim, heads=size.heads, norm=norm)

    def parts(unit: Schedule) -> dict[str, int]:
        return params_by_part(tile(unit, size.depth), shape, vocab, tied, blocks, design)

    def off(cost: int) -> Fraction:
        return abs(Fraction(cost, size.params) - 1)

    told: dict[str, Any] = {"shape": shape, "target": size.params}
    now = sum(parts(pattern).values())
    if off(now) <= WITHIN:
        told |= {"solved": None, "values": (), "width": None, "step": None}
        return _scaled(pattern, size.depth, parts(pattern), told)
    knob = solve or _expansion(pattern, blocks)
    turned = _Turn.of(pattern, knob, shape, blocks)
    best: tuple[Fraction, int, int] | None = None
    for step in turned.steps:

        def cost(n: int, step: int = step) -> int | None:
            try:
                return sum(parts(turned.at(n * step)).values())
            except ValueError:  # OptionError, and whatever a block of the user's own raises
                return None

        found = nearest(cost, Fraction(size.params), WIDEST // step, shape.dim, str(knob))
        if found is None:
            continue
        width = found[0] * step
        if off(found[1]) <= WITHIN:
            unit = turned.at(width)
            told |= {"solved": str(knob), "values": turned.values, "width": width, "step": step}
            return _scaled(unit, size.depth, parts(unit), told)
        best = min(filter(None, (best, (off(found[1]), width, found[1]))))
    raise ScaleError(_unreachable(size, now, knob, best))


def _scaled(unit: Schedule, depth: int, parts: Mapping[str, int], told: Mapping[str, Any]) -> Scaled:
    return Scaled(schedule=tile(unit, depth), unit=unit, params=sum(parts.values()), parts=parts, **told)


def _unreachable(size: Size, now: int, knob: Knob, best: tuple[Fraction, int, int] | None) -> str:
    most = f"{float(100 * WITHIN):g} %"
    start = f"the model has {now:,} parameters and cannot be brought to {size.params:,} within {most}"
    if best is None:
        return f"{start}: {knob} has no value that fits; solve another option, or give another width or depth"
    miss, width, cost = best
    return (
        f"{start} by {knob}: the nearest is {cost:,} ({float(100 * miss):.2f} % off) at {width:,}; "
        "solve another option, or give another width or depth"
    )


def _expansion(pattern: Schedule, blocks: Blocks) -> Knob:
    """The option that is solved where none is named. Raises ScaleError where the pattern has none."""
    held = {type(block) for layer in pattern for block in layer}
    for name in EXPANSIONS:
        if blocks.get(name) in held:
            return Knob(name, "expand")
    raise ScaleError(
        f"the pattern {show(pattern, blocks)} has none of {', '.join(EXPANSIONS)}, whose width is solved; "
        "name another option, such as --solve gdn.expand_v"
    )


@dataclass(frozen=True)
class _Turn:
    """A pattern with one option of one kind of block at any width: the same for all of them."""

    pattern: Schedule
    knob: Knob
    cls: type[Block]
    dim: int
    values: tuple[float, ...]
    fractions: bool

    @classmethod
    def of(cls, pattern: Schedule, knob: Knob, shape: Shape, blocks: Blocks) -> _Turn:
        kind = blocks.get(knob.block)
        held = [block for layer in pattern for block in layer if type(block) is kind]
        if kind is None or not held:
            raise ScaleError(
                f"--solve is {knob}, and the pattern {show(pattern, blocks)} has no {knob.block}"
            )
        values = tuple(dict.fromkeys(getattr(block, knob.option) for block in held))
        hint = typing.get_type_hints(kind)[knob.option]
        return cls(pattern, knob, kind, shape.dim, values, float in (typing.get_args(hint) or (hint,)))

    @property
    def steps(self) -> tuple[int, ...]:
        """A whole number is a count of something, of which no multiple is better than another."""
        return STEPS if self.fractions else (1,)

    def at(self, width: int) -> Schedule:
        """The pattern at ``width``. Raises OptionError where a block refuses it."""
        value = {self.knob.option: width / self.dim if self.fractions else width}
        return tuple(
            tuple(replace(typing.cast(Any, b), **value) if type(b) is self.cls else b for b in layer)
            for layer in self.pattern
        )


@dataclass(frozen=True)
class Mixer:
    """One kind of mixer at full size. tensors: its state for one sequence, by name, without the batch.

    A size is None where it grows with the tokens read.
    """

    block: Block
    role: Role
    layers: int
    scalars: int
    tensors: Mapping[str, tuple[int | None, ...]]

    @property
    def head(self) -> tuple[int, int] | None:
        """(heads, width of a key) of a memory [H, K, V] or of keys [T, G, K]; None where there is neither."""
        for sizes in self.tensors.values():
            if len(sizes) == 3:
                heads, width = sizes[:2] if sizes[0] is not None else sizes[1:]
                return None if heads is None or width is None else (heads, width)
        return None


def mixers(schedule: Schedule, shape: Shape, length: int) -> list[Mixer]:
    """Every kind of mixer of ``schedule``, with the scalars that it holds after ``length`` tokens."""
    kinds = dict.fromkeys(block for layer in schedule for block in layer if block.role != "channel")
    return [
        Mixer(
            block,
            block.role,
            sum(layer.count(block) for layer in schedule),
            block.state_size(shape, length),
            _state_of(block, shape),
        )
        for block in kinds
    ]


def _state_of(block: Block, shape: Shape) -> dict[str, tuple[int | None, ...]]:
    """The sizes of a state, as they really are: one layer is built, and reads a few tokens."""
    module = block.build(shape)
    with torch.no_grad():
        short, longer = (module(torch.zeros(1, tokens, shape.dim))[1] for tokens in (5, 6))
    return {
        name: tuple(n if n == m else None for n, m in zip(one.shape[1:], longer[name].shape[1:], strict=True))
        for name, one in short.items()
        if isinstance(one, torch.Tensor)
    }


def unlike_practice(found: Sequence[Mixer], blocks: Blocks = BLOCKS) -> Iterator[str]:
    """A sentence for every mixer whose heads are unlike those of full-size models."""
    words = {cls: name for name, cls in blocks.items()}
    for mixer in found:
        if mixer.head is None or USUAL[0] <= mixer.head[1] <= USUAL[1]:
            continue
        heads, width = mixer.head
        few = (
            f"a head tells apart about {width} keys at once" if mixer.role == "linear" else "a head is narrow"
        )
        what = few if width < USUAL[0] else "a head is very wide"
        yield (
            f"{words[type(mixer.block)]} has {heads} heads with keys of {width}, where full-size models have "
            f"{USUAL[0]} to {USUAL[1]}: {what}; options that made a state small at small width are kept "
            "as they are, so change them in the file if that is not meant"
        )


def recipe(
    scaled: Scaled,
    name: str,
    vocab: int,
    tokenizer: str,
    data: Sequence[Source],
    tokens: int,
    blocks: Blocks,
    around: DesignPart | None = None,
) -> Spec:
    """The model with the training of Genesis-152M (``lab genesis recipe``) over about ``tokens`` tokens.

    128 rows of 2,048 tokens a step, AdamW at 1e-3 with betas 0.9 and 0.95 and decay 0.1, 5 % warm-up, 85 %
    constant, 10 % cosine. What is said nowhere is chosen; ``lab.model.commented`` says where.
    """
    batch, length = 128, 2048
    return Spec(
        kind="model",
        name=name,
        model=ModelPart(
            schedule=show(scaled.unit, blocks),
            depth=len(scaled.schedule),
            shape=ShapePart(dim=scaled.shape.dim, heads=scaled.shape.heads, norm=scaled.shape.norm),
            vocab=vocab,
            **({} if around is None else around.model_dump()),
        ),
        data=DataPart(tokenizer=tokenizer, train=tuple(data), length=length),
        train=TrainPart(steps=max(1, math.floor(tokens / (batch * length))), batch=batch, precision="bf16"),
    )
