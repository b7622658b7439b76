"""Text to token ids and back, by a ``tokenizer.json`` that the user names.

The package ``tokenizers`` is an extra: it is imported where a file is opened, and nothing is ever downloaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lab.data.tokens import END, START
from lab.genesis.ids import allowed, check_plain
from lab.genesis.released import printable
from lab.terminal import CommandError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["END", "START", "Text", "open_tokenizer"]


def open_tokenizer(path: Path | None, what: str) -> Tokenizer:
    """The tokenizer of a file; ``what`` needs it. Raises CommandError, one sentence, and OSError."""
    if path is None:
        raise CommandError(
            f"{what} needs --tokenizer FILE.json: Genesis uses the tokenizer.json of EleutherAI's GPT-NeoX, "
            f"with {START} and {END} added as ids 50277 and 50278; pass the path of yours"
        )
    try:
        from tokenizers import Tokenizer
    except ImportError as exc:
        raise CommandError(
            f"{what} needs the package tokenizers; install it with "
            'pip install "hybrid-architecture-lab[tokenizers]"'
        ) from exc
    check_plain(path, "--tokenizer")
    text = path.read_bytes()
    try:
        return Tokenizer.from_str(text.decode())
    except Exception as exc:  # the package raises nothing narrower
        told = printable(str(exc).rstrip("."))
        raise CommandError(f"--tokenizer {path} is no tokenizer.json ({told})") from exc


class Text:
    """A tokenizer beside a model of ``vocab`` ids.

    Where the tokenizer knows neither mark of ChatML and the model has exactly two ids more than it, they are
    those two, as in Genesis. Otherwise ``marks`` raises CommandError.
    """

    def __init__(self, tokenizer: Tokenizer, vocab: int, where: str) -> None:
        self.tokenizer, self.vocab, self.where = tokenizer, vocab, where
        known = [tokenizer.token_to_id(mark) for mark in (START, END)]
        room = known == [None, None] and tokenizer.get_vocab_size() == vocab - 2
        if room or None not in known:
            # Known ones keep their ids; that they are marks and no words is not left to the file.
            tokenizer.add_special_tokens([START, END])

    def encode(self, text: str, what: str, plain: bool = False) -> list[int]:
        """The ids of ``text``; ``plain`` reads marks in it as the letters that they are written with.

        Raises CommandError for text that is none, and where the tokenizer has ids that the model lacks.
        """
        for letter in text:
            if "\ud800" <= letter <= "\udfff":  # what Python makes of a byte that it cannot decode
                raise CommandError(f"{what} holds {letter!a}, which is no text; UTF-8 is wanted")
        self.tokenizer.encode_special_tokens = plain
        encoded = self.tokenizer.encode(text, add_special_tokens=False)
        for token, piece in zip(encoded.ids, encoded.tokens, strict=True):
            if token >= self.vocab:
                raise CommandError(
                    f"{what}: {self.where} makes {piece!r} id {token}, outside the vocabulary; "
                    f"{allowed(self.vocab)}"
                )
        return encoded.ids

    def id_of(self, piece: str) -> int | None:
        """The id of one token, None if there is none."""
        return self.tokenizer.token_to_id(piece)

    def knows(self, token: int) -> bool:
        """Whether an id has a token."""
        return self.tokenizer.id_to_token(token) is not None

    def marks(self) -> tuple[int, int]:
        """The ids of ``START`` and ``END``. Raises CommandError where they are not to be had."""
        start, end = (self.id_of(mark) for mark in (START, END))
        if start is None or end is None:
            lacks = " and ".join(mark for mark in (START, END) if self.id_of(mark) is None)
            held = self.tokenizer.get_vocab_size()
            raise CommandError(
                f"{self.where} lacks {lacks}, and its {held:,} tokens are not two less "
                f"than the model's {self.vocab:,} ids; give the tokenizer that the model was trained with"
            )
        if max(start, end) >= self.vocab:
            raise CommandError(
                f"{self.where} has {START} as id {start} and {END} as id {end}, outside the vocabulary; "
                f"{allowed(self.vocab)}"
            )
        return start, end

    def decode(self, ids: list[int]) -> str:
        """The text of ``ids``, marks written out."""
        return self.tokenizer.decode(ids, skip_special_tokens=False)
