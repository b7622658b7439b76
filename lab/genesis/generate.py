"""Tokens one after another, greedy or drawn, for a batch of sequences, on a past that the caller holds.

Nothing is kept here or in the model: what has been read is a ``Past``, given in and handed out as a value, so
that two generations never meet, and one can be gone on with twice.

B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from blocks.base import State
from blocks.genesis_model import MODES, NAMES, GenesisModel, Mode, ModeError, ModeParts
from blocks.model import ModelState
from lab.genesis.ids import allowed, check_ids

__all__ = [
    "GENERATING",
    "GenerateError",
    "Past",
    "Sampling",
    "Step",
    "check_mode",
    "distribution",
    "draw",
    "generate",
    "penalised",
    "read_on",
]

GENERATING: tuple[Mode, ...] = tuple(m for m, parts in MODES.items() if parts.metacognition != "batch mean")
"""The modes that can go on from a state."""


class GenerateError(ValueError):
    """A generation was asked for with what it cannot use; one sentence."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen: penalty first, then temperature, then top-k, then top-p.

    temperature: 0 takes the likeliest token. top_k: only so many of the likeliest, None for all. top_p: of
    these only the fewest whose probabilities reach it (Holtzman et al. 2020). repetition_penalty: what was
    read or written already is made less likely above 1 (Keskar et al. 2019). Raises GenerateError.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise GenerateError(
                f"temperature is {self.temperature:g}; it must be 0, for the likeliest token, or more"
            )
        if self.top_k is not None and self.top_k < 1:
            raise GenerateError(f"top-k is {self.top_k}; it must be at least 1")
        if not 0 < self.top_p <= 1:
            raise GenerateError(f"top-p is {self.top_p:g}; it must be above 0 and at most 1")
        if not (math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0):
            raise GenerateError(
                f"repetition penalty is {self.repetition_penalty:g}; it must be above 0, and 1 is none"
            )


@dataclass(frozen=True)
class Past:
    """What a model has read: its state after the last token, and which ids there were, [B, V]."""

    state: ModelState
    seen_BV: Tensor

    def of(self, rows: Sequence[int]) -> Past:
        """The past of these sequences alone."""
        index = torch.tensor(rows, device=self.seen_BV.device)

        def pick(state: State) -> State:
            return {name: t[index] if isinstance(t, Tensor) else t for name, t in state.items()}

        return Past([[pick(state) for state in layer] for layer in self.state], self.seen_BV[index])


@dataclass(frozen=True)
class Step:
    """One token for each sequence that is still running: ``tokens[i]`` is that of row ``rows[i]``.

    past: that of ``rows``, everything before ``tokens``. To go on from here, read ``tokens`` first.
    """

    rows: tuple[int, ...]
    tokens: tuple[int, ...]
    past: Past


def check_mode(mode: Mode | ModeParts) -> None:
    """Raises ModeError for a mode that cannot go on from a state."""
    parts = mode if isinstance(mode, ModeParts) else MODES[mode]
    if parts.metacognition == "batch mean":
        raise ModeError(
            f"{NAMES.get(parts, parts.what)} averages one number over the whole input, so it cannot generate "
            f"token by token; use {', '.join(GENERATING[:-1])} or {GENERATING[-1]}"
        )


@torch.no_grad()
def read_on(model: GenesisModel, tokens_BT: Tensor, past: Past | None = None) -> tuple[Tensor, Past]:
    """Logits [B, V] after the last of ``tokens_BT``, and the past with them; ``past`` itself stays."""
    logits_B1V, state = model(tokens_BT, None if past is None else past.state, last_only=True)
    if past is None:
        seen_BV = tokens_BT.new_zeros(tokens_BT.shape[0], model.config.vocab, dtype=torch.bool)
    else:
        seen_BV = past.seen_BV.clone()
    seen_BV.scatter_(1, tokens_BT, True)
    return logits_B1V[:, 0], Past(state, seen_BV)


def generate(
    model: GenesisModel,
    prompt_BT: Tensor,
    *,
    steps: int,
    sampling: Sampling = Sampling(),
    stop: Collection[int] = (),
    rng: torch.Generator | None = None,
    past: Past | None = None,
) -> Iterator[Step]:
    """Up to ``steps`` tokens after ``prompt_BT``, one Step at a time; everything given is checked at once.

    A sequence that has drawn one of ``stop`` is done: that token is its last, and it leaves the batch, while
    the others go on as if it were there. rng: where draws come from; greedy needs none. past: what was read
    before the prompt. Raises GenerateError, ModeError, and CommandError for ids that the model does not have.
    """
    check_mode(model.parts)
    if steps < 1:
        raise GenerateError(f"steps is {steps}; it must be at least 1")
    if prompt_BT.ndim != 2 or not prompt_BT.numel() or prompt_BT.dtype != torch.int64:
        kind = str(prompt_BT.dtype).removeprefix("torch.")
        raise GenerateError(
            f"the prompt is {kind} {list(prompt_BT.shape)}; int64 [B, T] is wanted, with at least one id each"
        )
    check_ids(prompt_BT.numpy(force=True), model.config.vocab, "the prompt")
    for token in stop:
        if not 0 <= token < model.config.vocab:
            raise GenerateError(f"stop is {token}, outside the vocabulary; {allowed(model.config.vocab)}")
    if rng is None and sampling.temperature > 0:
        raise GenerateError(f"temperature is {sampling.temperature:g}, so tokens are drawn; rng is wanted")
    if past is not None and len(past.seen_BV) != len(prompt_BT):
        raise GenerateError(
            f"the prompt has {len(prompt_BT)} sequences and its past {len(past.seen_BV)}; give as many"
        )
    return _steps(model, prompt_BT, steps, sampling, frozenset(stop), rng, past)


def _steps(
    model: GenesisModel,
    prompt_BT: Tensor,
    steps: int,
    sampling: Sampling,
    stop: frozenset[int],
    rng: torch.Generator | None,
    past: Past | None,
) -> Iterator[Step]:
    batch, rows, unread_BT = len(prompt_BT), list(range(len(prompt_BT))), prompt_BT
    for at in range(steps):
        logits_BV, past = read_on(model, unread_BT, past)
        if not logits_BV.isfinite().all():
            kind = str(logits_BV.dtype).removeprefix("torch.")
            raise GenerateError(f"token {at + 1}: {kind} logits are NaN or infinite; a wider type may help")
        u_B = None
        if rng is not None and sampling.temperature > 0:
            # One number for every row, running or not: who has stopped changes nothing for the others.
            u_B = torch.rand(batch, generator=rng, dtype=torch.float64, device=rng.device)[rows]
        weighed_BV = penalised(logits_BV.double(), past.seen_BV, sampling.repetition_penalty)
        tokens_B = _choose(weighed_BV, sampling, u_B)
        tokens: list[int] = tokens_B.tolist()
        yield Step(tuple(rows), tuple(tokens), past)
        running = [i for i, token in enumerate(tokens) if token not in stop]
        if not running:
            return
        if len(running) < len(rows):
            rows, tokens_B, past = [rows[i] for i in running], tokens_B[running], past.of(running)
        unread_BT = tokens_B[:, None]


def _choose(logits_BV: Tensor, sampling: Sampling, u_B: Tensor | None) -> Tensor:
    if u_B is None:
        return logits_BV.argmax(-1)
    return draw(distribution(logits_BV, sampling), u_B.to(logits_BV.device))


def penalised(logits_BV: Tensor, seen_BV: Tensor, penalty: float) -> Tensor:
    """Positive logits of seen ids divided by ``penalty``, negative ones multiplied, never to an infinity."""
    most = torch.finfo(logits_BV.dtype).max
    changed_BV = torch.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty).clamp(-most, most)
    return torch.where(seen_BV, changed_BV, logits_BV)


def distribution(logits_BV: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities [B, V] in float64 under temperature, top-k and top-p; the temperature is above 0.

    Between equal logits the lower id comes first, as in ``argmax``, so that top-k of 1 is greedy.
    """
    wide_BV = logits_BV.double()
    # The largest becomes 0 first, so that no temperature, however low, makes an infinity of it.
    scaled_BV = (wide_BV - wide_BV.amax(-1, keepdim=True)) / sampling.temperature
    sorted_BV, order_BV = scaled_BV.sort(dim=-1, descending=True, stable=True)
    if sampling.top_k is not None:
        sorted_BV[:, sampling.top_k :] = -math.inf
    p_BV = sorted_BV.softmax(-1)
    if sampling.top_p < 1:
        before_BV = p_BV.cumsum(-1) - p_BV
        p_BV = p_BV.masked_fill(before_BV >= sampling.top_p, 0.0)
        p_BV = p_BV / p_BV.sum(-1, keepdim=True)
    return torch.zeros_like(p_BV).scatter(1, order_BV, p_BV)


def draw(p_BV: Tensor, u_B: Tensor) -> Tensor:
    """The id of each row at whose place the running sum of ``p_BV`` passes ``u_B`` in [0, 1)."""
    sums_BV = p_BV.cumsum(-1)
    return torch.searchsorted(sums_BV, u_B[:, None] * sums_BV[:, -1:], right=True)[:, 0]
