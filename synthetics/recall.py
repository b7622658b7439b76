"""In-context recall, plain and noisy: look up the value that a key had earlier in the row.

Layout and distribution: the MAD suite (Poli et al. 2024, "Mechanistic Design and Scaling of Hybrid
Architectures"), multi-query form.
Deviations from mad-lab: the pair that is never noise is drawn among the pairs before the probe (mad-lab may
draw the probe itself, so that a row can be all noise); the single-query form is left out.
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
    first_same,
    last_same,
    need,
    octaves,
    take_rows,
)

__all__ = ["NoisyRecall", "Recall"]


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Keys and values alternate; a key keeps its value for the whole row. What is the value of this key?

    Ids: keys 0 .. vocab//2-1, values from there to vocab-1. A row is length/2 pairs, keys drawn with
    replacement; the last pair's key is one that has occurred. Training supervises every next token,
    validation and test the value of each key that has occurred before.

        recall(vocab=8, length=16)
        input  3 5 3 5 0 5 0 5 3 5 3 5 1 7 3
        target . . 5 . . . 5 . 5 . 5 . . . 5
    """

    name: ClassVar[str] = "recall"
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

    def __post_init__(self) -> None:
        check_fields(self)
        need(
            self,
            self.length % 2 == 0,
            f"length is {self.length}; it must be even (keys and values alternate)",
        )

    @property
    def tokens(self) -> int:
        """Tokens per input row: one less than length, the last answer being target only."""
        return self.length - 1

    def sample(self, rng: np.random.Generator, n: int, split: Split = "test") -> Batch:
        """``n`` rows; see the class."""
        return _sample(rng, n, split, pairs=self.length // 2, content=self.vocab)

    def solve(self, inputs_NT: np.ndarray) -> np.ndarray:
        """The token after the first earlier occurrence of this key."""
        return _solve(inputs_NT, keys=self.vocab // 2)

    def levels(self, batch: Batch) -> np.ndarray:
        """Octaves of the distance to the last occurrence of the key."""
        return _levels(batch)


@dataclass(frozen=True, kw_only=True)
class NoisyRecall:
    """Recall with pairs of meaningless tokens strewn between the pairs.

    Ids: content = vocab - noise_vocab ids as in ``Recall`` (so vocab counts the noise ids, as mad-lab does),
    noise from content to vocab-1. Each pair but the probe and one other is, with probability frac_noise,
    replaced by two noise tokens.

        noisy_recall(vocab=10, length=16, noise_vocab=2, frac_noise=0.4)
        input  8 8 3 4 8 8 0 4 1 4 8 9 1 4 0
        target . . . . . . . . . . . . 4 . 4
    """

    name: ClassVar[str] = "noisy_recall"
    head: ClassVar[Head] = "lm"
    lagged: ClassVar[bool] = True
    LEVEL: ClassVar[str] = "octave of the lag to the key's last occurrence"
    LADDER: ClassVar[Mapping[str, tuple[int | float, ...]]] = {
        "vocab": (48, 80, 144),
        "length": (256, 512, 1024),
        "train_examples": (6400, 3200, 1600, 800),
        "frac_noise": (0.4, 0.6, 0.8),
    }

    vocab: int = 32
    length: int = 128
    train_examples: int = 12_800
    noise_vocab: int = 16
    frac_noise: float = 0.2

    def __post_init__(self) -> None:
        check_fields(self)
        need(
            self,
            self.length % 2 == 0,
            f"length is {self.length}; it must be even (keys and values alternate)",
        )
        need(self, 0 <= self.frac_noise <= 1, f"frac_noise is {self.frac_noise}; it must lie between 0 and 1")
        need(
            self,
            1 <= self.noise_vocab <= self.vocab - 4,
            f"noise_vocab is {self.noise_vocab} of the {self.vocab} ids of vocab;"
            " it must be at least 1 and leave 4 for keys and values",
        )

    @property
    def tokens(self) -> int:
        """Tokens per input row: one less than length, the last answer being target only."""
        return self.length - 1

    def sample(self, rng: np.random.Generator, n: int, split: Split = "test") -> Batch:
        """``n`` rows; see the class."""
        content = self.vocab - self.noise_vocab
        noise = (self.noise_vocab, self.frac_noise)
        return _sample(rng, n, split, pairs=self.length // 2, content=content, noise=noise)

    def solve(self, inputs_NT: np.ndarray) -> np.ndarray:
        """The token after the first earlier occurrence of this key."""
        return _solve(inputs_NT, keys=(self.vocab - self.noise_vocab) // 2)

    def levels(self, batch: Batch) -> np.ndarray:
        """Octaves of the distance to the last occurrence of the key."""
        return _levels(batch)


def _sample(
    rng: np.random.Generator,
    n: int,
    split: Split,
    pairs: int,
    content: int,
    noise: tuple[int, float] | None = None,
) -> Batch:
    """Rows of ``pairs`` pairs over ``content`` ids; ``noise``: number of noise ids, share of noise slots."""
    slots, keys = pairs - 1, content // 2
    key_NS = rng.integers(0, keys, size=(n, slots))
    # One value per key and row, drawn beforehand: the same law as a fresh value at each new key.
    values_NK = rng.integers(keys, content, size=(n, keys))
    x_NL = np.empty((n, 2 * pairs), dtype=np.int64)
    head_NS, tail_NS = x_NL[:, :-2:2], x_NL[:, 1:-2:2]
    head_NS[:] = key_NS
    tail_NS[:] = take_rows(values_NK, key_NS)
    is_pair_NS: np.ndarray | bool = True
    if noise is not None:
        noise_ids, share = noise
        is_pair_NS = rng.random((n, slots)) >= share
        is_pair_NS[np.arange(n), rng.integers(0, slots, size=n)] = True
        strewn_NS = rng.integers(content, content + noise_ids, size=(n, slots, 2))
        np.copyto(head_NS, strewn_NS[..., 0], where=~is_pair_NS)
        np.copyto(tail_NS, strewn_NS[..., 1], where=~is_pair_NS)
    is_new_NS = first_same(head_NS) == np.arange(slots)
    # The probe: uniform over the distinct keys of the row, each standing for itself at its first occurrence.
    lot_NS = rng.random((n, slots)) * (is_new_NS & is_pair_NS)
    probe_N = key_NS[np.arange(n), lot_NS.argmax(axis=1)]

    x_NL[:, -2] = probe_N
    x_NL[:, -1] = values_NK[np.arange(n), probe_N]
    targets_NT = x_NL[:, 1:].copy()
    if split != "train":
        targets_NT[:, 1::2] = IGNORE
        targets_NT[:, :-1:2][is_new_NS | ~np.broadcast_to(is_pair_NS, is_new_NS.shape)] = IGNORE
    return Batch(x_NL[:, :-1], targets_NT)


def _solve(inputs_NT: np.ndarray, keys: int) -> np.ndarray:
    first_NT = first_same(inputs_NT)
    positions = np.arange(inputs_NT.shape[1])
    is_known_NT = (inputs_NT < keys) & (first_NT < positions)
    after_NT = np.where(is_known_NT, first_NT + 1, 0)
    return np.where(is_known_NT, np.take_along_axis(inputs_NT, after_NT, axis=1), -1)


def _levels(batch: Batch) -> np.ndarray:
    lag_NT = np.arange(batch.inputs.shape[1]) - last_same(batch.inputs)
    return octaves(lag_NT, batch.targets)
