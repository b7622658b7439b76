"""Conversations as tokens: ChatML in one form, with a mask of what a model is to learn.

A turn is ``<|im_start|>``, the role, a line end, the words, ``<|im_end|>`` and a line end:

    <|im_start|>user
    What is 2 + 2?<|im_end|>
    <|im_start|>assistant
    4<|im_end|>

The words come out as they went in: no line end is added before ``<|im_end|>``, as the package of Genesis
does in one of its three variants. Role and words are encoded apart, since a model is asked with the role
and answers with the words. What counts are the words of the assistant and the ``<|im_end|>`` after them;
not the line end, which follows always, and not the separator after the conversation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab.data.tokens import END, START, DataError, Tokenizer

__all__ = ["ROLES", "Turn", "encode_batch", "plain", "turns_of"]

ROLES = ("system", "user", "assistant")
LEARNED = "assistant"


@dataclass(frozen=True)
class Turn:
    """What one side says."""

    role: str
    words: str


def turns_of(value: Any) -> tuple[Turn, ...]:
    """The turns of a list of ``{"role": ..., "content": ...}``. Raises DataError, as a clause."""
    if not isinstance(value, list) or not value:
        raise DataError(f"messages are {value!r:.60}; a list of objects with role and content is wanted")
    turns = []
    for number, one in enumerate(value, start=1):
        role, words = (one.get("role"), one.get("content")) if isinstance(one, dict) else (None, None)
        if role not in ROLES:
            raise DataError(f"message {number} has the role {role!r:.60}; {', '.join(ROLES)} are known")
        if not isinstance(words, str):
            raise DataError(f"message {number} has the content {words!r:.60}; text is wanted")
        turns.append(Turn(role, words))
    if not any(turn.role == LEARNED for turn in turns):
        raise DataError(f"no message is the {LEARNED}'s, so there is nothing to learn")
    return tuple(turns)


def plain(turns: Sequence[Turn]) -> str:
    """The conversation without marks: what its tokens decode to."""
    return "".join(f"{turn.role}\n{turn.words}\n" for turn in turns)


def encode_batch(
    tokenizer: Tokenizer, talks: Sequence[Sequence[Turn]]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ids [T] and mask [T] (bool: counts as a target) of each conversation, without a separator."""
    start, end = tokenizer.id_of(START), tokenizer.id_of(END)
    if start is None or end is None:
        raise DataError(f"the tokenizer {tokenizer.name} has no {START} and {END}; conversations need both")
    pieces = [text for talk in talks for turn in talk for text in (f"{turn.role}\n", turn.words)]
    encoded = iter(tokenizer.encode_batch(pieces))
    line_end = tokenizer.encode("\n")
    found = []
    for talk in talks:
        ids, mask = [], []
        for turn in talk:
            role, words = next(encoded), next(encoded)
            ids += [[start], role, words, [end], line_end]
            counts = turn.role == LEARNED
            mask += [np.zeros(1 + len(role), bool), np.full(len(words) + 1, counts)]
            mask.append(np.zeros(len(line_end), bool))
        found.append((np.concatenate([np.asarray(one, np.uint32) for one in ids]), np.concatenate(mask)))
    return found
