"""Overwriting recall: a key is given new values, and the last one counts.

Zoology (Arora et al. 2023) has a relative of it, forgetting MQAR: MQAR with some keys reassigned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from synthetics.base import IGNORE, Batch, Head, Split, check_fields, first_same, need, octaves

__all__ = ["Overwrite"]


@dataclass(frozen=True, kw_only=True)
class Overwrite:
    """Keys get values, again and again, and are asked for in between: which value did this key get last?

    Probes whether a memory can replace what it holds: one that only adds mixes all values of a key.

    Ids: with u = vocab-1, keys 0 .. u//2-1, values u//2 .. u-1, the asking token u. A row is length/2 pairs
    of tokens: a key and its new value, or the asking token and a key. Keys are uniform; a key that has a
    value is asked for with probability ``reads``, else it gets another one. The last pair asks for the key
    of an earlier one. Every split is supervised and scored at the keys asked for.

        overwrite(vocab=8, length=20)
        input  1 5 2 6 7 1 0 4 7 0 0 6 0 3 7 0 7 2 7 0
        target . . . . . 5 . . . 4 . . . . . 3 . 6 . 3
    """

    name: ClassVar[str] = "overwrite"
    head: ClassVar[Head] = "lm"
    lagged: ClassVar[bool] = True
    LEVEL: ClassVar[str] = "octave of the number of values that the key has had"
    LADDER: ClassVar[Mapping[str, tuple[int | float, ...]]] = {
        "vocab": (32, 64, 128),
        "length": (64, 256, 512),
        "train_examples": (6400, 3200),
        "reads": (0.25, 0.75),
    }

    vocab: int = 16
    length: int = 128
    train_examples: int = 12_800
    reads: float = 0.5

    def __post_init__(self) -> None:
        check_fields(self)
        need(
            self, self.vocab >= 5, f"vocab is {self.vocab}; it must be at least 5 (two keys, values, a token)"
        )
        need(self, self.length % 2 == 0, f"length is {self.length}; it must be even (pairs of tokens)")
        need(self, 0 <= self.reads <= 1, f"reads is {self.reads}; it must lie between 0 and 1")

    @property
    def tokens(self) -> int:
        """Tokens per input row."""
        return self.length

    @property
    def _keys(self) -> int:
        return (self.vocab - 1) // 2

    def sample(self, rng: np.random.Generator, n: int, split: Split = "test") -> Batch:
        """``n`` rows; see the class. All splits are drawn and supervised alike."""
        slots = self.length // 2
        key_NS = rng.integers(0, self._keys, size=(n, slots))
        key_NS[:, -1] = key_NS[np.arange(n), rng.integers(0, slots - 1, size=n)]
        value_NS = rng.integers(self._keys, self.vocab - 1, size=(n, slots))
        is_read_NS = rng.random((n, slots)) < self.reads
        is_read_NS[:, -1] = True
        is_read_NS &= first_same(key_NS) < np.arange(slots)

        inputs_NT = np.empty((n, self.length), dtype=np.int64)
        inputs_NT[:, ::2] = np.where(is_read_NS, self.vocab - 1, key_NS)
        inputs_NT[:, 1::2] = np.where(is_read_NS, key_NS, value_NS)
        targets_NT = np.full_like(inputs_NT, IGNORE)
        last_NS, _ = _history(key_NS, ~is_read_NS)
        answer_NS = np.take_along_axis(value_NS, last_NS, axis=1)
        targets_NT[:, 1::2][is_read_NS] = answer_NS[is_read_NS]
        return Batch(inputs_NT, targets_NT)

    def solve(self, inputs_NT: np.ndarray) -> np.ndarray:
        """At each key asked for, the value after the last time it stood before one."""
        last_NT, _ = _history(inputs_NT, self._writes(inputs_NT))
        is_asked_NT = np.zeros(inputs_NT.shape, dtype=bool)
        is_asked_NT[:, 1:] = (inputs_NT[:, :-1] == self.vocab - 1) & (inputs_NT[:, 1:] < self._keys)
        is_asked_NT &= last_NT >= 0
        value_NT = np.take_along_axis(inputs_NT, np.where(is_asked_NT, last_NT + 1, 0), axis=1)
        return np.where(is_asked_NT, value_NT, -1)

    def levels(self, batch: Batch) -> np.ndarray:
        """Octaves of the number of values that the key has had: 0 is a key never overwritten."""
        _, times_NT = _history(batch.inputs, self._writes(batch.inputs))
        return octaves(times_NT, batch.targets)

    def _writes(self, inputs_NT: np.ndarray) -> np.ndarray:
        """Whether each token is a key before a value; [N, T]."""
        is_write_NT = inputs_NT < self._keys
        is_value_NT = (inputs_NT >= self._keys) & (inputs_NT < self.vocab - 1)
        is_write_NT[:, :-1] &= is_value_NT[:, 1:]
        is_write_NT[:, -1] = False
        return is_write_NT


def _history(ids_NS: np.ndarray, is_marked_NS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the marked entries equal to each: where the last up to it stands (-1: none), how many before it."""
    order_NS = np.argsort(ids_NS, axis=1, kind="stable")
    sorted_NS = np.take_along_axis(ids_NS, order_NS, axis=1)
    marked_NS = np.take_along_axis(is_marked_NS, order_NS, axis=1)
    slot = np.arange(ids_NS.shape[1])
    start_NS = np.zeros(ids_NS.shape, dtype=np.int64)
    start_NS[:, 1:] = np.where(sorted_NS[:, 1:] != sorted_NS[:, :-1], slot[1:], 0)
    np.maximum.accumulate(start_NS, axis=1, out=start_NS)
    latest_NS = np.maximum.accumulate(np.where(marked_NS, slot, -1), axis=1)
    place_NS = np.take_along_axis(order_NS, np.maximum(latest_NS, 0), axis=1)
    place_NS = np.where(latest_NS >= start_NS, place_NS, -1)
    before_NS = marked_NS.cumsum(axis=1) - marked_NS
    count_NS = before_NS - np.take_along_axis(before_NS, start_NS, axis=1)
    last_NS, times_NS = np.empty_like(place_NS), np.empty_like(count_NS)
    np.put_along_axis(last_NS, order_NS, place_NS, axis=1)
    np.put_along_axis(times_NS, order_NS, count_NS, axis=1)
    return last_NS, times_NS
