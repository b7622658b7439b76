"""Orders that are computed, not stored: a permutation per epoch, and whose turn it is among several sources.

Any place can be asked for alone, so that no process keeps a list and resuming is arithmetic. B places.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lab.data.tokens import DataError

__all__ = ["PERIOD", "Turns", "permuted"]

PERIOD = 10_000
"""Rows after which the sources come in the same order again; weights in hundredths of a percent are exact."""

ROUNDS = 8


def permuted(places_B: np.ndarray, size: int, key: Sequence[int]) -> np.ndarray:
    """Where a random permutation of 0..size-1, one for each ``key``, puts ``places_B`` [B]; int64.

    A Feistel network on the smallest even number of bits that holds ``size``; what it puts at or above
    ``size`` is put through it again until it is below (cycle walking; Black and Rogaway 2002), 4 times at
    most on average.
    """
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    keys = np.random.SeedSequence(list(key)).generate_state(ROUNDS, np.uint64)
    value_B = np.asarray(places_B).astype(np.uint64)
    walking_B = np.ones(len(value_B), bool)
    while walking_B.any():
        value_B[walking_B] = _feistel(value_B[walking_B], half, keys)
        walking_B = value_B >= size
    return value_B.astype(np.int64)


def _feistel(value_B: np.ndarray, half: np.uint64, keys: np.ndarray) -> np.ndarray:
    low = (np.uint64(1) << half) - np.uint64(1)
    left_B, right_B = value_B >> half, value_B & low
    for key in keys:
        left_B, right_B = right_B, left_B ^ (_mixed(right_B + key) & low)
    return (left_B << half) | right_B


def _mixed(value_B: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014): every bit of 64 depends on every other."""
    value_B = (value_B ^ (value_B >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value_B = (value_B ^ (value_B >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value_B ^ (value_B >> np.uint64(31))


class Turns:
    """Which of S sources gives row n, for n = 0, 1, ...; counted, not drawn.

    Of every PERIOD rows each source gives its share, rounded to whole rows by largest remainder, spread
    evenly: after any number of rows it has given its share of them to within (S + 1) / 2 rows. Raises
    DataError for a weight that is not above 0, or so small that it would give no row.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        weight_S = np.array(weights, float)
        if not len(weight_S) or not np.isfinite(weight_S).all() or (weight_S <= 0).any():
            raise DataError(
                f"the weights of the mixture are {list(weights)}; at least one, each above 0, is wanted"
            )
        exact_S = weight_S / weight_S.sum() * PERIOD
        count_S = np.floor(exact_S).astype(np.int64)
        count_S[np.argsort(count_S - exact_S, kind="stable")[: PERIOD - count_S.sum()]] += 1
        if not count_S.all():
            raise DataError(
                f"a weight is {weight_S.min():g} of {weight_S.sum():g}; below 1 in {PERIOD:,} there is no row"
            )
        self.shares = tuple((count_S / PERIOD).tolist())
        """What the sources really give."""
        self._count_S = count_S
        # Row j of c of a source is due at (j + 1/2) / c of the period.
        due = np.concatenate([(np.arange(count) + 0.5) / count for count in count_S])
        order = np.argsort(due, kind="stable")
        self._source = np.repeat(np.arange(len(count_S)), count_S)[order]
        self._earlier = np.concatenate([np.arange(count) for count in count_S])[order]

    def __call__(self, rows_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The source of each row [B], and how many rows that source has given before [B]."""
        period_B, place_B = np.divmod(rows_B, PERIOD)
        source_B = self._source[place_B]
        return source_B, period_B * self._count_S[source_B] + self._earlier[place_B]
