"""A conversation with a model: turns as tokens, and a past that grows by what is new of each turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from lab.generation.sampling import Sampling
from lab.generation.steps import Past, Reader, generate
from lab.generation.streaming import Decoder, Spells

__all__ = ["ChatML", "Encode", "Plain", "Talk", "Wording"]

Encode = Callable[[str, str], list[int]]
"""(text, what it is, for an error) -> its ids; marks in it are letters like any others."""


class Wording(Protocol):
    """How what is said becomes tokens.

    opening: read before all turns. end: the id with which the model ends its answer, None for none.
    """

    @property
    def opening(self) -> list[int]: ...
    @property
    def end(self) -> int | None: ...

    def turn(self, message: str) -> list[int]:
        """What is read before the model answers ``message``."""
        ...

    def after(self, token: int) -> list[int]:
        """What is yet to be read once it has answered; ``token`` was its last, drawn and not read."""
        ...


@dataclass(frozen=True)
class ChatML:
    """A turn is ``<|im_start|>role``, a line end, the words, ``<|im_end|>`` and a line end.

    marks: the ids of the two. apart: role and words are encoded each for itself, as ``lab data prepare``
    does. before: what precedes the first turn. system: what the model is told there.
    """

    encode: Encode
    marks: tuple[int, int]
    apart: bool
    before: Sequence[int] = ()
    system: str | None = None

    @property
    def opening(self) -> list[int]:
        told = [] if self.system is None else self._turn("system", self.system, "--system")
        return [*self.before, *told]

    @property
    def end(self) -> int:
        return self.marks[1]

    @property
    def line_end(self) -> list[int]:
        return self.encode("\n", "a line end")

    def turn(self, message: str) -> list[int]:
        ahead = [self.marks[0], *self.encode("assistant\n", "a role")]
        return [*self._turn("user", message, "the line"), *ahead]

    def after(self, token: int) -> list[int]:
        # An answer cut short is ended here.
        return [*([] if token == self.end else [token]), self.end, *self.line_end]

    def _turn(self, role: str, words: str, what: str) -> list[int]:
        pieces = ((f"{role}\n", "a role"), (words, what)) if self.apart else ((f"{role}\n{words}", what),)
        inner = [one for text, name in pieces for one in self.encode(text, name)]
        return [self.marks[0], *inner, self.end, *self.line_end]


@dataclass(frozen=True)
class Plain:
    """No roles: the model goes on from what is written, and what is written next goes on from there.

    separator: the id between documents, with which an answer ends and a new document begins; None for none.
    """

    encode: Encode
    separator: int | None

    @property
    def opening(self) -> list[int]:
        return [] if self.separator is None else [self.separator]

    @property
    def end(self) -> int | None:
        return self.separator

    def turn(self, message: str) -> list[int]:
        return self.encode(message, "the line")

    def after(self, token: int) -> list[int]:
        return [token]


class Talk:
    """A conversation: what the model has read of it, and what it has yet to read.

    past: what it has read, None before the first turn; a value, so that a conversation can be gone on with
    twice. length: tokens of it.
    """

    def __init__(
        self, reader: Reader, spelled: Spells, wording: Wording, sampling: Sampling, steps: int, seed: int
    ) -> None:
        self.reader, self.spelled, self.wording = reader, spelled, wording
        self.sampling, self.steps = sampling, steps
        self.rng = torch.Generator().manual_seed(seed)
        self.past: Past | None = None
        self.unread = wording.opening
        self.length = 0

    def answer(self, message: str) -> Iterator[str]:
        """What the model says to ``message``, as it says it; at most ``steps`` tokens."""
        prompt = [*self.unread, *self.wording.turn(message)]
        decoder, end = Decoder(self.spelled), self.wording.end
        self.length += len(prompt) - 1
        for step in generate(
            self.reader,
            torch.tensor([prompt]),
            steps=self.steps,
            sampling=self.sampling,
            stop=() if end is None else (end,),
            rng=self.rng,
            past=self.past,
        ):
            self.past, (token,) = step.past, step.tokens
            self.length += 1
            self.unread = self.wording.after(token)
            if token != end:
                yield decoder.add(token)
        yield decoder.rest()
