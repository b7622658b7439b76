"""What documented and shipped differ by, on the logits: the same weights and ids under pairs of functions.

All in float64, so that a small effect is not lost in rounding and an exact 0 is one. V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from blocks.genesis_model import MODES, ModeParts
from lab.genesis.weights import Weights, build

__all__ = ["COMPARISONS", "POSITIONS", "Comparison", "Effect", "drawn_ids", "effect", "effects"]

POSITIONS = 2048
"""At most so many positions: with Genesis-152M's vocabulary each of up to three sets of logits is 0.8 GB."""
DRAWN = (2, 192)
"""Sequences and tokens of ids that are drawn; beyond 64 tokens, where the chunk rule begins to show."""


@dataclass(frozen=True)
class Comparison:
    """One difference between the model card and the package, and two functions that differ in it alone."""

    what: str
    documented: str
    shipped: str
    left: ModeParts
    right: ModeParts


@dataclass(frozen=True)
class Effect:
    """rms: root mean square of the difference of all logits over the left side's standard deviation.

    changed: share of positions at which another token is the most likely one.
    """

    what: str
    documented: str
    shipped: str
    rms: float
    changed: float


EVAL = MODES["shipped-eval"]
CHUNKED = MODES["shipped-eval-delta"]
NO_TTT = MODES["shipped-cache"]
EXACT = replace(EVAL, rule="gated_delta", what="shipped-eval with the exact gated delta rule")
DENSE = replace(EVAL, mask=None, what="shipped-eval without top-k")
SOFT = replace(EVAL, mask="soft", what="shipped-eval with a soft mask")
PER_TOKEN = replace(EVAL, metacognition="per token", what="shipped-eval with TTT per token")

COMPARISONS = (
    Comparison("delta rule: off, shipped chunk rule", "on", "off outside CPU training", EVAL, CHUNKED),
    Comparison("delta rule: shipped chunk rule, exact", "exact", "between chunks only", CHUNKED, EXACT),
    Comparison("top-k: off, hard", "while training", "never while training", DENSE, EVAL),
    Comparison("top-k: hard, soft", "soft", "hard", EVAL, SOFT),
    Comparison("TTT: off, shipped", "on", "off in training and generation", NO_TTT, EVAL),
    Comparison("TTT: shipped, documented", "per token", "one mean, a diagonal", EVAL, PER_TOKEN),
    Comparison("shipped-train, shipped-eval", "one function", "two", MODES["shipped-train"], EVAL),
    Comparison("shipped-eval, shipped-cache", "one function", "two", EVAL, NO_TTT),
    Comparison("shipped-eval, documented", "all of the above", "", EVAL, MODES["documented"]),
)
"""Each switch alone, everything else as in shipped-eval; then whole modes."""


def drawn_ids(vocab: int, seed: int = 0) -> Tensor:
    """Ids [2, 192] drawn uniformly: no text, but the same for everybody."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(vocab, DRAWN, generator=rng)


def effects(weights: Weights, ids_BT: Tensor) -> Iterator[Effect]:
    """Every comparison on these ids, one by one; a function is run once and forgotten when done with."""
    model = build(weights, "shipped-eval", torch.float64)
    held: dict[ModeParts, Tensor] = {}
    for i, one in enumerate(COMPARISONS):
        for parts in (one.left, one.right):
            if parts not in held:
                with torch.no_grad():
                    held[parts] = model.in_mode(parts)(ids_BT)[0]
        rms, changed = effect(held[one.left], held[one.right])
        yield Effect(one.what, one.documented, one.shipped, rms, changed)
        later = {parts for other in COMPARISONS[i + 1 :] for parts in (other.left, other.right)}
        held = {parts: logits for parts, logits in held.items() if parts in later}


def effect(left_BTV: Tensor, right_BTV: Tensor) -> tuple[float, float]:
    """(rms of the difference over the left's standard deviation, share of positions with another argmax)."""
    rms = (right_BTV - left_BTV).square_().mean().sqrt().item()
    spread = left_BTV.std().item()
    changed = (left_BTV.argmax(-1) != right_BTV.argmax(-1)).double().mean().item()
    return (rms / spread if spread else math.nan), changed
