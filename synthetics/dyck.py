"""Nested brackets of several kinds: what has been opened last has to be closed first.

Languages: Dyck-(k, m) of Hewitt et al. 2020 ("RNNs can generate bounded hierarchical languages with optimal
memory") and Yao et al. 2021 ("Self-Attention Networks Can Process Bounded Hierarchical Languages"): k kinds,
at most m open. Deviation: the first bracket stays open, so that there is an answer after every closing one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from synthetics.base import IGNORE, MAX_VOCAB, Batch, Head, Split, check_fields, need

__all__ = ["Dyck"]

MAX_KINDS = MAX_VOCAB // 2


@dataclass(frozen=True, kw_only=True)
class Dyck:
    """Brackets open and close: after one has closed, which bracket would close the one that is open now?

    Probes a stack: the answer is the partner of a bracket that was opened before others came and went.

    Ids: with k = ``kinds``, bracket i opens with i and closes with k + i. The first bracket opens and stays
    open; from then on each token opens or closes one with equal probability, but where only the first is
    open or ``depth`` are there is no choice. The kinds of opened brackets are uniform. Every split is
    supervised and scored after each closing bracket.

        dyck(kinds=2, depth=3, length=12)
        input  1 0 1 3 2 1 3 1 3 0 1 3
        target . . . 2 3 . 3 . 3 . . 2
    """

    name: ClassVar[str] = "dyck"
    head: ClassVar[Head] = "lm"
    lagged: ClassVar[bool] = True
    LEVEL: ClassVar[str] = "brackets that are open"
    LADDER: ClassVar[Mapping[str, tuple[int | float, ...]]] = {
        "length": (128, 256, 512),
        "train_examples": (6400, 3200),
        "kinds": (4, 32),
        "depth": (4, 16, 32),
    }

    length: int = 64
    train_examples: int = 12_800
    kinds: int = 8
    depth: int = 8

    def __post_init__(self) -> None:
        check_fields(self)
        need(
            self,
            2 <= self.kinds <= MAX_KINDS,
            f"kinds is {self.kinds}; it must lie between 2 and {MAX_KINDS:,} (one kind alone is no question)",
        )
        need(
            self,
            2 <= self.depth < self.length,
            f"depth is {self.depth}; at length {self.length} it must lie between 2 and {self.length - 1}"
            " (so that a bracket closes in every row)",
        )

    @property
    def vocab(self) -> int:
        """An opening and a closing bracket of each kind."""
        return 2 * self.kinds

    @property
    def tokens(self) -> int:
        """Tokens per input row."""
        return self.length

    def sample(self, rng: np.random.Generator, n: int, split: Split = "test") -> Batch:
        """``n`` rows; see the class. All splits are drawn and supervised alike."""
        opens_NT = rng.integers(0, 2, size=(n, self.length)) == 1
        inputs_NT = rng.integers(0, self.kinds, size=(n, self.length))
        row, open_N = np.arange(n), np.zeros(n, dtype=np.int64)
        stack_ND = np.empty((n, self.depth + 1), dtype=np.int64)
        targets_NT = np.full_like(inputs_NT, IGNORE)
        for t in range(self.length):
            is_open_N = (opens_NT[:, t] | (open_N <= 1)) & (open_N < self.depth)
            closing_N = self.kinds + stack_ND[row, open_N] if t else inputs_NT[:, t]
            np.copyto(inputs_NT[:, t], closing_N, where=~is_open_N)
            open_N += np.where(is_open_N, 1, -1)
            stack_ND[row[is_open_N], open_N[is_open_N]] = inputs_NT[is_open_N, t]
            np.copyto(targets_NT[:, t], self.kinds + stack_ND[row, open_N], where=~is_open_N)
        return Batch(inputs_NT, targets_NT)

    def solve(self, inputs_NT: np.ndarray) -> np.ndarray:
        """After each closing bracket the partner of the last one open; -1 where that was opened unseen."""
        return self._walk(inputs_NT)[0]

    def levels(self, batch: Batch) -> np.ndarray:
        """The brackets that are open."""
        return np.where(batch.targets != IGNORE, self._walk(batch.inputs)[1], IGNORE)

    def _walk(self, inputs_NT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The answers, and how many of the brackets seen are open at each position; [N, T] each."""
        rows, length = inputs_NT.shape
        row, open_N = np.arange(rows), np.zeros(rows, dtype=np.int64)
        stack_ND = np.full((rows, min(self.depth, length) + 1), -1)
        answers_NT, open_NT = np.full((2, rows, length), -1)
        for t in range(length):
            is_open_N = inputs_NT[:, t] < self.kinds
            # A bracket that closes where none is known to be open was opened before the piece begins.
            open_N = np.where(is_open_N, open_N + 1, np.maximum(open_N - 1, 0))
            stack_ND[row[is_open_N], open_N[is_open_N]] = self.kinds + inputs_NT[is_open_N, t]
            answers_NT[:, t] = np.where(is_open_N, -1, stack_ND[row, open_N])
            open_NT[:, t] = open_N
        return answers_NT, open_NT
