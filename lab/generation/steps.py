"""Tokens one after another for a batch of sequences, on a past that the caller holds.

Nothing is kept here or in the model: what has been read is a ``Past``, given in and handed out as a value, so
that two generations never meet, and one can be gone on with twice.

B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from blocks.base import State
from blocks.model import ModelState
from lab.generation.sampling import PLAIN, GenerateError, Sampling, choose, penalised

__all__ = ["Past", "Reader", "Step", "generate", "generate_ragged", "read_on"]


class Reader(Protocol):
    """A model as generation sees it."""

    @property
    def vocab(self) -> int: ...

    def read(self, tokens_BT: Tensor, state: ModelState | None) -> tuple[Tensor, ModelState]:
        """Logits [B, V] after the last of ``tokens_BT``, and the state with them; ``state`` stays."""
        ...


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


@torch.no_grad()
def read_on(reader: Reader, tokens_BT: Tensor, past: Past | None = None) -> tuple[Tensor, Past]:
    """Logits [B, V] after the last of ``tokens_BT``, and the past with them; ``past`` itself stays."""
    logits_BV, state = reader.read(tokens_BT, None if past is None else past.state)
    if past is None:
        seen_BV = tokens_BT.new_zeros(tokens_BT.shape[0], reader.vocab, dtype=torch.bool)
    else:
        seen_BV = past.seen_BV.clone()
    seen_BV.scatter_(1, tokens_BT, True)
    return logits_BV, Past(state, seen_BV)


def generate(
    reader: Reader,
    prompt_BT: Tensor,
    *,
    steps: int,
    sampling: Sampling = PLAIN,
    stop: Collection[int] = (),
    rng: torch.Generator | None = None,
    past: Past | None = None,
) -> Iterator[Step]:
    """Up to ``steps`` tokens after ``prompt_BT``, one Step at a time; everything given is checked at once.

    A sequence that has drawn one of ``stop`` is done: that token is its last, and it leaves the batch, while
    the others go on as if it were there. rng: where draws come from; greedy needs none. past: what was read
    before the prompt. Raises GenerateError.
    """
    if prompt_BT.ndim != 2 or not prompt_BT.numel() or prompt_BT.dtype != torch.int64:
        kind = str(prompt_BT.dtype).removeprefix("torch.")
        raise GenerateError(
            f"the prompt is {kind} {list(prompt_BT.shape)}; int64 [B, T] is wanted, with at least one id each"
        )
    _check(reader.vocab, steps, sampling, stop, rng is not None)
    if past is not None and len(past.seen_BV) != len(prompt_BT):
        raise GenerateError(
            f"the prompt has {len(prompt_BT)} sequences and its past {len(past.seen_BV)}; give as many"
        )
    batch = len(prompt_BT)

    def numbers(rows: Sequence[int]) -> Tensor | None:
        if rng is None or not sampling.temperature:
            return None
        # One number for every row, running or not: who has stopped changes nothing for the others.
        return torch.rand(batch, generator=rng, dtype=torch.float64, device=rng.device)[list(rows)]

    ahead: list[list[int]] = [[] for _ in range(batch)]
    return _steps(reader, prompt_BT, ahead, steps, sampling, frozenset(stop), numbers, past)


def generate_ragged(
    reader: Reader,
    prompts: Sequence[Sequence[int]],
    *,
    steps: int,
    sampling: Sampling = PLAIN,
    stop: Collection[int] = (),
    rngs: Sequence[torch.Generator] = (),
) -> Iterator[Step]:
    """``generate`` for prompts of several lengths at once: each sequence is as it would be alone.

    All are read together up to the shortest prompt's end; from there on a longer prompt's next token takes
    the place of a drawn one. So the sequences are always equally long, nothing is padded, no state is masked.
    Up to ``steps`` tokens for each; a Step has the rows that drew. rngs: one for each prompt; greedy needs
    none. Raises GenerateError.
    """
    if not prompts or not all(prompts):
        raise GenerateError("a prompt has no token; give each at least one")
    _check(reader.vocab, steps, sampling, stop, len(rngs) == len(prompts))
    for at, prompt in enumerate(prompts, start=1):
        wrong = next((one for one in prompt if not 0 <= one < reader.vocab), None)
        if wrong is not None:
            raise GenerateError(
                f"prompt {at} has id {wrong}, outside the vocabulary; {_allowed(reader.vocab)}"
            )
    shortest = min(map(len, prompts))

    def numbers(rows: Sequence[int]) -> Tensor | None:
        if not sampling.temperature:
            return None
        return torch.cat([torch.rand(1, generator=rngs[row], dtype=torch.float64) for row in rows])

    together_BT = torch.tensor([list(prompt[:shortest]) for prompt in prompts])
    ahead = [list(prompt[shortest:]) for prompt in prompts]
    return _steps(reader, together_BT, ahead, steps, sampling, frozenset(stop), numbers, None)


def _allowed(vocab: int) -> str:
    return f"this model has ids 0 to {vocab - 1:,}"


def _check(vocab: int, steps: int, sampling: Sampling, stop: Collection[int], has_rng: bool) -> None:
    if steps < 1:
        raise GenerateError(f"steps is {steps}; it must be at least 1")
    for token in stop:
        if not 0 <= token < vocab:
            raise GenerateError(f"stop is {token}, outside the vocabulary; {_allowed(vocab)}")
    if not has_rng and sampling.temperature > 0:
        raise GenerateError(f"temperature is {sampling.temperature:g}, so tokens are drawn; rng is wanted")


def _steps(
    reader: Reader,
    unread_BT: Tensor,
    ahead: list[list[int]],
    steps: int,
    sampling: Sampling,
    stop: frozenset[int],
    numbers: Callable[[Sequence[int]], Tensor | None],
    past: Past | None,
) -> Iterator[Step]:
    """ahead: what is left of each row's prompt. numbers: in [0, 1) for rows that draw, None for greedy."""
    rows = list(range(len(unread_BT)))
    made = [0] * len(rows)
    while rows:
        logits_BV, past = read_on(reader, unread_BT, past)
        if not logits_BV.isfinite().all():
            kind = str(logits_BV.dtype).removeprefix("torch.")
            at = max(made) + 1
            raise GenerateError(f"token {at}: {kind} logits are NaN or infinite; a wider type may help")
        places = [i for i, row in enumerate(rows) if not ahead[row]]
        tokens = [ahead[row].pop(0) if ahead[row] else -1 for row in rows]
        if places:
            drawing = [rows[i] for i in places]
            known = past if len(places) == len(rows) else past.of(places)
            weighed_BV = penalised(logits_BV[places].double(), known.seen_BV, sampling.repetition_penalty)
            drawn: list[int] = choose(weighed_BV, sampling, numbers(drawing)).tolist()
            for place, row, token in zip(places, drawing, drawn, strict=True):
                tokens[place] = token
                made[row] += 1
            yield Step(tuple(drawing), tuple(drawn), known)
        ended = {place for place in places if tokens[place] in stop or made[rows[place]] == steps}
        if len(ended) == len(rows):
            return
        running = [i for i in range(len(rows)) if i not in ended]
        if ended:
            rows, tokens, past = [rows[i] for i in running], [tokens[i] for i in running], past.of(running)
        unread_BT = torch.tensor(tokens, device=unread_BT.device)[:, None]
