"""In-context n-gram languages: each row is written in a language of its own, to be learnt from the row.

Languages: as in Edelman et al. 2024 ("The Evolution of Statistical Induction Heads: In-Context Learning
Markov Chains"), transitions drawn from a Dirichlet prior; Akyürek et al. 2024 ("In-Context Language
Learning") ask the same of automata. Deviation: scored is the most likely next token, not its distribution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from synthetics.base import IGNORE, Batch, Head, Split, check_fields, need, octaves, take_rows

__all__ = ["NGram"]

ENTRIES = 2**14
"""Entries of the largest table of transitions, of which there is one for each row."""


@dataclass(frozen=True, kw_only=True)
class NGram:
    """A random language: which token has followed the last ``order`` - 1 tokens most often so far?

    Probes statistics kept in context: an induction head finds one earlier case, the rule counts them all.

    Ids: the letters. For each context of order-1 letters a row draws a distribution of the next letter from
    a Dirichlet prior, ``alpha`` for each letter (1: each distribution as likely as any; small: mostly one
    letter); it begins with order-1 uniform letters. Training supervises every next token. Validation and
    test are scored wherever one letter has followed the context more often than any other: given the row so
    far that is the most likely next one.

        ngram(vocab=4, length=20)
        input  2 0 1 0 2 0 1 0 1 1 1 0 1 1 0 1 2 0 1 0
        target . . . 1 0 . 0 1 0 0 . 1 0 . 1 0 0 1 0 1
    """

    name: ClassVar[str] = "ngram"
    head: ClassVar[Head] = "lm"
    lagged: ClassVar[bool] = True
    LEVEL: ClassVar[str] = "octave of the times that the context has stood before"
    LADDER: ClassVar[Mapping[str, tuple[int | float, ...]]] = {
        "vocab": (4, 16, 32),
        "length": (256, 512),
        "train_examples": (6400, 3200),
        "order": (3,),
        "alpha": (0.1, 1.0),
    }

    vocab: int = 8
    length: int = 128
    train_examples: int = 12_800
    order: int = 2
    alpha: float = 0.3

    def __post_init__(self) -> None:
        check_fields(self)
        need(self, self.order >= 2, f"order is {self.order}; it must be at least 2 (a context of one letter)")
        need(
            self,
            self.order * np.log2(self.vocab) <= np.log2(ENTRIES),
            f"vocab {self.vocab} to the power of order {self.order} is more than {ENTRIES:,} transitions;"
            " take fewer letters or a lower order",
        )
        least = self._contexts + self.order
        need(
            self,
            self.length >= least,
            f"length is {self.length}; vocab {self.vocab} and order {self.order} make {self._contexts:,}"
            f" contexts, of which one is sure to come again in {least:,} tokens",
        )
        need(
            self,
            0.01 <= self.alpha <= 1000,  # below, gamma draws are too small for a float
            f"alpha is {self.alpha}; it must lie between 0.01 and 1,000",
        )

    @property
    def tokens(self) -> int:
        """Tokens per input row."""
        return self.length

    @property
    def _contexts(self) -> int:
        return self.vocab ** (self.order - 1)

    def sample(self, rng: np.random.Generator, n: int, split: Split = "test") -> Batch:
        """``n`` rows; see the class."""
        # Gamma draws over their sum are a Dirichlet draw.
        weight_NCV = rng.standard_gamma(self.alpha, size=(n, self._contexts, self.vocab))
        upto_NCV = weight_NCV.cumsum(axis=-1)
        lot_NT, row = rng.random((n, self.length + 1)), np.arange(n)
        text_NT = rng.integers(0, self.vocab, size=(n, self.length + 1))
        for t in range(self.order - 1, self.length + 1):
            context_N = self._context(text_NT[:, t - self.order + 1 : t])[:, -1]
            upto_NV = upto_NCV[row, context_N]
            lot_N1 = lot_NT[:, t, None] * upto_NV[:, -1:]
            # A lot may be rounded up to the whole sum.
            text_NT[:, t] = np.minimum((upto_NV <= lot_N1).sum(axis=1), self.vocab - 1)
        inputs_NT, targets_NT = text_NT[:, :-1], text_NT[:, 1:].copy()
        if split != "train":
            answers_NT = self.solve(inputs_NT)
            targets_NT = np.where(answers_NT >= 0, answers_NT, IGNORE)
        return Batch(inputs_NT.copy(), targets_NT)

    def solve(self, inputs_NT: np.ndarray) -> np.ndarray:
        """The letter that followed this context most often; -1 where none or more than one did."""
        return self._count(inputs_NT)[0]

    def levels(self, batch: Batch) -> np.ndarray:
        """Octaves of the number of times that the context has stood before."""
        return octaves(self._count(batch.inputs)[1], batch.targets)

    def _context(self, letters_NT: np.ndarray) -> np.ndarray:
        """The context that ends at each position at which one does, as one number; [N, T - order + 2]."""
        places = max(letters_NT.shape[1] - self.order + 2, 0)
        number_NT = np.zeros((len(letters_NT), places), dtype=np.int64)
        for i in range(self.order - 1):
            number_NT = number_NT * self.vocab + letters_NT[:, i : i + places]
        return number_NT

    def _count(self, inputs_NT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The favourite of each position's context (-1: none) and how often that stood before; [N, T]."""
        favourite_NT, before_NT = np.full(inputs_NT.shape, -1), np.zeros_like(inputs_NT)
        context_NS = self._context(inputs_NT)
        slots = context_NS.shape[1]
        if slots < 2:
            return favourite_NT, before_NT
        # What follows the last context is not known yet; it counts for no position of the row.
        next_NS = np.zeros_like(context_NS)
        next_NS[:, :-1] = inputs_NT[:, self.order - 1 :]
        times_NS = _number(context_NS * self.vocab + next_NS) + 1

        by_NS, start_NS = _runs(context_NS)
        slot = np.arange(slots)
        # Within a context, in order of time: the first letter to reach a count leads alone, and one that
        # reaches the leader's makes a tie. Adding the start, which is
        # no less than all counts before it, keeps contexts apart.
        count_NS = take_rows(times_NS, by_NS) + start_NS
        most_NS = np.maximum.accumulate(count_NS, axis=1)
        is_record_NS = count_NS == most_NS
        is_record_NS[:, 1:] &= count_NS[:, 1:] > most_NS[:, :-1]
        record_NS = np.maximum.accumulate(np.where(is_record_NS, slot, 0), axis=1)
        tied_NS = np.maximum.accumulate(np.where((count_NS == most_NS) & ~is_record_NS, slot, -1), axis=1)
        letter_NS = np.where(tied_NS > record_NS, -1, take_rows(take_rows(next_NS, by_NS), record_NS))
        answer_NS = np.full_like(letter_NS, -1)
        answer_NS[:, 1:] = np.where(start_NS[:, 1:] == slot[1:], -1, letter_NS[:, :-1])
        np.put_along_axis(favourite_NT[:, self.order - 2 :], by_NS, answer_NS, axis=1)
        np.put_along_axis(before_NT[:, self.order - 2 :], by_NS, slot - start_NS, axis=1)
        return favourite_NT, before_NT


def _runs(ids_NS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slots ordered by id and then by time, and for each of these where the run of its id begins; [N, S]."""
    by_NS = np.argsort(ids_NS, axis=1, kind="stable")
    sorted_NS = take_rows(ids_NS, by_NS)
    start_NS = np.zeros_like(by_NS)
    start_NS[:, 1:] = np.where(sorted_NS[:, 1:] != sorted_NS[:, :-1], np.arange(1, ids_NS.shape[1]), 0)
    return by_NS, np.maximum.accumulate(start_NS, axis=1)


def _number(ids_NS: np.ndarray) -> np.ndarray:
    """How many entries of its row before each one are equal to it; [N, S]."""
    by_NS, start_NS = _runs(ids_NS)
    number_NS = np.empty_like(by_NS)
    np.put_along_axis(number_NS, by_NS, np.arange(ids_NS.shape[1]) - start_NS, axis=1)
    return number_NS
