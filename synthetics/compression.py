"""Compression: carry a whole random row in the vector of its last position, and decode it from there.

Layout and distribution: the MAD suite (Poli et al. 2024).
Deviations from mad-lab: the constant last token is not scored, as it would add a free 1/length to the
accuracy; its noise option, which has no effect there, is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from synthetics.base import IGNORE, Batch, Head, Split, check_fields, octaves

__all__ = ["Compression"]


@dataclass(frozen=True, kw_only=True)
class Compression:
    """Random tokens, then a token that ends the row: say each token again, from the last position's vector.

    Ids: content 0 .. vocab-2, the end token vocab-1. Supervised and scored, in every split, at all positions
    but the last. The head is an autoencoder: position t's answer may use the whole row.

        compression(vocab=8, length=10)
        input  1 2 4 1 5 0 2 2 4 7
        target 1 2 4 1 5 0 2 2 4 .
    """

    name: ClassVar[str] = "compression"
    head: ClassVar[Head] = "autoencoder"
    lagged: ClassVar[bool] = False
    LEVEL: ClassVar[str] = "octave of the distance to the row's end"
    LADDER: ClassVar[Mapping[str, tuple[int | float, ...]]] = {
        "vocab": (32, 64, 128),
        "length": (64, 128, 256),
        "train_examples": (6400, 3200, 1600, 800),
    }

    vocab: int = 16
    length: int = 32
    train_examples: int = 12_800

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def tokens(self) -> int:
        """Tokens per input row."""
        return self.length

    def sample(self, rng: np.random.Generator, n: int, split: Split = "test") -> Batch:
        """``n`` rows; see the class. All splits are drawn and supervised alike."""
        inputs_NT = rng.integers(0, self.vocab - 1, size=(n, self.length))
        inputs_NT[:, -1] = self.vocab - 1
        targets_NT = inputs_NT.copy()
        targets_NT[:, -1] = IGNORE
        return Batch(inputs_NT, targets_NT)

    def solve(self, inputs_NT: np.ndarray) -> np.ndarray:
        """Each content token itself."""
        return np.where(inputs_NT < self.vocab - 1, inputs_NT, -1)

    def levels(self, batch: Batch) -> np.ndarray:
        """Octaves of the distance to the last position, from whose vector the token is decoded."""
        distance_T = self.length - 1 - np.arange(self.length)
        return octaves(np.broadcast_to(distance_T, batch.targets.shape), batch.targets)
