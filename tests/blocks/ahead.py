"""Triton kernels compiled ahead of time, for GPUs that are not here: what the compilers made of them.

``launches`` runs a function on tensors without memory (device meta) and keeps what it would have launched:
kernel, types, tiles. ``compiled`` compiles just that for a target and reads off the binary how many
registers a thread takes, what is spilled and which instructions multiply matrices. It needs what Triton's
wheel brings (ptxas, cuobjdump, nvdisasm, LLVM) and no driver.
"""

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
TYPES = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int32: "i32",
    torch.int64: "i64",
}
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@dataclass(frozen=True)
class Launch:
    """A kernel with everything that its compilation depends on; ``half``: whether a tensor has 16 bits."""

    kernel: JITFunction
    signature: dict[str, str]
    constants: dict[str, Any]
    aligned: tuple[int, ...]
    options: dict[str, int]
    half: bool

    @property
    def name(self) -> str:
        return self.kernel.fn.__name__

    @property
    def tiles(self) -> str:
        """The numbers it is specialised on, and its warps."""
        shown = [f"{k}={int(v)}" for k, v in self.constants.items() if isinstance(v, int) and k.isupper()]
        return " ".join([*shown, f"warps={self.options.get('num_warps', 4)}"])


@dataclass(frozen=True)
class Made:
    """A kernel on a target. registers: vector registers of a thread. spilled: bytes of its memory outside
    them (stack, scratch), and on AMD spilled vector registers. scalars: spilled scalar registers, on AMD.

    products: instructions that multiply matrices on tensor cores (HMMA, HGMMA; mfma). dots: whether the
    kernel has a matrix product.
    """

    registers: int
    spilled: int
    scalars: int
    products: int
    shared: int
    dots: bool


@contextmanager
def _recording(found: list[Launch]) -> Iterator[None]:
    def keep(kernel: JITFunction, *args: Any, grid: Any = None, warmup: bool = False, **named: Any) -> None:
        found.append(_launch(kernel, args, named))

    plain = JITFunction.run
    JITFunction.run = keep
    try:
        yield
    finally:
        JITFunction.run = plain


def _launch(kernel: JITFunction, args: tuple[Any, ...], named: dict[str, Any]) -> Launch:
    given = dict(zip(kernel.arg_names, args, strict=False))
    given |= {k: v for k, v in named.items() if k in kernel.arg_names}
    for parameter in kernel.params:
        if parameter.has_default:
            given.setdefault(parameter.name, parameter.default)
    signature, constants, aligned, half = {}, {}, [], False
    for i, parameter in enumerate(kernel.params):
        value = given[parameter.name]
        if parameter.is_constexpr or value is None or (isinstance(value, int) and value == 1):
            signature[parameter.name], constants[parameter.name] = "constexpr", value
        elif isinstance(value, Tensor):
            signature[parameter.name] = "*" + TYPES[value.dtype]
            aligned.append(i)
            half |= value.dtype.itemsize == 2
        elif isinstance(value, float):
            signature[parameter.name] = "fp32"
        else:
            signature[parameter.name] = "i32"
            if value % 16 == 0:
                aligned.append(i)
    options = {k: named[k] for k in ("num_warps", "num_stages") if k in named}
    return Launch(kernel, signature, constants, tuple(aligned), options, half)


def launches(function: Callable[..., Any], inputs: list[Tensor]) -> list[Launch]:
    """What ``function`` of tensors on meta launches, forward and backward; each different one once."""
    found: list[Launch] = []
    with _recording(found):
        out = function(*inputs)
        outs = [out] if isinstance(out, Tensor) else [y for y in out if y is not None and y.requires_grad]
        wanted = [x for x in inputs if x.requires_grad]
        torch.autograd.grad(outs, wanted, [torch.empty_like(y) for y in outs], allow_unused=True)
    unique = {(launch.name, str(launch.constants), str(launch.signature)): launch for launch in found}
    return list(unique.values())


def compiled(launch: Launch, target: str) -> Made:
    """Compile for ``target`` and read the binary."""
    attributes = {(i,): [["tt.divisibility", 16]] for i in launch.aligned}
    source = ASTSource(launch.kernel, launch.signature, launch.constants, attributes)
    made = triton.compile(source, target=TARGETS[target], options=launch.options)
    dots = "tt.dot" in made.asm["ttir"]
    if "amdgcn" in made.asm:
        return _from_amd(made.asm["amdgcn"], made.metadata.shared, dots)
    return _from_nvidia(made.asm["cubin"], made.metadata.shared, dots)


def _from_amd(text: str, shared: int, dots: bool) -> Made:
    def number(key: str) -> int:
        return int(re.search(rf"\.{key}:\s+(\d+)", text)[1])  # pyright: ignore[reportOptionalSubscript]

    spilled = number("vgpr_spill_count") + number("private_segment_fixed_size")
    scalars = number("sgpr_spill_count")
    return Made(number("vgpr_count"), spilled, scalars, text.count("v_mfma"), shared, dots)


def _from_nvidia(cubin: bytes, shared: int, dots: bool) -> Made:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage, code = (
            subprocess.run(
                [TOOLS / tool, *flags, file.name], capture_output=True, text=True, check=True
            ).stdout
            for tool, flags in (("cuobjdump", ["-res-usage"]), ("nvdisasm", ["-c"]))
        )
    registers, stack = (int(re.findall(rf"{key}:(\d+)", usage)[-1]) for key in ("REG", "STACK"))
    return Made(registers, stack, 0, len(re.findall(r"\bHG?MMA\b", code)), shared, dots)
