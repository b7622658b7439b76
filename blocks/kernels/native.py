"""The kernels in plain C: compiled on first use with the machine's own compiler, called through ctypes.

``kernel="c"`` asks for them; without a compiler that is an error that says so, never another kernel. The
library lies in the user's cache under a name that hashes its sources, its flags, the compiler and the
processor, and is renamed into place whole, so that processes that build it at once do not meet.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["SEGMENT", "SOURCES", "KernelError", "call", "compiler", "kept_states", "library"]

SOURCES = tuple(sorted(path for path in Path(__file__).parent.iterdir() if path.suffix in (".c", ".h")))
"""Part of what decides a run's outcome, as the Python files are."""

SEGMENT = 32
"""Tokens between two states that a recurrence keeps for its backward pass."""

# No flag here lets the compiler assume that numbers are finite, or take sums in another order unasked.
FLAGS = (
    f"-DSEGMENT={SEGMENT}",
    "-march=native",
    "-fopenmp-simd",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-shared",
    "-fPIC",
)
# A library per type: float32 is what runs are trained in and takes seconds to compile, float64 is for tests.
TYPES = {torch.float32: ("f32", "-O3"), torch.float64: ("f64", "-O1", "-DWIDE")}

# Of each function: pointers, whole numbers, real numbers. All return 0, or 1 where memory does not reach.
SIGNATURES = {
    "attention_forward": (7, 6, 0),
    "attention_backward": (11, 6, 0),
    "conv_forward": (4, 6, 0),
    "conv_backward": (7, 7, 0),
    "gate_forward": (3, 4, 0),
    "gate_backward": (5, 5, 0),
    "gated_delta_forward": (9, 6, 0),
    "gated_delta_backward": (14, 6, 0),
    "gated_linear_forward": (8, 5, 0),
    "gated_linear_backward": (12, 5, 0),
    "gates_forward": (5, 3, 1),
    "gates_backward": (9, 3, 1),
    "linear_forward": (3, 5, 0),
    "linear_backward": (5, 6, 0),
    "norm_forward": (3, 4, 2),
    "norm_backward": (5, 4, 2),
    "unit_forward": (3, 4, 2),
    "unit_backward": (4, 5, 2),
}


class KernelError(RuntimeError):
    """The C kernels are asked for where they cannot be built or do not apply."""


def compiler() -> str | None:
    """The C compiler: what CC names, else the first of cc, gcc and clang; None where there is none."""
    wanted = os.environ.get("CC")
    return (
        shutil.which(wanted)
        if wanted
        else next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    )


def call(name: str, kind: torch.dtype, *arguments: Tensor | int | float | None) -> None:
    """Run a kernel on tensors of type ``kind``. Raises KernelError where memory does not reach."""
    function = _function(name, kind)
    if function(*(x.data_ptr() if isinstance(x, Tensor) else x for x in arguments)):
        raise KernelError(f"{name}: no memory for its scratch space")


def kept_states(s_BHKV: Tensor, length: int) -> Tensor:
    """Room for the states that the backward pass of a recurrence over ``length`` tokens starts from."""
    batch, heads, *size = s_BHKV.shape
    return s_BHKV.new_empty(batch, heads, -(-length // SEGMENT), *size)


@cache
def _function(name: str, kind: torch.dtype) -> Callable[..., int]:
    function = getattr(library(kind), f"{name}_{TYPES[kind][0]}")
    pointers, wholes, reals = SIGNATURES[name]
    function.argtypes = [ctypes.c_void_p] * pointers + [ctypes.c_long] * wholes + [ctypes.c_double] * reals
    return function


@cache
def library(kind: torch.dtype) -> ctypes.CDLL:
    """The compiled kernels of a type. Raises KernelError where there is no compiler or it fails."""
    with_what = compiler()
    if with_what is None:
        raise KernelError(
            'kernel "c" needs a C compiler and none of $CC, cc, gcc and clang is here; '
            'install one (apt install gcc), or choose kernel "torch"'
        )
    suffix, *options = TYPES[kind]
    path = _cache() / f"kernels-{_fingerprint(with_what)}-{suffix}.so"
    if not path.exists():
        _build(with_what, options, path)
    return ctypes.CDLL(str(path))


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "hybrid-architecture-lab")


def _fingerprint(with_what: str) -> str:
    version = subprocess.run([with_what, "--version"], capture_output=True, text=True, check=False).stdout
    info = Path("/proc/cpuinfo")
    flags = (
        next((x for x in info.read_text().splitlines() if x.startswith("flags")), "") if info.exists() else ""
    )
    digest = hashlib.sha256("\n".join([*FLAGS, str(TYPES), version, platform.machine(), flags]).encode())
    for source in SOURCES:
        digest.update(source.name.encode() + b"\n" + source.read_bytes())
    return digest.hexdigest()[:16]


def _build(with_what: str, options: list[str], path: Path) -> None:
    source = next(path for path in SOURCES if path.suffix == ".c")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".so")
        os.close(handle)
    except OSError as exc:
        raise KernelError(
            f"{path.parent}: the compiled kernels cannot be kept there ({exc.strerror}); "
            "let XDG_CACHE_HOME name a folder that can be written"
        ) from exc
    told = subprocess.run(
        [with_what, *options, *FLAGS, "-w", str(source), "-o", name, "-lm"],
        capture_output=True,
        text=True,
        check=False,
    )
    if told.returncode:
        os.unlink(name)
        last = (told.stderr.strip().splitlines() or ["no message"])[0]
        raise KernelError(f"{with_what} does not compile {source.name}: {last}")
    os.replace(name, path)
