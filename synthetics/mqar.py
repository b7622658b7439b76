"""Multi-query associative recall (Arora et al. 2023, "Zoology"): pairs first, queries spread over the rest.

Unlike the MAD suite's recall, the distance between a pair and its query grows with the row.
``gap`` sets how far at least, and many pairs ask for more than a small state holds.
Deviations from Zoology: vocab is 128, length 64 and train_examples 12,800 by default, small enough for a CPU
(Zoology: 8,192 and 100,000, with (length, pairs) of (64, 4), (128, 8), (256, 16)); all draws, the filler too,
come from one generator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from synthetics.base import IGNORE, Batch, Head, Split, check_fields, distinct, first_same, need, octaves

__all__ = ["MQAR"]


@dataclass(frozen=True, kw_only=True)
class MQAR:
    """Keys with their values, then filler, among which each key comes once more: what was its value?

    Ids: 0 is neither (the filler, if not random), keys 1 .. vocab//2-1, values vocab//2 .. vocab-1; within
    a row the keys are distinct and so are the values. After the pairs and ``gap`` tokens of filler come
    slots of two tokens; the queries stand at the head of distinct slots drawn with weight i**(power - 1)
    for slot i = 1, 2, ... (near 0: close to the pairs; 1: uniform), each more than ``gap`` tokens after its
    key; all else is filler, uniform over all ids or 0. Every split is supervised and scored at the queries
    alone.

        mqar(vocab=12, length=20, pairs=3)
        input   3  7  5 11  2  9  3 10  2  5  5  4  4  6  1  8  3  9  8 10
        target  .  .  .  .  .  .  7  .  9  . 11  .  .  .  .  .  .  .  .  .
    """

    name: ClassVar[str] = "mqar"
    head: ClassVar[Head] = "lm"
    lagged: ClassVar[bool] = True
    LEVEL: ClassVar[str] = "octave of the lag from the query to its pair"
    LADDER: ClassVar[Mapping[str, tuple[int | float, ...]]] = {
        "vocab": (512, 2048, 8192),
        "length": (128, 256, 512),
        "pairs": (8, 16),
        "gap": (16, 32, 48),
    }

    vocab: int = 128
    length: int = 64
    train_examples: int = 12_800
    pairs: int = 4
    power: float = 0.01
    random_filler: bool = True
    gap: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        need(self, self.length % 2 == 0, f"length is {self.length}; it must be even (slots of two tokens)")
        most = min(self.length // 4, self.vocab // 2 - 1)
        need(
            self,
            1 <= self.pairs <= most,
            f"pairs is {self.pairs}; at length {self.length} and vocab {self.vocab}"
            f" it must lie between 1 and {most} (length/4, and one distinct key each)",
        )
        room = self.length - 4 * self.pairs
        need(
            self,
            self.gap % 2 == 0 and 0 <= self.gap <= room,
            f"gap is {self.gap}; at length {self.length} and pairs {self.pairs}"
            f" it must be even and lie between 0 and {room} (the pairs before it, a slot each behind it)",
        )
        need(self, self.power > 0, f"power is {self.power}; it must be above 0")

    @property
    def tokens(self) -> int:
        """Tokens per input row."""
        return self.length

    def sample(self, rng: np.random.Generator, n: int, split: Split = "test") -> Batch:
        """``n`` rows; see the class. All splits are drawn and supervised alike."""
        half, context = self.vocab // 2, 2 * self.pairs
        keys_NP = 1 + distinct(rng, (n,), self.pairs, half - 1)
        values_NP = half + distinct(rng, (n,), self.pairs, self.vocab - half)
        slots = (self.length - context - self.gap) // 2
        # Sorting log weight + Gumbel noise draws slots one after another without replacement.
        weight_S = (self.power - 1) * np.log(np.arange(1, slots + 1))
        slot_NP = np.argsort(-(weight_S + rng.gumbel(size=(n, slots))), axis=1)[:, : self.pairs]
        where_NP = context + self.gap + 2 * slot_NP

        inputs_NT = np.zeros((n, self.length), dtype=np.int64)
        if self.random_filler:
            inputs_NT = rng.integers(0, self.vocab, size=(n, self.length))
        inputs_NT[:, 0:context:2] = keys_NP
        inputs_NT[:, 1:context:2] = values_NP
        np.put_along_axis(inputs_NT, where_NP, keys_NP, axis=1)
        targets_NT = np.full_like(inputs_NT, IGNORE)
        np.put_along_axis(targets_NT, where_NP, values_NP, axis=1)
        return Batch(inputs_NT, targets_NT)

    def solve(self, inputs_NT: np.ndarray) -> np.ndarray:
        """The value after the first earlier occurrence of this key: the pairs stand before all filler."""
        half = self.vocab // 2
        first_NT = first_same(inputs_NT)
        is_again_NT = (inputs_NT >= 1) & (inputs_NT < half) & (first_NT < np.arange(inputs_NT.shape[1]))
        after_NT = np.take_along_axis(inputs_NT, np.where(is_again_NT, first_NT + 1, 0), axis=1)
        return np.where(is_again_NT & (after_NT >= half), after_NT, -1)

    def levels(self, batch: Batch) -> np.ndarray:
        """Octaves of the distance from the query to its pair's key."""
        return octaves(np.arange(self.length) - first_same(batch.inputs), batch.targets)
