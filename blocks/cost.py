"""What a schedule costs, by formula: parameters, FLOPs per token, state held while decoding, layer counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from blocks import BLOCKS, residual
from blocks.base import Block, Role, Shape
from blocks.design import PLAIN, Design
from blocks.inputs import INPUTS
from blocks.schedule import Layer, Schedule
from blocks.values import widths_of

__all__ = ["Counts", "counts", "flops_per_token", "layer_role", "params_by_part", "state_size", "strip"]


@dataclass(frozen=True)
class Counts:
    """Layers by the memory of their mixers: constant, windowed, growing with length; and their sum."""

    linear: int
    window: int
    full: int
    depth: int


def layer_role(layer: Layer) -> Role:
    """The role of a layer's mixer; the most expensive one if it has several, ``channel`` if it has none."""
    order: tuple[Role, ...] = ("channel", "linear", "window", "full")
    roles: list[Role] = [block.role for block in layer]
    return max(roles, key=order.index)


def counts(schedule: Schedule) -> Counts:
    """The realised counts of a schedule, which a ratio cut at some depth does not show."""
    roles = [layer_role(layer) for layer in schedule]
    return Counts(roles.count("linear"), roles.count("window"), roles.count("full"), len(roles))


def strip(schedule: Schedule, blocks: Mapping[str, type[Block]] = BLOCKS) -> list[str]:
    """One text per layer, such as ``gdn swiglu``: the names of its blocks."""
    words = {cls: name for name, cls in blocks.items()}
    return [" ".join(words[type(block)] for block in layer) for layer in schedule]


def params_by_part(
    schedule: Schedule,
    shape: Shape,
    vocab: int,
    tied: bool = False,
    blocks: Mapping[str, type[Block]] = BLOCKS,
    design: Design = PLAIN,
) -> dict[str, int]:
    """Learned scalars of a LanguageModel by part: embedding, each kind of block, norms, head.

    Those of ``design`` stand there where it has any: each input part, and what joins the layers.
    """
    words = {cls: name for name, cls in blocks.items()}
    parts = {"embedding": vocab * shape.dim}
    for part in design.inputs:
        if many := part.params(shape):
            name = next(word for word, cls in INPUTS.items() if type(part) is cls)
            parts[name] = parts.get(name, 0) + many
    if design.values:
        parts["values"] = design.values.params(vocab, _value_widths(schedule, shape))
    depth, whole = len(schedule), sum(len(layer) for layer in schedule)
    if joins := residual.params(design.residual, depth, shape.dim, whole):
        parts["residual"] = joins
    for block in (b for layer in schedule for b in layer):
        name = words[type(block)]
        parts[name] = parts.get(name, 0) + block.params(shape)
    parts["norms"] = (whole + 1) * shape.dim if design.norms == "gain" else 0
    parts["head"] = 0 if tied else vocab * shape.dim
    return parts


def flops_per_token(schedule: Schedule, shape: Shape, vocab: int, length: int, design: Design = PLAIN) -> int:
    """Forward FLOPs per token of a LanguageModel, the mean over ``length`` tokens, head included."""
    blocks = sum(b.flops(shape, length) for layer in schedule for b in layer)
    inputs = sum(part.flops(shape) for part in design.inputs)
    values = design.values.flops(_value_widths(schedule, shape)) if design.values else 0
    return blocks + inputs + values + 2 * shape.dim * vocab


def _value_widths(schedule: Schedule, shape: Shape) -> list[int]:
    return widths_of([block for layer in schedule for block in layer], shape)


def state_size(schedule: Schedule, shape: Shape, length: int, design: Design = PLAIN) -> int:
    """Scalars held for one sequence after ``length`` tokens."""
    blocks = sum(b.state_size(shape, length) for layer in schedule for b in layer)
    return blocks + sum(part.state_size(shape) for part in design.inputs)
