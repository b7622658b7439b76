"""What hard inputs are drawn with: their sizes, and tensors in float64."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

Draw = Callable[[Generator], tuple[Tensor, ...]]
B, T, H, K, V = 2, 130, 2, 8, 12
"""Batch, length (two chunks of 64 and two tokens), heads, key and value width."""


def normal(rng: Generator, *sizes: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*sizes, dtype=torch.float64, generator=rng)


def same_over_time(x_BTHX: Tensor) -> Tensor:
    """The first token's vector at every token: what recall tasks are made of."""
    return x_BTHX[:, :1].expand_as(x_BTHX)


def signs(rng: Generator, *sizes: int) -> Tensor:
    return torch.randint(2, sizes, generator=rng).double() * 2 - 1
