"""Memorization: recall a map that never appears in the row, only in the weights.

Layout and distribution: the MAD suite (Poli et al. 2024).
Deviations from mad-lab: the map is drawn from ``map_seed`` by our own generator, so its pairs are others;
mad-lab's noise option, unused by its benchmark, is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from synthetics.base import IGNORE, Batch, Head, Split, check_fields, need

__all__ = ["Memorization"]


@dataclass(frozen=True, kw_only=True)
class Memorization:
    """Keys, each followed by a token that asks for its value; the same map from keys to values in all rows.

    Ids: with u = vocab-1, keys 0 .. u//2-1, values u//2 .. u-1, the asking token u. The map is one-to-one and
    belongs to the task: map_seed draws it, whatever the split and the data seed. Supervised and scored in
    every split at the asking tokens alone. With few training examples some keys are never shown: see
    ``difficulty.ceiling``.

        memorization(vocab=9, length=12)
        input  3 8 1 8 1 8 1 8 3 8 0 8
        target . 7 . 4 . 4 . 4 . 7 . 6
    """

    name: ClassVar[str] = "memorization"
    head: ClassVar[Head] = "lm"
    lagged: ClassVar[bool] = False
    LEVEL: ClassVar[str] = "none: all queries are alike"
    LADDER: ClassVar[Mapping[str, tuple[int | float, ...]]] = {"vocab": (512, 1024, 2048, 4096, 8192)}

    vocab: int = 256
    length: int = 32
    train_examples: int = 256
    map_seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        need(self, self.vocab >= 5, f"vocab is {self.vocab}; it must be at least 5 (two pairs and a token)")
        need(self, self.length % 2 == 0, f"length is {self.length}; it must be even (keys and asking tokens)")
        need(self, self.map_seed >= 0, f"map_seed is {self.map_seed}; it must be at least 0")

    @property
    def tokens(self) -> int:
        """Tokens per input row."""
        return self.length

    def sample(self, rng: np.random.Generator, n: int, split: Split = "test") -> Batch:
        """``n`` rows; see the class. All splits are drawn and supervised alike."""
        value_K = _values(self.vocab, self.map_seed)
        key_NS = rng.integers(0, len(value_K), size=(n, self.length // 2))
        inputs_NT = np.full((n, self.length), self.vocab - 1)
        inputs_NT[:, ::2] = key_NS
        targets_NT = np.full_like(inputs_NT, IGNORE)
        targets_NT[:, 1::2] = value_K[key_NS]
        return Batch(inputs_NT, targets_NT)

    def solve(self, inputs_NT: np.ndarray) -> np.ndarray:
        """At each asking token the map's value of the key before it."""
        value_K = _values(self.vocab, self.map_seed)
        answers_NT = np.full_like(inputs_NT, -1)
        asked_NT = (inputs_NT[:, 1:] == self.vocab - 1) & (inputs_NT[:, :-1] < len(value_K))
        answers_NT[:, 1:][asked_NT] = value_K[inputs_NT[:, :-1][asked_NT]]
        return answers_NT

    def levels(self, batch: Batch) -> np.ndarray:
        """0 at every query."""
        return np.where(batch.targets != IGNORE, 0, IGNORE)

    def queries(self, inputs_NT: np.ndarray) -> np.ndarray:
        """The keys asked for in whole rows; [N, length/2]."""
        return inputs_NT[:, ::2]


@lru_cache(maxsize=64)
def _values(vocab: int, map_seed: int) -> np.ndarray:
    """The value of each key; [K]."""
    keys, ids = (vocab - 1) // 2, vocab - 1
    values = np.random.default_rng(map_seed).permutation(np.arange(keys, ids))[:keys]
    values.setflags(write=False)
    return values
