"""Hard inputs of softmax and of forgetting attention."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from tests.blocks.draws import B, H, K, T, normal, same_over_time, signs

# Softmax attention: q, k, v.


def attention_sharp(rng: Generator) -> tuple[Tensor, ...]:
    """Scores of a hundred and more, most weights 0."""
    return tuple(normal(rng, B, T, H, K, scale=s) for s in (10, 10, 1))


def attention_same_keys(rng: Generator) -> tuple[Tensor, ...]:
    q, k, v = (normal(rng, B, T, H, K) for _ in range(3))
    return q, same_over_time(k), v


# Forgetting attention: q, k, v, log f, faded.

CACHED = 7


def fox(rng: Generator, log_f: Tensor, scale: float = 1.0) -> tuple[Tensor, ...]:
    q = normal(rng, B, T, H, K, scale=scale)
    k, v = (normal(rng, B, CACHED + T, H, K, scale=s) for s in (scale, 1))
    faded = -20.0 * torch.arange(CACHED, 0, -1).double()[None, :, None].expand(B, CACHED, H)
    return q, k, v, log_f, faded


def fox_gates(rng: Generator) -> tuple[Tensor, ...]:
    """Gate logits of +-80: a key is kept whole or loses 80 in one token."""
    return fox(rng, F.logsigmoid(80 * signs(rng, B, T, H)))


def fox_decay(rng: Generator) -> tuple[Tensor, ...]:
    return fox(rng, torch.full((B, T, H), -20.0, dtype=torch.float64))


def fox_late_decay(rng: Generator) -> tuple[Tensor, ...]:
    """Small losses that matter, then -20 a token: a sum over all tokens would swallow the small ones."""
    log_f = -0.01 * torch.rand(B, T, H, dtype=torch.float64, generator=rng)
    log_f[:, T // 2 :] = -20.0
    return fox(rng, log_f)


def fox_sharp(rng: Generator) -> tuple[Tensor, ...]:
    return fox(rng, F.logsigmoid(normal(rng, B, T, H)), scale=10)


# Gated delta rule: q, k, v, log a, b, s.
