"""What happens to tokens before the first layer, beside the embedding: part after part.

``bigram(buckets=2048, dim=128) + norm + smear`` is how such a list is written (``blocks.design``). A part
maps x_BTD and the tokens to x_BTD, and carries its memory as a value, as a mixer does.

B batch, T time, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from blocks.base import OptionError, Shape, State
from blocks.parts import unit_rms
from blocks.products import Linear

__all__ = ["INPUTS", "Bigram", "Input", "Inputs", "Smear", "Unit"]


class Input(Protocol):
    """An entry of ``INPUTS``, a frozen dataclass."""

    def build(self, shape: Shape) -> nn.Module:
        """A module with ``forward(x_BTD, tokens_BT, state, starts_BT) -> (x_BTD, state)``.

        starts_BT: True where a document begins, in the middle of packed rows, too; at the first token of rows
        that go on from a state it is False.
        """
        ...

    def params(self, shape: Shape) -> int: ...

    def state_size(self, shape: Shape) -> int:
        """Floating-point scalars held for one sequence."""
        ...

    def flops(self, shape: Shape) -> int:
        """Forward FLOPs per token."""
        ...


class Inputs(nn.Module):
    """The parts in turn."""

    def __init__(self, parts: Sequence[Input], shape: Shape) -> None:
        super().__init__()
        self.parts = nn.ModuleList(part.build(shape) for part in parts)

    def forward(
        self,
        x_BTD: Tensor,
        tokens_BT: Tensor,
        state: Sequence[State] | None = None,
        segments_BT: Tensor | None = None,
    ) -> tuple[Tensor, Sequence[State]]:
        """x_BTD and the states of all parts. ``segments_BT`` counts the documents of packed rows."""
        starts_BT = torch.zeros_like(tokens_BT, dtype=torch.bool)
        starts_BT[:, 0] = state is None
        if segments_BT is not None:
            starts_BT[:, 1:] = segments_BT.diff(dim=1) != 0
        after: list[State] = []
        for i, part in enumerate(self.parts):
            x_BTD, kept = part(x_BTD, tokens_BT, None if state is None else state[i], starts_BT)
            after.append(kept)
        return x_BTD, after


class _Bigram(nn.Module):
    def __init__(self, block: Bigram, shape: Shape) -> None:
        super().__init__()
        self.buckets = block.buckets
        self.table = nn.Embedding(block.buckets, block.dim)
        # One factor of the product is zero and the other is not: were both, neither would get a gradient.
        nn.init.zeros_(self.table.weight)
        self.widen = Linear(block.dim, shape.dim, bias=False)
        self.scale = nn.Parameter(torch.tensor(block.scale))

    def forward(
        self, x_BTD: Tensor, tokens_BT: Tensor, state: State | None, starts_BT: Tensor
    ) -> tuple[Tensor, State]:
        before_BT = _shifted(tokens_BT, state)
        mixed_BT = torch.bitwise_xor(36313 * tokens_BT, 27191 * before_BT) % (self.buckets - 1)
        ids_BT = torch.where(starts_BT, self.buckets - 1, mixed_BT)
        return x_BTD + self.scale * self.widen(self.table(ids_BT)), {"last": tokens_BT[:, -1]}


@dataclass(frozen=True, kw_only=True)
class Bigram:
    """Adds a learned vector of the last two tokens, hashed (BigramHash of OpenAI's parameter golf).

    x + scale W E[h], h = (36313 t XOR 27191 t') mod (buckets - 1) of a token and the one before it; the first
    of a document has the last bucket to itself. E starts at 0.

    buckets: rows of E. dim: their width. scale: where its learned factor starts.
    """

    buckets: int = 2048
    dim: int = 128
    scale: float = 0.05

    def __post_init__(self) -> None:
        if self.buckets < 2 or self.dim < 1:
            raise OptionError(
                f"bigram: {self.buckets} buckets of width {self.dim}; at least 2 of at least 1 are needed"
            )

    def build(self, shape: Shape) -> nn.Module:
        return _Bigram(self, shape)

    def params(self, shape: Shape) -> int:
        return self.dim * (self.buckets + shape.dim) + 1

    def state_size(self, shape: Shape) -> int:
        return 0  # a token's id is no floating-point scalar

    def flops(self, shape: Shape) -> int:
        return 2 * self.dim * shape.dim


class _Smear(nn.Module):
    def __init__(self, block: Smear, shape: Shape) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.full((shape.dim,), block.gate))

    def forward(
        self, x_BTD: Tensor, tokens_BT: Tensor, state: State | None, starts_BT: Tensor
    ) -> tuple[Tensor, State]:
        before_BTD = _shifted(x_BTD, state).masked_fill(starts_BT[..., None], 0.0)
        return torch.lerp(x_BTD, before_BTD, self.gate.sigmoid().to(x_BTD.dtype)), {"last": x_BTD[:, -1]}


@dataclass(frozen=True, kw_only=True)
class Smear:
    """Blends each token with the one before it, a share per channel (SmearGate of OpenAI's parameter golf).

    (1 - g) x_t + g x_{t-1} with g = sigmoid(w); before the first token of a document stands 0.

    gate: where w starts; 0 blends half and half.
    """

    gate: float = 0.0

    def build(self, shape: Shape) -> nn.Module:
        return _Smear(self, shape)

    def params(self, shape: Shape) -> int:
        return shape.dim

    def state_size(self, shape: Shape) -> int:
        return shape.dim

    def flops(self, shape: Shape) -> int:
        return 0


class _Unit(nn.Module):
    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(
        self, x_BTD: Tensor, tokens_BT: Tensor, state: State | None, starts_BT: Tensor
    ) -> tuple[Tensor, State]:
        return unit_rms(x_BTD, self.eps), {}


@dataclass(frozen=True, kw_only=True)
class Unit:
    """x / rms(x): a norm without a gain, so that it does not matter how large the embedding is."""

    def build(self, shape: Shape) -> nn.Module:
        return _Unit(shape.eps)

    def params(self, shape: Shape) -> int:
        return 0

    def state_size(self, shape: Shape) -> int:
        return 0

    def flops(self, shape: Shape) -> int:
        return 0


INPUTS: dict[str, type[Input]] = {"bigram": Bigram, "norm": Unit, "smear": Smear}
"""The registry: one word of a list -> the dataclass it builds."""


def _shifted(value: Tensor, state: State | None) -> Tensor:
    """``value`` [B, T, ...] one token later; before the first stands the last of ``state``, else a zero."""
    first = torch.zeros_like(value[:, 0]) if state is None else state["last"]
    assert isinstance(first, Tensor)
    return torch.cat([first[:, None], value[:, :-1]], dim=1)
