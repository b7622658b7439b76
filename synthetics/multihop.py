"""Multi-hop recall: follow links from key to key until a value comes.

Shape suffixes beyond base's: C chains, H links of a chain, Q questions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from synthetics.base import IGNORE, Batch, Head, Split, check_fields, distinct, need, take_rows

__all__ = ["MultiHop"]


@dataclass(frozen=True, kw_only=True)
class MultiHop:
    """Links between keys in mixed order, then keys: to which value do the links lead from this key?

    Probes the composition of look-ups: each further hop needs the answer of the one before it.

    Ids: with u = vocab-2, keys 0 .. u//2-1, values u//2 .. u-1, the token u before a link, the token u+1
    before a question. A chain is ``hops`` links, k -> k' -> ... -> v; all keys of a row are distinct. A row
    is the links of all chains, shuffled, then questions about uniformly drawn keys, which stand 1 to
    ``hops`` links before their value. Every split is supervised and scored at the keys asked for.

        multihop(vocab=16, length=26, chains=2)
        input  14  3  7 14  1  4 14  5  3 14  4 10 15  4 15  5 15  1 15  1 15  3 15  3 15  3
        target  .  .  .  .  .  .  .  .  .  .  .  .  . 10  .  7  . 10  . 10  .  7  .  7  .  7
    """

    name: ClassVar[str] = "multihop"
    head: ClassVar[Head] = "lm"
    lagged: ClassVar[bool] = True
    LEVEL: ClassVar[str] = "hops from the key to the value"
    LADDER: ClassVar[Mapping[str, tuple[int | float, ...]]] = {
        "vocab": (128, 256),
        "length": (128, 256),
        "train_examples": (6400, 3200),
        "hops": (1, 3, 4),
        "chains": (2, 8),
    }

    vocab: int = 64
    length: int = 64
    train_examples: int = 12_800
    hops: int = 2
    chains: int = 4

    def __post_init__(self) -> None:
        check_fields(self)
        need(
            self, self.vocab >= 6, f"vocab is {self.vocab}; it must be at least 6 (keys, values, two tokens)"
        )
        need(self, self.hops >= 1, f"hops is {self.hops}; it must be at least 1")
        need(self, self.chains >= 1, f"chains is {self.chains}; it must be at least 1")
        need(
            self,
            self._links <= self._keys,
            f"hops {self.hops} times chains {self.chains} makes {self._links} keys;"
            f" vocab {self.vocab} has {self._keys}",
        )
        left = self.length - 3 * self._links
        need(
            self,
            left >= 2 and left % 2 == 0,
            f"length is {self.length}; less 3 tokens for each of {self._links} links it is {left},"
            " which must be even and at least 2 (two tokens a question)",
        )

    @property
    def tokens(self) -> int:
        """Tokens per input row."""
        return self.length

    @property
    def _keys(self) -> int:
        return (self.vocab - 2) // 2

    @property
    def _links(self) -> int:
        return self.hops * self.chains

    def sample(self, rng: np.random.Generator, n: int, split: Split = "test") -> Batch:
        """``n`` rows; see the class. All splits are drawn and supervised alike."""
        links, questions = self._links, (self.length - 3 * self._links) // 2
        node_NCH = np.empty((n, self.chains, self.hops + 1), dtype=np.int64)
        node_NCH[..., :-1] = distinct(rng, (n,), links, self._keys).reshape(n, self.chains, self.hops)
        node_NCH[..., -1] = rng.integers(self._keys, self.vocab - 2, size=(n, self.chains))
        from_NS, to_NS = node_NCH[..., :-1].reshape(n, links), node_NCH[..., 1:].reshape(n, links)
        order_NS = rng.random((n, links)).argsort(axis=1)
        asked_NQ = rng.integers(0, links, size=(n, questions))

        inputs_NT = np.empty((n, self.length), dtype=np.int64)
        linked_NT, asking_NT = inputs_NT[:, : 3 * links], inputs_NT[:, 3 * links :]
        linked_NT[:, ::3] = self.vocab - 2
        linked_NT[:, 1::3] = take_rows(from_NS, order_NS)
        linked_NT[:, 2::3] = take_rows(to_NS, order_NS)
        asking_NT[:, ::2] = self.vocab - 1
        asking_NT[:, 1::2] = take_rows(from_NS, asked_NQ)
        targets_NT = np.full_like(inputs_NT, IGNORE)
        targets_NT[:, 3 * links + 1 :: 2] = take_rows(node_NCH[..., -1], asked_NQ // self.hops)
        return Batch(inputs_NT, targets_NT)

    def solve(self, inputs_NT: np.ndarray) -> np.ndarray:
        """From each key asked for along the links; -1 where a link is not to be seen."""
        return self._walk(inputs_NT)[0]

    def levels(self, batch: Batch) -> np.ndarray:
        """The links from the key to its value."""
        return np.where(batch.targets != IGNORE, self._walk(batch.inputs)[1], IGNORE)

    def _walk(self, inputs_NT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the links lead from each key asked for, and how many they are; both -1 where they do not."""
        next_NV = np.full((len(inputs_NT), self.vocab), -1)
        row, at = np.nonzero(inputs_NT[:, :-2] == self.vocab - 2)
        next_NV[row, inputs_NT[row, at + 1]] = inputs_NT[row, at + 2]
        row, at = np.nonzero(inputs_NT[:, :-1] == self.vocab - 1)
        here = inputs_NT[row, at + 1]
        hops = np.zeros_like(here)
        for _ in range(self.hops):
            is_key = (here >= 0) & (here < self._keys)
            here = np.where(is_key, next_NV[row, here], here)
            hops += is_key
        answers_NT, hops_NT = np.full((2, *inputs_NT.shape), -1)
        found = here >= self._keys
        answers_NT[row[found], at[found] + 1] = here[found]
        hops_NT[row[found], at[found] + 1] = hops[found]
        return answers_NT, hops_NT
