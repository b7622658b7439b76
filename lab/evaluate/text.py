"""The text that a model is scored on: token ids, how many bytes of UTF-8 they are, and what precedes them.

N targets. Every token of the text is a target, the separator after each document included: it costs bits and
is no byte. The first token is predicted from a separator alone, as a document begins in training; a model
that has no separator gives it ln V nats, what V equally likely ids cost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from lab.data.shards import Tokens

__all__ = [
    "Piece",
    "Text",
    "TextError",
    "Tokenizer",
    "cut",
    "documents_of",
    "encode",
    "prepared",
    "read_file",
]


class TextError(ValueError):
    """A text cannot be scored by this model; one sentence."""


class Tokenizer(Protocol):
    """What is needed of ``lab.data.tokens.Tokenizer``."""

    @property
    def vocab(self) -> int: ...
    @property
    def separator(self) -> int | None: ...
    @property
    def digest(self) -> str: ...
    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Any) -> str: ...


@dataclass(frozen=True, eq=False)
class Piece:
    """Tokens that are scored with nothing but one another in sight; int64, [n] each.

    inputs: what is read. targets: what follows each input. opens: a document, or the stream, begins here.
    """

    inputs: np.ndarray
    targets: np.ndarray
    opens: bool = True


@dataclass(frozen=True, eq=False)
class Text:
    """Targets ``ids`` [N] that are ``size`` bytes of UTF-8.

    vocab: V of the model. separator: its id where the model has it. apart: every document is scored with
    nothing else in sight, as it was trained on; else all is one stream.
    """

    name: str
    ids: np.ndarray
    size: int
    vocab: int
    separator: int | None
    apart: bool = False

    def __post_init__(self) -> None:
        if not len(self.ids) or self.size < 1:
            raise TextError(f"{self.name} is empty; at least one byte is needed to have bits per byte")
        if int(self.ids.max()) >= self.vocab:
            raise TextError(
                f"{self.name} has token id {int(self.ids.max())}; the model knows those below {self.vocab}, "
                "so it was tokenized for another one"
            )

    @property
    def unseen(self) -> float:
        """Nats of a first token that nothing precedes; 0 where a separator does."""
        return math.log(self.vocab) if self.separator is None else 0.0

    @property
    def first_token(self) -> str:
        """How the first token is predicted, in words."""
        if self.separator is None:
            return f"counted as one of {self.vocab} equally likely ids, as the model has no separator"
        return "predicted after a separator"

    def pieces(self) -> list[Piece]:
        """The text as what is scored on its own: one stream; or for every document its first token after a
        lone separator, then the rest from itself, since a model that was trained on documents apart has seen
        a document begin so, and no separator within one."""
        ids = self.ids.astype(np.int64)
        if self.separator is None:
            return [Piece(ids[:-1], ids[1:])] if len(ids) > 1 else []
        before = np.array([self.separator], dtype=np.int64)
        if not self.apart:
            return [Piece(np.concatenate([before, ids[:-1]]), ids)]
        pieces = []
        for document in np.split(ids, 1 + np.flatnonzero(ids[:-1] == self.separator)):
            pieces.append(Piece(before, document[:1]))
            if len(document) > 1:
                pieces.append(Piece(document[:-1], document[1:], opens=False))
        return pieces


def encode(
    name: str,
    documents: Sequence[str],
    tokenizer: Tokenizer,
    vocab: int,
    *,
    closed: bool = False,
    apart: bool = False,
) -> Text:
    """``documents`` as one text with a separator between them and, if ``closed``, after the last one."""
    separator = known_separator(tokenizer, vocab)
    if separator is None and len(documents) > 1:
        raise TextError(f"{name} holds several documents, and the model has no separator to put between them")
    ids: list[int] = []
    for i, document in enumerate(documents):
        ids += tokenizer.encode(document)
        if separator is not None and (closed or i < len(documents) - 1):
            ids.append(separator)
    size = sum(len(document.encode()) for document in documents)
    return Text(name, np.array(ids, dtype=np.int64), size, vocab, separator, apart and separator is not None)


def known_separator(tokenizer: Tokenizer, vocab: int) -> int | None:
    """The separator, None where there is none or the model has no such id."""
    at = tokenizer.separator
    return at if at is not None and at < vocab else None


def read_file(path: Path) -> str:
    """A text file in UTF-8, as it stands: no line end is changed. Raises OSError, UnicodeDecodeError."""
    return path.read_bytes().decode()


def prepared(tokens: Tokens, name: str, tokenizer: Tokenizer, vocab: int, apart: bool) -> Text:
    """The whole validation split of prepared tokens."""
    separator = known_separator(tokenizer, vocab)
    return Text(
        name, tokens.tokens("valid"), tokens.bytes("valid"), vocab, separator, apart and separator is not None
    )


def documents_of(tokens: Tokens, tokenizer: Tokenizer) -> list[str]:
    """The documents of the validation split as text."""
    ids = np.asarray(tokens.tokens("valid")).astype(np.int64)
    if tokenizer.separator is None:
        return [tokenizer.decode(ids.tolist())]
    ends = np.flatnonzero(ids == tokenizer.separator)
    starts = np.concatenate([[0], ends + 1])
    stops = np.concatenate([ends, [len(ids)]])
    return [tokenizer.decode(ids[a:b].tolist()) for a, b in zip(starts, stops, strict=True) if b > a]


def cut(documents: Sequence[str], size: int) -> tuple[list[str], list[str]]:
    """The first ``size`` bytes of UTF-8 and the rest; a document may be cut, a letter may not."""
    before: list[str] = []
    for i, document in enumerate(documents):
        raw = document.encode()
        if len(raw) >= size:
            head = raw[:size].decode(errors="ignore")  # all that is ignored is a letter that was cut
            after = [document[len(head) :], *documents[i + 1 :]]
            return [*before, *filter(None, [head])], [one for one in after if one]
        before.append(document)
        size -= len(raw)
    return before, []
