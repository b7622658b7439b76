"""Hyena: gates around long convolutions whose filters are a small network's functions of the lag.

B batch, T new tokens, S tokens (held and new), D model width, C channels, H heads, P channels of a head, F
features of a lag. A filter is h_0, h_1, ... and weighs what was seen that many tokens ago.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.base import (
    Context,
    Cores,
    Kernel,
    OptionError,
    Role,
    Shape,
    State,
    at_least_fp32,
    check_taps,
    core_of,
    split_heads_dim,
)
from blocks.parts import ShortConv, apart
from blocks.products import Linear

__all__ = [
    "Hyena",
    "ImplicitFilter",
    "MultiHeadHyena",
    "head_convolution",
    "head_convolution_reference",
    "long_convolution",
    "long_convolution_reference",
]

FREQUENCY = 10.0
"""At which the sines of a filter's network start, so that it turns (Poli et al. 2023, section 3.3)."""

FAST, SLOW = 0.3, 1.5
"""Shares of ``max_length`` after which the windows of the first and the last filter are down to 1/100."""

MULTIPLE = 128
"""Of the length of a transform. A power of two would be up to twice as long, and as much more to keep."""

PIECE = 128
"""Queries of a multi-head convolution that are handled at once."""


def long_convolution_reference(u_BSC: Tensor, h_SC: Tensor, new: int) -> Tensor:
    """y_t = sum_s h_{t-s} u_s over all s <= t, for the last ``new`` tokens, one by one."""
    out = []
    for end in range(u_BSC.shape[1] - new + 1, u_BSC.shape[1] + 1):
        out.append(torch.einsum("bsc,sc->bc", u_BSC[:, :end], h_SC[:end].flip(0)))
    return torch.stack(out, dim=1)


def long_convolution(u_BSC: Tensor, h_SC: Tensor, new: int) -> Tensor:
    """The same function by the FFT, or as it stands for a lone token. Causal up to rounding."""
    size = u_BSC.shape[1]
    if new == 1:
        return (u_BSC * h_SC.flip(0)).sum(1, keepdim=True)
    # Room for both, so that the end does not come round to the beginning; of small factors for the most part.
    padded = -(-2 * size // MULTIPLE) * MULTIPLE
    turned = torch.fft.rfft(u_BSC.mT, padded) * torch.fft.rfft(h_SC.T, padded)
    return torch.fft.irfft(turned, padded)[..., size - new : size].mT


def head_convolution_reference(q_BTHP: Tensor, k_BSHP: Tensor, v_BSHP: Tensor, h_SH: Tensor) -> Tensor:
    """y_t = (sum_s h_{t-s} v_s k_s^T) q_t over all s <= t, token by token (Massaroli et al. 2023, section 4).

    The queries are the last T of S tokens. Read from the right: each token met is weighed by its lag and by
    how much of it the query asks for.
    """
    past, out = k_BSHP.shape[1] - q_BTHP.shape[1], []
    for t in range(q_BTHP.shape[1]):
        end = past + t + 1
        asked_BSH = torch.einsum("bhp,bshp->bsh", q_BTHP[:, t], k_BSHP[:, :end])
        out.append(torch.einsum("bsh,bshp->bhp", asked_BSH * h_SH[:end].flip(0), v_BSHP[:, :end]))
    return torch.stack(out, dim=1)


def head_convolution(q_BTHP: Tensor, k_BSHP: Tensor, v_BSHP: Tensor, h_SH: Tensor) -> Tensor:
    """The same function by products of matrices, ``PIECE`` queries at a time; causal exactly.

    FFTs of the P x P products of k and v would take T log T steps in place of T^2, but P times as many: they
    are ahead from some 8 P log2(T) tokens on, where nothing is trained here.
    """
    length, size = q_BTHP.shape[1], k_BSHP.shape[1]
    q, k, v = (x.transpose(1, 2) for x in (q_BTHP, k_BSHP, v_BSHP))
    with torch.autocast(q.device.type, enabled=False):
        out = []
        for start in range(0, length, PIECE):
            stop = min(start + PIECE, length)
            seen = size - length + stop
            # Row t of the last few is h at the lag of each token: windows on h turned round, zeros after it.
            turned_HX = F.pad(h_SH[:seen].flip(0).T, (0, stop - start - 1))
            lags_HTS = turned_HX.unfold(1, seen, 1).flip(1)
            asked = q[:, :, start:stop] @ k[:, :, :seen].mT
            out.append((asked * lags_HTS) @ v[:, :, :seen])
        return torch.cat(out, dim=2).transpose(1, 2)


class ImplicitFilter(nn.Module):
    """Filters as functions of the lag: h_t = window(t) net(features of t / max_length), [S, C].

    features: t / L and the sines and cosines of 2 pi f t / L for f = 1 to ``bands``. net: two layers with
    sines at learned frequencies, then one matrix (Poli et al. 2023, section 3.3). window: exp(-a t / L),
    another pace a in each filter. Filters start with an energy of about 1. ``skip`` is added at lag 0, and
    starts at 1. L is fixed, so that a filter is the same at every length; beyond L it goes on as it is.
    """

    def __init__(self, filters: int, bands: int, hidden: int, max_length: int) -> None:
        super().__init__()
        self.bands, self.max_length, self.filters = bands, max_length, filters
        self.first = nn.Linear(2 * bands + 1, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.frequency = nn.Parameter(torch.full((2, hidden), FREQUENCY))
        self.last = nn.Linear(hidden, filters, bias=False)
        self.skip = nn.Parameter(torch.ones(filters))
        # A filter of variance r under its window has the energy r L / 2a; a sine has a variance of 1/2.
        with torch.no_grad():
            pace_C1 = self._paces(self.skip)[:, None]
            self.last.weight.normal_().mul_((4 * pace_C1 / (hidden * max_length)).sqrt())

    def _paces(self, like: Tensor) -> Tensor:
        fast, slow, kind = math.log(100) / FAST, math.log(100) / SLOW, at_least_fp32(like)
        return torch.linspace(fast, slow, self.filters, dtype=kind.dtype, device=kind.device)

    def forward(self, size: int) -> Tensor:
        """h_SC at the lags 0 to ``size`` - 1, in at least float32."""
        kind = at_least_fp32(self.skip)
        with torch.autocast(kind.device.type, enabled=False):
            t_S1 = torch.arange(size, dtype=kind.dtype, device=kind.device)[:, None] / self.max_length
            turns_SF = 2 * math.pi * t_S1 * torch.arange(1, self.bands + 1, device=kind.device)
            z = torch.cat([t_S1, turns_SF.cos(), turns_SF.sin()], dim=1)
            for layer, frequency in zip((self.first, self.second), self.frequency, strict=True):
                z = F.linear(z, at_least_fp32(layer.weight), at_least_fp32(layer.bias))
                z = (at_least_fp32(frequency) * z).sin()
            h_SC = F.linear(z, at_least_fp32(self.last.weight)) * (-t_S1 * self._paces(kind)).exp()
            return torch.cat([h_SC[:1] + kind, h_SC[1:]])


class _Mixer(nn.Module):
    def __init__(self, block: Hyena, shape: Shape, kernel: Kernel) -> None:
        super().__init__()
        self.dim, self.order, self.core = shape.dim, block.order, core_of(_LONG, kernel)
        self.project = Linear(shape.dim, (self.order + 1) * shape.dim, bias=False)
        self.conv = block.short((self.order + 1) * shape.dim, kernel)
        self.filter = block.filters((self.order - 1) * shape.dim)
        self.out = Linear(shape.dim, shape.dim, bias=False)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, context: Context | None = None
    ) -> tuple[Tensor, State]:
        before: Mapping[str, Any] = state or {}
        mixed, after = _mixed(self.project(x_BTD), self.conv, state)
        z, *gates, last = at_least_fp32(mixed).split(self.dim, dim=-1)
        new, past_BSX = x_BTD.shape[1], before.get("past")
        pasts = None if past_BSX is None else past_BSX.split(self.dim, dim=-1)
        h = self.filter(new if past_BSX is None else new + past_BSX.shape[1]).split(self.dim, dim=1)
        seen = []
        for i, gate in enumerate(gates):
            u = z * gate if pasts is None else torch.cat([pasts[i], z * gate], dim=1)
            seen.append(u)
            z = self.core(u, h[i], new)
        after["past"] = torch.cat(seen, dim=-1)
        return self.out((z * last).to(x_BTD.dtype)), after


class _MultiHeadMixer(nn.Module):
    def __init__(self, block: MultiHeadHyena, shape: Shape, kernel: Kernel) -> None:
        super().__init__()
        self.heads, self.p = shape.heads, block.width(shape)
        self.exclusive, self.core = block.exclusive, core_of(_HEADS, kernel)
        self.project = Linear(shape.dim, 3 * shape.dim, bias=False)
        self.conv = block.short(3 * shape.dim, kernel)
        self.filter = block.filters(self.heads)
        self.out = Linear(shape.dim, shape.dim, bias=False)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, context: Context | None = None
    ) -> tuple[Tensor, State]:
        before: Mapping[str, Any] = state or {}
        mixed, after = _mixed(self.project(x_BTD), self.conv, state)
        q, k, v = at_least_fp32(mixed).unflatten(-1, (3, self.heads, self.p)).unbind(2)
        own = v
        if "k" in before:
            k, v = torch.cat([before["k"], k], dim=1), torch.cat([before["v"], v], dim=1)
        o = self.core(q * self.p**-0.5, k, v, self.filter(k.shape[1]))
        if self.exclusive:
            o = apart(o, own)
        return self.out(o.flatten(2).to(x_BTD.dtype)), {**after, "k": k, "v": v}


def _mixed(
    x_BTC: Tensor, conv: ShortConv | None, state: State | None
) -> tuple[Tensor, dict[str, Tensor | int]]:
    """Projections after the short convolution, and its memory."""
    if conv is None:
        return x_BTC, {}
    y, tail = conv(x_BTC, (state or {}).get("conv"))
    return y, {"conv": tail}


_LONG: Cores = {"torch": long_convolution, "reference": long_convolution_reference}
_HEADS: Cores = {"torch": head_convolution, "reference": head_convolution_reference}


@dataclass(frozen=True, kw_only=True)
class _Implicit:
    """What the two blocks have in common: a short convolution before, and how their filters are made."""

    word: ClassVar[str]

    conv: int = 3
    bands: int = 8
    hidden: int = 32
    max_length: int = 1024

    def __post_init__(self) -> None:
        check_taps(self.word, self.conv)
        for name in ("bands", "hidden", "max_length"):
            if getattr(self, name) < 1:
                raise OptionError(f"{self.word}: {name} is {getattr(self, name)}; it must be at least 1")

    @property
    def role(self) -> Role:
        return "full"

    def short(self, channels: int, kernel: Kernel) -> ShortConv | None:
        """The short convolution of all projections, if there is one."""
        return ShortConv(channels, self.conv, act=False, kernel=kernel) if self.conv else None

    def filters(self, count: int) -> ImplicitFilter:
        return ImplicitFilter(count, self.bands, self.hidden, self.max_length)

    def filter_params(self, count: int) -> int:
        """Learned scalars of ``count`` filters: three matrices, two biases, two frequencies, the skip."""
        return self.hidden * (2 * self.bands + 1 + self.hidden + 4 + count) + count


@dataclass(frozen=True, kw_only=True)
class Hyena(_Implicit):
    """Hyena (Poli et al. 2023, definition 3.1, section 3.3). Its state is all that its filters look back on.

    z_1 = v x_1, z_{n+1} = (h_n * z_n) x_{n+1} up to the order's gate, where * convolves each channel with a
    filter of its own as long as the sequence; v and the gates come from one projection and a short
    convolution each, which stands for the first of the paper's filters, as in its code. By the FFT the state
    is not of use, so that a token costs T in decoding. FLOPs are those of the sum as it stands, as for
    attention; the FFT takes some 20 log2(2T) of them for T. Filters depend on no token and are made once
    for a batch of any size: they count as weights, not as FLOPs.

    order: gates; one filter less per channel. conv: taps of the short convolution, 0 for none. bands,
    hidden, max_length: of ``ImplicitFilter``; give max_length the length that is trained at.
    """

    word: ClassVar[str] = "hyena"

    order: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order < 2:
            raise OptionError(
                f"hyena: order is {self.order}; it must be at least 2, one filter and two gates"
            )

    def build(self, shape: Shape, kernel: Kernel = "torch") -> nn.Module:
        """A freshly initialised mixer."""
        return _Mixer(self, shape, kernel)

    def _weights(self, shape: Shape) -> int:
        """Entries of the matrices and the convolution: each is one multiply-add per token."""
        return shape.dim * (shape.dim * (self.order + 2) + self.conv * (self.order + 1))

    def params(self, shape: Shape) -> int:
        return self._weights(shape) + self.filter_params((self.order - 1) * shape.dim)

    def state_size(self, shape: Shape, length: int) -> int:
        tail = max(self.conv - 1, 0) * (self.order + 1)
        return shape.dim * (length * (self.order - 1) + tail)

    def flops(self, shape: Shape, length: int) -> int:
        return 2 * self._weights(shape) + (self.order - 1) * shape.dim * (length + 1)


@dataclass(frozen=True, kw_only=True)
class MultiHeadHyena(_Implicit):
    """Multi-head Hyena (Massaroli et al. 2023, section 4). Its state is the keys and values of all tokens.

    o_t = (sum_s h_{t-s} v_s k_s^T) q_t in each head, with one filter h for all of it; q (times P^-1/2), k
    and v from one projection and a short convolution. A linear attention whose weight of a token is any
    learned function of its age. FLOPs are those of products of matrices; filters count as ``hyena``'s do.

    conv: taps of the short convolution, 0 for none. bands, hidden, max_length: of ``ImplicitFilter``.
    exclusive: heads read nothing along the token's own value (``parts.apart``).
    """

    word: ClassVar[str] = "mh_hyena"

    exclusive: bool = False

    def width(self, shape: Shape) -> int:
        """P of one head. Raises OptionError where heads do not split the width."""
        return split_heads_dim(shape.dim, shape.heads, "mh_hyena: the model")

    def build(self, shape: Shape, kernel: Kernel = "torch") -> nn.Module:
        """A freshly initialised mixer. Raises OptionError where heads do not split the width."""
        return _MultiHeadMixer(self, shape, kernel)

    def _channels(self, shape: Shape) -> int:
        """Channels of all heads: those of the model, which the heads must split for any cost to be told."""
        return shape.heads * self.width(shape)

    def _weights(self, shape: Shape) -> int:
        """Entries of the matrices and the convolution: each is one multiply-add per token."""
        return self._channels(shape) * (4 * shape.dim + 3 * self.conv)

    def params(self, shape: Shape) -> int:
        return self._weights(shape) + self.filter_params(shape.heads)

    def state_size(self, shape: Shape, length: int) -> int:
        return self._channels(shape) * (2 * length + 3 * max(self.conv - 1, 0))

    def flops(self, shape: Shape, length: int) -> int:
        return 2 * (self._weights(shape) + self._channels(shape) * (length + 1))
