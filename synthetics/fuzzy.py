"""Fuzzy in-context recall: keys and values are short motifs, and a token alone says nothing.

Layout and distribution: the MAD suite (Poli et al. 2024), multi-query form.
Deviations from mad-lab: where the probe's key would never be presented (one row in fifty or so), the last
pair before it gives way to it, so that every probe has an answer; the single-query form and the noise option,
unused by its benchmark, are left out.

Shape suffixes beyond base's: M tokens of a pair (key motif, then value motif).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from synthetics.base import (
    IGNORE,
    Batch,
    Head,
    Split,
    check_fields,
    distinct_columns,
    first_same,
    last_same,
    need,
    octaves,
    take_rows,
)

__all__ = ["FuzzyRecall"]


@dataclass(frozen=True, kw_only=True)
class FuzzyRecall:
    """Key motifs and value motifs alternate; a key motif keeps its value. Spell the value of this key.

    Ids: with u = vocab-1, keys 0 .. u//2-1, values u//2 .. u-1, the pad u. A motif is an ordered tuple of
    distinct ids. Value motifs have 1 to value_motif tokens; key motifs 1 to key_motif in training, exactly
    key_motif in validation and test. The probe, a pair drawn first, is presented somewhere and asked for at
    the end; rows are padded on the left. Training supervises every next token (pads included), validation and
    test all value tokens of a key that has occurred before.

        fuzzy_recall(vocab=7, length=26, key_motif=2, value_motif=2)
        input  6 6 6 6 1 0 3 1 0 3 2 0 5 4 1 0 3 2 0 5 4 0 2 4 0 2
        target . . . . . . . . 3 . . . . . . 3 . . 5 4 . . . . . 4
    """

    name: ClassVar[str] = "fuzzy_recall"
    head: ClassVar[Head] = "lm"
    lagged: ClassVar[bool] = True
    LEVEL: ClassVar[str] = "octave of the lag to the key's last occurrence"
    LADDER: ClassVar[Mapping[str, tuple[int | float, ...]]] = {
        "vocab": (32, 64, 128),
        "length": (256, 512, 1024),
        "train_examples": (6400, 3200, 1600, 800),
    }

    vocab: int = 16
    length: int = 128
    train_examples: int = 12_800
    key_motif: int = 3
    value_motif: int = 3

    def __post_init__(self) -> None:
        check_fields(self)
        for option, ids in (("key_motif", self._keys), ("value_motif", self._values)):
            size = getattr(self, option)
            most = min(ids, 8)
            allowed = f"it must lie between 1 and {most} at vocab {self.vocab} (distinct ids, at most 8)"
            need(self, 1 <= size <= most, f"{option} is {size}; {allowed}")
        need(
            self, self._values >= 2, f"vocab is {self.vocab}; it must be at least 5 (two keys, values, a pad)"
        )
        need(
            self,
            (self._keys + 1) ** self.key_motif < 2**62,
            f"key_motif {self.key_motif} of {self._keys} key ids makes too many motifs to number in 62 bits",
        )
        least = 2 * (self.key_motif + self.value_motif) + 1
        need(
            self, self.length >= least, f"length is {self.length}; it must be at least {least} for two pairs"
        )

    @property
    def tokens(self) -> int:
        """Tokens per input row."""
        return self.length

    @property
    def _keys(self) -> int:
        return (self.vocab - 1) // 2

    @property
    def _values(self) -> int:
        return self.vocab - 1 - self._keys

    @property
    def _dtype(self) -> type:
        """The smallest integer that holds an id: drawing and moving few bytes is what makes this fast."""
        return np.min_scalar_type(self.vocab).type

    def sample(self, rng: np.random.Generator, n: int, split: Split = "test") -> Batch:
        """``n`` rows; see the class."""
        shortest = 1 if split == "train" else self.key_motif
        # Entry 0 of each row is the probe, entry s+1 the pair drawn for slot s.
        shape = (n, 1 + self.length // (shortest + 1))
        key_size_NS = rng.integers(shortest, self.key_motif + 1, size=shape, dtype=np.uint8)
        size_NS = key_size_NS + rng.integers(1, self.value_motif + 1, size=shape, dtype=np.uint8)
        # The first tokens of a uniform tuple of distinct ids are a uniform shorter tuple.
        key = distinct_columns(rng, shape, self.key_motif, self._keys, self._dtype)
        source_NS = first_same(self._number(key, key_size_NS))
        source_NS = self._place_probe(rng, source_NS, take_rows(size_NS, source_NS))
        # A repeated key takes the value of the entry that it points at; most rows leave many entries unused.
        value = distinct_columns(rng, source_NS.shape, self.value_motif, self._values, self._dtype)
        key_size_NS, size_NS = take_rows(key_size_NS, source_NS), take_rows(size_NS, source_NS)
        is_used_NS = self._starts(size_NS) < self._body(size_NS[:, -1])[:, None]
        is_used_NS[:, -1] = True

        motif_NSM = np.empty((*source_NS.shape, self.key_motif + self.value_motif), dtype=self._dtype)
        has_NSM = np.empty(motif_NSM.shape, dtype=bool)
        for m, column in enumerate(key):
            motif_NSM[..., m] = take_rows(column, source_NS)
            has_NSM[..., m] = is_used_NS & (m < key_size_NS)
        for m, column in enumerate(value):
            motif_NSM[..., self.key_motif + m] = take_rows(column, source_NS) + self._dtype(self._keys)
            has_NSM[..., self.key_motif + m] = is_used_NS & (m < size_NS - key_size_NS)
        return self._write(motif_NSM, has_NSM, source_NS, split)

    def solve(self, inputs_NT: np.ndarray) -> np.ndarray:
        """The next token of the value that followed the first earlier run of key tokens equal to this run."""
        is_key_NT, is_value_NT, run_NT, past_NT = self._runs(inputs_NT)
        # Whole runs are those that a value follows; any other position gets a number of its own.
        length = inputs_NT.shape[1]
        position = np.arange(length)
        is_whole_NT = np.zeros_like(is_key_NT)
        is_whole_NT[:, :-1] = is_key_NT[:, :-1] & is_value_NT[:, 1:]
        whole_NT = np.where(is_whole_NT, run_NT, -1 - position)
        end_NT = first_same(np.concatenate([whole_NT, run_NT], axis=1))[:, length:]
        is_known_NT = (run_NT > 0) & (end_NT < position - past_NT)
        answer_NT = np.where(is_known_NT, end_NT + 1 + past_NT, 0)
        is_known_NT &= np.take_along_axis(past_NT, answer_NT, axis=1) == past_NT + 1
        return np.where(is_known_NT, np.take_along_axis(inputs_NT, answer_NT, axis=1), -1)

    def levels(self, batch: Batch) -> np.ndarray:
        """Octaves of the distance from the end of this run of key tokens to that of the last equal one."""
        is_key_NT, _, run_NT, past_NT = self._runs(batch.inputs)
        position = np.arange(is_key_NT.shape[1])
        # All keys of such rows have one size, so a whole run equals no part of one.
        lag_NT = position - last_same(np.where(is_key_NT, run_NT, -1 - position))
        return octaves(take_rows(lag_NT, np.maximum(position - past_NT, 0)), batch.targets)

    def _runs(self, inputs_NT: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Is it a key token, is it a value token, which run of key tokens is it in or after, how far."""
        rows, length = inputs_NT.shape
        is_key_NT = inputs_NT < self._keys
        is_value_NT = ~is_key_NT & (inputs_NT < self.vocab - 1)
        run_NT = np.zeros((rows, length), dtype=np.int64)  # number of the key run so far, or of the last one
        past_NT = np.zeros((rows, length), dtype=np.int64)  # tokens since the end of that run, in its value
        for t in range(length):
            before, was_key = (run_NT[:, t - 1], is_key_NT[:, t - 1]) if t else (0, False)
            grown = np.where(was_key, before, 0) * (self._keys + 1) + inputs_NT[:, t] + 1
            run_NT[:, t] = np.where(is_key_NT[:, t], grown, np.where(is_value_NT[:, t], before, 0))
            past_NT[:, t] = np.where(is_value_NT[:, t], past_NT[:, t - 1] + 1, 0) if t else is_value_NT[:, 0]
        return is_key_NT, is_value_NT, run_NT, past_NT

    def _number(self, key: list[np.ndarray], key_size_NS: np.ndarray) -> np.ndarray:
        """One number per key motif, its tokens as digits; [N, S]."""
        number_NS = np.zeros(key_size_NS.shape, dtype=np.int64)
        for j, digit_NS in enumerate(key):
            number_NS *= self._keys + 1
            number_NS += (digit_NS + self._dtype(1)) * (j < key_size_NS)
        return number_NS

    def _starts(self, size_NS: np.ndarray) -> np.ndarray:
        """Tokens that stand before each pair; [N, S]."""
        return size_NS.cumsum(axis=1, dtype=np.int64) - size_NS

    def _body(self, probe_N: np.ndarray) -> np.ndarray:
        """Pairs are presented while fewer tokens than this stand; ``probe``: tokens of the probe; [N]."""
        return self.length - probe_N.astype(np.int64) - self.key_motif - self.value_motif

    def _place_probe(
        self, rng: np.random.Generator, source_NS: np.ndarray, size_NS: np.ndarray
    ) -> np.ndarray:
        """The sources of as many slots as any row needs, and then of the probe at the end.

        Sizes are those of the entries pointed at. The probe is presented in the first slot at or after a
        token drawn uniformly, or else in the last one that fits.
        """
        probe_N, size_NS = size_NS[:, 0], size_NS[:, 1:]
        body_N = self._body(probe_N)[:, None]
        due_N = rng.integers(0, self.length - 2 * probe_N.astype(np.int64))
        start_NS = self._starts(size_NS)
        is_due_NS = (start_NS >= due_N[:, None]) | (start_NS + size_NS >= body_N)
        placed_NS = source_NS[:, 1:]
        row, slot_N = np.arange(len(due_N)), (is_due_NS | (placed_NS == 0)).argmax(axis=1)
        size_NS[row, slot_N] = probe_N
        placed_NS[row, slot_N] = 0
        slots = int((self._starts(size_NS) < body_N).sum(axis=1).max(initial=0))
        return np.concatenate([placed_NS[:, :slots], np.zeros((len(row), 1), dtype=np.int64)], axis=1)

    def _write(
        self, motif_NSM: np.ndarray, has_NSM: np.ndarray, source_NS: np.ndarray, split: Split
    ) -> Batch:
        """The used tokens in order, at the right of a padded row; inputs and targets one token apart."""
        used_N = has_NSM.sum(axis=(1, 2))
        is_used_NL = np.arange(self.length + 1) >= self.length + 1 - used_N[:, None]
        row_NL = np.full(is_used_NL.shape, self.vocab - 1)
        row_NL[is_used_NL] = motif_NSM[has_NSM]
        targets_NL = row_NL.copy()
        if split != "train":
            is_known_NS = first_same(source_NS) < np.arange(source_NS.shape[1])
            is_asked_NSM = is_known_NS[..., None] & (np.arange(motif_NSM.shape[2]) >= self.key_motif)
            targets_NL[:] = IGNORE
            targets_NL[is_used_NL] = np.where(is_asked_NSM, motif_NSM.astype(np.int64), IGNORE)[has_NSM]
        return Batch(row_NL[:, :-1], targets_NL[:, 1:])
