"""Hard inputs of the scans whose decay differs by channel: gated linear attention and Mamba."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from tests.blocks.draws import B, H, K, T, V, normal, same_over_time, signs

# Gated linear attention: q, k, v, log a, s.


def _gla(rng: Generator, log_a: Tensor, same: bool = False) -> tuple[Tensor, ...]:
    q, k, v = normal(rng, B, T, H, K), normal(rng, B, T, H, K), normal(rng, B, T, H, V)
    return q * K**-0.5, same_over_time(k) if same else k, v, log_a, normal(rng, B, H, K, V)


def gla_gates(rng: Generator) -> tuple[Tensor, ...]:
    """Gate logits of +-80 without the temperature: each channel keeps all or loses 80 in one token."""
    return _gla(rng, F.logsigmoid(80 * signs(rng, B, T, H, K)))


def gla_decay(rng: Generator) -> tuple[Tensor, ...]:
    return _gla(rng, torch.full((B, T, H, K), -20.0, dtype=torch.float64))


def gla_late_decay(rng: Generator) -> tuple[Tensor, ...]:
    log_a = -0.01 * torch.rand(B, T, H, K, dtype=torch.float64, generator=rng)
    log_a[:, 5::10] = -1000.0
    return _gla(rng, log_a)


def gla_same_keys(rng: Generator) -> tuple[Tensor, ...]:
    return _gla(rng, torch.full((B, T, H, K), -1e-3, dtype=torch.float64), same=True)


# Mamba: x, step, b, c, pace, h. Paces run from 1 to N as they start.


def _selective(rng: Generator, d: Tensor, same: bool = False) -> tuple[Tensor, ...]:
    x, b, c, h = (normal(rng, B, *sizes) for sizes in ((T, V), (T, K), (T, K), (V, K)))
    return x, d, same_over_time(b) if same else b, c, torch.arange(1.0, K + 1).double().repeat(V, 1), h


def scan_gates(rng: Generator) -> tuple[Tensor, ...]:
    """Step logits of +-80: a channel keeps all and writes nothing, or forgets all and writes eightyfold."""
    return _selective(rng, F.softplus(80 * signs(rng, B, T, V)))


def scan_decay(rng: Generator) -> tuple[Tensor, ...]:
    return _selective(rng, torch.full((B, T, V), 20.0, dtype=torch.float64))


def scan_late_decay(rng: Generator) -> tuple[Tensor, ...]:
    d = 0.01 * torch.rand(B, T, V, dtype=torch.float64, generator=rng)
    d[:, 5::10] = 1000.0
    return _selective(rng, d)


def scan_same_keys(rng: Generator) -> tuple[Tensor, ...]:
    return _selective(rng, torch.full((B, T, V), 1e-3, dtype=torch.float64), same=True)
