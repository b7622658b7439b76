"""What one block holds in memory while it trains: what autograd keeps, and what is there for a moment.

B rows of a pass, T tokens of a row, D width. Rows are run on the CPU, through one block behind its norm.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from blocks.base import Block, Context, Shape
from blocks.model import Stack
from blocks.values import Embedding, Values, widths_of

__all__ = ["SHORT", "kept", "passing"]

SHORT = (128, 256, 384)
"""Tokens of the rows that are run instead of long ones: multiples of every chunk, evenly apart."""


def kept(block: Block, shape: Shape, length: int, bf16: bool) -> tuple[int, int]:
    """What autograd keeps of one block: bytes whatever the rows, and bytes for each row."""
    stack = Stack(((block,),), shape)
    return _by_rows(lambda x_BTD: _bytes_kept(stack, x_BTD, bf16), block, shape, length)


def passing(block: Block, shape: Shape, length: int) -> tuple[int, int]:
    """What one block needs beside that, at the worst moment of its passes: the same two figures.

    In float32 whatever the training's precision, so rather too much. Gradients of the block's own weights
    count: until they are added up, they are there beside those that are kept.
    """
    stack = Stack(((block,),), shape)
    most = _by_rows(lambda x_BTD: _bytes_at_most(stack, x_BTD), block, shape, length)
    always = kept(block, shape, length, bf16=False)
    return max(0, most[0] - always[0]), max(0, most[1] - always[1])


def _by_rows(held: Callable[[Tensor], int], block: Block, shape: Shape, length: int) -> tuple[int, int]:
    """``held`` of x_BTD as bytes whatever the rows, and bytes for each row.

    A row costs a T + b T^2, with b only where scores are kept, and the rest are weights cast to bf16: three
    short lengths tell them apart. Masks and rotations, which rows share, are counted with the rows. The T^2
    of a window ends at its width, so there rows of full length are run. Two rows at least: what is copied for
    several is but viewed for one.
    """
    if block.role == "window" or length <= SHORT[-1]:
        two, three = (held(torch.randn(rows, length, shape.dim)) for rows in (2, 3))
        return max(0, 3 * two - 2 * three), three - two
    low, middle, high = (held(torch.randn(2, n, shape.dim)) for n in SHORT)
    step = SHORT[0]
    square = Fraction(high - 2 * middle + low, 2 * step**2)
    linear = Fraction(middle - low, step) - 3 * step * square
    fixed = low - linear * step - square * step**2
    return max(0, round(fixed)), round((linear * length + square * length**2) / 2)


def _bytes_kept(stack: Stack, x_BTD: Tensor, bf16: bool) -> int:
    own = {p.untyped_storage().data_ptr() for p in stack.parameters()}
    held: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            held[place] = tensor  # kept alive, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):  # noqa: SIM117
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            stack(x_BTD.requires_grad_(), None, _context(stack, x_BTD))
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values())


def _bytes_at_most(stack: Stack, x_BTD: Tensor) -> int:
    with _Live() as live:
        y_BTD, _ = stack(x_BTD.requires_grad_(), None, _context(stack, x_BTD))
        y_BTD.backward(torch.ones_like(y_BTD))
    stack.zero_grad(set_to_none=True)
    return live.most


def _context(stack: Stack, x_BTD: Tensor) -> Context | None:
    """What a model would hand to the block beside its input: values, where it asks for them.

    Their table is as narrow as can be, since it is counted with the model and not with a block.
    """
    widths = widths_of(stack.blocks(), stack.shape)
    if not widths:
        return None
    context: Context = {}
    Values(Embedding(dim=1), 1, widths)(torch.zeros(x_BTD.shape[:2], dtype=torch.long), context)
    return context


class _Live(TorchDispatchMode):
    """Bytes of the tensors that were made inside and are still held, now and at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = {id(x.untyped_storage()) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage(), given)
        return made

    def _note(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        place = id(storage)
        if place in given or place in self._seen:  # a view, or written in place
            return
        self._seen.add(place)
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._gone, place, storage.nbytes())

    def _gone(self, place: int, size: int) -> None:
        self._seen.discard(place)
        self.now -= size
