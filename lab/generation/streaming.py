"""Text out of tokens as they come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from lab.data.tokens import Tokenizer

__all__ = ["Decoder", "Spelled", "Spells"]

BROKEN = "\N{REPLACEMENT CHARACTER}"


class Spells(Protocol):
    """What a tokenizer makes of ids."""

    def decode(self, ids: list[int]) -> str:
        """Their text; a letter that is not whole yet ends in U+FFFD."""
        ...

    def knows(self, token: int) -> bool:
        """Whether an id has a text at all."""
        ...


@dataclass(frozen=True)
class Spelled:
    """A tokenizer of ``lab.data`` that spells."""

    tokenizer: Tokenizer

    def decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids)

    def knows(self, token: int) -> bool:
        return token < self.tokenizer.vocab


class Decoder:
    """Text out of tokens as they come; a letter that several tokens make up waits for the last of them.

    All pieces and the rest joined are the text of all ids. An id without a token becomes ``<id 50290>``.
    """

    def __init__(self, text: Spells) -> None:
        self.text = text
        # ``ids`` begin one piece before the held-back ones: a tokenizer may write a first word differently.
        self.ids: list[int] = []
        self.told = 0

    def add(self, token: int) -> str:
        """What can be said now."""
        if not self.text.knows(token):
            return f"{self.rest()}<id {token}>"
        self.ids.append(token)
        new = self._new()
        if new.endswith(BROKEN):
            return ""
        self.ids, self.told = self.ids[self.told :], len(self.ids) - self.told
        return new

    def rest(self) -> str:
        """What was held back, broken or not."""
        new = self._new()
        self.ids, self.told = [], 0
        return new

    def _new(self) -> str:
        before = self.text.decode(self.ids[: self.told])
        return self.text.decode(self.ids)[len(before) :]
