"""Text to token ids and back: ``bytes``, which is embedded, or any ``tokenizer.json``.

Every tokenizer here has three marks that no text can spell: one after each document, and the two of ChatML.
What a text says in their letters is encoded as letters. The package ``tokenizers`` is an extra, imported
where a file is opened; nothing is ever downloaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    import tokenizers

__all__ = [
    "END",
    "MARKS",
    "SEPARATOR",
    "START",
    "Bytes",
    "DataError",
    "JsonTokenizer",
    "Tokenizer",
    "open_tokenizer",
]

START, END = "<|im_start|>", "<|im_end|>"
"""Of a turn in ChatML."""

SEPARATOR = "<|endoftext|>"
"""What ends a document, where a tokenizer.json does not bring its own."""

MARKS = (SEPARATOR, START, END)

BYTE_MARKS = {SEPARATOR: 256, START: 254, END: 255}
"""The marks of ``bytes``: no UTF-8 has the bytes 254 and 255."""

KNOWN_SEPARATORS = (SEPARATOR, "<|end_of_text|>", "</s>", "<eos>")
"""What tokenizers in use call the end of a document: GPT-2 and NeoX, Llama 3, Llama 2, Gemma."""


class DataError(ValueError):
    """Text, tokens or a tokenizer cannot be used; one sentence, with the file and what to do."""


class Tokenizer(Protocol):
    """Ids below ``vocab`` for any text.

    separator: the id that ends a document. digest: sha256 of what defines the tokenizer; two of one digest
    give the same ids. name: as it was asked for.
    """

    @property
    def name(self) -> str: ...
    @property
    def vocab(self) -> int: ...
    @property
    def separator(self) -> int | None: ...
    @property
    def digest(self) -> str: ...

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``, without marks."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """``encode`` of each text, as arrays [T] of an integer type; on several cores where it can."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids``; marks are no text and leave nothing. What is no UTF-8 becomes U+FFFD."""
        ...

    def id_of(self, mark: str) -> int | None:
        """The id of a mark, None where ``mark`` is none."""
        ...


class Bytes:
    """The bytes of UTF-8, 257 ids: any text goes in and comes out as it was, and a token is a byte.

    The marks of ChatML are 254 and 255, bytes that UTF-8 never has; 256 ends a document.
    """

    name = "bytes"
    vocab = 257
    separator = BYTE_MARKS[SEPARATOR]
    digest = hashlib.sha256(f"bytes of UTF-8; {BYTE_MARKS}".encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.frombuffer(text.encode(), np.uint8) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        held = list(ids)
        if held and not 0 <= min(held) <= max(held) < self.vocab:
            raise DataError(f"an id is {max(held)}; the tokenizer bytes has ids 0 to {self.vocab - 1}")
        return bytes(one for one in held if one < min(BYTE_MARKS.values())).decode(errors="replace")

    def id_of(self, mark: str) -> int | None:
        return BYTE_MARKS.get(mark)


class JsonTokenizer:
    """A ``tokenizer.json``. Marks that it lacks are added after its last id: separator, start, end of a turn.

    So GPT-NeoX's 50,277 ids become the 50,279 of Genesis, with the marks where Genesis has them.
    """

    def __init__(self, name: str, content: bytes) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as exc:
            raise DataError(
                f"the tokenizer {name} needs the package tokenizers; install it with "
                'pip install "hybrid-architecture-lab[tokenizers]"'
            ) from exc
        try:
            inner: tokenizers.Tokenizer = Tokenizer.from_str(content.decode())
        except Exception as exc:  # the package raises nothing narrower
            raise DataError(f"{name} is no tokenizer.json ({str(exc).rstrip('.')!r:.200})") from exc
        # A file may ask for rows of one length; documents are to be whole.
        inner.no_truncation()
        inner.no_padding()
        held = [mark for mark in KNOWN_SEPARATORS if inner.token_to_id(mark) is not None]
        self._separator = held[0] if held else SEPARATOR
        # Known ones keep their ids; that they are marks and no words is not left to the file.
        inner.add_special_tokens([self._separator, START, END])
        inner.encode_special_tokens = True
        self.inner, self.name, self.content = inner, name, content
        self.digest = hashlib.sha256(content).hexdigest()
        self.vocab = max(inner.get_vocab(with_added_tokens=True).values()) + 1
        self.separator = self.id_of(SEPARATOR)

    def encode(self, text: str) -> list[int]:
        return self.inner.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        encoded = self.inner.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(one.ids, np.uint32) for one in encoded]

    def decode(self, ids: Iterable[int]) -> str:
        return self.inner.decode([int(one) for one in ids], skip_special_tokens=True)

    def id_of(self, mark: str) -> int | None:
        if mark not in MARKS:
            return None
        return self.inner.token_to_id(self._separator if mark == SEPARATOR else mark)


def open_tokenizer(name: str) -> Tokenizer:
    """``bytes``, or the path of a tokenizer.json. Raises DataError, one sentence."""
    if name == Bytes.name:
        return Bytes()
    path = Path(name)
    if path.is_dir():
        path = path / "tokenizer.json"
    if not path.is_file():
        raise DataError(
            f"the tokenizer {name} is no file; give bytes, or the path of a tokenizer.json "
            "(lab data tokenizer trains one)"
        )
    return JsonTokenizer(name, path.read_bytes())
