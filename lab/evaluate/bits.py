"""Bits per byte, exactly: the nats of every target once, over ln 2 and the bytes of the text.

B windows at a time, T inputs of a window, V vocabulary, N targets. Losses are taken in float32 and summed in
float64. The unit does not hang on the tokenizer: a text costs what it costs, whatever it is cut into.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.base import at_least_fp32
from blocks.model import LanguageModel, ModelState
from lab.evaluate.text import Piece, Text
from lab.evaluate.windows import Span, WindowError, spans

__all__ = ["Losses", "Passes", "Tick", "Windows", "bits_per_byte", "by_context", "score", "score_span"]

Tick = Callable[[int], None]
"""Told how many targets more have been scored."""

LOGITS = 2**25
"""Logits held at a time (128 MiB in float32)."""


@dataclass(frozen=True)
class Windows:
    """Score by windows of ``window`` inputs that move on by ``stride``."""

    window: int
    stride: int

    def __post_init__(self) -> None:
        next(spans(0, 1, self.window, self.stride))  # refuses what is impossible


@dataclass(frozen=True)
class Passes:
    """Score every piece in one pass from its beginning to its end, ``chunk`` inputs at a time: the state of
    one chunk goes into the next, so nothing is computed twice and nothing is out of sight."""

    chunk: int

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise WindowError(f"the chunk is {self.chunk} tokens; it must hold at least 1")


@dataclass(frozen=True, eq=False)
class Losses:
    """Nats of each target and how many inputs it was predicted from; float64 and int64, [N] each.

    A first token that nothing precedes has 0 inputs.
    """

    nats: np.ndarray
    context: np.ndarray


def bits_per_byte(nats: float, size: int) -> float:
    """``nats`` of a text of ``size`` bytes."""
    return nats / math.log(2) / size


@torch.no_grad()
def score(
    model: LanguageModel, text: Text, how: Windows | Passes, tick: Tick = lambda scored: None
) -> Losses:
    """The loss of every target of ``text``, each scored once.

    >>> score(model, text, Windows(2048, 64)).nats.sum()
    """
    nats, context = [], []
    if text.unseen:
        nats.append(np.array([text.unseen]))
        context.append(np.zeros(1, dtype=np.int64))
    model.eval()
    for piece in text.pieces():
        if isinstance(how, Windows):
            one = score_span(model, piece, 0, len(piece.targets), how, tick)
        else:
            one = _pass(model, piece, how, tick)
        nats.append(one.nats)
        context.append(one.context)
    found = Losses(np.concatenate(nats), np.concatenate(context))
    assert len(found.nats) == len(text.ids), "every target is scored once"
    return found


@torch.no_grad()
def score_span(
    model: LanguageModel,
    piece: Piece,
    begin: int,
    end: int,
    how: Windows,
    tick: Tick = lambda scored: None,
) -> Losses:
    """The targets [begin, end) of a piece, each scored once; windows may read back before ``begin``."""
    nats, context = np.zeros(end - begin), np.zeros(end - begin, dtype=np.int64)
    times = np.zeros(end - begin, dtype=np.int64)
    vocab = model.head.out_features
    for batch in _batches(spans(begin, end, how.window, how.stride), vocab):
        inputs_BT = np.stack([piece.inputs[span.start : span.stop] for span in batch])
        targets_BT = np.stack([piece.targets[span.start : span.stop] for span in batch])
        nats_BT = _nats(model(torch.from_numpy(inputs_BT))[0], torch.from_numpy(targets_BT))
        for span, nats_T in zip(batch, nats_BT, strict=True):
            place = slice(span.first - begin, span.stop - begin)
            nats[place] = nats_T[span.first - span.start :]
            context[place] = np.arange(span.first - span.start, span.stop - span.start) + 1
            times[place] += 1
        tick(sum(span.stop - span.first for span in batch))
    assert (times == 1).all(), "every target is scored once"
    return Losses(nats, context)


def _batches(windows: Iterator[Span], vocab: int) -> Iterator[Sequence[Span]]:
    """Windows of equal length in turn, as many as keep the logits within bounds."""
    for length, run in groupby(windows, key=lambda span: span.stop - span.start):
        rows, batch = max(1, LOGITS // (length * vocab)), []
        for span in run:
            batch.append(span)
            if len(batch) == rows:
                yield batch
                batch = []
        if batch:
            yield batch


def _pass(model: LanguageModel, piece: Piece, how: Passes, tick: Tick) -> Losses:
    state: ModelState | None = None
    nats = []
    for at in range(0, len(piece.inputs), how.chunk):
        place = slice(at, at + how.chunk)
        logits_BTV, state = model(torch.from_numpy(piece.inputs[place])[None], state)
        nats.append(_nats(logits_BTV, torch.from_numpy(piece.targets[place])[None])[0])
        tick(len(nats[-1]))
    found = np.concatenate(nats)
    return Losses(found, np.arange(len(found)) + 1)


def _nats(logits_BTV: Tensor, targets_BT: Tensor) -> np.ndarray:
    """The loss at each position, float64 [B, T]."""
    flat = F.cross_entropy(at_least_fp32(logits_BTV).flatten(0, 1), targets_BT.flatten(), reduction="none")
    return flat.view(targets_BT.shape).double().numpy()


def by_context(losses: Losses) -> list[dict[str, float | int]]:
    """Mean loss by how many inputs a target was predicted from, in octaves: 1, 2 to 3, 4 to 7, ...

    ``from`` and ``to`` are the fewest and the most inputs of the row, the target's own predecessor being the
    first; ``nats`` and ``bits`` are of one token.
    """
    rows = []
    octave_N = np.frexp(losses.context.astype(np.float64))[1]  # 0 for 0, 1 for 1, 2 for 2 to 3
    for octave in np.unique(octave_N):
        among = octave_N == octave
        nats = float(losses.nats[among].mean())
        low, high = int(losses.context[among].min()), int(losses.context[among].max())
        rows.append(
            {"from": low, "to": high, "targets": int(among.sum()), "nats": nats, "bits": nats / math.log(2)}
        )
    return rows
