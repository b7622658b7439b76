"""What a training costs while it runs: tokens a second, the share of the processor's peak, memory."""

from __future__ import annotations

import resource
import sys
import time
from contextlib import AbstractContextManager

import torch

__all__ = ["matmul_rate", "memory_peak"]

REPEATS = 5


def matmul_rate(device: torch.device, precision: AbstractContextManager[object]) -> float:
    """FLOP/s of one process at a square matrix product, in the precision given: the best of a few.

    It is the peak that a model is held against where nobody states one; what a data sheet says is higher.
    """
    size = 8192 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device, generator=torch.Generator(device).manual_seed(0))
    best = float("inf")
    with torch.no_grad(), precision:
        for _ in range(REPEATS):
            started = time.perf_counter()
            torch.mm(a, a)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def memory_peak(device: torch.device) -> int:
    """Bytes at most held so far: on a GPU by tensors, on a CPU by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
