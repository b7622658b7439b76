"""Models of ``lab train`` as generation reads them, and what they hold after so many tokens.

B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from blocks.base import Role
from blocks.model import LanguageModel, ModelState
from blocks.schedule import Schedule

__all__ = ["Language", "bytes_by_role"]

PIECE = 256
"""Tokens of a prompt that are read at once: their logits, of which one is wanted, are all computed."""


@dataclass(frozen=True)
class Language:
    """A LanguageModel as a ``Reader``."""

    model: LanguageModel

    @property
    def vocab(self) -> int:
        return self.model.head.out_features

    def read(self, tokens_BT: Tensor, state: ModelState | None) -> tuple[Tensor, ModelState]:
        """Logits [B, V] after the last of ``tokens_BT``, and the state; a long prompt goes piece by piece."""
        *lead, last = tokens_BT.split(PIECE, dim=1)
        for piece_BT in lead:
            _, state = self.model(piece_BT, state)
        logits_BTV, after = self.model(last, state)
        return logits_BTV[:, -1], after


def bytes_by_role(schedule: Schedule, state: ModelState) -> Mapping[Role, int]:
    """Bytes that ``state`` holds for one sequence, by what kind of mixer holds them."""
    held: dict[Role, int] = {}
    for role, size in _sizes(schedule, state):
        held[role] = held.get(role, 0) + size
    return {role: size for role, size in held.items() if role != "channel"}


def _sizes(schedule: Schedule, state: ModelState) -> Iterator[tuple[Role, int]]:
    for layer, states in zip(schedule, state, strict=True):
        for block, one in zip(layer, states, strict=True):
            tensors = [t for t in one.values() if isinstance(t, Tensor)]
            yield block.role, sum(t.numel() * t.element_size() // len(t) for t in tensors)
