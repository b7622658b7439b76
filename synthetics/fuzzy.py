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

from synthetics.base import IGNORE, Batch, Head, Split, check_fields, distinct, first_same, need

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
        input  6 6 6 0 2 5 3 0 2 5 3 1 0 5 4 1 2 5 4 0 1 4 5 0 1 4
        target . . . . . . . . 5 3 . . . . . . . . . . . . . . 4 5
    """

    name: ClassVar[str] = "fuzzy_recall"
    head: ClassVar[Head] = "lm"
    lagged: ClassVar[bool] = True
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

    def sample(self, rng: np.random.Generator, n: int, split: Split = "test") -> Batch:
        """``n`` rows; see the class."""
        shortest = 1 if split == "train" else self.key_motif
        slots = self.length // (shortest + 1)
        # Entry 0 of each row is the probe, entry s+1 the pair drawn for slot s.
        motif_NSM, has_NSM = self._draw_pairs(rng, (n, slots + 1), shortest)
        key_NS = self._number(motif_NSM, has_NSM)
        source_NS = first_same(key_NS)
        source_NS = self._place_probe(rng, source_NS, *self._sizes(has_NSM, source_NS))

        # A repeated key takes the value of the entry it points at; the last entry is the probe again.
        source_NS = np.concatenate([source_NS, np.zeros((n, 1), dtype=np.int64)], axis=1)
        motif_NSM = np.take_along_axis(motif_NSM, source_NS[..., None], axis=1)
        has_NSM = np.take_along_axis(has_NSM, source_NS[..., None], axis=1)
        size_NS = has_NSM.sum(axis=2)
        start_NS = size_NS.cumsum(axis=1) - size_NS
        has_NSM[:, :-1] &= (start_NS < self._body(size_NS[:, -1])[:, None])[:, :-1, None]
        known_NS = first_same(source_NS) < np.arange(slots + 1)
        return self._write(motif_NSM, has_NSM, known_NS, split)

    def solve(self, inputs_NT: np.ndarray) -> np.ndarray:
        """The next token of the value that followed the first earlier run of key tokens equal to this run."""
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

        # Whole runs are those that a value follows; any other position gets a number of its own.
        position = np.arange(length)
        is_whole_NT = np.zeros_like(is_key_NT)
        is_whole_NT[:, :-1] = is_key_NT[:, :-1] & is_value_NT[:, 1:]
        whole_NT = np.where(is_whole_NT, run_NT, -1 - position)
        end_NT = first_same(np.concatenate([whole_NT, run_NT], axis=1))[:, length:]
        is_known_NT = (run_NT > 0) & (end_NT < position - past_NT)
        answer_NT = np.where(is_known_NT, end_NT + 1 + past_NT, 0)
        is_known_NT &= np.take_along_axis(past_NT, answer_NT, axis=1) == past_NT + 1
        return np.where(is_known_NT, np.take_along_axis(inputs_NT, answer_NT, axis=1), -1)

    def _draw_pairs(
        self, rng: np.random.Generator, shape: tuple[int, int], shortest: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Motifs of full size and which of their tokens are used; both [*shape, M]."""
        key_size = rng.integers(shortest, self.key_motif + 1, size=shape)
        value_size = rng.integers(1, self.value_motif + 1, size=shape)
        # The first tokens of a uniform tuple of distinct ids are a uniform shorter tuple.
        key = distinct(rng, shape, self.key_motif, self._keys)
        value = self._keys + distinct(rng, shape, self.value_motif, self._values)
        has_key = np.arange(self.key_motif) < key_size[..., None]
        has_value = np.arange(self.value_motif) < value_size[..., None]
        return np.concatenate([key, value], axis=-1), np.concatenate([has_key, has_value], axis=-1)

    def _number(self, motif_NSM: np.ndarray, has_NSM: np.ndarray) -> np.ndarray:
        """One number per key motif, its tokens as digits; [N, S]."""
        number_NS = np.zeros(motif_NSM.shape[:2], dtype=np.int64)
        for j in range(self.key_motif):
            number_NS = number_NS * (self._keys + 1) + (motif_NSM[..., j] + 1) * has_NSM[..., j]
        return number_NS

    def _sizes(self, has_NSM: np.ndarray, source_NS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of the probe, [N], and of the pair in each slot with the value it points at, [N, S-1]."""
        size_NS = np.take_along_axis(has_NSM.sum(axis=2), source_NS, axis=1)
        return size_NS[:, 0], size_NS[:, 1:]

    def _body(self, probe_N: np.ndarray) -> np.ndarray:
        """Pairs are presented while fewer than this many tokens stand; [N]."""
        return self.length - probe_N - self.key_motif - self.value_motif

    def _place_probe(
        self, rng: np.random.Generator, source_NS: np.ndarray, probe_N: np.ndarray, size_NS: np.ndarray
    ) -> np.ndarray:
        """The slots' sources, [N, S-1], with the probe in the slot where it is due.

        That is the first slot at or after a token drawn uniformly, or else the last one that fits.
        """
        due_N = rng.integers(0, self.length - 2 * probe_N)
        end_NS = size_NS.cumsum(axis=1)
        is_due_NS = end_NS - size_NS >= due_N[:, None]
        is_last_NS = end_NS >= self._body(probe_N)[:, None]
        placed_NS = source_NS[:, 1:].copy()
        placed_NS[np.arange(len(due_N)), (is_due_NS | is_last_NS | (placed_NS == 0)).argmax(axis=1)] = 0
        return placed_NS

    def _write(self, motif_NSM: np.ndarray, has_NSM: np.ndarray, known_NS: np.ndarray, split: Split) -> Batch:
        """The used tokens in order, at the right of a padded row; inputs and targets one token apart."""
        used_N = has_NSM.sum(axis=(1, 2))
        is_used_NL = np.arange(self.length + 1) >= self.length + 1 - used_N[:, None]
        row_NL = np.full(is_used_NL.shape, self.vocab - 1)
        row_NL[is_used_NL] = motif_NSM[has_NSM]
        targets_NL = row_NL
        if split != "train":
            is_asked_NSM = known_NS[..., None] & (np.arange(motif_NSM.shape[2]) >= self.key_motif)
            targets_NL = np.full_like(row_NL, IGNORE)
            targets_NL[is_used_NL] = np.where(is_asked_NSM, motif_NSM, IGNORE)[has_NSM]
        return Batch(row_NL[:, :-1].copy(), targets_NL[:, 1:].copy())
