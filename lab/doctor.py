"""``lab doctor``: is everything here that the lab needs, and does it compute right on this machine?"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lab.gpu import Check, compared, timed
from lab.terminal import BlocksOption, JsonOption, emit, known_blocks, say

if TYPE_CHECKING:
    from blocks.base import Block

__all__ = ["Check", "doctor"]

PACKAGES = ("torch", "triton", "einops", "numpy", "scipy", "optuna", "polars", "plotly", "pydantic", "typer")
LEAST_DISK = 2**30  # bytes; a large sweep stores some hundred megabytes
AGREE = 1e-8  # absolute plus relative, in float64


def doctor(blocks: BlocksOption = None, json: JsonOption = False) -> None:
    """Check this installation; the exit code is 1 if something is broken.

    Every block is built in its fast forms and its reference form, which are compared in float64. On a GPU
    every Triton kernel, and of fla where that is installed, is compared with its reference in three types and
    timed, which takes minutes; what is printed is meant for an issue.

    Examples:
      lab doctor
      lab doctor --blocks my_blocks.py
      lab doctor --json
    """
    checks = [*_installation(), *_machine(), *(_forms(*one) for one in known_blocks(blocks).items()), *_gpu()]
    broken = sum(check.status == "broken" for check in checks)
    if json:
        emit({"ok": not broken, "checks": [asdict(check) for check in checks]})
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            say(f"{check.status:<6}  {check.name:<{width}}  {check.detail}")
        say()
        say(f"{broken} of {len(checks)} checks are broken." if broken else f"All {len(checks)} checks pass.")
    if broken:
        raise typer.Exit(1)


def _installation() -> Iterator[Check]:
    new_enough = sys.version_info >= (3, 11)
    needed = "" if new_enough else "; 3.11 or newer is needed"
    yield Check("python", "ok" if new_enough else "broken", platform.python_version() + needed)
    for package in PACKAGES:
        try:
            yield Check(package, "ok", metadata.version(package))
        except metadata.PackageNotFoundError:
            # triton exists for Linux alone, and nothing on a CPU needs it.
            optional = package == "triton" and sys.platform != "linux"
            yield Check(package, "note" if optional else "broken", "not installed; run make install")


def _machine() -> Iterator[Check]:
    import torch

    from analysis.picture import browser
    from blocks.kernels.native import compiler

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check("cores", "ok", f"{cores} usable; torch would take {torch.get_num_threads()} threads")
    platforms = {"CUDA": torch.version.cuda, "ROCm": torch.version.hip}
    build = next((f"{name} {version}" for name, version in platforms.items() if version), "CPU only")
    yield Check("torch build", "ok", f"{build}, {torch.backends.cpu.get_cpu_capability()}")
    if torch.cuda.is_available():
        from torch.utils import collect_env

        found = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
        yield Check(
            "GPU", "ok", ", ".join(f"{x.name} (compute capability {x.major}.{x.minor})" for x in found)
        )
        if driver := collect_env.get_nvidia_driver_version(collect_env.run):
            yield Check("driver", "ok", driver)
    else:
        yield Check("GPU", "note", "none; sweeps run on the CPU")
    found = compiler()
    yield Check("C compiler", "ok" if found else "note", found or "none; sweeps run on kernel torch, slower")
    program, lack = browser(), "no chromium; lab calibrate --figure needs one, and tests of pages are skipped"
    yield Check("browser", "ok" if program else "note", program or lack)
    here = Path.cwd()
    free = shutil.disk_usage(here).free
    enough = free >= LEAST_DISK
    what = f"{free / 2**30:.1f} GiB free in {here}"
    yield Check("disk", "ok" if enough else "broken", what if enough else f"{what}; at least 1 GiB is needed")


def _gpu() -> Iterator[Check]:
    """The Triton kernels, where there is a GPU to run them."""
    import torch

    if not torch.cuda.is_available():
        yield Check("Triton kernels", "note", "not run: there is no GPU")
        return
    device = torch.device("cuda", torch.cuda.current_device())
    yield from compared(device, (torch.float32, torch.float16, torch.bfloat16))
    yield from timed(device, torch.bfloat16)


def _forms(name: str, cls: type[Block]) -> Check:
    """The fast forms of a block against its reference, outputs and input gradients, in float64."""
    import torch

    from blocks.base import Kernel, Shape
    from blocks.kernels.native import compiler

    kernels: list[Kernel] = ["reference", "torch", "c"] if compiler() else ["reference", "torch"]
    shape, block = Shape(dim=64, heads=4), cls()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        modules = [block.build(shape, kernel).double() for kernel in kernels]
        x_BTD = torch.randn(2, 70, shape.dim, dtype=torch.float64)
    found = []
    for module in modules:
        module.load_state_dict(modules[0].state_dict())
        x = x_BTD.clone().requires_grad_()
        y, _ = module(x)
        (gradient,) = torch.autograd.grad(y.square().sum(), x)
        found.append((y.detach(), gradient))
    apart = max(
        float(((a - b).abs() / (1 + b.abs())).nan_to_num(torch.inf).max())
        for fast in found[1:]
        for a, b in zip(fast, found[0], strict=True)
    )
    detail = f"{' and '.join(kernels[1:])} differ from the reference by {apart:.1e}"
    return Check(f"block {name}", "ok" if apart <= AGREE else "broken", detail)
