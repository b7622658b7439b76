"""Whole layers by the C kernels: all that a narrow layer does, for autograd one step.

At a width of 32 a product takes ten microseconds, and every step of autograd around it four times as long.
Products are C too: the matrices of a narrow layer stay in a core's cache. Wider layers are left to the
functions of ``ops`` and to PyTorch's products, which block for the cache.

N rows (batch and time together), D model width, F hidden width, R rows of the projection, C channels under
the convolution, P = W - 1 tokens before, H heads, K key width, V value width, E = H V.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from blocks.kernels.native import call, kept_states
from blocks.kernels.ops import agree

__all__ = ["NARROW", "DeltaSizes", "delta_layer", "narrow", "swiglu"]

NARROW = 48
"""Model width up to which a layer is taken whole."""


def narrow(x: Tensor, weight: Tensor) -> bool:
    """Whether a layer of ``weight`` is taken whole on ``x``: narrow, on CPU, in one type, no autocast."""
    return (
        x.shape[-1] <= NARROW
        and x.device.type == "cpu"
        and x.dtype == weight.dtype
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
    )


def _linear(x_NI: Tensor, w_OI: Tensor, y: Tensor) -> None:
    """y = x W^T."""
    (outputs, inputs), rows = w_OI.shape, len(x_NI)
    call("linear_forward", x_NI.dtype, x_NI, w_OI, y, rows, inputs, outputs, x_NI.stride(0), outputs)


def _linear_back(x_NI: Tensor, w_OI: Tensor, d_y: Tensor, d_x: Tensor, add: bool = False) -> Tensor:
    """The gradient of W; that of x is put into ``d_x``, or added to it."""
    (outputs, inputs), rows, d_w = w_OI.shape, len(x_NI), torch.empty_like(w_OI)
    sizes = rows, inputs, outputs, x_NI.stride(0), outputs, int(add)
    call("linear_backward", x_NI.dtype, x_NI, w_OI, d_y, d_x, d_w, *sizes)
    return d_w


def swiglu(x: Tensor, gate_FD: Tensor, up_FD: Tensor, out_DF: Tensor) -> Tensor:
    """out (silu(gate x) * up x)."""
    return _SwiGLU.apply(x, gate_FD, up_FD, out_DF)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        x, gate, up, out = (t.contiguous() for t in tensors)
        rows, hidden = x.view(-1, x.shape[-1]), len(gate)
        g, u, a = (x.new_empty(len(rows), hidden) for _ in range(3))
        _linear(rows, gate, g)
        _linear(rows, up, u)
        call("gate_forward", x.dtype, g, u, a, len(rows), hidden, hidden, hidden)
        y = torch.empty_like(x)
        _linear(a, out, y)
        ctx.save_for_backward(rows, gate, up, out, g, u, a)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        rows, gate, up, out, g, u, a = ctx.saved_tensors
        d_y = grad_outputs[0].contiguous()
        d_a, d_g, d_u, hidden = *(torch.empty_like(g) for _ in range(3)), len(gate)
        d_out = _linear_back(a, out, d_y, d_a)
        call("gate_backward", d_y.dtype, g, u, d_a, d_g, d_u, len(rows), *[hidden] * 4)
        d_x = torch.empty_like(d_y)
        d_gate = _linear_back(rows, gate, d_g, d_x)
        return d_x, d_gate, _linear_back(rows, up, d_u, d_x, add=True), d_out


@dataclass(frozen=True)
class DeltaSizes:
    """Of a ``gdn`` layer. taps: W of the convolution, 1 for none. gain: whether heads are normed."""

    heads: int
    key: int
    value: int
    taps: int
    beta_max: float
    gate: bool
    gain: bool
    eps: float
    shift: float

    @property
    def mixed(self) -> int:
        """C: queries, keys and values."""
        return self.heads * (2 * self.key + self.value)


def delta_layer(
    sizes: DeltaSizes,
    x_BTD: Tensor,
    project_RD: Tensor,
    taps_CW: Tensor,
    tail_BPC: Tensor,
    log_pace_H: Tensor,
    step_bias_H: Tensor,
    gain_V: Tensor,
    out_DE: Tensor,
    s_BHKV: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """A whole ``gdn`` layer (``blocks.gdn``): its output, the convolution's last P inputs, the last state.

    Without a convolution ``taps`` are ones, without a norm ``gain`` is not read.
    """
    agree(
        "gdn", (x_BTD, "BTD"), (project_RD, "RD"), (tail_BPC, "BPC"), (taps_CW[:, 1:], "CP"), (s_BHKV, "BHKV")
    )
    weights = project_RD, taps_CW, tail_BPC, log_pace_H, step_bias_H, gain_V, out_DE, s_BHKV
    return _Delta.apply(sizes, x_BTD, *weights)


class _Delta(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        z: DeltaSizes = inputs[0]
        x, project, taps, tail, log_pace, bias, gain, out, s = (t.contiguous() for t in inputs[1:])
        (batch, length, _), kind, width = x.shape, x.dtype, len(project)
        rows, heads, inner = batch * length, z.heads, z.heads * z.value
        p, mixed = x.new_empty(rows, width), x.new_empty(rows, z.mixed)
        _linear(x.view(rows, -1), project, p)
        taps = taps.T.contiguous()
        call("conv_forward", kind, p, tail, taps, mixed, batch, length, z.mixed, z.taps, width, 1)
        q, k = (x.new_empty(rows, heads * z.key) for _ in range(2))
        call("unit_forward", kind, mixed, q, k, rows, heads, z.key, z.mixed, UNIT_EPS, z.key**-0.5)
        log_a, b = (x.new_empty(rows, heads) for _ in range(2))
        call("gates_forward", kind, p[:, z.mixed :], log_pace, bias, log_a, b, rows, heads, width, z.beta_max)
        o, last = x.new_empty(rows, inner), torch.empty_like(s)
        kept = kept_states(s, length) if any(ctx.needs_input_grad) else None
        sizes = batch, length, heads, z.key, z.value, z.mixed
        v = mixed[:, 2 * heads * z.key :]
        call("gated_delta_forward", kind, q, k, v, log_a, b, s, o, last, kept, *sizes)
        normed = _head_norm(z, o, gain)
        gated = _gate(z, p, normed)
        y = torch.empty_like(x)
        _linear(gated, out, y)
        seen = torch.cat(
            [tail, p.view(batch, length, width)[:, max(0, length - z.taps + 1) :, : z.mixed]], dim=1
        )
        ctx.z = z
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(
            x,
            project,
            taps,
            tail,
            log_pace,
            bias,
            gain,
            out,
            p,
            mixed,
            q,
            k,
            log_a,
            b,
            kept,
            o,
            normed,
            gated,
        )
        return y, seen[:, seen.shape[1] - z.taps + 1 :].contiguous(), last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        z: DeltaSizes = ctx.z
        x, project, taps, tail, log_pace, bias, gain, out = ctx.saved_tensors[:8]
        p, mixed, q, k, log_a, b, kept, o, normed, gated = ctx.saved_tensors[8:]
        (batch, length, _), kind, width, rows = x.shape, x.dtype, len(project), len(p)
        d_y, d_seen, d_last = grad_outputs
        d_y = torch.zeros_like(x) if d_y is None else d_y.contiguous()
        d_last = x.new_zeros(batch, z.heads, z.key, z.value) if d_last is None else d_last.contiguous()

        d_gated, d_p, d_mixed = torch.empty_like(o), torch.zeros_like(p), torch.empty_like(mixed)
        d_out = _linear_back(gated, out, d_y, d_gated)
        d_normed = _gate_back(z, p, normed, d_gated, d_p)
        d_o, d_gain = _head_norm_back(z, o, gain, d_normed)
        d_q, d_k, d_log_a, d_b = (torch.zeros_like(t) for t in (q, k, log_a, b))
        d_s, values = torch.empty_like(d_last), slice(2 * z.heads * z.key, None)
        sizes = batch, length, z.heads, z.key, z.value, z.mixed
        inputs, found = (q, k, mixed[:, values], log_a, b), (d_q, d_k, d_mixed[:, values], d_log_a, d_b, d_s)
        call("gated_delta_backward", kind, *inputs, kept, d_o, d_last, *found, *sizes)
        d_log_pace, d_bias = torch.zeros_like(log_pace), torch.zeros_like(bias)
        gates, d_gates = p[:, z.mixed :], d_p[:, z.mixed :]
        found = d_gates, d_log_pace, d_bias
        call(
            "gates_backward",
            kind,
            gates,
            log_pace,
            bias,
            log_a,
            d_log_a,
            d_b,
            *found,
            rows,
            z.heads,
            width,
            z.beta_max,
        )
        sizes = rows, z.heads, z.key, z.mixed, z.mixed
        call("unit_backward", kind, mixed, d_q, d_k, d_mixed, *sizes, UNIT_EPS, z.key**-0.5)
        d_tail, d_taps = torch.zeros_like(tail), torch.zeros_like(taps)
        sizes = batch, length, z.mixed, z.taps, width, 1, width
        call("conv_backward", kind, p, tail, taps, d_mixed, d_p, d_tail, d_taps, *sizes)
        if d_seen is not None:
            new = min(length, z.taps - 1)
            d_p.view(batch, length, width)[:, length - new :, : z.mixed] += d_seen[:, z.taps - 1 - new :]
            d_tail[:, length:] += d_seen[:, : max(0, z.taps - 1 - length)]
        d_x = torch.empty_like(x)
        d_project = _linear_back(x.view(rows, -1), project, d_p, d_x)
        return None, d_x, d_project, d_taps.T, d_tail, d_log_pace, d_bias, d_gain, d_out, d_s


UNIT_EPS = 1e-6
"""As ``blocks.parts.l2_normalise`` has it."""


def _head_norm(z: DeltaSizes, o: Tensor, gain: Tensor) -> Tensor:
    if not z.gain:
        return o
    y, inner = torch.empty_like(o), o.shape[1]
    call("norm_forward", o.dtype, o, gain, y, len(o), z.heads, z.value, inner, z.eps, z.shift)
    return y


def _head_norm_back(z: DeltaSizes, o: Tensor, gain: Tensor, d_y: Tensor) -> tuple[Tensor, Tensor]:
    d_gain = torch.zeros_like(gain)
    if not z.gain:
        return d_y, d_gain
    d_o, inner = torch.empty_like(o), o.shape[1]
    call("norm_backward", o.dtype, o, gain, d_y, d_o, d_gain, len(o), z.heads, z.value, inner, z.eps, z.shift)
    return d_o, d_gain


def _gate(z: DeltaSizes, p: Tensor, o: Tensor) -> Tensor:
    if not z.gate:
        return o
    y, inner, width = torch.empty_like(o), o.shape[1], p.shape[1]
    call("gate_forward", o.dtype, p[:, width - inner :], o, y, len(o), inner, width, inner)
    return y


def _gate_back(z: DeltaSizes, p: Tensor, o: Tensor, d_y: Tensor, d_p: Tensor) -> Tensor:
    if not z.gate:
        return d_y
    d_o, inner, width = torch.empty_like(o), o.shape[1], p.shape[1]
    gate, d_gate = p[:, width - inner :], d_p[:, width - inner :]
    call("gate_backward", o.dtype, gate, o, d_y, d_gate, d_o, len(o), inner, width, inner, width)
    return d_o
