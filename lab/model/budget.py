"""What a training costs before it is begun: FLOPs, time on a device, and memory by a stated estimate.

    weights      4 bytes each (float32, also where products run in bf16)
    gradients    4 bytes each
    optimiser    AdamW 8 bytes each; Muon 4 for the matrices that it takes, AdamW for the rest
    average      4 bytes each, where one is kept
    exchange     over several devices: with ddp the buckets in which gradients travel, 4 bytes each weight;
                 with fsdp 4 bytes of each weight of the largest block, gathered, and 8 of each outside the
                 blocks (embedding, head, last norm, inputs), which stays gathered beside its gradient
    activations  what autograd keeps of a block, read off one block of each kind, times rows and layers;
                 with recompute 8 bytes of each block's input, and of the largest block all
    logits       16 bytes each: themselves, their log-softmax, and the gradients of both
    working      what one block needs beside for a moment, of the one that needs most

With ``fsdp`` the first four are shared among the devices. In one process the sum was 1.05 and 1.08 times the
tensors that were really there at once; over several it has not been measured. Not counted: the program itself
(0.13 GB on a CPU) and what an allocator keeps beside, together without the program a measured peak 1.03 and
1.04 times the sum (LOG.md, 2026-11-27); a block that fsdp gathers ahead of its turn, and the copies that
gathering and sharing out make for a moment; what nccl and the kernels keep for themselves; Muon's copies of
one matrix in a step; a checkpoint while it is written.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from blocks import BLOCKS
from blocks.base import Block
from blocks.cost import flops_per_token, params_by_part
from blocks.inputs import INPUTS
from blocks.residual import BranchScale
from lab.model.form import Spec
from lab.model.held import kept, passing
from lab.model.spec import design_of, schedule_of, shape_of

__all__ = [
    "DEVICES",
    "MFU",
    "Budget",
    "BudgetError",
    "Device",
    "Memory",
    "budget",
    "device_named",
    "matmul_rate",
]

Blocks = Mapping[str, type[Block]]

MFU = 0.4
"""Share of the peak that trainings of such models reach where nothing else is said: 0.3 to 0.5 is common."""

ROOM = 0.85
"""Share of a device's memory that a plan fills: peaks were up to 1.04 times the estimate, and a program."""


class BudgetError(ValueError):
    """A device is not one that can be planned for; one sentence."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """peak: FLOP/s of dense products in the training's precision. memory: bytes, None where not known."""

    name: str
    peak: float
    mfu: float
    memory: float | None
    source: str


DEVICES: Mapping[str, tuple[float, float, float, str]] = {
    "a100": (312e12, 19.5e12, 80e9, "NVIDIA, A100 80GB data sheet"),
    "h100": (989e12, 67e12, 80e9, "NVIDIA, H100 SXM data sheet"),
    "rtx4090": (165.2e12, 82.6e12, 24e9, "NVIDIA, Ada GPU architecture, appendix A"),
}
"""Peaks without sparsity, bf16 (summed in float32) and float32, FLOP/s; memory, bytes; who says so."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one device; activations, logits and working memory of one pass of ``rows`` rows.

    fixed: of these what does not grow with the rows (weights cast to bf16, gradients before they are added).
    row: what one row adds to them.
    """

    weights: int
    gradients: int
    optimiser: int
    average: int
    exchange: int
    activations: int
    logits: int
    working: int
    rows: int
    fixed: int
    row: int

    @property
    def total(self) -> int:
        return self.without_rows + self.rows * self.row

    @property
    def without_rows(self) -> int:
        return self.weights + self.gradients + self.optimiser + self.average + self.exchange + self.fixed

    def most_rows(self, memory: float) -> int:
        """How many rows of a pass leave room in ``memory`` bytes; 0 where not one does."""
        return max(0, int((ROOM * memory - self.without_rows) // self.row))


@dataclass(frozen=True, kw_only=True)
class Budget:
    """One training. flops: of a token, forward; all_flops: of the training, backward counted twice."""

    params: Mapping[str, int]
    flops: int
    tokens: int
    steps: int
    all_flops: float
    memory: Memory

    def seconds(self, device: Device, devices: int) -> float:
        """How long it takes on so many of ``device``, evaluation and reading apart."""
        return self.all_flops / (device.peak * device.mfu * devices)


def budget(spec: Spec, devices: int = 1, blocks: Blocks = BLOCKS) -> Budget:
    """The budget of ``spec`` over ``devices``. Runs rows through one block of every kind, on the CPU."""
    layers, shape, train = schedule_of(spec, blocks), shape_of(spec), spec.train
    vocab, length = spec.model.vocab, spec.data.length
    design = design_of(spec)
    forward = flops_per_token(layers, shape, vocab, length, design)
    again = forward - 2 * shape.dim * vocab if train.recompute else 0
    tokens = train.steps * train.batch * length
    return Budget(
        params=params_by_part(layers, shape, vocab, spec.model.tied, blocks, design),
        flops=forward,
        tokens=tokens,
        steps=train.steps,
        all_flops=float(3 * forward + again) * tokens,
        memory=_memory(spec, devices, blocks),
    )


def _memory(spec: Spec, devices: int, blocks: Blocks) -> Memory:
    layers, shape, train = schedule_of(spec, blocks), shape_of(spec), spec.train
    parts = params_by_part(layers, shape, spec.model.vocab, spec.model.tied, blocks, design_of(spec))
    total = sum(parts.values())
    # Muon takes the matrices of the stack; its vectors are few and counted with them.
    hidden = total - sum(
        parts.get(name, 0) for name in ("embedding", "head", "norms", "residual", "values", *INPUTS)
    )
    optimiser = 8 * total - (4 * hidden if train.optimiser.name == "muon" else 0)
    share = devices if train.parallel == "fsdp" else 1
    fixed, row = _activations(spec, blocks)
    beside = [passing(block, shape, spec.data.length) for block in {b for layer in layers for b in layer}]
    moment, row_moment = max(beside, key=sum)
    rows = train.micro or max(1, train.batch // devices)
    logits = 16 * spec.data.length * spec.model.vocab
    return Memory(
        weights=4 * total // share,
        gradients=4 * total // share,
        optimiser=optimiser // share,
        average=(4 * total if train.average else 0) // share,
        exchange=_exchange(spec, devices, total, blocks),
        activations=fixed + rows * row,
        logits=rows * logits,
        working=moment + rows * row_moment,
        rows=rows,
        fixed=fixed + moment,
        row=row + logits + row_moment,
    )


def _exchange(spec: Spec, devices: int, total: int, blocks: Blocks) -> int:
    """Bytes beside all else where several devices train a model of ``total`` weights."""
    if devices == 1:
        return 0
    if spec.train.parallel == "ddp":
        return 4 * total
    shape, design = shape_of(spec), design_of(spec)
    # What is sharded together: a block, the gain before it and the scale behind it.
    scales = any(isinstance(part, BranchScale) for part in design.residual)
    beside = ((design.norms == "gain") + scales) * shape.dim
    parts = [block.params(shape) + beside for layer in schedule_of(spec, blocks) for block in layer]
    return 4 * max(parts) + 8 * (total - sum(parts))


def _activations(spec: Spec, blocks: Blocks) -> tuple[int, int]:
    """Bytes kept for the backward pass by all layers: whatever the rows, and for each row."""
    layers, shape = schedule_of(spec, blocks), shape_of(spec)
    bf16, length = spec.train.precision == "bf16", spec.data.length
    flat = [block for layer in layers for block in layer]
    held = {block: kept(block, shape, length, bf16) for block in dict.fromkeys(flat)}
    if not spec.train.recompute:
        return sum(held[block][0] for block in flat), sum(held[block][1] for block in flat)
    largest = max(held.values(), key=sum)
    return largest[0], largest[1] + 8 * length * shape.dim * len(flat)


DEVICE = re.compile(r"([A-Za-z][\w. -]*?)(?::([\d.]+(?:e\+?\d+)?))?(?:@([\d.]+))?")


def device_named(text: str, precision: str, rate: Callable[[str], float]) -> Device:
    """``a100``, ``cpu``, or ``NAME:PEAK@MFU`` with a peak in FLOP/s; rate: what this CPU multiplies at."""
    found = DEVICE.fullmatch(text.strip())
    name = found[1].lower() if found else ""
    try:
        given = float(found[2]) if found and found[2] else None
        mfu = float(found[3]) if found and found[3] else MFU
    except ValueError:
        found, given, mfu = None, None, MFU
    if found is None or not 0 < mfu <= 1 or (given is not None and not given > 0):
        raise BudgetError(f"--device is {text!r}; write it as a100, cpu, or NAME:312e12@0.4, peak and MFU")
    known = DEVICES.get(name)
    memory = known[2] if known else None
    if given is not None:
        return Device(name=name, peak=given, mfu=mfu, memory=memory, source="as given")
    if name == "cpu":
        return Device(name="cpu", peak=rate(precision), mfu=mfu, memory=None, source="measured on one core")
    if known is None:
        raise BudgetError(
            f"--device is {text!r}; known are cpu, {', '.join(DEVICES)}; give the peak of another "
            f"in FLOP/s, such as {found[1]}:312e12@0.4"
        )
    peak = known[0] if precision == "bf16" else known[1]
    return Device(name=name, peak=peak, mfu=mfu, memory=memory, source=known[3])


def matmul_rate(precision: str, size: int = 512, seconds: float = 0.3) -> float:
    """FLOP/s of products of square matrices on this CPU: the best of many on one core, times torch's threads.

    By the processor's time, so that other work on the machine does not count.
    """
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size).to(kind) for _ in range(2))
    threads, best, spent = torch.get_num_threads(), math.inf, 0.0
    torch.set_num_threads(1)
    try:
        while spent < seconds:
            start = time.thread_time()
            torch.mm(a, b)
            taken = time.thread_time() - start
            best, spent = min(best, taken or math.inf), spent + taken
    finally:
        torch.set_num_threads(threads)
    return threads * 2 * size**3 / best
