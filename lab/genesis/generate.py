"""Genesis as ``lab.generation`` reads it: in the modes that can go on from a state.

B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from blocks.genesis_model import MODES, NAMES, GenesisModel, Mode, ModeError, ModeParts
from blocks.model import ModelState
from lab.generation import steps as shared
from lab.generation.sampling import PLAIN, Sampling
from lab.generation.steps import Past, Reader, Step
from lab.genesis.ids import check_ids

__all__ = ["GENERATING", "check_mode", "generate", "read_on", "reader_of"]

GENERATING: tuple[Mode, ...] = tuple(m for m, parts in MODES.items() if parts.metacognition != "batch mean")
"""The modes that can go on from a state."""


def check_mode(mode: Mode | ModeParts) -> None:
    """Raises ModeError for a mode that cannot go on from a state."""
    parts = mode if isinstance(mode, ModeParts) else MODES[mode]
    if parts.metacognition == "batch mean":
        raise ModeError(
            f"{NAMES.get(parts, parts.what)} averages one number over the whole input, so it cannot generate "
            f"token by token; use {', '.join(GENERATING[:-1])} or {GENERATING[-1]}"
        )


@dataclass(frozen=True)
class _Reader:
    model: GenesisModel

    @property
    def vocab(self) -> int:
        return self.model.config.vocab

    def read(self, tokens_BT: Tensor, state: ModelState | None) -> tuple[Tensor, ModelState]:
        logits_B1V, after = self.model(tokens_BT, state, last_only=True)
        return logits_B1V[:, 0], after


def reader_of(model: GenesisModel) -> Reader:
    """The model as generation sees it. Raises ModeError."""
    check_mode(model.parts)
    return _Reader(model)


def read_on(model: GenesisModel, tokens_BT: Tensor, past: Past | None = None) -> tuple[Tensor, Past]:
    """Logits [B, V] after the last of ``tokens_BT``, and the past with them; ``past`` itself stays."""
    return shared.read_on(_Reader(model), tokens_BT, past)


def generate(
    model: GenesisModel,
    prompt_BT: Tensor,
    *,
    steps: int,
    sampling: Sampling = PLAIN,
    stop: Collection[int] = (),
    rng: torch.Generator | None = None,
    past: Past | None = None,
) -> Iterator[Step]:
    """``lab.generation.steps.generate``; everything given is checked at once.

    Raises GenerateError, ModeError, and CommandError for ids that the model does not have.
    """
    check_mode(model.parts)
    made = shared.generate(
        _Reader(model), prompt_BT, steps=steps, sampling=sampling, stop=stop, rng=rng, past=past
    )
    check_ids(prompt_BT.numpy(force=True), model.config.vocab, "the prompt")
    return made
