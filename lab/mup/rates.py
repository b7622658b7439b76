"""Learning-rate curves over widths: the loss after some hundred steps on bytes of Python's standard library.

B rows, T tokens.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.model import LanguageModel
from blocks.schedule import Schedule
from lab.data.corpus import corpus_source
from lab.data.origin import Origin, origin_of_text
from lab.mup.coordinates import Setting, optimiser, shape_at

__all__ = ["RATES", "Curve", "curves", "origin", "text", "train"]

RATES = tuple(2.0**power for power in range(-11, -2, 2))
"""Highest rates, a factor of four apart."""

BYTES, TAIL = 1_000_000, 0.2
"""How much text is read, and the share of the last steps over which the loss is averaged."""


@dataclass(frozen=True)
class Curve:
    """The loss by rate at one width: nats a byte, the mean over seeds; infinite where a run diverged."""

    width: int
    mup: bool
    rates: tuple[float, ...]
    losses: tuple[tuple[float, ...], ...]  # [rate][seed]

    @property
    def means(self) -> tuple[float, ...]:
        return tuple(sum(at) / len(at) for at in self.losses)

    @property
    def best(self) -> float:
        """The rate of the lowest mean."""
        return min(zip(self.means, self.rates, strict=True))[1]


def text() -> Tensor:
    """Bytes of the standard library's modules, in the order of their names, [BYTES] at most."""
    found = bytearray()
    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        found += path.read_bytes()
        if len(found) >= BYTES:
            break
    return torch.frombuffer(found[:BYTES], dtype=torch.uint8).long()


def origin() -> Origin:
    """Of ``text``."""
    read = text().byte().numpy().tobytes()
    return origin_of_text("modules", read, f"the first {len(read):,} bytes of those of the {corpus_source()}")


def train(
    model: LanguageModel, data: Tensor, steps: int, lr: float, seed: int, batch: int, length: int
) -> float:
    """The mean loss over the last fifth of ``steps``: linear warm-up over a tenth, then constant."""
    draw = torch.Generator().manual_seed(seed)
    stepper, losses = optimiser(model, lr, weight_decay=0.0), []
    highest = [group["lr"] for group in stepper.param_groups]
    for step in range(steps):
        for group, most in zip(stepper.param_groups, highest, strict=True):
            group["lr"] = most * min(1.0, (step + 1) / max(1, steps // 10))
        start_B1 = torch.randint(len(data) - length - 1, (batch, 1), generator=draw)
        ids_BT = data[start_B1 + torch.arange(length + 1)]
        logits_BTV, _ = model(ids_BT[:, :-1])
        loss = F.cross_entropy(logits_BTV.flatten(0, 1), ids_BT[:, 1:].flatten())
        stepper.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        stepper.step()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            return math.inf
    last = losses[-max(1, round(TAIL * steps)) :]
    return sum(last) / len(last)


def curves(
    schedule: Schedule,
    setting: Setting,
    steps: int,
    tell: Callable[[int, bool, float, int, float], None],
    batch: int = 8,
    length: int = 64,
) -> list[Curve]:
    """A curve for every width, without muP and with it; ``tell`` hears of each finished run."""
    data, found = text(), []
    for width in setting.widths:
        for mup in (False, True):
            losses = []
            for rate in RATES:
                at = []
                for seed in range(setting.seeds):
                    torch.manual_seed(seed)
                    base = setting.base if mup else None
                    model = LanguageModel(schedule, shape_at(width, setting), 256, mup=base)
                    at.append(train(model, data, steps, rate, seed, batch, length))
                    tell(width, mup, rate, seed, at[-1])
                losses.append(tuple(at))
            found.append(Curve(width, mup, RATES, tuple(losses)))
    return found
