"""Compositional recall: a key is two tokens, neither of which says anything alone.

Zoology (Arora et al. 2023) has a relative of it, compositional MQAR: there the keys of a row fill a square
grid of halves. Here they are some of its cells, so that how much a half tells differs within a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from synthetics.base import IGNORE, Batch, Head, Split, check_fields, distinct, first_same, need, take_rows

__all__ = ["CompositionalMQAR"]


@dataclass(frozen=True, kw_only=True)
class CompositionalMQAR:
    """Keys of two tokens with their values, then filler among which each key comes once more: its value?

    Probes whether two tokens are bound into one key: pairs share halves, and who looks up one half alone
    finds several values.

    Ids: with q = vocab//4, 0 is neither (filler only), first halves 1 .. q-1, second halves q .. 2q-1, values
    2q .. vocab-1. A row has ``side`` first and ``side`` second halves; its keys are ``pairs`` different cells
    of their grid, uniformly drawn, its values are distinct. After the pairs come slots of two tokens; each
    key stands once in one of them, uniformly drawn, all else is filler, uniform over all ids. Every split
    is supervised and scored at the second token of each key that is asked for.

        compositional_mqar(vocab=16, length=20, pairs=3, side=2)
        input   3  4  8  2  4 12  2  5 13  2  5  2  4  3  4 11 14  4  0  8
        target  .  .  .  .  .  .  .  .  .  . 13  . 12  .  8  .  .  .  .  .
    """

    name: ClassVar[str] = "compositional_mqar"
    head: ClassVar[Head] = "lm"
    lagged: ClassVar[bool] = True
    LEVEL: ClassVar[str] = "other pairs of the row that share a half with the key"
    LADDER: ClassVar[Mapping[str, tuple[int | float, ...]]] = {
        "vocab": (256, 1024),
        "length": (128, 256),
        "train_examples": (6400, 3200),
        "pairs": (4, 12),
        "side": (3, 8),
    }

    vocab: int = 64
    length: int = 64
    train_examples: int = 12_800
    pairs: int = 8
    side: int = 4

    def __post_init__(self) -> None:
        check_fields(self)
        need(
            self,
            self.vocab >= 12,
            f"vocab is {self.vocab}; it must be at least 12 (two first halves and two second ones, values)",
        )
        most = self.vocab // 4 - 1
        need(
            self,
            2 <= self.side <= most,
            f"side is {self.side}; at vocab {self.vocab} it must lie between 2 and {most} (the first halves)",
        )
        most = min(self.length // 5, self.side**2, self.vocab - self._values)
        need(
            self,
            1 <= self.pairs <= most,
            f"pairs is {self.pairs}; at length {self.length}, side {self.side} and vocab {self.vocab}"
            f" it must lie between 1 and {most} (length/5, the cells of the grid, one value each)",
        )

    @property
    def tokens(self) -> int:
        """Tokens per input row."""
        return self.length

    @property
    def _values(self) -> int:
        return 2 * (self.vocab // 4)

    def sample(self, rng: np.random.Generator, n: int, split: Split = "test") -> Batch:
        """``n`` rows; see the class. All splits are drawn and supervised alike."""
        quarter, context = self.vocab // 4, 3 * self.pairs
        first_NH = 1 + distinct(rng, (n,), self.side, quarter - 1)
        second_NH = quarter + distinct(rng, (n,), self.side, quarter)
        cell_NP = distinct(rng, (n,), self.pairs, self.side**2)
        pair_NP3 = np.stack(
            [
                take_rows(first_NH, cell_NP // self.side),
                take_rows(second_NH, cell_NP % self.side),
                self._values + distinct(rng, (n,), self.pairs, self.vocab - self._values),
            ],
            axis=-1,
        )
        where_NP = context + 2 * distinct(rng, (n,), self.pairs, (self.length - context) // 2)

        inputs_NT = rng.integers(0, self.vocab, size=(n, self.length))
        inputs_NT[:, :context] = pair_NP3.reshape(n, context)
        for half in (0, 1):
            np.put_along_axis(inputs_NT, where_NP + half, pair_NP3[..., half], axis=1)
        targets_NT = np.full_like(inputs_NT, IGNORE)
        np.put_along_axis(targets_NT, where_NP + 1, pair_NP3[..., 2], axis=1)
        return Batch(inputs_NT, targets_NT)

    def solve(self, inputs_NT: np.ndarray) -> np.ndarray:
        """The value after the first earlier occurrence of these two tokens: pairs stand before all filler."""
        key_NT = self._keys(inputs_NT)
        first_NT = first_same(key_NT)
        is_again_NT = (key_NT > 0) & (first_NT < np.arange(inputs_NT.shape[1]))
        after_NT = np.take_along_axis(inputs_NT, np.where(is_again_NT, first_NT + 1, 0), axis=1)
        return np.where(is_again_NT & (after_NT >= self._values), after_NT, -1)

    def levels(self, batch: Batch) -> np.ndarray:
        """The pairs, but its own, whose first or second half is that of the key asked for."""
        context = 3 * self.pairs
        halves_NTP2 = np.stack([batch.inputs[:, i:context:3] for i in (0, 1)], axis=-1)[:, None]
        asked_NT12 = np.stack([np.roll(batch.inputs, 1, axis=1), batch.inputs], axis=-1)[:, :, None]
        shared_NT = (halves_NTP2 == asked_NT12).any(axis=-1).sum(axis=-1) - 1
        return np.where(batch.targets != IGNORE, shared_NT, IGNORE)

    def _keys(self, inputs_NT: np.ndarray) -> np.ndarray:
        """The key whose second half each token is, as one number above 0; 0 where it is none; [N, T]."""
        quarter, keys_NT = self.vocab // 4, np.zeros_like(inputs_NT)
        first_NT, second_NT = inputs_NT[:, :-1], inputs_NT[:, 1:] - quarter
        is_key_NT = (first_NT >= 1) & (first_NT < quarter) & (second_NT >= 0) & (second_NT < quarter)
        keys_NT[:, 1:] = np.where(is_key_NT, first_NT * quarter + second_NT, 0)
        return keys_NT
