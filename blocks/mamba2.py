"""Mamba-2: a linear memory that forgets at one pace per head, chosen by the token, and writes in steps.

B batch, T time, D model width, H heads, P channels of a head, G groups of heads that share B and C, R = H / G
heads of a group, N state size (the key width of other linear mixers); C tokens of a chunk, M chunks of a
sequence. b and c are the paper's B and C: what a token writes under, and what it reads under.
"""

from __future__ import annotations

from dataclasses import dataclass

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
from blocks.chunks import join_chunks, span_sums, split_chunks
from blocks.gdn import decay_start
from blocks.parts import ShortConv, apart, gated, make_norm
from blocks.products import Linear

__all__ = ["Mamba2", "ssd_chunked", "ssd_reference"]


def ssd_reference(
    c_BTGN: Tensor, b_BTGN: Tensor, x_BTHP: Tensor, log_a_BTH: Tensor, s_BHNP: Tensor
) -> tuple[Tensor, Tensor]:
    """S_t = a_t S_{t-1} + b_t x_t^T and y_t = S_t^T c_t, token by token (Dao & Gu 2024, eq. 2, A a scalar).

    Head h reads group h // R; x comes multiplied by its step. Returns (y_BTHP, last state).
    """
    a_BTH, s, out = log_a_BTH.exp(), s_BHNP, []
    b_BTHN, c_BTHN = (z.repeat_interleave(s.shape[1] // z.shape[2], dim=2) for z in (b_BTGN, c_BTGN))
    for t in range(x_BTHP.shape[1]):
        s = a_BTH[:, t, :, None, None] * s + torch.einsum("bhn,bhp->bhnp", b_BTHN[:, t], x_BTHP[:, t])
        out.append(torch.einsum("bhn,bhnp->bhp", c_BTHN[:, t], s))
    return torch.stack(out, dim=1), s


def ssd_chunked(
    c_BTGN: Tensor, b_BTGN: Tensor, x_BTHP: Tensor, log_a_BTH: Tensor, s_BHNP: Tensor, chunk: int = 32
) -> tuple[Tensor, Tensor]:
    """The same function in chunks of ``chunk`` tokens (Dao & Gu 2024, section 6); no exponent is above 0.

    Products of b and c are made once per group; decays, which differ by head, are laid on them and on x.
    """
    batch, length, groups, _ = b_BTGN.shape
    heads, chunk = x_BTHP.shape[2], min(chunk, length)
    with torch.autocast(x_BTHP.device.type, enabled=False):
        c, b = (split_chunks(z, chunk).unflatten(0, (batch * groups, -1)) for z in (c_BTGN, b_BTGN))
        x, log_a = split_chunks(x_BTHP, chunk), split_chunks(log_a_BTH, chunk)
        sums_CS, mask_S = span_sums(chunk, x)
        decay = torch.addmm(mask_S, log_a, sums_CS).exp()
        start, inside = decay[:, :chunk, None], decay[:, chunk:].unflatten(1, (chunk, chunk))
        # Sequences and groups, heads, chunks: [B*G, R, M, ...], so that heads meet what they share.
        by_head = (batch * groups, heads // groups, -1)
        x, start, inside = (z.unflatten(0, by_head) for z in (x, start, inside))
        y = ((c @ b.mT)[:, None] * inside) @ x
        adds = b.mT[:, None] @ (inside[:, :, :, -1, :, None] * x)
        s, states = s_BHNP.unflatten(1, (groups, -1)).flatten(0, 1), []
        for add, keep in zip(adds.unbind(2), start[:, :, :, -1:].unbind(2), strict=True):
            states.append(s)
            s = torch.addcmul(add, keep, s)
        y = torch.addcmul(y, start, c[:, None] @ torch.stack(states, dim=2))
        return join_chunks(y.flatten(0, 2), batch, heads, length), s.reshape(s_BHNP.shape)


class _Mixer(nn.Module):
    def __init__(self, block: Mamba2, shape: Shape, kernel: Kernel) -> None:
        super().__init__()
        self.heads, self.p, self.core = shape.heads, block.width(shape), core_of(_CORES, kernel)
        self.kernel: Kernel = kernel
        self.exclusive = block.exclusive
        self.n, inner, shared = block.d_state, self.heads * self.p, block.groups * block.d_state
        # One projection: x, B and C (mixed over time together), steps, gate.
        self.split, self.mixed = [inner + 2 * shared, self.heads, inner], [inner, shared, shared]
        self.project = Linear(shape.dim, sum(self.split), bias=False)
        self.conv = ShortConv(self.split[0], block.conv, bias=True, kernel=kernel) if block.conv else None
        self.log_pace, self.step_bias = decay_start(self.heads, self.heads)
        self.skip = nn.Parameter(torch.ones(self.heads))
        self.norm = make_norm(shape, inner, kernel)
        self.out = Linear(inner, shape.dim, bias=False)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, context: Context | None = None
    ) -> tuple[Tensor, State]:
        state = state or {}
        mixed, step, gate = self.project(x_BTD).split(self.split, dim=-1)
        after: dict[str, Tensor | int] = {}
        if self.conv is None:
            mixed = F.silu(mixed)
        else:
            mixed, after["conv"] = self.conv(mixed, state.get("conv"))
        x, b, c = at_least_fp32(mixed).split(self.mixed, dim=-1)
        x = x.unflatten(-1, (self.heads, self.p))
        b, c = (z.unflatten(-1, (-1, self.n)) for z in (b, c))
        step_BTH = F.softplus(at_least_fp32(step) + at_least_fp32(self.step_bias))
        log_a = -at_least_fp32(self.log_pace).exp() * step_BTH
        s = state.get("s")
        if s is None:
            s = x.new_zeros(x.shape[0], self.heads, self.n, self.p)
        written = step_BTH[..., None] * x
        y, after["s"] = self.core(c, b, written, log_a, s)
        if self.exclusive:
            # Before the skip, which is the token's own on purpose.
            y = apart(y, written)
        y = (y + at_least_fp32(self.skip)[:, None] * x).flatten(2).to(x_BTD.dtype)
        return self.out(self.norm(gated(gate, y, self.kernel))), after


_CORES: Cores = {"torch": ssd_chunked, "reference": ssd_reference}


@dataclass(frozen=True, kw_only=True)
class Mamba2:
    """Mamba-2 (Dao & Gu 2024, eq. 2, A a scalar; section 7). Linear in T; state H*N*P and the conv's tail.

    S_t = a_t S_{t-1} + b_t (d_t x_t)^T, y_t = S_t^T c_t + skip x_t; x, b and c from a short convolution with
    a bias, and SiLU, the step d = softplus(W x + step_bias), log a = -exp(log_pace) d; then RMSNorm(y silu(W
    x)) over all channels. The pace starts uniform in [1, 16], the bias with steps log-uniform in [1e-3,
    1e-1], skip at 1. Heads are those of the shape.

    expand: channels of all heads over D. d_state: N. groups: of heads that share b and c, a divisor of the
    heads. conv: taps of the short convolution, 0 for none. exclusive: heads read nothing along the token's
    own x (``parts.apart``); the skip, which gives them that on purpose, stays.
    """

    expand: float = 2.0
    d_state: int = 128
    groups: int = 1
    conv: int = 4
    exclusive: bool = False

    def __post_init__(self) -> None:
        if not self.expand > 0:
            raise OptionError(f"mamba2: expand is {self.expand:g}; it must be above 0")
        for name, value in (("d_state", self.d_state), ("groups", self.groups)):
            if value < 1:
                raise OptionError(f"mamba2: {name} is {value}; it must be at least 1")
        check_taps("mamba2", self.conv)

    @property
    def role(self) -> Role:
        return "linear"

    def width(self, shape: Shape) -> int:
        """P of one head. Raises OptionError where heads do not split the width, or groups the heads."""
        if shape.heads % self.groups:
            raise OptionError(
                f"mamba2: groups is {self.groups}, which does not divide the {shape.heads} heads; "
                "choose a divisor"
            )
        inner = self.expand * shape.dim
        return split_heads_dim(inner, shape.heads, f"mamba2: with expand={self.expand:g} the inner model")

    def build(self, shape: Shape, kernel: Kernel = "torch") -> nn.Module:
        """A freshly initialised mixer. Raises OptionError where heads or groups do not fit."""
        return _Mixer(self, shape, kernel)

    def _channels(self, shape: Shape) -> tuple[int, int]:
        """(of all heads, of what the convolution mixes)."""
        inner = shape.heads * self.width(shape)
        return inner, inner + 2 * self.groups * self.d_state

    def _weights(self, shape: Shape) -> int:
        """Entries of the matrices and the convolution: each is one multiply-add per token."""
        inner, mixed = self._channels(shape)
        return shape.dim * (mixed + shape.heads + 2 * inner) + self.conv * mixed

    def params(self, shape: Shape) -> int:
        inner, mixed = self._channels(shape)
        return self._weights(shape) + 3 * shape.heads + inner + (mixed if self.conv else 0)

    def state_size(self, shape: Shape, length: int) -> int:
        inner, mixed = self._channels(shape)
        return inner * self.d_state + max(self.conv - 1, 0) * mixed

    def flops(self, shape: Shape, length: int) -> int:
        scan = 2 * self._channels(shape)[0] * self.d_state  # write, read
        return 2 * (self._weights(shape) + scan)
