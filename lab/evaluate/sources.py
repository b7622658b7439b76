"""Where the text of an evaluation comes from: a file, prepared tokens, or what the specification held out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lab.data.origin import Origin, origin_of, origin_of_text
from lab.evaluate.text import Text, TextError, Tokenizer, cut, documents_of, encode, prepared, read_file

if TYPE_CHECKING:
    from lab.data.shards import Tokens
    from lab.model.form import Spec

__all__ = ["Source", "source_of"]


class Source:
    """One text for a model of ``spec``: a file, or the validation split of prepared tokens."""

    def __init__(
        self, spec: Spec, tokenizer: Tokenizer, name: str, held: str | Tokens, origin: Origin
    ) -> None:
        self.spec, self.tokenizer, self.name, self.held = spec, tokenizer, name, held
        self.origin = origin

    def whole(self, limit: int | None = None) -> Text:
        """The text, or its first ``limit`` bytes."""
        if limit is None and not isinstance(self.held, str):
            apart = self.spec.data.documents
            return prepared(self.held, self.name, self.tokenizer, self.spec.model.vocab, apart)
        documents = self._documents()
        closed = not isinstance(self.held, str)
        if limit is not None:
            documents, rest = cut(documents, limit)
            closed = closed and not rest
        return self._encode(self.name, documents, closed)

    def divided(self, fresh: float, limit: int | None = None) -> tuple[Text, Text]:
        """The text but for its last share ``fresh`` of bytes, and that share."""
        documents = self._documents()
        if limit is not None:
            documents, _ = cut(documents, limit)
        size = sum(len(one.encode()) for one in documents)
        before, after = cut(documents, round((1 - fresh) * size))
        if not before or not after:
            raise TextError(f"{self.name} has {size} bytes, too few to set a share of {fresh:g} aside")
        return (
            self._encode(self.name, before, False),
            self._encode(f"the last {fresh:g} of {self.name}", after, False),
        )

    def lossless(self, text: Text) -> bool:
        """Whether the tokenizer gives a file back as it was; of prepared tokens nobody knows the file."""
        return not isinstance(self.held, str) or self.held.startswith(
            self.tokenizer.decode(text.ids.tolist())
        )

    def _documents(self) -> list[str]:
        if isinstance(self.held, str):
            return [self.held]
        if self.held.mask("valid") is not None:
            raise TextError(
                f"{self.name} holds conversations, whose marks are lost when a part of them is cut out; "
                "score it whole, or give a text with --text FILE"
            )
        return documents_of(self.held, self.tokenizer)

    def _encode(self, name: str, documents: list[str], closed: bool) -> Text:
        apart, vocab = self.spec.data.documents, self.spec.model.vocab
        return encode(name, documents, self.tokenizer, vocab, closed=closed, apart=apart)


def source_of(spec: Spec, tokenizer: Tokenizer, text: Path | None, data: str | None) -> list[Source]:
    """What is asked for; where nothing is, the held-out tokens of the specification, of every source its own.

    Raises TextError, and DataError of ``lab.data``.
    """
    if text is not None:
        found = read_file(text)
        return [Source(spec, tokenizer, str(text), found, origin_of_text(str(text), found.encode()))]
    from lab.data.shards import open_tokens

    named = [data] if data is not None else [spec.data.valid] if spec.data.valid is not None else None
    sources = []
    for name in named or dict.fromkeys(source.data for source in spec.data.train):
        tokens = open_tokens(name)
        if tokens.tokenizer.digest != tokenizer.digest:
            raise TextError(
                f"{name} was prepared with the tokenizer {tokens.tokenizer_name}, and the model reads "
                f"{spec.data.tokenizer}; prepare it with that, or give a text with --text FILE"
            )
        sources.append(Source(spec, tokenizer, f"{name} (validation)", tokens, origin_of(name)))
    return sources
