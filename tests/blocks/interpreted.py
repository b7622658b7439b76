"""Triton's interpreter: each kernel on the CPU against the paper's loop, at odd lengths and on hard inputs.

    TRITON_INTERPRET=1 python -m tests.blocks.interpreted rms_norm

A process of its own, because Triton reads TRITON_INTERPRET when it is imported. float32 and float16; the
interpreter has no bfloat16 (its products of that type are wrong). Nor does it show the rounding of tensor
cores, races between programs, or time. The exit code is 1 where a kernel is off.
"""

import sys
import time
from pathlib import Path

import torch

from tests.blocks.breaking import break_kernel
from tests.blocks.tolerances import HARD_FLOAT32

LENGTHS = {torch.float32: (1, 31, 32, 33, 70), torch.float16: (33,)}
"""Around the tiles, which are of 16 and of 32 tokens."""

ALLOWED = {torch.float32: 2e-5, torch.float16: 4e-3}
"""Below what a GPU is allowed (``check.TOLERANCES``): here every product is exact to its type."""


def main(name: str, *broken: str) -> int:
    """``broken``: a module of kernels, what stands in it, what to put there, and a folder for the result.

    Then the first case that is off is the last.
    """
    if broken:
        module, old, new, folder = broken
        break_kernel(module, old, new, Path(folder))
    from blocks.kernels import check
    from tests.blocks.interpreted_hard import HARD

    op, off = check.OPS[name], 0
    for kind, lengths in LENGTHS.items():
        short = str(kind).removeprefix("torch.")
        cases = {f"T={length}": (length, None) for length in lengths}
        if kind == torch.float32:
            cases |= {case: (0, draw) for case, draw in HARD.get(name, {}).items()}
        for case, (length, draw) in cases.items():
            start = time.perf_counter()
            figures = check.compare(op, kind, torch.device("cpu"), length, draw=draw)
            worst = check.worst(figures)
            allowed = HARD_FLOAT32["torch"] if draw else ALLOWED[kind]
            bad = not worst.error <= allowed
            off += bad
            seconds = time.perf_counter() - start
            print(
                f"{name:<12} {short:<8} {case:<16} {worst.error:.1e} in {worst.result:<11} {seconds:5.1f} s"
                + (f"   OFF, {allowed:.0e} is allowed" if bad else "")
            )
            if bad and broken:
                return 1
    return int(off > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
