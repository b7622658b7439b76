"""Needles in a haystack: find the sentence that was meant among others of its form.

Layout: after the multi-key and multi-query needles of RULER (Hsieh et al. 2024), in tokens. Unlike in
``noisy_recall`` the haystack is made of the needles' own tokens, so that a key alone is no sign of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from synthetics.base import IGNORE, Batch, Head, Split, check_fields, distinct, need, octaves

__all__ = ["Needle"]


@dataclass(frozen=True, kw_only=True)
class Needle:
    """Needles (mark, key, value) anywhere in a haystack, then questions: what is the value of this key?

    Probes retrieval from far back among distractors: needles with other keys, and keys and values strewn
    without a mark.

    Ids: with u = vocab-2, keys 0 .. u//2-1, values u//2 .. u-1, the needle's mark u, the question's mark u+1.
    A row is a haystack, then ``needles`` pairs of the question's mark and a key, in mixed order. In the
    haystack lie ``needles`` + ``distractors`` needles of distinct keys, at uniformly drawn places that do
    not overlap; all else is uniform over keys and values. Every split is supervised and scored at the keys
    asked for.

        needle(vocab=12, length=22, needles=2, distractors=1)
        input   5  9 10  4  7 10  2  6  8  3  5  7 10  0  8  1  6  9 11  2 11  0
        target  .  .  .  .  .  .  .  .  .  .  .  .  .  .  .  .  .  .  .  6  .  8
    """

    name: ClassVar[str] = "needle"
    head: ClassVar[Head] = "lm"
    lagged: ClassVar[bool] = True
    LEVEL: ClassVar[str] = "octave of the lag from the question to its needle"
    LADDER: ClassVar[Mapping[str, tuple[int | float, ...]]] = {
        "vocab": (32, 128),
        "length": (128, 256, 512),
        "train_examples": (6400, 3200),
        "needles": (1, 4),
        "distractors": (0, 2, 12),
    }

    vocab: int = 64
    length: int = 64
    train_examples: int = 12_800
    needles: int = 2
    distractors: int = 6

    def __post_init__(self) -> None:
        check_fields(self)
        need(self, self.vocab >= 6, f"vocab is {self.vocab}; it must be at least 6 (keys, values, two marks)")
        need(self, self.needles >= 1, f"needles is {self.needles}; it must be at least 1")
        need(self, self.distractors >= 0, f"distractors is {self.distractors}; it must be at least 0")
        need(
            self,
            self._planted <= self._keys,
            f"needles {self.needles} and distractors {self.distractors} make {self._planted} keys;"
            f" vocab {self.vocab} has {self._keys}",
        )
        least = 3 * self._planted + 2 * self.needles
        need(
            self,
            self.length >= least,
            f"length is {self.length}; needles {self.needles} and distractors {self.distractors}"
            f" take {least} (three tokens each, two for each question)",
        )

    @property
    def tokens(self) -> int:
        """Tokens per input row."""
        return self.length

    @property
    def _keys(self) -> int:
        return (self.vocab - 2) // 2

    @property
    def _planted(self) -> int:
        return self.needles + self.distractors

    def sample(self, rng: np.random.Generator, n: int, split: Split = "test") -> Batch:
        """``n`` rows; see the class. All splits are drawn and supervised alike."""
        planted, hay = self._planted, self.length - 2 * self.needles
        key_NS = distinct(rng, (n,), planted, self._keys)
        value_NS = rng.integers(self._keys, self.vocab - 2, size=(n, planted))
        # Each needle shrunk to one place: any such choice stands for one way of laying them.
        place_NS = np.sort(distinct(rng, (n,), planted, hay - 2 * planted), axis=1)
        where_NS = place_NS + 2 * np.arange(planted)
        # The keys are in no order, but the places are: those asked for must not be the first.
        asked_NQ = distinct(rng, (n,), self.needles, planted)

        inputs_NT = rng.integers(0, self.vocab - 2, size=(n, self.length))
        for i, part_NS in enumerate((np.full_like(key_NS, self.vocab - 2), key_NS, value_NS)):
            np.put_along_axis(inputs_NT, where_NS + i, part_NS, axis=1)
        inputs_NT[:, hay::2] = self.vocab - 1
        inputs_NT[:, hay + 1 :: 2] = np.take_along_axis(key_NS, asked_NQ, axis=1)
        targets_NT = np.full_like(inputs_NT, IGNORE)
        targets_NT[:, hay + 1 :: 2] = np.take_along_axis(value_NS, asked_NQ, axis=1)
        return Batch(inputs_NT, targets_NT)

    def solve(self, inputs_NT: np.ndarray) -> np.ndarray:
        """At each key asked for, the value of its needle; -1 where that is not to be seen."""
        row, t, where = self._found(inputs_NT)
        answers_NT = np.full(inputs_NT.shape, -1)
        answers_NT[row, t] = np.where(where >= 0, inputs_NT[row, where + 1], -1)
        return answers_NT

    def levels(self, batch: Batch) -> np.ndarray:
        """Octaves of the distance from the key asked for to the key of its needle."""
        row, t, where = self._found(batch.inputs)
        lag_NT = np.ones_like(batch.inputs)
        lag_NT[row, t] = t - where
        return octaves(lag_NT, batch.targets)

    def _found(self, inputs_NT: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(row, position) of each key asked for, and the position of its needle's key, -1 if unseen."""
        where_NV = np.full((len(inputs_NT), self.vocab), -1)
        row, at = np.nonzero(inputs_NT[:, :-2] == self.vocab - 2)
        where_NV[row, inputs_NT[row, at + 1]] = at + 1
        row, at = np.nonzero(inputs_NT[:, :-1] == self.vocab - 1)
        return row, at + 1, where_NV[row, inputs_NT[row, at + 1]]
