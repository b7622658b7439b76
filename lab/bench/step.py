"""A training step of a two-layer model, beside the same step as a textbook writes it.

B batch, T time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.base import Kernel, Shape
from blocks.cost import flops_per_token
from blocks.model import LanguageModel
from blocks.schedule import Schedule, parse
from lab.bench.kernels import kernels
from lab.bench.plain import PlainModel
from lab.bench.timing import Pace, Rate, Row, Side, matrix_rate, measure, with_rates

# The very step and optimiser of a run, which nobody else has a use for: a copy here would drift from them.
from synthetics.fit import Training, _optimizer, _step

__all__ = ["ABOUT", "MIXERS", "StepSize", "our_step", "plain_step", "rows", "schedule_of"]

ABOUT = (
    "Forward, loss, backward, clip and AdamW of 2*(mixer, swiglu), vocabulary 16. The reference is the same "
    "function in plain eager PyTorch; the floor three times the model's forward FLOPs at the matrix rate, so "
    "that of floor is the share of that rate which the step reaches."
)

VOCAB = 16
PRECISIONS: tuple[Literal["fp32", "bf16"], ...] = ("fp32", "bf16")

MIXERS: Mapping[str, str] = {"attn": "attn", "fox": "fox", "gdn": "gdn(expand_k=1.0, expand_v=1.0, conv=4)"}


@dataclass(frozen=True)
class StepSize:
    """The model and the batch of a step."""

    dim: int
    length: int
    batch: int = 32
    heads: int = 4

    @property
    def shape(self) -> Shape:
        return Shape(dim=self.dim, heads=self.heads)

    def __str__(self) -> str:
        return f"dim {self.dim} T{self.length} B{self.batch}"

    def data(self) -> tuple[Tensor, Tensor]:
        """Random tokens and targets, [B, T]."""
        generator = torch.Generator().manual_seed(0)
        at = self.batch, self.length
        tokens, targets = (torch.randint(VOCAB, at, generator=generator) for _ in range(2))
        return tokens, targets


SIZES = (StepSize(128, 128), StepSize(64, 64))


def schedule_of(mixer: str) -> Schedule:
    """Two layers of ``mixer`` (text of a block) with SwiGLU."""
    return parse(f"2*({mixer}, swiglu)")


def our_step(
    model: nn.Module, tokens_BT: Tensor, targets_BT: Tensor, training: Training
) -> Callable[[], Tensor]:
    """One step of a run at each call; it returns the loss."""
    optimizer = _optimizer(model, training)

    def step() -> Tensor:
        loss, problem = _step(model, optimizer, tokens_BT, targets_BT, training, step=1)
        if problem:
            raise RuntimeError(f"the step that is timed broke: {problem}")
        return loss

    return step


def plain_step(model: nn.Module, tokens_BT: Tensor, targets_BT: Tensor) -> Callable[[], Tensor]:
    """The same with the optimiser's own defaults; it returns the loss."""
    training = Training()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=training.lr_at(0), betas=(0.9, 0.95), weight_decay=training.weight_decay
    )

    def step() -> Tensor:
        loss = F.cross_entropy(model(tokens_BT).flatten(0, 1), targets_BT.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), training.clip)
        optimizer.step()
        return loss.detach()

    return step


def rows(pace: Pace, sizes: Iterable[StepSize] = SIZES, mixers: Mapping[str, str] = MIXERS) -> Iterator[Row]:
    """One row per size, mixer, kernel of the whole model and precision of its products."""
    rate = matrix_rate(pace)
    for size in sizes:
        for name, text in mixers.items():
            yield from _mixer(name, schedule_of(text), size, pace, rate)


def _mixer(name: str, schedule: Schedule, size: StepSize, pace: Pace, rate: Rate) -> Iterator[Row]:
    data = size.data()
    torch.manual_seed(0)
    plain = plain_step(PlainModel(schedule, size.shape, VOCAB), *data)
    reference = Side("plain eager", pace.timed(plain))
    flops = 3 * flops_per_token(schedule, size.shape, VOCAB, size.length) * size.batch * size.length
    for kernel, precision in itertools.product(kernels(), PRECISIONS):
        training = Training(precision=precision)
        ours = pace.timed(our_step(_model(schedule, size, kernel), *data, training))
        row = measure(f"{name} {size}, {kernel} {precision}", ours, pace, reference, rate.floor(flops))
        yield with_rates(row, flops)


def _model(schedule: Schedule, size: StepSize, kernel: Kernel) -> nn.Module:
    torch.manual_seed(0)
    return LanguageModel(schedule, size.shape, VOCAB, kernel=kernel)
