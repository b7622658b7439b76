"""What the compilers make of the Triton kernels for sm_80, sm_90 and gfx942: a table, and bounds that hold.

    python -m tests.blocks.compile_table rms_norm

Compiled are the launches of real widths in bfloat16, forward and backward (``ahead.launches``). Asserted of
each: nothing is spilled but the scalar registers of ``SCALARS``, no thread takes more registers than its
bound, and where a kernel has a matrix product its tensors are of 16 bits and tensor cores multiply them. That
says that a kernel compiles and what it takes; how fast it is, and whether its binary computes right, only a
GPU can say (``lab doctor``). The exit code is 1 where something does not hold.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from tests.blocks.ahead import TARGETS, Launch, Made, compiled, launches
from tests.blocks.breaking import break_kernel

B, T, H = 2, 1024, 8

REGISTERS = {
    "_norm_forward": (64, 64, 48),
    "_norm_backward": (136, 136, 88),
    "_fox_forward": (136, 136, 200),
    "_fox_backward_q": (176, 176, 360),
    "_fox_backward_kv": (224, 224, 440),
    "_largest_forward": (104, 104, 56),
    "_largest_backward": (56, 56, 56),
    "_skipping": (72, 64, 40),
    "_delta_prepare": (216, 216, 168),
    "_delta_scan": (248, 216, 304),
    "_delta_read": (64, 64, 104),
    "_delta_scan_back": (255, 248, 288),
    "_delta_gradients": (255, 255, 304),
    "_gla_scores": (136, 136, 80),
    "_gla_scores_back": (176, 176, 112),
    "_gla_scan": (168, 136, 112),
    "_gla_scan_back": (136, 104, 96),
    "_ttt_walk": (248, 240, 176),
    "_ttt_walk_back": (255, 240, 200),
}
"""Kernel -> the most registers of a thread on each of the targets (of 255, 255 and 512)."""

SCALARS = {"_fox_backward_kv": 88}
"""Kernel -> the most scalar registers that gfx942 spills; of the others it spills none.

Fox's gradients of keys and values hold more masks (two of these registers for 64 threads), addresses and
flags over their two loops than the 102 that there are. They go to lanes of vector registers, not to memory:
its scratch is asserted to be empty.
"""


def wide(*sizes: int) -> Tensor:
    return torch.empty(*sizes, device="meta").requires_grad_()


def half(*sizes: int) -> Tensor:
    return torch.empty(*sizes, device="meta", dtype=torch.bfloat16).requires_grad_()


def norm() -> list[Launch]:
    from blocks.kernels.triton_norm import rms_norm

    def run(x: Tensor, gain: Tensor, gate: Tensor) -> Tensor:
        return rms_norm(x, gain, 1e-6, 1.0, gate)

    heads = launches(run, [half(B, T, H, 96), wide(96), half(B, T, H * 96)])
    return heads + launches(lambda x, gain: rms_norm(x, gain, 1e-6, 1.0), [half(B, T, 2048), wide(2048)])


def fox() -> list[Launch]:
    from blocks.kernels.triton_fox import forgetting_attention

    gates = wide(B, T, H), wide(B, 0, H)
    return [
        launch
        for width in (64, 128)
        for launch in launches(forgetting_attention, [*(half(B, T, H, width) for _ in range(3)), *gates])
    ]


def delta() -> list[Launch]:
    from blocks.kernels.triton_delta import gated_delta

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        return gated_delta(*inputs)

    return [
        launch
        for key, value in ((64, 128), (128, 256))
        for launch in launches(
            run,
            [
                *(half(B, T, H, n) for n in (key, key, value)),
                wide(B, T, H),
                wide(B, T, H),
                wide(B, H, key, value),
            ],
        )
    ]


def gla() -> list[Launch]:
    from blocks.kernels.triton_gla import gated_linear

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        return gated_linear(*inputs)

    return [
        launch
        for key, value in ((64, 128), (128, 256))
        for launch in launches(
            run, [*(half(B, T, H, n) for n in (key, key, value)), wide(B, T, H, key), wide(B, H, key, value)]
        )
    ]


def largest() -> list[Launch]:
    from blocks.kernels.triton_sparse import gated_largest

    def run(gate: Tensor, up: Tensor) -> Tensor:
        return gated_largest(gate, up, gate.shape[-1] // 2)

    return [
        launch for width in (1440, 8192) for launch in launches(run, [half(B, T, width), half(B, T, width)])
    ]


def ttt() -> list[Launch]:
    from blocks.kernels.triton_ttt import ttt_dual

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        return ttt_dual(*inputs, 0, 16, 1e-6)

    tokens = *(half(B, T, H, 64) for _ in range(3)), wide(B, T, H)
    inner = wide(H, 64), wide(H, 64), wide(B, H, 65, 64), wide(B, H, 65, 64)
    return launches(run, [*tokens, *inner])


def skipping() -> list[Launch]:
    from blocks.kernels.triton_sparse import skipping_product

    return [
        launch
        for outputs, width in ((576, 1440), (2048, 8192))
        for launch in launches(skipping_product, [half(1, 1, width), half(outputs, width)])
    ]


ROWS: dict[str, Callable[[], list[Launch]]] = {
    "rms_norm": norm,
    "fox": fox,
    "gated_delta": delta,
    "gated_linear": gla,
    "gated_largest": largest,
    "skipping_product": skipping,
    "ttt": ttt,
}


def wrong(launch: Launch, made: Made, allowed: int) -> list[str]:
    """What does not hold of a kernel on a target."""
    found = []
    if made.spilled:
        found.append("spills")
    if made.scalars > SCALARS.get(launch.name, 0):
        found.append("spills scalars")
    if made.registers > allowed:
        found.append(f"more than {allowed} registers")
    if made.dots and not launch.half:
        found.append("a product without 16-bit inputs")
    if made.dots and not made.products:
        found.append("no tensor cores")
    return found


def show(name: str, launch: Launch, bounds: tuple[int, ...] | None) -> bool:
    """A line for each target; whether all of them hold. Without bounds nothing is asserted."""
    holds = True
    for i, target in enumerate(TARGETS):
        made = compiled(launch, target)
        problems = wrong(launch, made, bounds[i]) if bounds else []
        holds = holds and not problems
        of = f"of {bounds[i]:3}" if bounds else "      "
        print(
            f"{name:<9} {launch.name:<30} {target:<7} {made.registers:3} {of} registers, "
            f"{made.spilled:4} spilled, {made.scalars:3} scalars, {made.products:4} on tensor cores, "
            f"{made.shared:6} B shared  "
            + launch.tiles
            + (f"   OFF: {', '.join(problems)}" if problems else "")
        )
    return holds


def main(name: str, *broken: str) -> int:
    """``broken``: as of ``tests.blocks.interpreted``; then the first kernel that is off is the last."""
    if broken:
        module, old, new, folder = broken
        break_kernel(module, old, new, Path(folder))
    shown = (show("ours", launch, REGISTERS[launch.name]) for launch in ROWS[name]())
    return int(not all(shown if broken else [*shown]))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
