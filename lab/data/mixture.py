"""Rows for training out of a weighted mixture of sources, each a pure function of (seed, step, index).

B rows, S = length + 1 tokens of a row: ``length`` inputs and the target of the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lab.data.order import Turns, permuted
from lab.data.shards import Tokens
from lab.data.tokens import DataError

__all__ = ["Mixture", "Places", "Rows"]


@dataclass(frozen=True)
class Rows:
    """Rows of tokens, [B, S] each.

    tokens: int64 ids. segments: int64, the number of the document within the row, from 0; a separator belongs
    to the document that it ends. mask: bool, whether a token counts as a target; all do where none is kept.
    """

    tokens: np.ndarray
    segments: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class Places:
    """Where rows come from, int64 [B] each: the source's number, its epoch, and the row of its stream."""

    source: np.ndarray
    epoch: np.ndarray
    row: np.ndarray


class Mixture:
    """Rows of ``length`` + 1 tokens of the train splits, mixed by weight; ``batch`` rows make a step.

    A source's stream is cut into rows whose last token is the first of the next, so that each token is a
    target once an epoch; what is left at its end is not used. Each epoch goes through all rows of a source
    once, in an order of its own. Row n = step * batch + index is given by the source whose turn it is
    (``order.Turns``).

    documents: whether a model sees each document alone. Then what a row has of a conversation that began in
    the row before counts for nothing: it would be an answer without its question.

    Raises DataError where sources have different tokenizers, or too few tokens for a row.
    """

    def __init__(
        self,
        sources: Sequence[tuple[Tokens, float]],
        length: int,
        seed: int,
        batch: int,
        documents: bool = False,
    ) -> None:
        if length < 1 or batch < 1 or seed < 0:
            raise DataError(f"length is {length}, batch {batch}, seed {seed}; at least 1, 1 and 0 are wanted")
        self._turns = Turns([weight for _, weight in sources])
        first = sources[0][0]
        for tokens, _ in sources:
            if tokens.tokenizer_digest != first.tokenizer_digest:
                raise DataError(
                    f"{first.folder} is written with the tokenizer {first.tokenizer_name}, {tokens.folder} "
                    f"with {tokens.tokenizer_name}, which is another; prepare all sources with one"
                )
        self.length, self.seed, self.batch, self.documents = length, seed, batch, documents
        self._separator = first.separator
        self._streams = [tokens.tokens("train") for tokens, _ in sources]
        self._masks = [tokens.mask("train") for tokens, _ in sources]
        self.rows_of_epoch = tuple(max(0, len(stream) - 1) // length for stream in self._streams)
        """Rows that each source has."""
        for (tokens, _), rows, stream in zip(sources, self.rows_of_epoch, self._streams, strict=True):
            if not rows:
                raise DataError(
                    f"{tokens.folder} has {len(stream):,} tokens to train on; a row of length {length:,} "
                    f"takes {length + 1:,}; give more text, or shorter rows"
                )

    @property
    def shares(self) -> tuple[float, ...]:
        """The part of all rows that each source gives: its weight, to 1 in 10,000."""
        return self._turns.shares

    def places(self, step: int, indices: Sequence[int]) -> Places:
        """Where the rows ``indices`` (0..batch-1) of optimiser step ``step`` (from 0) come from."""
        index_B = np.array(indices, np.int64)
        if step < 0 or (len(index_B) and not 0 <= index_B.min() <= index_B.max() < self.batch):
            raise DataError(
                f"step {step}, rows {list(indices)} are asked for; a step has rows 0 to {self.batch - 1}"
            )
        source_B, earlier_B = self._turns(step * self.batch + index_B)
        epoch_B, place_B = np.divmod(earlier_B, np.array(self.rows_of_epoch)[source_B])
        row_B = np.empty_like(place_B)
        for source, epoch in sorted(set(zip(source_B.tolist(), epoch_B.tolist(), strict=True))):
            chosen_B = (source_B == source) & (epoch_B == epoch)
            key = (self.seed, source, epoch)
            row_B[chosen_B] = permuted(place_B[chosen_B], self.rows_of_epoch[source], key)
        return Places(source_B, epoch_B, row_B)

    def rows(self, step: int, indices: Sequence[int]) -> Rows:
        """The rows ``indices`` (0..batch-1) of optimiser step ``step`` (from 0), in that order."""
        at = self.places(step, indices)
        shape = (len(at.row), self.length + 1)
        tokens_BS, mask_BS = np.empty(shape, np.int64), np.ones(shape, bool)
        begun_B = np.zeros(len(at.row), bool)  # with the rest of a conversation
        for place, (source, row) in enumerate(zip(at.source.tolist(), at.row.tolist(), strict=True)):
            begin, stream, mask = row * self.length, self._streams[source], self._masks[source]
            cut = slice(begin, begin + self.length + 1)
            tokens_BS[place] = stream[cut]
            if mask is not None:
                mask_BS[place] = mask[cut]
                begun_B[place] = self.documents and row > 0 and stream[begin - 1] != self._separator
        ended_BS = np.cumsum(tokens_BS == self._separator, axis=1)
        segments_BS = np.concatenate([np.zeros((len(tokens_BS), 1), np.int64), ended_BS[:, :-1]], axis=1)
        mask_BS &= ~(begun_B[:, None] & (segments_BS == 0))
        return Rows(tokens_BS, segments_BS, mask_BS)
