"""How a model is trained at evaluation time: settings as data, the parameters' rates, one step.

This is ``eval_ttt``, fine-tuning of the model on the text that it is scored on. The block ``ttt``, a layer
that learns while it reads, is another thing. B rows a step, T tokens of a row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from itertools import groupby
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from blocks.base import at_least_fp32
from blocks.model import LanguageModel
from blocks.schedule import Schedule
from lab.evaluate.text import Piece
from sweeps import written, yamlmarks

__all__ = [
    "GOLF_CONTAMINATED",
    "GOLF_SCORE_FIRST",
    "Adaptation",
    "AdaptationError",
    "Row",
    "adaptation",
    "cosine",
    "learn",
    "optimiser_of",
    "rows_of",
]

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Row = tuple[np.ndarray, np.ndarray]
"""Inputs and targets, [T] each."""


class AdaptationError(ValueError):
    """Settings of test-time training are impossible. One line per problem."""


class Adaptation(BaseModel):
    """Settings of test-time training.

    chunk: targets that are scored before the model learns from them (score-first alone). epochs: passes
    over what is learnt from. lr: the rate; cosine: it falls to 0 as half a cosine, over the chunks
    (score-first) or the steps. optimiser: AdamW without weight decay, or SGD with momentum 0.9. rates:
    factors of the rate by a pattern of parameter names, the first that fits counts, 0 freezes; names are such
    as ``layers.3.channel.out.weight``, ``layers.3.linear.norm.weight``, ``embedding.weight``. row, batch:
    tokens of a row, rows of a step. clip: of the gradient's norm. reset: every document begins with the
    weights of the file, and is scored with nothing else in sight (score-first alone).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    chunk: Count = 1024
    epochs: Count = 1
    lr: Annotated[float, Field(gt=0)] = 5e-4
    optimiser: Literal["adamw", "sgd"] = "adamw"
    cosine: bool = False
    rates: Mapping[str, Annotated[float, Field(ge=0)]] = {}
    row: Count = 2048
    batch: Count = 32
    clip: Annotated[float, Field(gt=0)] = 1.0
    reset: bool = False


GOLF_CONTAMINATED = Adaptation(
    epochs=50,
    lr=5e-4,
    cosine=True,
    # The last projection of a channel mixer had lost most when weights were rounded to 6 bits (PR 481).
    rates={"*.channel.out.*": 3.0, "*.channel.norm.*": 1.0, "*.channel.scale": 1.0, "*.channel.*": 0.5},
    batch=256,
)
"""Of OpenAI's parameter golf, PR 518 as published: it learns the text, then scores it."""

GOLF_SCORE_FIRST = Adaptation(chunk=32_768, epochs=3, lr=2e-3, optimiser="sgd", cosine=True)
"""Of the same competition, PR 461 and the record that followed it: the form that its rules allow."""


def adaptation(overrides: Iterable[str], base: Adaptation) -> Adaptation:
    """``base`` with ``key=value`` overrides. Raises AdaptationError with every problem."""
    name = "test-time training"
    try:
        return written.fill(
            Adaptation, written.read(yamlmarks.dump(base.model_dump(mode="json")), name, overrides, name)
        )
    except written.WrittenError as exc:
        raise AdaptationError(str(exc)) from None


def cosine(done: float) -> float:
    """Half a cosine from 1 at 0 to 0 at 1."""
    return 0.5 * (1 + math.cos(math.pi * done))


def _named(model: LanguageModel, schedule: Schedule) -> Iterator[tuple[str, nn.Parameter]]:
    """Every parameter once; one of a block by layer and role, as ``layers.3.channel.out.weight``."""
    for name, parameter in model.named_parameters():
        part = name.split(".")
        if part[:2] == ["stack", "layers"]:
            i, j, what, *rest = part[2:]
            role = schedule[int(i)][int(j)].role
            name = ".".join(("layers", i, role, *([] if what == "block" else [what]), *rest))
        yield name, parameter


def optimiser_of(model: LanguageModel, schedule: Schedule, plan: Adaptation) -> torch.optim.Optimizer:
    """An optimiser whose groups keep their factor as ``factor``. Raises AdaptationError for idle patterns."""
    groups: dict[float, list[nn.Parameter]] = {}
    used, names = set(), []
    for name, parameter in _named(model, schedule):
        names.append(name)
        pattern = next((one for one in plan.rates if fnmatchcase(name, one)), None)
        used.add(pattern)
        groups.setdefault(1.0 if pattern is None else plan.rates[pattern], []).append(parameter)
    # Those of golf are for models with and without gains of norms and of branches.
    own = plan.rates != GOLF_CONTAMINATED.rates
    if idle := [pattern for pattern in plan.rates if own and pattern not in used]:
        raise AdaptationError(
            f"rates: nothing is left for the pattern {idle[0]!r}; parameters are named such as "
            f"{names[0]} and {names[-1]}, and the first pattern that fits counts"
        )
    parts: list[dict[str, Any]] = [
        {"params": params, "factor": factor} for factor, params in groups.items() if factor
    ]
    if not parts:
        raise AdaptationError("rates: every parameter is frozen, so that nothing could be learnt")
    if plan.optimiser == "sgd":
        return torch.optim.SGD(parts, lr=plan.lr, momentum=0.9)
    return torch.optim.AdamW(parts, lr=plan.lr, weight_decay=0.0)


def rows_of(piece: Piece, begin: int, end: int, length: int) -> list[Row]:
    """The targets [begin, end) and their inputs as rows that do not overlap; one of a single target is left
    out, as a document's first token, which nothing but a separator precedes, teaches little."""
    starts = range(begin, end, length)
    places = [slice(at, min(at + length, end)) for at in starts]
    return [(piece.inputs[at], piece.targets[at]) for at in places if at.stop - at.start > 1]


def learn(
    model: LanguageModel,
    optimiser: torch.optim.Optimizer,
    rows: list[Row],
    plan: Adaptation,
    falling: bool,
    rate: float = 1.0,
) -> int:
    """``plan.epochs`` passes over ``rows`` in order; the steps taken.

    rate: a factor of every step's rate; falling: it falls as half a cosine over these steps.
    """
    batches = [batch for _ in range(plan.epochs) for batch in _batches(rows, plan.batch)]
    trained = [one for group in optimiser.param_groups for one in group["params"]]
    model.train()
    for step, (inputs_BT, targets_BT) in enumerate(batches):
        now = plan.lr * rate * (cosine(step / len(batches)) if falling else 1.0)
        for group in optimiser.param_groups:
            group["lr"] = now * group["factor"]
        logits_BTV, _ = model(torch.from_numpy(inputs_BT))
        loss = F.cross_entropy(
            at_least_fp32(logits_BTV).flatten(0, 1), torch.from_numpy(targets_BT).flatten()
        )
        model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, plan.clip)
        optimiser.step()
    return len(batches)


def _batches(rows: list[Row], size: int) -> Iterator[Row]:
    """Neighbours of one length together, at most ``size`` of them; [B, T] each."""
    for _, run in groupby(rows, key=lambda row: len(row[0])):
        held = list(run)
        for at in range(0, len(held), size):
            inputs, targets = zip(*held[at : at + size], strict=True)
            yield np.stack(inputs), np.stack(targets)
