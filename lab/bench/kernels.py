"""Which kernels there are to be timed, and the core of a mixer that each stands for: looked up here alone."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any, cast

from blocks.base import Block, Kernel, Shape
from blocks.kernels.native import compiler

__all__ = ["Core", "cores", "kernels"]

Core = Callable[..., tuple[Any, Any]]
"""The mathematics of a mixer between its projections: tensors -> (output, what it remembers)."""


def kernels() -> list[Kernel]:
    """All that run here, but the reference, which is for tests and slow by design, and those of GPUs.

    What is timed lies in main memory; ``lab doctor`` times kernels on a GPU.
    """
    without = {"reference", "triton", "fla"} | (set() if compiler() else {"c"})
    return [kernel for kernel in typing.get_args(Kernel) if kernel not in without]


def cores(block: Block, shape: Shape) -> dict[str, Core]:
    """The cores of a mixer by the kernel they stand for; kernels with one core stand together, ``a = b``."""
    alike: dict[Core, list[str]] = {}
    for kernel in kernels():
        # Every mixer keeps the core that it was built with as ``core``.
        alike.setdefault(cast(Core, block.build(shape, kernel).core), []).append(kernel)
    return {" = ".join(names): core for core, names in alike.items()}
