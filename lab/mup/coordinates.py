"""Coordinate checks: how far a block's output moves in the first steps, by width (Yang et al. 2022, app. D).

Under maximal update parametrisation a few steps of AdamW move every block's output and the logits by an
amount that does not depend on the width. Without it the amount grows with the width, until training breaks.

W widths, S steps, B rows, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.base import Shape
from blocks.model import LanguageModel
from blocks.mup import groups
from blocks.schedule import Schedule

__all__ = [
    "BOUND",
    "EXCEPTIONS",
    "LOGITS",
    "Growth",
    "Setting",
    "check",
    "exponent",
    "optimiser",
    "shape_at",
    "walk",
]

BOUND = 0.2
"""The exponent of the width with which a movement may grow under muP; without it, it comes to 0.5 to 1."""

EXCEPTIONS: dict[str, tuple[float, str]] = {
    "logits": (0.25, "what the head's random start adds to their movement shrinks as 1 / sqrt(D)")
}
"""Block, or the logits -> (the bound, reason)."""

LOGITS = "logits"
"""What the growth of the logits is called; those of blocks are called as the caller has it."""

BATCH, LENGTH, VOCAB = 4, 32, 64


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is checked: widths, the base width, channels of a head, steps of AdamW at ``lr``, seeds."""

    widths: tuple[int, ...] = (64, 128, 256, 512)
    base: int = 64
    head: int = 16
    steps: int = 4
    lr: float = 1e-3
    seeds: int = 3


@dataclass(frozen=True)
class Growth:
    """One output over the widths, means over seeds of root mean squares.

    name: ``1 gdn``, or ``logits``. size: [W][S + 1], of the output after 0 to S steps. moved: [W][S + 1], of
    its difference to the start. exponent: the slope of the last movement, log over log of the width.
    """

    name: str
    size: tuple[tuple[float, ...], ...]
    moved: tuple[tuple[float, ...], ...]
    exponent: float

    @property
    def bound(self) -> float:
        """The exponent allowed under muP."""
        return EXCEPTIONS.get(self.name.split(" ")[-1], (BOUND, ""))[0]


def shape_at(width: int, setting: Setting) -> Shape:
    """The shape at a width."""
    return Shape(dim=width, heads=width // setting.head)


def optimiser(model: LanguageModel, lr: float, weight_decay: float = 0.0) -> torch.optim.AdamW:
    """AdamW with each group's own rate. Its epsilon is far below any gradient, which muP makes small."""
    parts: list[dict[str, Any]] = [
        {"params": list(g.params), "lr": lr * g.lr, "weight_decay": weight_decay if g.decays else 0.0}
        for g in groups(model)
    ]
    return torch.optim.AdamW(parts, betas=(0.9, 0.95), eps=1e-12)


def walk(
    schedule: Schedule, shape: Shape, mup: int | None, setting: Setting, seed: int
) -> list[list[Tensor]]:
    """[S + 1] times the outputs of all blocks and the logits of one model, before and after each step.

    Every step sees the same random tokens, so that what moves is the model alone.
    """
    torch.manual_seed(seed)
    ids_BT = torch.randint(VOCAB, (BATCH, LENGTH + 1))
    model = LanguageModel(schedule, shape, VOCAB, mup=mup)
    seen: list[Tensor] = []
    for part in model.stack.parts():
        part["block"].register_forward_hook(lambda _, __, out: seen.append(out[0].detach()))
    stepper, found = optimiser(model, setting.lr), []
    for step in range(setting.steps + 1):
        seen.clear()
        logits_BTV, _ = model(ids_BT[:, :-1])
        found.append([*seen, logits_BTV.detach()])
        if step < setting.steps:
            stepper.zero_grad()
            F.cross_entropy(logits_BTV.flatten(0, 1), ids_BT[:, 1:].flatten()).backward()
            stepper.step()
    return found


def check(schedule: Schedule, names: Sequence[str], mup: bool, setting: Setting) -> list[Growth]:
    """The growth of every block's output (``names`` in their order) and of the logits."""
    over = [list(_root_mean_squares(schedule, width, mup, setting)) for width in setting.widths]
    found = []
    for i, name in enumerate((*names, LOGITS)):
        size, moved = (tuple(tuple(step[i] for step in at[kind]) for at in over) for kind in (0, 1))
        found.append(Growth(name, size, moved, exponent(setting.widths, [one[-1] for one in moved])))
    return found


def _root_mean_squares(
    schedule: Schedule, width: int, mup: bool, setting: Setting
) -> Iterator[list[list[float]]]:
    """Sizes, then movements, [S + 1][outputs], means over seeds."""
    shape, base = shape_at(width, setting), setting.base if mup else None
    walks = [walk(schedule, shape, base, setting, seed) for seed in range(setting.seeds)]
    for start in (False, True):
        yield [
            [
                sum(_rms(w[s][i] - w[0][i] if start else w[s][i]) for w in walks) / len(walks)
                for i in range(len(walks[0][0]))
            ]
            for s in range(setting.steps + 1)
        ]


def _rms(x: Tensor) -> float:
    return x.double().square().mean().sqrt().item()


def exponent(widths: Sequence[int], values: Sequence[float]) -> float:
    """The least-squares slope of log(value) over log(width); NaN where a value is no positive number."""
    if not all(0 < value < math.inf for value in values):
        return math.nan
    x, y = [math.log(w) for w in widths], [math.log(v) for v in values]
    centre_x, centre_y = sum(x) / len(x), sum(y) / len(y)
    along = sum((a - centre_x) * (b - centre_y) for a, b in zip(x, y, strict=True))
    return along / sum((a - centre_x) ** 2 for a in x)
