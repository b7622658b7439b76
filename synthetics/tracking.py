"""State tracking: running parity and majority of bits, and the running product of permutations.

Tasks: Liu et al. 2023 ("Transformers Learn Shortcuts to Automata"), Merrill et al. 2024 ("The Illusion of
State in State-Space Models"), Grazzi et al. 2025 ("Unlocking State-Tracking in Linear RNNs Through Negative
Eigenvalues"); Zoology (Arora et al. 2023) has the first two as cumulative parity and cumulative majority.
Every answer depends on every token so far: nothing can be looked up, and no window decides it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from synthetics.base import IGNORE, Batch, Head, Split, check_fields, need, octaves

__all__ = ["Majority", "Parity", "Permutation"]

STEPS = "octave of the number of composed steps"


@dataclass(frozen=True, kw_only=True)
class _Bits:
    """Rows of random bits; what is asked of each position, ``solve``, is the task's own."""

    head: ClassVar[Head] = "lm"
    lagged: ClassVar[bool] = False

    length: int = 64
    train_examples: int = 12_800

    @property
    def vocab(self) -> int:
        """Two bits."""
        return 2

    @property
    def tokens(self) -> int:
        """Tokens per input row."""
        return self.length

    def sample(self, rng: np.random.Generator, n: int, split: Split = "test") -> Batch:
        """``n`` rows; see the class. All splits are drawn and supervised alike."""
        inputs_NT = rng.integers(0, 2, size=(n, self.length))
        answers_NT = self.solve(inputs_NT)
        return Batch(inputs_NT, np.where(answers_NT >= 0, answers_NT, IGNORE))

    def solve(self, inputs_NT: np.ndarray) -> np.ndarray:
        """The bit that answers each position, -1 where neither does."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Parity(_Bits):
    """Random bits: is the number of ones so far odd?

    Probes whether one bit of state can be flipped for ever: a linear recurrence needs a negative eigenvalue
    for it, and softmax attention finds no solution that holds at every length.

    Ids: the bits. Supervised and scored in every split at all positions.

        parity(length=10)
        input  1 1 0 0 1 1 1 1 1 0
        target 1 0 0 0 1 0 1 0 1 1
    """

    name: ClassVar[str] = "parity"
    LEVEL: ClassVar[str] = STEPS
    LADDER: ClassVar[Mapping[str, tuple[int | float, ...]]] = {
        "length": (32, 128, 256),
        "train_examples": (3200, 800),
    }

    def __post_init__(self) -> None:
        check_fields(self)

    def solve(self, inputs_NT: np.ndarray) -> np.ndarray:
        """The parity of the ones up to each position."""
        return np.bitwise_xor.accumulate(inputs_NT, axis=1)

    def levels(self, batch: Batch) -> np.ndarray:
        """Octaves of the number of bits so far."""
        return _steps(batch)


@dataclass(frozen=True, kw_only=True)
class Majority(_Bits):
    """Random bits: are there more ones than zeros so far?

    Probes a counter that is read at its sign: uniform attention can hold the share of ones, and a recurrence
    their lead if it forgets nothing; either has to tell a lead of one bit from none late in the row.

    Ids: the bits. Supervised and scored in every split at all positions but ties, where neither has it.

        majority(length=9)
        input  0 1 0 0 1 1 1 1 0
        target 0 . 0 0 0 . 1 1 1
    """

    name: ClassVar[str] = "majority"
    LEVEL: ClassVar[str] = "octave of the bits so far for each bit of the lead"
    LADDER: ClassVar[Mapping[str, tuple[int | float, ...]]] = {
        "length": (128, 256, 512),
        "train_examples": (3200, 800),
    }

    def __post_init__(self) -> None:
        check_fields(self)

    def solve(self, inputs_NT: np.ndarray) -> np.ndarray:
        """The bit that more of the tokens up to each position are."""
        lead_NT = _lead(inputs_NT)
        return np.where(lead_NT == 0, -1, lead_NT > 0).astype(np.int64)

    def levels(self, batch: Batch) -> np.ndarray:
        """Octaves of the number of bits over their lead: 0 is near to unanimous, the last a lead of one."""
        bits_T = np.arange(1, batch.inputs.shape[1] + 1)
        return octaves(bits_T // np.maximum(abs(_lead(batch.inputs)), 1), batch.targets)


@dataclass(frozen=True, kw_only=True)
class Permutation:
    """Random permutations of a few things: what has become of their order?

    Probes state whose steps do not commute. Of S3, S4 and S5 the last is not solvable: its word problem is
    as hard as any in NC1, which softmax attention and diagonal recurrences of fixed depth are not believed
    to reach.

    Ids: the permutations in lexicographic order, 0 the identity (6, 24 or 120 ids). The target at each
    position, supervised and scored in every split, is the product of all tokens so far, each applied to
    what the earlier ones gave. With ``swaps`` the tokens are the identity and the exchanges of two things
    alone, which one Householder step can do.

        permutation(length=10)
        input  1 0 0 5 4 0 2 4 4 5
        target 1 1 1 4 3 3 1 5 2 3
    """

    name: ClassVar[str] = "permutation"
    head: ClassVar[Head] = "lm"
    lagged: ClassVar[bool] = False
    LEVEL: ClassVar[str] = STEPS
    LADDER: ClassVar[Mapping[str, tuple[int | float, ...]]] = {
        "group": (4, 5),
        "length": (16, 64, 128),
        "train_examples": (3200, 800),
    }

    length: int = 32
    train_examples: int = 12_800
    group: int = 3
    swaps: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        need(self, 3 <= self.group <= 5, f"group is {self.group}; it must be 3, 4 or 5 (the things permuted)")

    @property
    def vocab(self) -> int:
        """The permutations of ``group`` things."""
        return math.factorial(self.group)

    @property
    def tokens(self) -> int:
        """Tokens per input row."""
        return self.length

    def sample(self, rng: np.random.Generator, n: int, split: Split = "test") -> Batch:
        """``n`` rows; see the class. All splits are drawn and supervised alike."""
        steps = _swaps(self.group) if self.swaps else np.arange(self.vocab)
        inputs_NT = steps[rng.integers(0, len(steps), size=(n, self.length))]
        return Batch(inputs_NT, self.solve(inputs_NT))

    def solve(self, inputs_NT: np.ndarray) -> np.ndarray:
        """The product of the tokens up to each position."""
        product = _products(self.group)
        answers_NT = inputs_NT.copy()
        for t in range(1, inputs_NT.shape[1]):
            answers_NT[:, t] = product[inputs_NT[:, t], answers_NT[:, t - 1]]
        return answers_NT

    def levels(self, batch: Batch) -> np.ndarray:
        """Octaves of the number of permutations so far."""
        return _steps(batch)


def _steps(batch: Batch) -> np.ndarray:
    number_T = np.arange(1, batch.targets.shape[1] + 1)
    return octaves(np.broadcast_to(number_T, batch.targets.shape), batch.targets)


def _lead(inputs_NT: np.ndarray) -> np.ndarray:
    """How many more ones than zeros there are up to each position."""
    return (2 * inputs_NT - 1).cumsum(axis=1)


def _permutations(group: int) -> np.ndarray:
    """Where each of ``group`` things goes, by id; [ids, group]."""
    return np.array(list(itertools.permutations(range(group))))


def _swaps(group: int) -> np.ndarray:
    """Ids of the identity and of the exchanges of two things."""
    moved = (_permutations(group) != np.arange(group)).sum(axis=1)
    return np.flatnonzero(moved <= 2)


@lru_cache
def _products(group: int) -> np.ndarray:
    """``[a, b]``: the id of b, then a."""
    places = _permutations(group)
    weight = group ** np.arange(group)
    id_of = np.zeros(group**group, dtype=np.int64)
    id_of[places @ weight] = np.arange(len(places))
    table = id_of[places[:, places] @ weight]
    table.setflags(write=False)
    return table
