"""The one training loop for tasks: a schedule, a task, one training setting and a seed -> a learning curve.

Everything random follows from the seed: the instances (through ``splits.draw``), the order in which they
are seen, and the initial weights. On one machine and thread count the same call gives the same bits, but
for the seconds.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.base import Shape
from blocks.model import AutoEncoder, LanguageModel
from blocks.schedule import Schedule
from synthetics.base import IGNORE, Batch, Task
from synthetics.difficulty import chance
from synthetics.protocol import stretch
from synthetics.score import (
    LevelScore,
    accuracy,
    accuracy_by_level,
    accuracy_by_position,
    area,
    madlab_accuracy,
    steps_to,
)
from synthetics.splits import draw

__all__ = ["Fit", "Point", "Training", "TrainingError", "build_model", "fit"]


class TrainingError(ValueError):
    """A training setting is impossible."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a run is trained.

    steps: the budget. batch: rows a step. lr: peak of a linear warm-up over the share ``warmup`` of the
    budget, then half a cosine to a tenth of it. weight_decay: on matrices, not on vectors. clip: gradient
    norm. Every ``eval_every`` steps ``eval_examples`` rows each of the validation and the test split are
    scored; the run is solved once validation accuracy reaches ``stop``. threshold: for steps_to. extrapolate:
    the finished model is scored once more on rows so many times as long as those it was trained on.
    """

    steps: int = 400
    batch: int = 32
    lr: float = 2e-3
    weight_decay: float = 0.1
    warmup: float = 0.1
    clip: float = 1.0
    eval_every: int = 25
    eval_examples: int = 256
    stop: float = 0.999
    threshold: float = 0.5
    extrapolate: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "eval_every", "eval_examples"):
            if getattr(self, name) < 1:
                raise TrainingError(f"train: {name} is {getattr(self, name)}; it must be at least 1")
        for name in ("lr", "clip"):
            value = getattr(self, name)
            if not (0 < value < math.inf):
                raise TrainingError(f"train: {name} is {value}; it must be above 0")
        if not (0 <= self.weight_decay < math.inf):
            raise TrainingError(f"train: weight_decay is {self.weight_decay}; it must be 0 or above")
        for name in ("warmup", "stop", "threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise TrainingError(f"train: {name} is {getattr(self, name)}; it must be between 0 and 1")
        if any(factor < 2 for factor in self.extrapolate) or len({*self.extrapolate}) < len(self.extrapolate):
            raise TrainingError(
                f"train: extrapolate is {list(self.extrapolate)}; it must be different factors of at least 2"
            )
        if self.eval_every > self.steps:
            raise TrainingError(
                f"train: eval_every is {self.eval_every}, more than the {self.steps} steps of a run; "
                "at least one evaluation is needed"
            )

    @property
    def evaluations(self) -> int:
        """Evaluations of a run that uses its whole budget; the last one is always at the last step."""
        return -(-self.steps // self.eval_every)

    def lr_at(self, step: int) -> float:
        """Learning rate of step 0, 1, ..., steps - 1."""
        rise = max(1, round(self.warmup * self.steps))
        if step < rise:
            return self.lr * (step + 1) / rise
        done = (step - rise) / max(1, self.steps - rise)
        return self.lr * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))


@dataclass(frozen=True)
class Point:
    """One evaluation, after ``tokens`` training tokens; loss is the mean since the last evaluation."""

    step: int
    tokens: int
    seconds: float
    loss: float
    acc_valid: float
    acc: float
    acc_madlab: float


@dataclass(frozen=True)
class Fit:
    """A finished run. A diverged one is scored at the task's chance level and says where it broke.

    acc_position: test accuracy at each position of the row at the end, None where nothing is scored.
    levels: the same by difficulty, see ``Task.levels``. acc_stretched: for each factor of
    ``Training.extrapolate`` the accuracy on rows so many times as long.
    steps_to: first evaluation at which test accuracy reached the threshold, None if it never did.
    """

    curve: tuple[Point, ...]
    status: Literal["solved", "budget", "diverged"]
    reason: str
    acc_valid: float
    acc: float
    acc_madlab: float
    auc_valid: float
    auc: float
    steps_to: int | None
    acc_position: tuple[float | None, ...]
    levels: tuple[LevelScore, ...]
    acc_stretched: tuple[float, ...]


def _seed(*parts: object) -> int:
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def build_model(schedule: Schedule, shape: Shape, task: Task, seed: int) -> nn.Module:
    """The model that a task asks for, its weights a function of ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed("weights", seed))
        if task.head == "autoencoder":
            return AutoEncoder(schedule, shape, task.vocab, length=task.tokens)
        return LanguageModel(schedule, shape, task.vocab)


def _optimizer(model: nn.Module, training: Training) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        groups, lr=training.lr, betas=(0.9, 0.95), weight_decay=training.weight_decay, fused=True
    )


def _batches(data: Batch, training: Training, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """``training.steps`` batches; every pass over the data in a new order."""
    rng = np.random.default_rng(_seed("order", seed))
    inputs_NT, targets_NT = torch.from_numpy(data.inputs), torch.from_numpy(data.targets)
    queue = np.empty(0, dtype=np.int64)
    for _ in range(training.steps):
        while len(queue) < training.batch:
            queue = np.concatenate([queue, rng.permutation(len(inputs_NT))])
        rows = torch.from_numpy(queue[: training.batch])
        queue = queue[training.batch :]
        yield inputs_NT[rows], targets_NT[rows]


@torch.no_grad()
def _predict(model: nn.Module, data: Batch, batch: int = 128) -> np.ndarray | None:
    """Most likely token at each position, [N, T]; None if any logit is not finite."""
    model.eval()
    guesses, sound = [], True
    for rows in torch.from_numpy(data.inputs).split(batch):
        logits = model(rows)[0]
        sound = sound and bool(torch.isfinite(logits).all())
        guesses.append(logits.argmax(-1))
    model.train()
    return torch.cat(guesses).numpy() if sound else None


def fit(
    schedule: Schedule,
    shape: Shape,
    task: Task,
    training: Training,
    seed: int,
    progress: Callable[[Point], None] | None = None,
) -> Fit:
    """Train ``schedule`` on ``task`` until it is solved, has diverged or has spent its budget."""
    train = draw(task, "train", seed, task.train_examples)
    valid = draw(task, "valid", seed, training.eval_examples)
    test = draw(task, "test", seed, training.eval_examples)
    stretched = [
        draw(stretch(task, factor), "test", seed, training.eval_examples) for factor in training.extrapolate
    ]
    model = build_model(schedule, shape, task, seed)
    optimizer = _optimizer(model, training)
    curve: list[Point] = []
    losses: list[Tensor] = []
    test_NT: np.ndarray | None = None
    started = time.perf_counter()
    for step, (inputs_BT, targets_BT) in enumerate(_batches(train, training, seed), start=1):
        loss, problem = _step(model, optimizer, inputs_BT, targets_BT, training, step)
        if problem:
            return _diverged(curve, problem, task, test, training)
        losses.append(loss)
        if step % training.eval_every and step < training.steps:
            continue
        valid_NT, test_NT = _predict(model, valid), _predict(model, test)
        if valid_NT is None or test_NT is None:
            # The last update broke the model; the loss before it was still fine.
            problem = _where_it_broke(model, inputs_BT, step, float(loss), math.nan)
            return _diverged(curve, problem, task, test, training)
        curve.append(
            Point(
                step=step,
                tokens=step * inputs_BT.numel(),
                seconds=time.perf_counter() - started,
                loss=float(torch.stack(losses).mean()),
                acc_valid=accuracy(valid_NT, valid.targets),
                acc=accuracy(test_NT, test.targets),
                acc_madlab=madlab_accuracy(test_NT, test.targets),
            )
        )
        losses.clear()
        if progress:
            progress(curve[-1])
        if curve[-1].acc_valid >= training.stop:
            break
    assert test_NT is not None  # the last step is always evaluated
    return _finished(
        curve,
        training,
        accuracy_by_position(test_NT, test.targets),
        accuracy_by_level(test_NT, test.targets, task.levels(test)),
        tuple(_accuracy_at(model, task, data) for data in stretched),
    )


def _accuracy_at(model: nn.Module, task: Task, stretched: Batch) -> float:
    """Accuracy on longer rows, as few at a time as hold the usual number of tokens; not finite is chance."""
    rows = max(1, 128 * task.tokens // stretched.inputs.shape[1])
    predicted_NT = _predict(model, stretched, rows)
    return chance(task) if predicted_NT is None else accuracy(predicted_NT, stretched.targets)


def _step(
    model: nn.Module,
    optimizer: torch.optim.AdamW,
    inputs_BT: Tensor,
    targets_BT: Tensor,
    training: Training,
    step: int,
) -> tuple[Tensor, str]:
    """One optimiser step; the loss, and what went wrong (empty if nothing did)."""
    for group in optimizer.param_groups:
        group["lr"] = training.lr_at(step - 1)
    logits_BTV, _ = model(inputs_BT)
    loss = F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), ignore_index=IGNORE)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), training.clip)
    # Ten times the loss of a uniform guess: nothing that is learning stands there.
    if not torch.isfinite(loss) or not torch.isfinite(norm) or loss > 10 * math.log(logits_BTV.shape[-1] + 1):
        return loss, _where_it_broke(model, inputs_BT, step, float(loss.detach()), float(norm))
    optimizer.step()
    return loss.detach(), ""


def _where_it_broke(model: nn.Module, inputs_BT: Tensor, step: int, loss: float, norm: float) -> str:
    """One sentence: the step, and the first part whose output or gradient is not finite."""
    bad: list[str] = []

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], object], None]:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: object) -> None:
            y = output[0] if isinstance(output, tuple) else output
            if isinstance(y, Tensor) and not torch.isfinite(y).all():
                bad.append(name)

        return hook

    hooks = [m.register_forward_hook(note(name)) for name, m in model.named_modules() if name]
    with torch.no_grad():
        model(inputs_BT)
    for hook in hooks:
        hook.remove()
    if bad:
        return f"step {step}: first not finite in the output of {_layer_name(bad[0])}"
    for name, p in reversed(list(model.named_parameters())):
        if p.grad is not None and not torch.isfinite(p.grad).all():
            return f"step {step}: first not finite in the gradient of {_layer_name(name)}"
    return f"step {step}: loss {loss:.3g}, gradient norm {norm:.3g}"


def _layer_name(path: str) -> str:
    """``stack.layers.3.0.block.q`` -> ``layer 4, block 1: q``; layers and blocks count from 1."""
    parts = path.split(".")
    if parts[:2] == ["stack", "layers"] and len(parts) > 3:
        inner = ".".join(parts[5:]) or parts[4] if len(parts) > 4 else "residual"
        return f"layer {int(parts[2]) + 1}, block {int(parts[3]) + 1}: {inner}"
    return path


def _finished(
    curve: list[Point],
    training: Training,
    acc_position: tuple[float | None, ...],
    levels: tuple[LevelScore, ...],
    acc_stretched: tuple[float, ...],
) -> Fit:
    last = curve[-1]
    return Fit(
        curve=tuple(curve),
        status="solved" if last.acc_valid >= training.stop else "budget",
        reason="",
        acc_valid=last.acc_valid,
        acc=last.acc,
        acc_madlab=last.acc_madlab,
        auc_valid=area([p.acc_valid for p in curve], training.evaluations),
        auc=area([p.acc for p in curve], training.evaluations),
        steps_to=steps_to([p.step for p in curve], [p.acc for p in curve], training.threshold),
        acc_position=acc_position,
        levels=levels,
        acc_stretched=acc_stretched,
    )


def _diverged(curve: list[Point], reason: str, task: Task, test: Batch, training: Training) -> Fit:
    level = chance(task)
    levels = accuracy_by_level(test.targets, test.targets, task.levels(test))
    return Fit(
        curve=tuple(curve),
        status="diverged",
        reason=reason,
        acc_valid=level,
        acc=level,
        acc_madlab=level,
        auc_valid=level,
        auc=level,
        steps_to=None,
        acc_position=(None,) * task.tokens,
        levels=tuple(replace(one, acc=level) for one in levels),
        acc_stretched=(level,) * len(training.extrapolate),
    )
