"""The kernels for GPUs, ours and fla's, on the one of this machine: lines of ``lab doctor``."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch
    from torch import Generator, Tensor

    from blocks.kernels.check import Op

__all__ = ["Case", "Check", "case", "compared", "kernels", "timed"]

LENGTHS = (1, 64, 130)
BATCH, HEADS, KEY, VALUE, LENGTH = 4, 8, 64, 128, 2048
"""Of what is timed: a layer about as wide as Genesis' or a bit wider."""

DECODING = 4096
"""Width of the layer whose last product is timed on one token: no cache of a GPU holds its matrix."""

ROUNDS, CALLS = 10, 50
"""Turns of what is timed, and forward passes of one token in a turn: one alone is mostly waiting."""


@dataclass(frozen=True)
class Check:
    """One line of the answer. ``note`` is worth knowing; ``broken`` needs mending."""

    name: str
    status: Literal["ok", "note", "broken"]
    detail: str


@dataclass(frozen=True)
class Case:
    """What is timed: tensors, words for their sizes. decoding: forward alone, as for one token."""

    tensors: tuple[Tensor, ...]
    words: str
    decoding: bool


def _tokens(x_BTHK: Tensor) -> str:
    batch, length, heads, width = x_BTHK.shape
    return f"{batch} x {length} tokens, {heads} heads of {width}"


def _of_fox(q: Tensor, k: Tensor, *_: Tensor) -> str:
    cached = k.shape[1] - q.shape[1]
    return f"{_tokens(q)}, {k.shape[2]} of keys and values, {cached} cached tokens"


def _of_rule(q: Tensor, k: Tensor, v: Tensor, *_: Tensor) -> str:
    return f"{_tokens(q)} and {v.shape[-1]}"


def _of_largest(gate: Tensor, *_: Tensor) -> str:
    return f"{gate.shape[0]} x {gate.shape[1]} tokens, {gate.shape[2]} channels"


def _of_skipping(y: Tensor, weight: Tensor) -> str:
    kept = int(y.count_nonzero())
    return f"{y.shape[1]} token, {kept} of {y.shape[2]} channels to {weight.shape[0]}"


WORDS: dict[str, Callable[..., str]] = {
    "rms_norm": lambda x, *_: f"{_tokens(x)}, with a gate and without",
    "fox": _of_fox,
    "gated_delta": _of_rule,
    "gated_linear": _of_rule,
    "ttt": lambda q, *_: f"{_tokens(q)}, from three places in a mini-batch",
    "gated_largest": _of_largest,
    "skipping_product": _of_skipping,
}
"""Operation -> the words for the sizes of its tensors."""


def case(op: Op, rng: Generator, length: int = LENGTH) -> Case:
    """What ``op`` is timed on: ``length`` tokens, or one of them where it is for decoding alone."""
    from blocks.kernels import check

    decoding = op.name == "skipping_product"
    sizes = check.Sizes(BATCH, HEADS, KEY, VALUE)
    tensors = _decoded(rng) if decoding else op.draw(rng, length, sizes)
    return Case(tensors, WORDS[op.name](*tensors), decoding)


def _decoded(rng: Generator) -> tuple[Tensor, Tensor]:
    """The hidden activations of one token, most of them 0, and the last matrix of their layer.

    A quarter is kept in blocks of 16, by which a quarter of the matrix is read (``Sparse.reads``).
    """
    import torch

    from blocks.base import Shape
    from blocks.ffn import Sparse, keep_largest

    block, shape = Sparse(expand=4, k_ratio=0.25, block=16), Shape(dim=DECODING, heads=HEADS)
    u = torch.randn(1, 1, 4 * DECODING, generator=rng, dtype=torch.float64)
    weight = torch.randn(DECODING, u.shape[-1], generator=rng) * u.shape[-1] ** -0.5
    return keep_largest(u, block.kept(shape) // block.block, block.block), weight


def kernels() -> dict[str, Op]:
    """Ours, and fla's where that is installed, by names that say whose."""
    from blocks.kernels import check

    installed = ("triton", "fla") if find_spec("fla") else ("triton",)
    return {f"{backend} {name}": op for backend in installed for name, op in check.ops(backend).items()}


def compared(device: torch.device, kinds: tuple[torch.dtype, ...]) -> Iterator[Check]:
    """Each kernel against its reference, outputs and gradients, in each type; a line each."""
    from blocks.kernels import check

    for name, op in kernels().items():
        for kind in kinds:
            what, allowed = f"{name} {str(kind).removeprefix('torch.')}", check.TOLERANCES[kind]
            try:
                found = [x for length in LENGTHS for x in check.compare(op, kind, device, length)]
            except Exception as exc:  # whatever a compiler or a driver makes of it belongs into the report
                yield _broken(what, exc)
                continue
            worst = check.worst(found)
            right = worst.error <= allowed
            detail = f"off by {worst.error:.1e} in {worst.result}, {allowed:.0e} is allowed"
            yield Check(what, "ok" if right else "broken", detail)


def _broken(what: str, exc: Exception) -> Check:
    """A kernel that does not run: what was raised, its first line."""
    lines = str(exc).strip().splitlines() or [""]
    return Check(what, "broken", f"does not run: {type(exc).__name__}: {lines[0]}")


def timed(
    device: torch.device, kind: torch.dtype, length: int = LENGTH, rounds: int = ROUNDS
) -> Iterator[Check]:
    """Forward and backward of each kernel and of our form in torch, milliseconds, in turns; a line each.

    Of a kernel for decoding forward alone, on one token.
    """
    import torch

    for name, op in kernels().items():
        try:
            given = case(op, torch.Generator().manual_seed(0), length)
            ours, plain = _turns(op, given, device, kind, rounds)
        except Exception as exc:  # a kernel that does not run is a line of the report, as above
            yield _broken(f"time {name}", exc)
            continue
        ours_ms, plain_ms = (statistics.median(times) * 1e3 for times in (ours, plain))
        spread = f"{min(ours) * 1e3:.3f} to {max(ours) * 1e3:.3f}"
        passes = "forward" if given.decoding else "forward and backward"
        yield Check(
            f"time {name}",
            "ok",
            f"{ours_ms:.3f} ms ({spread}) {passes}, torch {plain_ms:.3f} ms; "
            f"{given.words}, {str(kind).removeprefix('torch.')}, median of {rounds}",
        )


def _turns(
    op: Op, given: Case, device: torch.device, kind: torch.dtype, rounds: int
) -> tuple[list[float], list[float]]:
    import torch

    tensors = [x.to(device, torch.float32 if i in op.wide else kind) for i, x in enumerate(given.tensors)]
    once = _forward if given.decoding else _both_ways
    times: tuple[list[float], list[float]] = [], []
    for turn in range(rounds + 1):
        for function, found in zip((op.run, op.torch), times, strict=True):
            seconds = once(function, tensors, device)
            if turn:  # the first compiles
                found.append(seconds)
    return times


def _forward(function: Callable[..., Any], tensors: list[Tensor], device: torch.device) -> float:
    """Seconds of one pass."""
    _settled(device)
    start = time.perf_counter()
    for _ in range(CALLS):
        function(*tensors)
    _settled(device)
    return (time.perf_counter() - start) / CALLS


def _both_ways(function: Callable[..., Any], tensors: list[Tensor], device: torch.device) -> float:
    import torch

    given = [x.requires_grad_() for x in tensors]
    _settled(device)
    start = time.perf_counter()
    out = function(*given)
    outs = [out] if isinstance(out, torch.Tensor) else list(out)
    torch.autograd.grad(outs, given, [torch.ones_like(y) for y in outs], materialize_grads=True)
    _settled(device)
    return time.perf_counter() - start


def _settled(device: torch.device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
