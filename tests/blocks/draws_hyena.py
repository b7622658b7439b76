"""Hard inputs of Hyena's convolutions: where a transform of the whole sequence spreads or loses things."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from tests.blocks.draws import B, H, K, T, V, normal, same_over_time


def long_spike(rng: Generator) -> tuple[Tensor, ...]:
    """One token a thousand times the others, whose rounding the transform lays on all of them."""
    u_BTC = normal(rng, B, T, V)
    u_BTC[:, T // 2] *= 1000
    return u_BTC, normal(rng, T, V)


def long_level(rng: Generator) -> tuple[Tensor, ...]:
    """The same token over and over under a filter that never fades: a sum that only grows."""
    return same_over_time(normal(rng, B, T, V)), torch.ones(T, V, dtype=torch.float64)


def long_old(rng: Generator) -> tuple[Tensor, ...]:
    """A filter that sees the very first token alone: what comes round from the end would be all there is."""
    h_TC = torch.zeros(T, V, dtype=torch.float64)
    h_TC[-1] = 1
    return normal(rng, B, T, V), h_TC


def heads_sharp(rng: Generator) -> tuple[Tensor, ...]:
    """Queries that ask for a hundred times what they meet, under filters of both signs."""
    q, k, v = normal(rng, B, T, H, K, scale=100.0), normal(rng, B, T, H, K), normal(rng, B, T, H, K)
    return q, k, v, normal(rng, T, H)


def heads_level(rng: Generator) -> tuple[Tensor, ...]:
    """One key over and over under filters that never fade."""
    q, k, v = (normal(rng, B, T, H, K) for _ in range(3))
    return q, same_over_time(k), v, torch.ones(T, H, dtype=torch.float64)
