"""What a block is: a frozen dataclass that builds a module and states its costs.

A block is at once the registry entry, the element of a schedule, part of the cache key and what a result
row prints. The module it builds maps ``x_BTD`` to ``y_BTD`` and carries its memory as a value, so that
training, prefill in pieces and decoding token by token are one code path.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

__all__ = [
    "LOSSES",
    "Block",
    "Context",
    "Cores",
    "Kernel",
    "Losses",
    "OptionError",
    "Role",
    "Shape",
    "State",
    "at_least_fp32",
    "core_of",
    "inner_width",
    "on_gpu",
    "split_heads_dim",
]

Role = Literal["linear", "window", "full", "channel"]
"""How the memory of a block grows with length: constant, up to a window, without bound, or none at all."""

Kernel = Literal["torch", "c", "triton", "fla", "reference"]
"""How the functions of a block are computed.

``torch``: the fast form in plain torch, on any device. ``c``: plain C on one thread of a CPU, where a
function has such a form, else torch; it needs a compiler (``blocks.kernels``). ``triton``: Triton on a GPU,
where a function has such a form, else torch; a kernel that disagrees with its reference on the device is
refused (``blocks.kernels.gpu``). ``fla``: as ``triton``, but by flash-linear-attention's kernels where it has
the function. ``reference``: the paper's loop, for tests and doubt.
"""

_INSTEAD: dict[Kernel, tuple[Kernel, ...]] = {
    "c": ("torch",),
    "triton": ("torch",),
    "fla": ("triton", "torch"),
}
"""Whose forms of a function are taken where a kernel has none."""

Cores = Mapping[Kernel, Callable[..., Any]]
"""A function in its forms."""

State = Mapping[str, Tensor | int]
"""The memory of one block after some tokens. A value: passed in, passed out, never kept on the module."""

Context = MutableMapping[str, Any]
"""What few blocks need beyond x (token ids, rotations), and where a caller puts ``Losses`` to have them.

``segments`` tells the documents of packed rows apart; the model reads it (``blocks.segments``), so that a
mixer is only ever given whole documents, each in a row of its own, with tensors [B, T, ...] of the context
laid out likewise.
"""

LOSSES = "losses"
"""Under which a caller that wants them puts ``Losses`` into a context."""


class Losses:
    """Where the blocks of a pass that have an auxiliary loss leave it, a scalar each.

    Not a plain list, because what wraps a model (DDP, FSDP2) hands copies of lists and mappings on.
    """

    def __init__(self) -> None:
        self.found: list[Tensor] = []

    def add(self, loss: Tensor) -> None:
        self.found.append(loss)


class OptionError(ValueError):
    """A block's option is impossible, or does not fit the shape it is built for."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What all blocks of one model share.

    dim: model width D. heads: number of heads H of every mixer. norm: ``rms`` (gain starts at 1) or
    ``rms_zero`` (zero-centred: the stored gain starts at 0 and 1 is added). eps: of every norm.
    """

    dim: int = 128
    heads: int = 4
    norm: Literal["rms", "rms_zero"] = "rms"
    eps: float = 1e-6

    def __post_init__(self) -> None:
        for name in ("dim", "heads"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise OptionError(f"shape: {name} is {value!r}; it must be a whole number of at least 1")
        if self.norm not in ("rms", "rms_zero"):
            raise OptionError(f"shape: norm is {self.norm!r}; known are rms and rms_zero")
        if not self.eps > 0:
            raise OptionError(f"shape: eps is {self.eps!r}; it must be above 0")


@runtime_checkable
class Block(Protocol):
    """The protocol of a registry entry; implementations are ``@dataclass(frozen=True, kw_only=True)``.

    ``build`` returns a module with ``forward(x_BTD, state=None, context=None) -> (y_BTD, state)``; it has
    neither a pre-norm nor a residual of its own, which belong to the model. The module names its last
    projection ``out``: a mixer's the model starts smaller the more blocks there are.

    A schedule is sized by its costs before anything is built: for a shape that ``build`` refuses they raise
    the same OptionError.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def role(self) -> Role: ...

    def build(self, shape: Shape, kernel: Kernel = "torch") -> nn.Module:
        """A freshly initialised module. Raises OptionError where an option does not fit ``shape``."""
        ...

    def params(self, shape: Shape) -> int:
        """Learned scalars."""
        ...

    def state_size(self, shape: Shape, length: int) -> int:
        """Floating-point scalars held for one sequence after ``length`` tokens; counters apart."""
        ...

    def flops(self, shape: Shape, length: int) -> int:
        """Forward FLOPs per token, the mean over a sequence of ``length``.

        Twice the multiply-adds of matrix products, convolutions and scans; causal attention counts the
        keys that a query really sees.
        """
        ...


def core_of(cores: Cores, kernel: Kernel) -> Callable[..., Any]:
    """The function that ``kernel`` names, in the form that is taken where it has none."""
    for one in (kernel, *_INSTEAD.get(kernel, ())):
        if one in cores:
            return cores[one]
    raise KeyError(f"no form for kernel {kernel!r} among {', '.join(cores)}")


def on_gpu(kernel: Kernel) -> bool:
    """Whether products are those of a GPU, which take half types: gates and states alone stay wide."""
    return kernel in ("triton", "fla")


def at_least_fp32(x: Tensor) -> Tensor:
    """``x`` in float32 if it is a half type, unchanged otherwise: for gates, decays and accumulations."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def split_heads_dim(width: float, heads: int, what: str) -> int:
    """The per-head share of ``width``, refused with one sentence where it is not a whole number >= 1."""
    per_head = width / heads
    if per_head < 1 or math.isinf(per_head) or abs(per_head - round(per_head)) > 1e-9:
        raise OptionError(
            f"{what} is {width:g} wide over {heads} heads, {per_head:g} a head; "
            "choose dim, heads or the expansion so that a head is a whole number wide"
        )
    return round(per_head)


def check_expansions(name: str, expand_k: float, expand_v: float) -> None:
    """Raises OptionError unless the widths of keys and values are both some share of the model's."""
    if not (expand_k > 0 and expand_v > 0):
        raise OptionError(f"{name}: expand_k is {expand_k} and expand_v is {expand_v}; both must be above 0")


def head_widths(name: str, shape: Shape, expand_k: float, expand_v: float) -> tuple[int, int]:
    """(K, V) of one head. Raises OptionError where the heads do not split keys or values evenly."""
    return (
        split_heads_dim(expand_k * shape.dim, shape.heads, f"{name}: with expand_k={expand_k:g} the key"),
        split_heads_dim(expand_v * shape.dim, shape.heads, f"{name}: with expand_v={expand_v:g} the value"),
    )


def check_taps(name: str, conv: int) -> None:
    """Raises OptionError unless ``conv`` can be a number of taps, or none."""
    if conv < 0:
        raise OptionError(f"{name}: conv is {conv}; it must be 0 (none) or the number of taps")


def inner_width(name: str, expand: float, dim: int) -> int:
    """expand * dim, rounded. Raises OptionError where nothing is left, or more than a float can count."""
    if math.isinf(expand * dim):
        raise OptionError(
            f"{name}: expand is {expand:g}, which at dim {dim} is a width beyond all numbers; lower it"
        )
    hidden = round(expand * dim)
    if hidden < 1:
        raise OptionError(
            f"{name}: expand is {expand:g}, which leaves no hidden channel at dim {dim}; raise it"
        )
    return hidden
