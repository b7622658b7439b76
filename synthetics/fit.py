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

from blocks.base import Kernel, Shape, at_least_fp32
from blocks.design import PLAIN, Design
from blocks.model import AutoEncoder, LanguageModel
from blocks.schedule import Schedule
from synthetics.base import IGNORE, Batch, Split, Task
from synthetics.blame import where_it_broke
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

__all__ = ["Fit", "Point", "Trainer", "Training", "TrainingError", "build_model", "fit"]

HELD_OUT: tuple[Split, Split] = ("valid", "test")


class TrainingError(ValueError):
    """A training setting is impossible."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a run is trained.

    steps: the budget. batch: rows a step. lr: peak of a linear warm-up over the share ``warmup`` of the
    budget, then half a cosine to a tenth of it. weight_decay: on matrices, not on vectors. clip: gradient
    norm. precision: of the matrix products; ``bf16`` keeps 8 bits of each factor, weights stay float32.
    kernel: what computes the blocks (``blocks.base.Kernel``). Every ``eval_every`` steps ``eval_examples``
    rows each of the validation and the test split are scored; the run is solved once validation accuracy
    reaches ``stop``. threshold: for steps_to. extrapolate: the finished model is scored once more on rows so
    many times as long as those it was trained on.
    """

    steps: int = 400
    batch: int = 32
    lr: float = 2e-3
    weight_decay: float = 0.1
    warmup: float = 0.1
    clip: float = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    kernel: Literal["torch", "c"] = "torch"
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
        for name, known in (("precision", ("fp32", "bf16")), ("kernel", ("torch", "c"))):
            if getattr(self, name) not in known:
                raise TrainingError(
                    f"train: {name} is {getattr(self, name)!r}; known are {' and '.join(known)}"
                )
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
    status: Literal["solved", "budget", "diverged", "stopped"]
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


def build_model(
    schedule: Schedule,
    shape: Shape,
    task: Task,
    seed: int,
    kernel: Kernel = "torch",
    design: Design = PLAIN,
) -> nn.Module:
    """The model that a task asks for, its weights a function of ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed("weights", seed))
        if task.head == "autoencoder":
            return AutoEncoder(schedule, shape, task.vocab, length=task.tokens, kernel=kernel, design=design)
        return LanguageModel(schedule, shape, task.vocab, kernel=kernel, design=design)


def _precision(training: Training) -> torch.autocast:
    """Where the products of a run are taken."""
    return torch.autocast("cpu", torch.bfloat16, enabled=training.precision == "bf16")


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
def _predict(model: nn.Module, data: Batch, training: Training, batch: int = 128) -> np.ndarray | None:
    """Most likely token at each position, [N, T]; None if any logit is not finite."""
    model.eval()
    guesses, sound = [], True
    for rows in torch.from_numpy(data.inputs).split(batch):
        with _precision(training):
            logits = model(rows)[0]
        sound = sound and bool(torch.isfinite(logits).all())
        guesses.append(logits.argmax(-1))
    model.train()
    return torch.cat(guesses).numpy() if sound else None


class Trainer:
    """One run, taken from evaluation to evaluation.

    Whoever trains several settings side by side can so compare them under way and end those that cannot win;
    a run that is taken to its end is ``fit``, bit for bit.
    """

    def __init__(
        self,
        schedule: Schedule,
        shape: Shape,
        task: Task,
        training: Training,
        seed: int,
        design: Design = PLAIN,
    ) -> None:
        self.task, self.training = task, training
        self.train = draw(task, "train", seed, task.train_examples)
        self.valid, self.test = (draw(task, split, seed, training.eval_examples) for split in HELD_OUT)
        self.stretched = [
            draw(stretch(task, factor), "test", seed, training.eval_examples)
            for factor in training.extrapolate
        ]
        self.model = build_model(schedule, shape, task, seed, training.kernel, design)
        self.optimizer = _optimizer(self.model, training)
        self.batches = enumerate(_batches(self.train, training, seed), start=1)
        self.curve: list[Point] = []
        self.problem = ""  # where it broke
        self.seconds = 0.0  # so far, under way alone
        self.test_NT: np.ndarray | None = None

    @property
    def solved(self) -> bool:
        return bool(self.curve) and self.curve[-1].acc_valid >= self.training.stop

    @property
    def done(self) -> bool:
        """Solved, diverged, or at the end of its budget."""
        spent = bool(self.curve) and self.curve[-1].step == self.training.steps
        return self.solved or spent or bool(self.problem)

    def advance(self) -> Point | None:
        """Train to the next evaluation; its point, None if the run diverged on the way."""
        losses: list[Tensor] = []
        started = time.perf_counter() - self.seconds
        for step, (inputs_BT, targets_BT) in self.batches:
            loss, self.problem = _step(self.model, self.optimizer, inputs_BT, targets_BT, self.training, step)
            if self.problem:
                return None
            losses.append(loss)
            if step % self.training.eval_every and step < self.training.steps:
                continue
            valid_NT, self.test_NT = (
                _predict(self.model, data, self.training) for data in (self.valid, self.test)
            )
            if valid_NT is None or self.test_NT is None:
                # The last update broke the model; the loss before it was still fine.
                where = where_it_broke(self.model, inputs_BT, step, float(loss), math.nan)
                held = f"step {step}: a logit of a row that was held out is not finite"
                self.problem = held if "gradient norm nan" in where else where
                return None
            self.seconds = time.perf_counter() - started
            mean = float(torch.stack(losses).mean())
            self.curve.append(
                _point(
                    step,
                    inputs_BT.numel(),
                    self.seconds,
                    mean,
                    (valid_NT, self.valid),
                    (self.test_NT, self.test),
                )
            )
            break
        return self.curve[-1]

    def finish(self, reason: str = "") -> Fit:
        """The run as it stands after an evaluation; before its end it counts as stopped, for ``reason``."""
        if self.problem:
            return _diverged(self.curve, self.problem, self.task, self.test, self.training)
        assert self.test_NT is not None, "nothing is known before the first evaluation"
        last, curve, training = self.curve[-1], self.curve, self.training
        return Fit(
            curve=tuple(curve),
            status="solved" if self.solved else "budget" if self.done else "stopped",
            reason="" if self.done else reason,
            acc_valid=last.acc_valid,
            acc=last.acc,
            acc_madlab=last.acc_madlab,
            auc_valid=area([p.acc_valid for p in curve], training.evaluations),
            auc=area([p.acc for p in curve], training.evaluations),
            steps_to=steps_to([p.step for p in curve], [p.acc for p in curve], training.threshold),
            acc_position=accuracy_by_position(self.test_NT, self.test.targets),
            levels=accuracy_by_level(self.test_NT, self.test.targets, self.task.levels(self.test)),
            acc_stretched=tuple(
                _accuracy_at(self.model, self.task, data, training) for data in self.stretched
            ),
        )


def fit(
    schedule: Schedule,
    shape: Shape,
    task: Task,
    training: Training,
    seed: int,
    progress: Callable[[Point], None] | None = None,
) -> Fit:
    """Train ``schedule`` on ``task`` until it is solved, has diverged or has spent its budget."""
    trainer = Trainer(schedule, shape, task, training, seed)
    while not trainer.done:
        point = trainer.advance()
        if progress and point:
            progress(point)
    return trainer.finish()


Predicted = tuple[np.ndarray, Batch]
"""Guesses [N, T] and what they are guesses of."""


def _point(step: int, tokens: int, seconds: float, loss: float, valid: Predicted, test: Predicted) -> Point:
    """``tokens``: of one step."""
    return Point(
        step=step,
        tokens=step * tokens,
        seconds=seconds,
        loss=loss,
        acc_valid=accuracy(valid[0], valid[1].targets),
        acc=accuracy(test[0], test[1].targets),
        acc_madlab=madlab_accuracy(test[0], test[1].targets),
    )


def _accuracy_at(model: nn.Module, task: Task, stretched: Batch, training: Training) -> float:
    """Accuracy on longer rows, as few at a time as hold the usual number of tokens; not finite is chance."""
    rows = max(1, 128 * task.tokens // stretched.inputs.shape[1])
    predicted_NT = _predict(model, stretched, training, rows)
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
    with _precision(training):
        logits_BTV, _ = model(inputs_BT)
    loss = F.cross_entropy(at_least_fp32(logits_BTV).flatten(0, 1), targets_BT.flatten(), ignore_index=IGNORE)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), training.clip)
    # Ten times the loss of a uniform guess: nothing that is learning stands there.
    if not torch.isfinite(loss) or not torch.isfinite(norm) or loss > 10 * math.log(logits_BTV.shape[-1] + 1):
        return loss, where_it_broke(model, inputs_BT, step, float(loss.detach()), float(norm))
    optimizer.step()
    return loss.detach(), ""


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
