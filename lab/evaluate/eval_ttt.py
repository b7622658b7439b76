"""Test-time training of the whole model, and what shows whether it looked at what it is scored on.

``score_first`` is legal: no token has been learnt from when it is scored. ``train_then_score_contaminated``
learns the text first and scores it afterwards; it is here because published figures were made so, and its
name goes with every figure. ``leaks`` tells the two apart. A ``fresh`` slice, which no training saw, says how
much of a gain is a better model of such texts, and how much is the text learnt by heart.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from blocks.model import LanguageModel
from blocks.schedule import Schedule
from lab.evaluate.adaptation import Adaptation, cosine, learn, optimiser_of, rows_of
from lab.evaluate.bits import Losses, Tick, Windows, score, score_span
from lab.evaluate.text import Text, TextError

__all__ = ["LEAK", "Adapted", "leaks", "score_first", "train_then_score_contaminated"]

LEAK = 1e-4
"""Nats of one target that rounding cannot make and that learning from a text exceeds."""


@dataclass(frozen=True, eq=False)
class Adapted:
    """Losses as in ``score``; the model as the training left it, and how many steps that took."""

    losses: Losses
    model: LanguageModel
    steps: int


def score_first(
    model: LanguageModel,
    schedule: Schedule,
    text: Text,
    how: Windows,
    plan: Adaptation,
    tick: Tick = lambda scored: None,
) -> Adapted:
    """Score chunk after chunk, and learn from each after it is scored; ``model`` itself stays as it is.

    Windows of a chunk read back into earlier chunks, which are scored already. With ``plan.reset`` every
    document begins with the weights of ``model`` and is scored with nothing else in sight.
    """
    if plan.reset:
        if text.separator is None:
            raise TextError(
                f"{text.name}: reset asks for documents, and this model has no separator that ends them"
            )
        text = replace(text, apart=True)
    work = copy.deepcopy(model)
    optimiser = optimiser_of(work, schedule, plan)
    chunks = [
        (piece, begin, min(begin + plan.chunk, len(piece.targets)))
        for piece in text.pieces()
        for begin in range(0, len(piece.targets), plan.chunk)
    ]
    parts = [Losses(np.full(1, text.unseen), np.zeros(1, dtype=np.int64))] if text.unseen else []
    steps = 0
    for k, (piece, begin, end) in enumerate(chunks):
        if plan.reset and piece.opens and begin == 0:
            work.load_state_dict(model.state_dict())
            optimiser = optimiser_of(work, schedule, plan)
        work.eval()
        parts.append(score_span(work, piece, begin, end, how, tick))
        rate = cosine(k / (len(chunks) - 1)) if plan.cosine and len(chunks) > 1 else 1.0
        steps += learn(work, optimiser, rows_of(piece, begin, end, plan.row), plan, False, rate)
    nats, context = (np.concatenate([getattr(part, name) for part in parts]) for name in ("nats", "context"))
    assert len(nats) == len(text.ids), "every target is scored once"
    return Adapted(Losses(nats, context), work, steps)


def train_then_score_contaminated(
    model: LanguageModel,
    schedule: Schedule,
    text: Text,
    how: Windows,
    plan: Adaptation,
    tick: Tick = lambda scored: None,
) -> Adapted:
    """CONTAMINATED: learn the text for ``plan.epochs`` passes, then score the very same text.

    What comes out is no property of a model that has not seen the text, and falls with every epoch.
    """
    work = copy.deepcopy(model)
    optimiser = optimiser_of(work, schedule, plan)
    rows = [row for piece in text.pieces() for row in rows_of(piece, 0, len(piece.targets), plan.row)]
    steps = learn(work, optimiser, rows, plan, plan.cosine)
    return Adapted(score(work, text, how, tick), work, steps)


def leaks(procedure: Callable[[Text], Losses], text: Text, at: int, seed: int = 0) -> bool:
    """Whether the score of a target before ``at`` hangs on what stands from ``at`` on.

    Every token from there on becomes another, drawn from the whole vocabulary; separators stay, so that
    documents and chunks are the same. Strictly causal scoring, whatever it learns on the way, gives the same
    losses up to rounding.
    """
    if not 0 < at < len(text.ids):
        raise TextError(
            f"{text.name}: a leak is looked for between two tokens, 1 to {len(text.ids) - 1}; {at} is none"
        )
    ids = text.ids.astype(np.int64)
    free = np.arange(len(ids)) >= at
    if text.separator is not None:
        free &= ids != text.separator
    ids[free] = _other(ids[free], text, np.random.default_rng(seed))
    as_it_is, with_noise = procedure(text), procedure(replace(text, ids=ids))
    return bool(np.abs(as_it_is.nats[:at] - with_noise.nats[:at]).max() > LEAK)


def _other(ids: np.ndarray, text: Text, rng: np.random.Generator) -> np.ndarray:
    """For each of ``ids`` another id, uniform; never the separator. Raises TextError for none at all."""
    if not len(ids):
        raise TextError(f"{text.name}: nothing but separators stands where noise is wanted")
    moved = (ids + rng.integers(1, text.vocab, len(ids))) % text.vocab
    # One in V lands on the separator and goes to a neighbour of it.
    return np.where(moved == text.separator, (moved + 1) % text.vocab, moved)
