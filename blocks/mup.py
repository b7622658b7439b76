"""Maximal update parametrisation: rates found on a narrow model hold for a wide one (Yang et al. 2022).

A model is widened by more heads of the same size: D and H grow together, all else stays. What a parameter is
follows from which of its dimensions grow then, read off a model of twice the width, so that blocks of one's
own are covered as well. Linear weights are [outputs, inputs], as everywhere in PyTorch:

- inputs that grow make a hidden matrix: it starts with a variance in 1/inputs, as all matrices of blocks here
  do, and its rate is multiplied by base / D. A matrix to a few outputs, such as gates, is no exception: one
  step of AdamW moves every weight by its rate, and their sum over D inputs would grow with D;
- the head keeps its start and its rate, and the logits are multiplied by base / D, tied or not;
- all else keeps start and rate: the embedding, matrices with a fixed number of inputs, norms, biases, decays,
  convolutions, and the inner model of test-time training.

Scores of attention are divided by the square root of the head's size, which does not grow. With a fixed
number of growing heads it would have to be the size itself, and the result would not be muP: see docs/mup.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from blocks.base import Block, Shape
from blocks.inputs import Input

if TYPE_CHECKING:
    from blocks.model import LanguageModel

__all__ = ["Group", "MupError", "check_base", "groups"]


class MupError(ValueError):
    """A base width does not fit the shape, or a block cannot be widened."""


@dataclass(frozen=True)
class Group:
    """Parameters that an optimiser treats alike.

    lr: multiplier of AdamW's rate. decays: takes weight decay; matrices and embeddings do, vectors, taps and
    inner models do not. matrix: a hidden matrix, which Muon may take; its update has the same spectral norm
    at every width, so that Muon's own rate goes without ``lr``.
    """

    names: tuple[str, ...]
    params: tuple[nn.Parameter, ...]
    lr: float
    decays: bool
    matrix: bool


def check_base(base: int | None, shape: Shape) -> None:
    """Refuse a base width at which heads of the shape's size do not fit. Raises MupError."""
    if base is None:
        return
    if not isinstance(base, int) or isinstance(base, bool) or base < 1:
        raise MupError(f"mup: the base width is {base!r}; it must be a whole number of at least 1, or None")
    if base * shape.heads % shape.dim:
        size = shape.dim / shape.heads
        raise MupError(
            f"mup: a base width of {base} holds {base / size:g} heads of {size:g}, the size of this model's "
            f"({shape.heads} over {shape.dim}); muP widens by adding heads, so give a multiple of {size:g}"
        )


def groups(model: LanguageModel) -> tuple[Group, ...]:
    """All parameters of ``model``, each in exactly one group, in the model's order.

    Without muP every multiplier is 1. Raises MupError where a block cannot be widened.
    """
    ratio = 1.0 if model.mup is None else model.mup / model.stack.shape.dim
    kinds = _kinds(model)
    found: dict[tuple[float, bool, bool], list[str]] = {}
    for name, _ in model.named_parameters():
        hidden, decays, matrix = kinds.get(name, (False, False, False))
        found.setdefault((ratio if hidden else 1.0, decays, matrix), []).append(name)
    params = dict(model.named_parameters())
    return tuple(
        Group(tuple(names), tuple(params[name] for name in names), lr, decays, matrix)
        for (lr, decays, matrix), names in found.items()
    )


Kind = tuple[bool, bool, bool]
"""Whether a parameter is hidden, decays, and is a matrix for Muon."""


def _kinds(model: LanguageModel) -> dict[str, Kind]:
    """Of all parameters but those that are nothing of it."""
    kinds: dict[str, Kind] = {"embedding.weight": (False, True, False), "head.weight": (False, True, False)}
    if model.values is not None:  # from a fixed number of inputs
        kinds |= {f"values.{path}.weight": (False, True, False) for path in _layers(model.values)}
    shape, known = model.stack.shape, {}
    for i, part in enumerate(model.design.inputs):
        kinds |= {f"inputs.parts.{i}.{name}": kind for name, kind in _kinds_of(part, shape).items()}
    for i, layer in enumerate(model.stack.schedule):
        for j, block in enumerate(layer):
            if block not in known:
                known[block] = _kinds_of(block, shape)
            kinds |= {f"stack.layers.{i}.{j}.block.{name}": kind for name, kind in known[block].items()}
    return kinds


def _kinds_of(block: Block | Input, shape: Shape) -> dict[str, Kind]:
    try:
        # Shapes alone: nothing is allocated, and no random number drawn.
        with torch.device("meta"):
            narrow = block.build(shape)
            wide = block.build(replace(shape, dim=2 * shape.dim, heads=2 * shape.heads))
    except (RuntimeError, NotImplementedError) as exc:
        raise MupError(
            f"mup: {type(block).__name__} cannot be built without memory, which tells how it grows with the "
            f"width ({exc}); build its tensors with torch's functions and do not read their values"
        ) from exc
    layers = {f"{path}.weight".lstrip(".") for path in _layers(narrow)}
    found, grown = {}, dict(wide.named_parameters())
    for name, parameter in narrow.named_parameters():
        pairs = zip(parameter.shape, grown[name].shape, strict=True)
        grows = [new != old for old, new in pairs]
        hidden = len(grows) >= 2 and grows[-1]
        found[name] = (hidden, hidden or name in layers, hidden and len(grows) == 2)
    return found


def _layers(module: nn.Module) -> list[str]:
    """Where linear layers and embeddings are."""
    return [path for path, part in module.named_modules() if isinstance(part, nn.Linear | nn.Embedding)]
