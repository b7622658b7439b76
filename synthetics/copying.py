"""Selective copying: repeat the few tokens that stood among many blanks, in order.

Layout and distribution: the MAD suite (Poli et al. 2024), after Jing et al. 2019.
Deviations from mad-lab: the gaps come from the task's generator, not from numpy's global one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from synthetics.base import IGNORE, Batch, Head, Split, check_fields, need, octaves

__all__ = ["Copying"]


@dataclass(frozen=True, kw_only=True)
class Copying:
    """Content among blanks, then a copy token and as many blanks as there was content: write the content.

    Ids: content 0 .. vocab-3, blank vocab-2, copy token vocab-1. Each of the length - 2 copy - 1 blanks falls
    into one of the gaps before a content token, so the last content token stands right before the copy token.
    Supervised and scored in every split at the last ``copy`` positions.

        copying(vocab=8, length=18, copy=4)
        input  6 6 6 5 6 5 6 1 6 6 6 6 5 7 6 6 6 6
        target . . . . . . . . . . . . . . 5 5 1 5
    """

    name: ClassVar[str] = "copying"
    head: ClassVar[Head] = "lm"
    lagged: ClassVar[bool] = True
    LEVEL: ClassVar[str] = "octave of the token's number in the copy"
    LADDER: ClassVar[Mapping[str, tuple[int | float, ...]]] = {
        "vocab": (32, 64, 128),
        "length": (512, 1024),
        "train_examples": (6400, 3200, 1600, 800),
        "copy": (32, 64, 96),
    }

    vocab: int = 16
    length: int = 256
    train_examples: int = 12_800
    copy: int = 16

    def __post_init__(self) -> None:
        check_fields(self)
        most = (self.length - 2) // 2
        need(
            self,
            1 <= self.copy <= most,
            f"copy is {self.copy}; at length {self.length} it must lie between 1 and {most}"
            " (content, a copy token, the answers and at least one blank)",
        )

    @property
    def tokens(self) -> int:
        """Tokens per input row."""
        return self.length

    def sample(self, rng: np.random.Generator, n: int, split: Split = "test") -> Batch:
        """``n`` rows; see the class. All splits are drawn and supervised alike."""
        blanks = self.length - 2 * self.copy - 1
        content_NK = rng.integers(0, self.vocab - 2, size=(n, self.copy))
        gap_NK = rng.multinomial(blanks, np.full(self.copy, 1 / self.copy), size=n)
        inputs_NT = np.full((n, self.length), self.vocab - 2)
        np.put_along_axis(inputs_NT, gap_NK.cumsum(axis=1) + np.arange(self.copy), content_NK, axis=1)
        inputs_NT[:, -self.copy - 1] = self.vocab - 1
        targets_NT = np.full_like(inputs_NT, IGNORE)
        targets_NT[:, -self.copy :] = content_NK
        return Batch(inputs_NT, targets_NT)

    def solve(self, inputs_NT: np.ndarray) -> np.ndarray:
        """At the j-th position after the copy token, the j-th of the last ``copy`` content tokens."""
        rows, length = inputs_NT.shape
        # What a row shows of the content, the last token in the last column.
        shown_NK = np.full((rows, self.copy), -1)
        is_content_NT = inputs_NT < self.vocab - 2
        to_end_NT = is_content_NT[:, ::-1].cumsum(axis=1)[:, ::-1]
        row, t = np.nonzero(is_content_NT & (to_end_NT <= self.copy))
        shown_NK[row, -to_end_NT[row, t]] = inputs_NT[row, t]

        is_copy_NT = inputs_NT == self.vocab - 1
        copy_N = np.where(is_copy_NT.any(axis=1), is_copy_NT.argmax(axis=1), length)
        rank_NT = np.arange(length) - copy_N[:, None] - 1
        answer_NT = np.take_along_axis(shown_NK, rank_NT.clip(0, self.copy - 1), axis=1)
        return np.where((rank_NT >= 0) & (rank_NT < self.copy), answer_NT, -1)

    def levels(self, batch: Batch) -> np.ndarray:
        """Octaves of the number of the token in the copy, from 1."""
        number_T = np.arange(self.length) - (self.length - self.copy) + 1
        return octaves(np.broadcast_to(number_T, batch.targets.shape), batch.targets)
