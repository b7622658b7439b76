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
    from torch import Tensor

    from blocks.kernels.check import Op

__all__ = ["Check", "compared", "kernels", "timed"]

LENGTHS = (1, 64, 130)
BATCH, HEADS, KEY, VALUE, LENGTH = 4, 8, 64, 128, 2048
"""Of what is timed: a layer about as wide as Genesis' or a bit wider."""

ROUNDS = 10


@dataclass(frozen=True)
class Check:
    """One line of the answer. ``note`` is worth knowing; ``broken`` needs mending."""

    name: str
    status: Literal["ok", "note", "broken"]
    detail: str


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
    """Forward and backward of each kernel and of our form in torch, milliseconds, in turns; a line each."""
    for name, op in kernels().items():
        try:
            ours, plain = _turns(op, device, kind, length, rounds)
        except Exception as exc:  # a kernel that does not run is a line of the report, as above
            yield _broken(f"time {name}", exc)
            continue
        ours_ms, plain_ms = (statistics.median(times) * 1e3 for times in (ours, plain))
        what = str(kind).removeprefix("torch.")
        spread = f"{min(ours) * 1e3:.2f} to {max(ours) * 1e3:.2f}"
        yield Check(
            f"time {name}",
            "ok",
            f"{ours_ms:.2f} ms ({spread}) forward and backward, torch {plain_ms:.2f} ms; "
            f"{BATCH} x {length} tokens, {HEADS} heads of {KEY} and {VALUE}, {what}, median of {rounds}",
        )


def _turns(
    op: Op, device: torch.device, kind: torch.dtype, length: int, rounds: int
) -> tuple[list[float], list[float]]:
    import torch

    from blocks.kernels import check

    drawn = op.draw(torch.Generator().manual_seed(0), length, check.Sizes(BATCH, HEADS, KEY, VALUE))
    given = [
        x.to(device, torch.float32 if i in op.wide else kind).requires_grad_() for i, x in enumerate(drawn)
    ]
    times: tuple[list[float], list[float]] = [], []
    for turn in range(rounds + 1):
        for function, found in zip((op.run, op.torch), times, strict=True):
            seconds = _once(function, given, device)
            if turn:  # the first compiles
                found.append(seconds)
    return times


def _once(function: Callable[..., Any], given: list[Tensor], device: torch.device) -> float:
    import torch

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
