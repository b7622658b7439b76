"""Kernels for GPUs behind one door: refused where they cannot run, and where they do not compute right.

``kernel="triton"`` asks for ours, ``kernel="fla"`` for flash-linear-attention's where it has such. Both are
in Triton, which is imported when the first of them is called and nowhere before. A kernel's first call on a
device, in a type, is preceded by its comparison with the paper's loop (``blocks.kernels.check``); one that
disagrees is an error that says so, never another kernel. With TRITON_INTERPRET=1 in the environment they run
on CPU tensors, slowly, for tests; bfloat16 does not run so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor

from blocks.kernels import fla
from blocks.kernels.native import KernelError
from blocks.kernels.ops import agree

__all__ = [
    "TTT_WIDEST",
    "Backend",
    "forgetting_attention",
    "gated_delta",
    "gated_largest",
    "gated_linear",
    "interpreted",
    "rms_norm",
    "skipping_product",
    "ttt_dual",
    "verify",
]

Backend = Literal["triton", "fla"]

TTT_WIDEST = 64
"""Of a head of ``ttt``. A block knows it when it is built, and takes torch's form above."""

KINDS = (torch.float32, torch.float16, torch.bfloat16)


def interpreted() -> bool:
    """Whether Triton interprets its kernels, on CPU tensors, in this process."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def verify(device: torch.device, kind: torch.dtype, backend: Backend = "triton") -> None:
    """Every kernel, before a long run rather than in it. Raises KernelError where one disagrees."""
    of_backend = _checks().ops(backend)
    for name in _checks().OPS:
        _verified(name, device, kind, backend if name in of_backend else "triton")


def rms_norm(x: Tensor, gain_D: Tensor, eps: float, shift: float, gate: Tensor | None = None) -> Tensor:
    """x / sqrt(mean x^2 + eps) * (gain + shift) over the last axis, times silu(gate) if there is one."""
    agree("rms_norm", (x.flatten(0, -2), "RD"), (gain_D, "D"))
    if gate is not None and gate.numel() != x.numel():
        raise KernelError(f"rms_norm: the gate is {list(gate.shape)} and what it gates {list(x.shape)}")
    with _ready("rms_norm", x, gain_D, *([] if gate is None else [gate])):
        from blocks.kernels.triton_norm import rms_norm

        return rms_norm(x, gain_D, eps, shift, gate)


def forgetting_attention(
    q_BTHK: Tensor,
    k_BSGK: Tensor,
    v_BSGK: Tensor,
    log_f_BTH: Tensor,
    faded_BPH: Tensor,
    backend: Backend = "triton",
) -> Tensor:
    """``blocks.fox.forgetting_attention_reference`` without its second result: o_BTHK."""
    given = q_BTHK, k_BSGK, v_BSGK, log_f_BTH, faded_BPH
    agree("fox", *zip(given, ("BTHK", "BSGK", "BSGK", "BTH", "BPH"), strict=True))
    heads, groups, past = q_BTHK.shape[2], k_BSGK.shape[2], k_BSGK.shape[1] - q_BTHK.shape[1]
    if heads % groups or past != faded_BPH.shape[1]:
        raise KernelError(
            f"fox: q {list(q_BTHK.shape)} and k {list(k_BSGK.shape)} do not fit with gates of "
            f"{faded_BPH.shape[1]} cached keys"
        )
    with _ready("fox", *given, backend=backend):
        k_BSGK, v_BSGK = k_BSGK.to(q_BTHK), v_BSGK.to(q_BTHK)
        if backend == "fla":
            _narrow("fox", fla.WIDEST, q_BTHK)
            return fla.forgetting_attention(q_BTHK, k_BSGK, v_BSGK, log_f_BTH, faded_BPH)
        from blocks.kernels import triton_fox

        _narrow("fox", triton_fox.WIDEST, q_BTHK)
        return triton_fox.forgetting_attention(q_BTHK, k_BSGK, v_BSGK, log_f_BTH, faded_BPH)


def gated_delta(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_a_BTH: Tensor,
    b_BTH: Tensor,
    s_BHKV: Tensor,
    backend: Backend = "triton",
) -> tuple[Tensor, Tensor]:
    """``blocks.gdn.gated_delta_reference``: (o_BTHV, last state)."""
    given = q_BTHK, k_BTHK, v_BTHV, log_a_BTH, b_BTH, s_BHKV
    agree("gated_delta", *zip(given, ("BTHK", "BTHK", "BTHV", "BTH", "BTH", "BHKV"), strict=True))
    with _ready("gated_delta", *given, backend=backend):
        if backend == "fla":
            _narrow("gated_delta", fla.WIDEST, q_BTHK)
            return fla.gated_delta(*given)
        from blocks.kernels import triton_delta

        _narrow("gated_delta", triton_delta.WIDEST, q_BTHK)
        return triton_delta.gated_delta(*given)


def gated_linear(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_a_BTHK: Tensor,
    s_BHKV: Tensor,
    backend: Backend = "triton",
) -> tuple[Tensor, Tensor]:
    """``blocks.gla.gla_reference``: (o_BTHV, last state)."""
    given = q_BTHK, k_BTHK, v_BTHV, log_a_BTHK, s_BHKV
    agree("gated_linear", *zip(given, ("BTHK", "BTHK", "BTHV", "BTHK", "BHKV"), strict=True))
    with _ready("gated_linear", *given, backend=backend):
        if backend == "fla":
            _narrow("gated_linear", fla.WIDEST, q_BTHK)
            return fla.gated_linear(*given)
        from blocks.kernels import triton_gla

        _narrow("gated_linear", triton_gla.WIDEST, q_BTHK)
        return triton_gla.gated_linear(*given)


def ttt_dual(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHK: Tensor,
    rate_BTH: Tensor,
    gain_HK: Tensor,
    bias_HK: Tensor,
    w_BHJK: Tensor,
    step_BHJK: Tensor,
    place: int,
    mini_batch: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """``blocks.ttt.ttt_reference``, its inner model in parts: (o_BTHK, last w_BHJK, its step_BHJK)."""
    given = q_BTHK, k_BTHK, v_BTHK, rate_BTH, gain_HK, bias_HK, w_BHJK, step_BHJK
    agree("ttt", *zip(given, ("BTHK", "BTHK", "BTHK", "BTH", "HK", "HK", "BHJK", "BHJK"), strict=True))
    with _ready("ttt", *given):
        from blocks.kernels import triton_ttt

        _narrow("ttt", TTT_WIDEST, q_BTHK)
        return triton_ttt.ttt_dual(*given, place, mini_batch, eps)


def gated_largest(gate_BTF: Tensor, up_BTF: Tensor, k: int) -> Tensor:
    """silu(gate) * up where its magnitude is among its token's ``k`` largest, else 0."""
    agree("gated_largest", (gate_BTF, "BTF"), (up_BTF, "BTF"))
    with _ready("gated_largest", gate_BTF, up_BTF):
        from blocks.kernels import triton_sparse

        _narrow("gated_largest", triton_sparse.WIDEST, gate_BTF)
        return triton_sparse.gated_largest(gate_BTF, up_BTF.to(gate_BTF), k)


def skipping_product(y_BTF: Tensor, weight_DF: Tensor) -> Tensor:
    """y W^T of a few rows y, most of which are 0; columns of W that meet zeros alone are not read."""
    agree("skipping_product", (y_BTF, "BTF"), (weight_DF, "DF"))
    with _ready("skipping_product", y_BTF, weight_DF):
        from blocks.kernels import triton_sparse

        return triton_sparse.skipping_product(y_BTF, weight_DF)


def _narrow(name: str, widest: int, *tensors: Tensor) -> None:
    """Raises KernelError where heads are wider than a program can hold, or a sequence than it can count."""
    for x in tensors:
        if x.shape[-1] > widest:
            raise KernelError(f'{name}: a row is {x.shape[-1]} wide, above {widest}; choose kernel "torch"')
        if x[0].numel() >= 2**31:
            raise KernelError(
                f'{name}: a sequence has {x[0].numel():,} entries, 2^31 or more; choose "torch"'
            )


@contextmanager
def _ready(name: str, *tensors: Tensor, backend: Backend = "triton") -> Iterator[None]:
    """On the device to launch on, without autocast, once ``name`` is known to compute right there.

    Raises KernelError.
    """
    first = tensors[0]
    for x in tensors:
        if x.device.type != "cuda" and not interpreted():
            raise KernelError(
                f'kernel "{backend}" runs on a GPU and was given a tensor on {x.device}; '
                'choose "torch" or "c"'
            )
        if x.dtype not in KINDS:
            raise KernelError(
                f'kernel "{backend}" takes float32, float16 and bfloat16 and was given {x.dtype}; '
                'choose "torch"'
            )
        if x.device != first.device:
            raise KernelError(
                f"{name}: its tensors lie on {first.device} and on {x.device}; move them together"
            )
    _verified(name, first.device, first.dtype, backend)
    device = torch.cuda.device(first.device) if first.device.type == "cuda" else nullcontext()
    with device, torch.autocast(first.device.type, enabled=False):
        yield


@cache
def _verified(name: str, device: torch.device, kind: torch.dtype, backend: Backend) -> None:
    """Raises KernelError where ``name`` disagrees with its reference on this device, or does not run."""
    check = _checks()
    # The call that asks may be under autocast, without gradients or in inference mode; the check is not.
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        found = check.worst(check.compare(check.ops(backend)[name], kind, device, check.LENGTH))
    if not found.error <= check.TOLERANCES[kind]:
        where = torch.cuda.get_device_name(device) if device.type == "cuda" else "the interpreter"
        raise KernelError(
            f'kernel "{backend}" computes {name} wrong on {where}: its {found.result} in {kind} is off by '
            f"{found.error:.1e} where {check.TOLERANCES[kind]:.0e} is allowed; choose kernel "
            '"torch", and report what lab doctor prints'
        )


def _checks() -> ModuleType:
    """``blocks.kernels.check``, which imports Triton. Raises KernelError where that is missing."""
    try:
        from blocks.kernels import check
    except ImportError as exc:
        raise KernelError(f'kernels for GPUs need the package triton ({exc}); choose "torch"') from exc
    return check
