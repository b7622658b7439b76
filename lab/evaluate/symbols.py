"""The tasks of ``synthetics`` asked of a trained language model, in characters of its own.

N rows, T tokens of a row, V vocabulary of the model. A task's ids become printable characters that the
model's tokenizer writes as one token each: ``recall`` then reads as ``aQbRaQbR...``, keys and values of one
letter that follow one another. What is asked without any training is what a language model may have learnt by
itself, to look up in the text before it; so only tasks whose answers stand in the row are asked so. With some
steps of training on the task, from the trained trunk and from scratch, any task that a language model can be
asked shows what the trunk brings.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from blocks.model import LanguageModel
from blocks.schedule import Schedule
from lab.evaluate.text import Tokenizer, known_separator
from lab.model.form import Spec
from lab.model.spec import shape_of
from synthetics.base import IGNORE, Task, TaskError
from synthetics.difficulty import profile
from synthetics.fit import Fit, Trainer, Training, fit
from synthetics.protocol import SUITES, show_task
from synthetics.score import accuracy
from synthetics.splits import draw

__all__ = ["GROUPS", "Untrained", "ask", "check", "fit_both", "symbols", "unasked"]

SMALLER = {"memorization": "memorization(vocab=64)", "mqar": "mqar(vocab=64)"}
"""Families whose defaults have more symbols than there are characters, at sizes that have not."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "recalls": ("recall", "noisy_recall", "fuzzy_recall", SMALLER["mqar"]),
    "mad": tuple(SMALLER.get(family, family) for family in SUITES["mad"]),
}
"""What one word of ``lab eval --synthetic`` stands for: the associative recalls of the MAD suite with MQAR;
every family of the MAD suite, of which those are asked that a language model can be."""

CHARACTERS = string.ascii_lowercase + string.ascii_uppercase + string.digits + string.punctuation

TOKENS = 2**14
"""Tokens of one forward pass."""


@dataclass(frozen=True)
class Untrained:
    """Token accuracies of a model that has never been trained on the task.

    acc: the most likely of all V ids is the answer. acc_among: the most likely of the task's symbols is; this
    asks whether it can look up and not whether it has noticed what is asked. chance: of one answer for all.
    window_share: what the last 32 tokens show.
    """

    acc: float
    acc_among: float
    chance: float
    window_share: float | None
    examples: int


def symbols(task: Task, tokenizer: Tokenizer, vocab: int) -> np.ndarray:
    """The model's id of every id of ``task``; int64. Raises TaskError where there are too few characters."""
    coded = [tokenizer.encode(letter) for letter in CHARACTERS]
    ids = list(dict.fromkeys(code[0] for code in coded if len(code) == 1 and code[0] < vocab))
    if task.vocab > len(ids):
        raise TaskError(
            f"{show_task(task)} has {task.vocab} symbols, and the model's tokenizer writes {len(ids)} "
            f"printable characters as one token each; give {task.name} a vocab of at most that"
        )
    return np.array(ids[: task.vocab], dtype=np.int64)


def unasked(task: Task, training: bool) -> str | None:
    """Why ``task`` is none that a language model can be asked, ``training`` or not; None where it is one."""
    if task.head != "lm":
        return f"{show_task(task)} is asked of an auto-encoder, not of a language model"
    if not task.lagged and not training:
        return (
            f"{show_task(task)} is a rule that the row does not show, so nobody can answer without training; "
            "add --fit STEPS"
        )
    return None


def check(task: Task, training: bool) -> None:
    """Raise TaskError where ``unasked`` has a reason."""
    if (reason := unasked(task, training)) is not None:
        raise TaskError(reason)


@torch.no_grad()
def ask(model: LanguageModel, tokenizer: Tokenizer, task: Task, examples: int) -> Untrained:
    """How often ``model`` gives the answers of ``examples`` rows of the test split."""
    check(task, training=False)
    vocab = model.embedding.num_embeddings
    ids = symbols(task, tokenizer, vocab)
    batch = draw(task, "test", 0, examples)
    inputs_NT = ids[batch.inputs]
    separator = known_separator(tokenizer, vocab)
    lead = 0 if separator is None else 1
    if separator is not None:
        inputs_NT = np.concatenate([np.full((examples, 1), separator), inputs_NT], axis=1)
    model.eval()
    best, best_among = [], []
    for rows in torch.from_numpy(inputs_NT).split(max(1, TOKENS // inputs_NT.shape[1])):
        logits_BTV = model(rows)[0][:, lead:]
        best.append(logits_BTV.argmax(-1))
        best_among.append(logits_BTV[..., ids].argmax(-1))
    wanted_NT = np.where(batch.targets == IGNORE, IGNORE, ids[np.maximum(batch.targets, 0)])
    level = profile(task)
    return Untrained(
        acc=accuracy(torch.cat(best).numpy(), wanted_NT),
        acc_among=accuracy(torch.cat(best_among).numpy(), batch.targets),
        chance=level.chance,
        window_share=level.window_share,
        examples=examples,
    )


def fit_both(
    model: LanguageModel,
    schedule: Schedule,
    spec: Spec,
    tokenizer: Tokenizer,
    task: Task,
    training: Training,
    seed: int,
) -> tuple[Fit, Fit]:
    """Trained on ``task`` from the weights of ``model``, and from scratch; same data, order and budget.

    The former begins with the trunk, and with the rows of embedding and head that belong to the symbols.
    """
    check(task, training=True)
    shape = shape_of(spec)
    trainer = Trainer(schedule, shape, task, training, seed)
    assert isinstance(trainer.model, LanguageModel)
    _begin_with(trainer.model, model, symbols(task, tokenizer, spec.model.vocab), spec.model.mup)
    while not trainer.done:
        trainer.advance()
    return trainer.finish(), fit(schedule, shape, task, training, seed)


@torch.no_grad()
def _begin_with(ours: LanguageModel, trained: LanguageModel, ids: np.ndarray, mup: int | None) -> None:
    """Give ``ours``, of a task's symbols, the trunk of ``trained`` and its rows of ``ids``: the same logits.

    Where the logits of ``trained`` are multiplied by mup / D, as in ``blocks.mup``, the rows of the head are.
    """
    rows = torch.from_numpy(ids)
    ours.stack.load_state_dict(trained.stack.state_dict())
    ours.norm.load_state_dict(trained.norm.state_dict())
    ours.embedding.weight.copy_(trained.embedding.weight[rows])
    factor = 1.0 if mup is None else mup / trained.embedding.embedding_dim
    ours.head.weight.copy_(factor * trained.head.weight[rows])
