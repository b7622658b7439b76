"""An embedding of values: what attention reads of a token may hang on the token itself, past all layers.

The model embeds its tokens a second time, narrowly, widens that to the values of those blocks that ask for it
(``attn(values=True)``), and hands it on in the context. From OpenAI's parameter golf (VE128).

B batch, T time, D model width, V vocabulary, E width of a block's values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from blocks.base import Block, Context, OptionError, Shape
from blocks.products import Linear

__all__ = ["VALUES", "Embedding", "Values", "embedded_values", "widths_of"]


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """scale W E[t]: a table E of the vocabulary, ``dim`` wide, one W for each width of values.

    scale: where its learned factor starts.
    """

    dim: int = 128
    scale: float = 0.1

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise OptionError(f"embedding: dim is {self.dim}; it must be at least 1")

    def params(self, vocab: int, widths: Sequence[int]) -> int:
        return self.dim * (vocab + sum(widths)) + 1

    def flops(self, widths: Sequence[int]) -> int:
        """Forward FLOPs per token."""
        return 2 * self.dim * sum(widths)


VALUES: dict[str, type[Embedding]] = {"embedding": Embedding}
"""The registry: one word -> the dataclass."""


class Values(nn.Module):
    """The module of ``Embedding`` for blocks whose values are ``widths`` wide."""

    def __init__(self, part: Embedding, vocab: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.table = nn.Embedding(vocab, part.dim)
        nn.init.normal_(self.table.weight, std=0.01)
        self.widen = nn.ModuleDict({str(width): Linear(part.dim, width, bias=False) for width in widths})
        self.scale = nn.Parameter(torch.tensor(part.scale))

    def forward(self, tokens_BT: Tensor, context: Context) -> None:
        """Leave [B, T, E] for every width in ``context``."""
        narrow = self.scale * self.table(tokens_BT)
        for width, layer in self.widen.items():
            context[_name(int(width))] = layer(narrow)


def widths_of(blocks: Sequence[Block], shape: Shape) -> list[int]:
    """The widths of values that ``blocks`` ask for, each once."""
    asked = (getattr(block, "value_width", lambda _: None)(shape) for block in blocks)
    return sorted({width for width in asked if width is not None})


def embedded_values(context: Context | None, width: int) -> Tensor:
    """What the model left for values ``width`` wide. Raises OptionError where it has no such embedding."""
    found = None if context is None else context.get(_name(width))
    if found is None:
        raise OptionError(
            "a block with values=True reads the model's embedding of values, and this model has none; give "
            "it one (values: embedding), or leave the option out"
        )
    return found


def _name(width: int) -> str:
    return f"values of width {width}"
