"""Tasks of EleutherAI's lm-eval-harness on a model of ours: which ones, the run, and its figures.

The package is the extra ``eval``; its data sets come from the Hugging Face hub, tasks on local files need no
network. What the harness asks of a model, the likelihood of a continuation, is here; ``lab.evaluate.adapter``
only puts it into the harness's class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from blocks.base import at_least_fp32
from blocks.model import LanguageModel
from blocks.notation import suggest
from lab.evaluate.bits import LOGITS
from lab.evaluate.text import Tokenizer

__all__ = [
    "CARD",
    "CAVEAT",
    "Figure",
    "HarnessError",
    "check_installed",
    "continuations",
    "document",
    "go_on",
    "run",
    "task_names",
]

CARD: Mapping[str, float] = {
    "arc_easy": 44.02,
    "arc_challenge": 24.66,
    "boolq": 56.30,
    "hellaswag": 30.19,
    "winogrande": 49.09,
    "commonsense_qa": 29.16,
    "openbookqa": 28.60,
    "sciq": 46.80,
}
"""The preset ``genesis``: the eight tasks of Genesis-152M's model card and the accuracies that it states, in
percent; those of ``acc``."""

CAVEAT = (
    "what Genesis-152M's model card states of its own weights, measured by LightEval, whose prompts and "
    "normalisation of answers are others: figures of the same weights may differ"
)
"""What a figure of the card is; it stands beside every one."""

Pair = tuple[Sequence[int], Sequence[int]]
"""Ids of a context and of what may follow it, neither empty."""


class HarnessError(ValueError):
    """The harness is not here, or a task or its data is not; one sentence."""


@dataclass(frozen=True)
class Figure:
    """One metric of one task: value and standard error as the harness gives them, over ``examples``.

    card: what the model card states of it, as a share; None where it states nothing.
    """

    task: str
    metric: str
    value: float
    error: float | None
    examples: int
    card: float | None = None


def check_installed() -> None:
    """Raise HarnessError where lm-eval is not installed."""
    if find_spec("lm_eval") is None:
        raise HarnessError(
            "--tasks needs the package lm-eval (about 475 MB with what it needs); install it with "
            'pip install "hybrid-architecture-lab[eval]"'
        )


def task_names(text: str) -> list[str]:
    """``"genesis"`` or ``"arc_easy,sciq"`` as names of tasks."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise HarnessError("--tasks is empty; give genesis, or names of the harness such as arc_easy,sciq")
    return list(dict.fromkeys(one for name in names for one in (CARD if name == "genesis" else (name,))))


@torch.no_grad()
def continuations(model: LanguageModel, pairs: Sequence[Pair], window: int) -> list[tuple[float, bool]]:
    """For each pair the log-likelihood in nats of what follows the context, and whether it is what the
    model itself would say first at each place.

    Of a context as much is read as fits a window; a continuation is read whole.
    """
    model.eval()
    rows = [
        np.array([*context, *after], dtype=np.int64)[-(max(window, len(after)) + 1) :]
        for context, after in pairs
    ]
    found: list[tuple[float, bool]] = [(0.0, False)] * len(pairs)
    order = sorted(range(len(pairs)), key=lambda i: -len(rows[i]))
    vocab = model.embedding.num_embeddings
    while order:
        length = len(rows[order[0]]) - 1
        at = max(1, LOGITS // (length * vocab))
        batch, order = order[:at], order[at:]
        # What pads a row stands behind all that counts, and a causal model does not see it.
        inputs_BT = np.zeros((len(batch), length), dtype=np.int64)
        for place, i in enumerate(batch):
            inputs_BT[place, : len(rows[i]) - 1] = rows[i][:-1]
        logits_BTV = at_least_fp32(model(torch.from_numpy(inputs_BT))[0])
        for logits_TV, i in zip(logits_BTV, batch, strict=True):
            stop = len(rows[i]) - 1
            said_SV = logits_TV[stop - len(pairs[i][1]) : stop]
            wanted_S = torch.tensor(list(pairs[i][1]))
            nats = F.cross_entropy(said_SV, wanted_S, reduction="none").double().sum()
            found[i] = (-float(nats), bool((said_SV.argmax(-1) == wanted_S).all()))
    return found


@torch.no_grad()
def go_on(
    model: LanguageModel, tokenizer: Tokenizer, context: Sequence[int], stops: Sequence[str], most: int
) -> str:
    """The likeliest text after ``context``, token by token, up to a stop, a separator or ``most`` tokens."""
    model.eval()
    made: list[int] = []
    logits_BTV, state = model(torch.tensor([list(context)]))
    while len(made) < most:
        token = int(logits_BTV[0, -1].argmax())
        if token == tokenizer.separator:
            break
        made.append(token)
        text = tokenizer.decode(made)
        if ends := [text.index(stop) for stop in stops if stop and stop in text]:
            return text[: min(ends)]
        logits_BTV, state = model(torch.tensor([[token]]), state)
    return tokenizer.decode(made)


def run(
    model: LanguageModel,
    tokenizer: Tokenizer,
    names: Sequence[str],
    *,
    window: int,
    examples: int | None = None,
    include: Path | None = None,
) -> list[Figure]:
    """The tasks ``names``, without examples in the prompt but for those a task itself puts there.

    window: tokens of a prompt that are read. examples: of each task at most. include: a folder with tasks of
    your own, as YAML. Raises HarnessError.
    """
    check_installed()
    if include is not None and not include.is_dir():
        raise HarnessError(f"--include {include} is no folder; one with task files (YAML) is wanted")
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    from lab.evaluate.adapter import Adapter

    manager = TaskManager(include_path=None if include is None else str(include))
    for name in names:
        if name not in manager.all_tasks:
            raise HarnessError(f"the harness has no task {name!r}{suggest(name, manager.all_tasks)}")
    try:
        found: Any = simple_evaluate(
            model=Adapter(model, tokenizer, window),
            tasks=list(names),
            limit=examples,
            task_manager=manager,
            log_samples=False,
            bootstrap_iters=1000,
        )
    except (OSError, ValueError) as exc:
        if not _about_data(exc):
            raise
        told = str(exc).splitlines()[0]
        raise HarnessError(
            f"the data of {', '.join(names)} could not be had ({told}); the harness fetches it from "
            "huggingface.co, or takes what an earlier run has left in its cache"
        ) from exc
    return list(_figures(found))


def document(found: Sequence[Figure]) -> dict[str, Any]:
    """The figures as plain values, and what those of the card are where there are any."""
    carded = any(one.card is not None for one in found)
    return {"tasks": [asdict(one) for one in found], **({"card": CAVEAT} if carded else {})}


def _about_data(exc: BaseException) -> bool:
    """Whether a data set could not be read: raised by the packages that fetch it."""
    return isinstance(exc, OSError) or type(exc).__module__.partition(".")[0] in (
        "datasets",
        "huggingface_hub",
        "fsspec",
    )


def _figures(found: Mapping[str, Any]) -> list[Figure]:
    rows = []
    for task, values in found["results"].items():
        counted = found["n-samples"].get(task, {}).get("effective", 0)
        for key, value in values.items():
            metric, _, kept = key.partition(",")
            if not kept or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = values.get(f"{metric}_stderr,{kept}")
            name = metric if kept == "none" else f"{metric} ({kept})"
            card = CARD[task] / 100 if name == "acc" and task in CARD else None
            error = error if isinstance(error, float) else None
            rows.append(Figure(task, name, float(value), error, counted, card))
    return rows
