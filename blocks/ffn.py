"""Channel mixers: SwiGLU, a plain MLP, and SwiGLU whose hidden activations are cut to the largest few.

B batch, T time, D model width, F hidden width. They keep no memory: their state is empty.
Linear layers start at U(-1, 1) / sqrt(inputs), have no bias, and gate and up are two matrices (one matrix
that is split afterwards costs a copy in the backward pass).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.base import Context, Kernel, OptionError, Role, Shape, State, at_least_fp32, inner_width, on_gpu
from blocks.kernels import gpu
from blocks.kernels.layers import narrow, swiglu
from blocks.parts import gated
from blocks.products import Linear

__all__ = ["MLP", "Sparse", "SwiGLU", "keep_largest", "keep_largest_reference", "soft_largest"]


def keep_largest_reference(u_BTF: Tensor, k: int, block: int = 1) -> Tensor:
    """``u`` where its magnitude is among its token's ``k`` largest, else 0; ties go to the lowest index.

    With ``block`` > 1 so many neighbours are chosen together, ``k`` blocks of them by the sum of squares.
    """
    order = _sizes(u_BTF, block).argsort(dim=-1, descending=True, stable=True)
    chosen = torch.zeros(order.shape, dtype=u_BTF.dtype, device=u_BTF.device)
    return u_BTF * chosen.scatter(-1, order[..., :k], 1.0).repeat_interleave(block, dim=-1)


def keep_largest(u_BTF: Tensor, k: int, block: int = 1) -> Tensor:
    """The same function by selection of the k-th magnitude, without a sort."""
    size = _sizes(u_BTF, block)
    cut, tie = _kth_largest(size, k)
    if tie:
        above, tied = size > cut, size == cut
        room = k - above.sum(-1, keepdim=True)
        chosen = above | (tied & (tied.cumsum(-1, dtype=torch.int32) <= room))
    else:
        chosen = size >= cut
    return u_BTF * (chosen if block == 1 else chosen.repeat_interleave(block, dim=-1))


def _sizes(u_BTF: Tensor, block: int) -> Tensor:
    """What is compared: the magnitude of each channel, or of each block the sum of its squares."""
    if block == 1:
        return u_BTF.detach().abs()
    return at_least_fp32(u_BTF.detach()).unflatten(-1, (-1, block)).square().sum(-1)


def soft_largest(u_BTF: Tensor, k: int, temperature: float) -> Tensor:
    """``u * sigmoid((|u| - c) / temperature)``, c the k-th largest magnitude of the token, detached.

    The k-th value itself is halved; a temperature towards 0 gives the hard cut.
    """
    wide = at_least_fp32(u_BTF)
    cut, _ = _kth_largest(wide.detach().abs(), k)
    return (wide * torch.sigmoid((wide.abs() - cut) / temperature)).to(u_BTF.dtype)


def _kth_largest(size_BTF: Tensor, k: int) -> tuple[Tensor, bool]:
    """The k-th largest magnitude of each token, [B, T, 1], and whether a token may have a tie at the cut."""
    if size_BTF.device.type != "cpu" or torch.compiler.is_compiling():
        # Asking whether there is a tie would make the device wait.
        return size_BTF.topk(k, dim=-1, sorted=False).values.amin(-1, keepdim=True), True
    # Partitioning in place by NumPy's vectorised quickselect: a tenth of the time of topk on CPU.
    order, dropped = at_least_fp32(size_BTF).clone(), size_BTF.shape[-1] - k
    order.numpy().partition(dropped, axis=-1)
    cut = order[..., dropped : dropped + 1]
    tie = bool((order[..., :dropped].amax(-1, keepdim=True) == cut).any()) if dropped else False
    return cut.to(size_BTF.dtype), tie


def _relu2(x: Tensor) -> Tensor:
    return F.relu(x).square()


def _leaky_relu(x: Tensor, slope: float) -> Tensor:
    return F.leaky_relu(x, slope)


def _leaky_relu2(x: Tensor, slope: float) -> Tensor:
    return F.leaky_relu(x, slope).square()


_ACTS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "relu2": _relu2,
    "silu": F.silu,
}

_LEAKY: dict[str, Callable[[Tensor, float], Tensor]] = {"relu": _leaky_relu, "relu2": _leaky_relu2}
"""Those that may have a slope below 0."""


class _SwiGLU(nn.Module):
    def __init__(
        self,
        dim: int,
        hidden: int,
        kernel: Kernel,
        select: Callable[[Tensor], Tensor] | None = None,
        fused: Callable[[Tensor, Tensor], Tensor] | None = None,
        skip: int = 0,
    ) -> None:
        """select: applied to the hidden activations. fused: makes them and selects at once, in its place.

        skip: up to how many tokens the last product reads no weights that meet zeros alone.
        """
        super().__init__()
        self.kernel: Kernel = kernel
        self.select, self.fused, self.skip = select, fused, skip
        self.gate = Linear(dim, hidden, bias=False)
        self.up = Linear(dim, hidden, bias=False)
        self.out = Linear(hidden, dim, bias=False)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, context: Context | None = None
    ) -> tuple[Tensor, State]:
        if self.kernel == "c" and self.select is None and narrow(x_BTD, self.up.weight):
            return swiglu(x_BTD, self.gate.weight, self.up.weight, self.out.weight), {}
        if self.fused is not None:
            u_BTF = self.fused(self.gate(x_BTD), self.up(x_BTD))
        else:
            u_BTF = gated(self.gate(x_BTD), self.up(x_BTD), self.kernel)
            if self.select is not None:
                u_BTF = self.select(u_BTF)
        if 0 < u_BTF[..., 0].numel() <= self.skip:
            return gpu.skipping_product(u_BTF, self.out.weight), {}
        return self.out(u_BTF), {}


class _MLP(nn.Module):
    def __init__(self, dim: int, hidden: int, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.act = act
        self.up = Linear(dim, hidden, bias=False)
        self.out = Linear(hidden, dim, bias=False)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, context: Context | None = None
    ) -> tuple[Tensor, State]:
        return self.out(self.act(self.up(x_BTD))), {}


def _check_expand(name: str, expand: float) -> None:
    if not expand > 0:
        raise OptionError(f"{name}: expand is {expand:g}; it must be above 0")


@dataclass(frozen=True, kw_only=True)
class SwiGLU:
    """W_down (silu(W_gate x) * W_up x) (Shazeer 2020, eq. 6), hidden width round(expand * D)."""

    expand: float = 8 / 3

    def __post_init__(self) -> None:
        _check_expand("swiglu", self.expand)

    @property
    def role(self) -> Role:
        return "channel"

    def build(self, shape: Shape, kernel: Kernel = "torch") -> nn.Module:
        """A freshly initialised module. Raises OptionError where no hidden channel is left."""
        return _SwiGLU(shape.dim, inner_width("swiglu", self.expand, shape.dim), kernel)

    def params(self, shape: Shape) -> int:
        return 3 * shape.dim * inner_width("swiglu", self.expand, shape.dim)

    def state_size(self, shape: Shape, length: int) -> int:
        return 0

    def flops(self, shape: Shape, length: int) -> int:
        return 2 * self.params(shape)


@dataclass(frozen=True, kw_only=True)
class MLP:
    """W_down act(W_up x) (Vaswani et al. 2017, eq. 2, without biases), hidden width round(expand * D).

    act: gelu (x Phi(x), not its approximation; Hendrycks & Gimpel 2016), relu, relu2 (squared; So et al.
    2021), silu (x sigmoid(x); Elfwing et al. 2018). slope: of relu below 0, before it is squared: with
    act='relu2', slope=0.5, as in OpenAI's parameter golf, a negative x becomes 0.25 x^2, and no hidden
    channel dies.
    """

    expand: float = 4.0
    act: Literal["gelu", "relu", "relu2", "silu"] = "gelu"
    slope: float = 0.0

    def __post_init__(self) -> None:
        _check_expand("mlp", self.expand)
        if self.act not in _ACTS:
            raise OptionError(f"mlp: act is {self.act!r}; known are {', '.join(_ACTS)}")
        if not 0 <= self.slope < 1:
            raise OptionError(f"mlp: slope is {self.slope:g}; it must lie in [0, 1)")
        if self.slope and self.act not in _LEAKY:
            raise OptionError(
                f"mlp: slope is {self.slope:g}, which act={self.act!r} does not have; it goes with "
                f"{' and '.join(_LEAKY)}"
            )

    @property
    def role(self) -> Role:
        return "channel"

    def build(self, shape: Shape, kernel: Kernel = "torch") -> nn.Module:
        """A freshly initialised module. Raises OptionError where no hidden channel is left."""
        leaky, slope = _LEAKY.get(self.act), self.slope
        act = (lambda x: leaky(x, slope)) if slope and leaky else _ACTS[self.act]
        return _MLP(shape.dim, inner_width("mlp", self.expand, shape.dim), act)

    def params(self, shape: Shape) -> int:
        return 2 * shape.dim * inner_width("mlp", self.expand, shape.dim)

    def state_size(self, shape: Shape, length: int) -> int:
        return 0

    def flops(self, shape: Shape, length: int) -> int:
        return 2 * self.params(shape)


@dataclass(frozen=True, kw_only=True)
class Sparse:
    """SwiGLU that keeps the k = ceil(k_ratio * F) largest hidden activations of each token, by magnitude.

    W_down (m * u) with u = silu(W_gate x) * W_up x and m = 1 where |u| is among the k largest, else 0: the
    selective activation of Genesis-152M (docs/genesis.md), which is on in evaluation alone there. Here it is
    the same function in training and in evaluation. mask: ``hard`` sets the rest to 0 (ties go to the lowest
    index); ``soft`` weighs u by sigmoid((|u| - c) / temperature), c the k-th largest magnitude. No gradient
    flows through the choice. block: neighbouring channels that are kept or dropped together, by the sum of
    their squares; F is a multiple of it, and k then counts ceil(k_ratio * F / block) blocks.

    FLOPs count the matrices whole. Zeros are skipped on a GPU alone, by the last product in decoding, where
    all tokens together read at most half of the matrix (``reads``): with block=1 one token at a k_ratio up
    to 0.042, with block=16 one up to 0.5 and two up to 0.25. Many tokens together (prefill) need every
    channel: a k_ratio of 0.85, or any in use, gains nothing there.
    """

    expand: float = 8 / 3
    k_ratio: float = 0.5
    mask: Literal["hard", "soft"] = "hard"
    temperature: float = 0.1
    block: int = 1

    def __post_init__(self) -> None:
        _check_expand("sparse", self.expand)
        if self.block < 1:
            raise OptionError(f"sparse: block is {self.block}; it must be at least 1 channel")
        if self.block > 1 and self.mask == "soft":
            raise OptionError(f"sparse: block is {self.block}, and a soft mask weighs single channels")
        if not 0 < self.k_ratio <= 1:
            raise OptionError(f"sparse: k_ratio is {self.k_ratio:g}; it must lie in (0, 1]")
        if self.mask not in ("hard", "soft"):
            raise OptionError(f"sparse: mask is {self.mask!r}; known are hard and soft")
        if not self.temperature > 0:
            raise OptionError(f"sparse: temperature is {self.temperature:g}; it must be above 0")

    @property
    def role(self) -> Role:
        return "channel"

    def kept(self, shape: Shape) -> int:
        """How many hidden activations a token keeps. Raises OptionError as ``build``."""
        # The small step back undoes products such as 0.07 * 100 = 7.000000000000001.
        return self.block * max(1, math.ceil(self.k_ratio * self._hidden(shape) / self.block - 1e-9))

    def _hidden(self, shape: Shape) -> int:
        hidden = inner_width("sparse", self.expand, shape.dim)
        if hidden % self.block:
            raise OptionError(
                f"sparse: block is {self.block}, of which {hidden} hidden channels are no multiple; "
                "change expand or block"
            )
        return hidden

    def reads(self, shape: Shape) -> float:
        """The share of the last matrix that one token has to read, modelled: no GPU has been asked.

        Of 16 columns, which 32 bytes hold at 16 bits each and which are read together, some block is kept
        with probability 1 - (1 - k)^(16 / block), if blocks are kept at random; of larger blocks k is read.
        """
        kept = self.kept(shape) / self._hidden(shape)
        return 1 - (1 - kept) ** max(1.0, 16 / self.block)

    def build(self, shape: Shape, kernel: Kernel = "torch") -> nn.Module:
        """A freshly initialised module. Raises OptionError where no channel is left, or half a block."""
        k, block = self.kept(shape) // self.block, self.block
        hard = keep_largest_reference if kernel == "reference" else keep_largest

        def select(u_BTF: Tensor) -> Tensor:
            return hard(u_BTF, k, block) if self.mask == "hard" else soft_largest(u_BTF, k, self.temperature)

        hard_on_gpu = on_gpu(kernel) and self.mask == "hard"
        fused = partial(gpu.gated_largest, k=k) if hard_on_gpu and block == 1 else None
        # Each token reads its own columns, by loads that are masked one by one: half of the matrix in all.
        skip = int(0.5 / self.reads(shape)) if hard_on_gpu else 0
        return _SwiGLU(shape.dim, self._hidden(shape), kernel, select, fused, skip)

    def params(self, shape: Shape) -> int:
        return 3 * shape.dim * self._hidden(shape)

    def state_size(self, shape: Shape, length: int) -> int:
        return 0

    def flops(self, shape: Shape, length: int) -> int:
        return 2 * self.params(shape)
