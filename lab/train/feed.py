"""From a specification to the data it names: rows to learn from, held-out text, text for the baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from lab.model.form import Spec
from lab.train.rows import HeldOut, Source

if TYPE_CHECKING:
    from lab.data.origin import Origin
    from lab.data.shards import Tokens

__all__ = ["Feed", "FeedError", "open_feed"]

HELD_OUT_TOKENS = 1 << 17
"""Held-out tokens that are scored at the end, over all sources; lab eval scores all."""

BIGRAM_TOKENS = 1 << 24
"""Training tokens at most that the bigram is fitted on; its 65,536 numbers are known long before."""


class FeedError(ValueError):
    """The data do not fit the specification."""


@dataclass(frozen=True)
class Feed:
    """What a training reads. train: where the bigram's text is from.

    digests: of the tokens of all that is read. data: the same as results name it, each once.
    """

    source: Source
    held_out: HeldOut
    train: Sequence[Tokens]
    digests: list[str]
    data: Sequence[Origin]

    def train_text(self) -> bytes:
        """The text that the bigram is fitted on: the beginning of every source."""
        return b"".join(_Part(one, "train", BIGRAM_TOKENS // len(self.train)).text() for one in self.train)


def open_feed(spec: Spec) -> Feed:
    """Open all that ``spec.data`` names. Raises FeedError, or what a broken source says."""
    from lab.data.mixture import Mixture
    from lab.data.origin import origins_of
    from lab.data.shards import open_tokens
    from lab.data.tokens import open_tokenizer

    data, tokenizer = spec.data, open_tokenizer(spec.data.tokenizer)
    if spec.model.vocab < tokenizer.vocab:
        raise FeedError(
            f"model.vocab is {spec.model.vocab}, but the tokenizer {data.tokenizer} has {tokenizer.vocab} "
            f"ids; set model.vocab={tokenizer.vocab} or more"
        )
    train = [open_tokens(one.data) for one in data.train]
    held = [open_tokens(data.valid)] if data.valid is not None else train
    for tokens in {id(one): one for one in [*train, *held]}.values():
        if tokens.tokenizer_digest != tokenizer.digest:
            raise FeedError(
                f"{tokens.folder} is written with the tokenizer {tokens.tokenizer_name}, and "
                f"data.tokenizer is {data.tokenizer}, which is another; name that one, or prepare the "
                "folder again"
            )
    weights = [one.weight for one in data.train]
    return Feed(
        source=Mixture(
            list(zip(train, weights, strict=True)),
            data.length,
            spec.train.seed,
            spec.train.batch,
            data.documents,
        ),
        held_out=_held_out(held, data.length),
        train=train,
        digests=[one.digest for one in [*train, *held]],
        data=origins_of([*(one.data for one in data.train), *filter(None, [data.valid])]),
    )


def _held_out(held: Sequence[Tokens], length: int) -> HeldOut:
    """As many tokens of each source as of the others, ``HELD_OUT_TOKENS`` together at most."""
    parts = [_Part(one, "valid", HELD_OUT_TOKENS // len(held)) for one in held]
    stream = np.concatenate([part.stream for part in parts])
    if len(stream) <= length:
        raise FeedError(
            f"{len(stream):,} tokens are held out, and a row takes data.length + 1 = {length + 1:,}; "
            "shorten data.length, or name other tokens in data.valid"
        )
    mask = None
    if any(part.mask is not None for part in parts):
        mask = np.concatenate([part.counts() for part in parts])
    return HeldOut(stream, mask, held[0].separator, length, b"".join(part.text() for part in parts))


class _Part:
    """The first tokens of a split."""

    def __init__(self, tokens: Tokens, split: Literal["train", "valid"], most: int) -> None:
        mask = tokens.mask(split)
        self.tokenizer = tokens.tokenizer
        self.stream = np.asarray(tokens.tokens(split)[:most])
        self.mask = None if mask is None else np.asarray(mask[:most]).astype(bool)

    def counts(self) -> np.ndarray:
        """Whether each token counts as a target."""
        return np.ones(len(self.stream), bool) if self.mask is None else self.mask

    def text(self) -> bytes:
        """The bytes that the tokens that count stand for; marks stand for none."""
        return self.tokenizer.decode(self.stream[self.counts()].tolist()).encode()
