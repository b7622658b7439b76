"""How fast a full-size model trains here: its steps beside genesis-llm, and what its matrices allow.

All sides take turns, each in a process of its own: steps of ours at several numbers of rows, forward and
backward of genesis-llm on one row, and the matrix products of a step alone.

N rows of a product (batch and time together), I inputs, O outputs, S tokens of a row and its last target.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from blocks import BLOCKS
from blocks.genesis_model import GENESIS_152M, GenesisConfig
from blocks.products import linear
from lab.genesis.race import peer_model, random_weights
from lab.genesis.turns import Side, Work, take_turns
from lab.model.form import Spec
from lab.model.spec import Blocks, build
from lab.train.loop import Trainer
from lab.train.parallel import Crew
from lab.train.rows import HeldOut
from lab.train.run import kernel_of

__all__ = ["Line", "Matrices", "matrices", "pace"]

CPU = torch.device("cpu")
PEAK = 1.0
"""FLOP/s that a Trainer holds its MFU against; it is not looked at here."""

TRIES = 2
"""Products by each routine before the faster one is taken."""

Clock = Callable[[], float]


@dataclass(frozen=True)
class Line:
    """One side. seconds: of each turn. memory: peak of its process in bytes. flops: in matrix products."""

    what: str
    tokens: int
    seconds: tuple[float, ...]
    memory: int
    flops: float | None = None

    @property
    def tokens_per_s(self) -> tuple[float, ...]:
        return tuple(self.tokens / seconds for seconds in self.seconds)

    def times(self, other: Line) -> tuple[float, ...]:
        """Tokens a second of this over those of ``other`` in the same turn."""
        return tuple(a / b for a, b in zip(self.tokens_per_s, other.tokens_per_s, strict=True))


@dataclass(frozen=True)
class Matrices:
    """The weights of linear layers by shape (O, I), and how many there are of each."""

    shapes: Counter[tuple[int, int]]

    @property
    def weights(self) -> int:
        return sum(outputs * inputs * count for (outputs, inputs), count in self.shapes.items())

    def flops(self, tokens: int) -> float:
        """Of the products of one step: forward, and twice as many backward."""
        return 6.0 * tokens * self.weights


def matrices(spec: Spec, blocks: Blocks = BLOCKS) -> Matrices:
    """Of all linear layers of the model, the head with them. None is allocated."""
    with torch.device("meta"):
        model = build(spec, blocks=blocks)
    layers = (module for module in model.modules() if isinstance(module, nn.Linear))
    return Matrices(Counter((layer.weight.shape[0], layer.weight.shape[1]) for layer in layers))


def pace(
    spec: Spec,
    rows: Sequence[int],
    repeats: int,
    threads: int,
    blocks: Blocks = BLOCKS,
    config: GenesisConfig = GENESIS_152M,
    warm_up: int = 1,
) -> list[Line]:
    """Ours for each number of ``rows``, their matrix products alone, and last genesis-llm on one row.

    ``spec`` says model, length of a row and training. Seconds are of the processor for one thread, which a
    busy neighbour does not lengthen, and of the wall for several.
    """
    found, length = matrices(spec, blocks), spec.data.length
    clock = time.process_time if threads == 1 else time.perf_counter
    sides: list[Side] = []
    heads: list[tuple[str, int, float | None]] = []
    for count in rows:
        tokens = count * length
        sides.append(partial(_ours, spec, count, blocks, clock))
        heads.append((f"ours, {count} x {length}, whole steps", tokens, found.flops(tokens)))
        sides.append(partial(_products, found, tokens, spec.train.precision, clock))
        heads.append((f"its matrix products alone, {count} x {length}", tokens, found.flops(tokens)))
    with tempfile.TemporaryDirectory(prefix="lab-pace-") as folder:
        sides.append(partial(_theirs, random_weights(Path(folder), config), length, clock))
        heads.append((f"genesis-llm, 1 x {length}, forward and backward", length, None))
        timed = take_turns("pace", sides, repeats, threads, warm_up)
    return [
        Line(what, tokens, one.seconds, one.memory, flops)
        for (what, tokens, flops), one in zip(heads, timed, strict=True)
    ]


@dataclass(frozen=True)
class _Drawn:
    """Rows [B, S] of ids drawn at random: what is read does not change how long a step takes."""

    tokens: np.ndarray

    @property
    def segments(self) -> np.ndarray:
        return np.zeros_like(self.tokens)

    @property
    def mask(self) -> np.ndarray:
        return np.ones_like(self.tokens)


@dataclass(frozen=True)
class _Random:
    vocab: int
    length: int

    def rows(self, step: int, indices: Sequence[int]) -> _Drawn:
        rng = np.random.default_rng(step)
        return _Drawn(rng.integers(self.vocab, size=(len(indices), self.length + 1)))


def _ours(spec: Spec, rows: int, blocks: Blocks, clock: Clock) -> Work:
    """Optimiser steps of ``lab train`` itself, clipping and AdamW with them."""
    part = spec.train.model_copy(update={"batch": rows, "micro": None})
    spec = spec.model_copy(update={"train": part})
    length, vocab = spec.data.length, spec.model.vocab
    nothing = HeldOut(np.zeros(0, np.int64), None, vocab, length, b"")
    source, alone = _Random(vocab, length), Crew(0, 1, CPU)
    trainer = Trainer(spec, source, nothing, alone, kernel_of(spec), blocks, PEAK)
    return _timed(trainer.step, clock)


def _theirs(path: Path, length: int, clock: Clock) -> Work:
    model = peer_model(path).train()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.vocab_size, (1, length), generator=generator)
    targets = ids.roll(-1, 1).contiguous()

    def step() -> None:
        model(ids, targets=targets)[1].backward()
        model.zero_grad(set_to_none=True)

    return _timed(step, clock)


def _products(found: Matrices, tokens: int, precision: str, clock: Clock) -> Work:
    """The seconds of all products of a step, by one product x W^T of each shape.

    Each by the faster of the routines that PyTorch brings here: ``torch.mm``, or by way of
    ``blocks.products.linear`` (oneDNN where that is in use). The backward products multiply as much twice.
    """
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    timed: list[tuple[int, Work]] = []
    for (outputs, inputs), count in found.shapes.items():
        x_NI, weight_OI = torch.randn(tokens, inputs, dtype=kind), torch.randn(outputs, inputs, dtype=kind)
        timed.append((3 * count, _fastest(x_NI, weight_OI, clock)))
    return lambda: sum(count * work() for count, work in timed)


def _fastest(x_NI: Tensor, weight_OI: Tensor, clock: Clock) -> Work:
    routines = [partial(torch.mm, x_NI, weight_OI.T), partial(linear, x_NI, weight_OI)]
    works = [_timed(routine, clock) for routine in routines]
    return min(works, key=lambda work: statistics.median(work() for _ in range(TRIES)))


def _timed(call: Callable[[], object], clock: Clock) -> Work:
    def work() -> float:
        started = clock()
        call()
        return clock() - started

    return work
