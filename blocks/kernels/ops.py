"""The C kernels as differentiable functions of tensors, each with the signature of its plain torch form.

They run on CPU and on one thread, in float32 or float64; half types are widened and narrowed again. Gradients
are written by hand and cannot be differentiated again.

B batch, T time, S keys (cached and new), P cached keys, C channels, W taps, H heads, G key-value heads, K key
width, V value width, D width of a norm or gate, R rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from blocks.kernels.native import KernelError, call, kept_states

__all__ = [
    "agree",
    "attention",
    "gated",
    "gated_delta",
    "gated_linear",
    "linear_memory",
    "rms_norm",
    "short_conv",
    "unit_heads",
]


def _wide(*tensors: Tensor) -> list[Tensor]:
    """Tensors in one type that the kernels take. Raises KernelError where they do not lie in main memory."""
    for x in tensors:
        if x.device.type != "cpu":
            raise KernelError(f'kernel "c" runs on CPU and was given a tensor on {x.device}; choose "torch"')
    kind = torch.float64 if any(x.dtype == torch.float64 for x in tensors) else torch.float32
    return [x.to(kind) for x in tensors]


def _rows(x: Tensor, width: int) -> Tensor:
    """x as [R, width], a view where it can be; only the distance of its rows may be any."""
    flat = x.reshape(-1, width)
    return flat if flat.stride(1) == 1 or not len(flat) else flat.contiguous()


def agree(what: str, *tensors: tuple[Tensor, str]) -> None:
    """Hold tensors to their letters: the same letter, the same size. Raises KernelError.

    The kernels are given addresses and sizes; a size that is not there would be read all the same.
    """
    sizes: dict[str, int] = {}
    for x, letters in tensors:
        named = zip(letters, x.shape, strict=x.ndim == len(letters))
        if x.ndim != len(letters) or any(sizes.setdefault(a, n) != n for a, n in named):
            given = ", ".join(f"{letters} {list(x.shape)}" for x, letters in tensors)
            raise KernelError(f"{what}: the shapes do not fit each other ({given})")


def short_conv(x_BTC: Tensor, tail_BPC: Tensor, weight_CW: Tensor, act: bool) -> Tensor:
    """sum_i weight[:, i] x[t - W + 1 + i], SiLU if ``act``; what lies before x is ``tail``, P = W - 1."""
    x, tail, weight = _wide(x_BTC, tail_BPC, weight_CW)
    agree("short_conv", (x, "BTC"), (tail, "BPC"), (weight[:, 1:], "CP"))
    return _Conv.apply(x, tail.contiguous(), weight, act).to(x_BTC.dtype)


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        x, tail, weight, act = inputs
        taps, rows, y = weight.T.contiguous(), _rows(x, x.shape[2]), x.new_empty(x.shape)
        ctx.sizes, ctx.act = (*x.shape, weight.shape[1]), int(act)
        ctx.save_for_backward(x, tail, taps)
        call("conv_forward", x.dtype, rows, tail, taps, y, *ctx.sizes, rows.stride(0), ctx.act)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, tail, taps = ctx.saved_tensors
        d_y = grad_outputs[0].contiguous()
        d_x, d_tail, d_taps = x.new_zeros(x.shape), torch.zeros_like(tail), torch.zeros_like(taps)
        rows, found = _rows(x, x.shape[2]), (d_x, d_tail, d_taps)
        sizes = *ctx.sizes, rows.stride(0), ctx.act, x.shape[2]
        call("conv_backward", x.dtype, rows, tail, taps, d_y, *found, *sizes)
        return d_x, d_tail, d_taps.T, None


def rms_norm(x: Tensor, gain_D: Tensor, eps: float, shift: float) -> Tensor:
    """x / sqrt(mean x^2 + eps) * (gain + shift) over the last axis."""
    wide, gain = _wide(x, gain_D)
    agree("rms_norm", (wide.flatten(0, -2), "RD"), (gain, "D"))
    return _Norm.apply(wide, gain.contiguous(), eps, shift).to(x.dtype)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        x, gain, eps, shift = inputs
        groups = x.shape[-2] if x.ndim == 4 else 1
        rows, y = _rows(x, groups * len(gain)), x.new_empty(x.shape)
        ctx.sizes, ctx.reals = (len(rows), groups, len(gain)), (eps, shift)
        ctx.save_for_backward(x, gain)
        call("norm_forward", x.dtype, rows, gain, y, *ctx.sizes, rows.stride(0), *ctx.reals)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, gain = ctx.saved_tensors
        d_x, d_gain = x.new_empty(x.shape), torch.zeros_like(gain)
        rows, d_y = _rows(x, ctx.sizes[1] * len(gain)), grad_outputs[0].contiguous()
        call("norm_backward", x.dtype, rows, gain, d_y, d_x, d_gain, *ctx.sizes, rows.stride(0), *ctx.reals)
        return d_x, d_gain, None, None


def unit_heads(x_BTX: Tensor, heads: int, eps: float = 1e-6) -> tuple[Tensor, Tensor]:
    """Queries [B,T,H,K] at length K^-1/2 and keys at length 1 from what holds both: z / sqrt(|z|^2 + eps)."""
    (wide,) = _wide(x_BTX)
    return _Unit.apply(wide, heads, eps)


class _Unit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        x, heads, eps = inputs
        width = x.shape[2] // (2 * heads)
        rows = _rows(x, x.shape[2])
        q, k = (x.new_empty(*x.shape[:2], heads, width) for _ in range(2))
        ctx.sizes, ctx.reals = (len(rows), heads, width), (eps, width**-0.5)
        ctx.save_for_backward(x)
        call("unit_forward", x.dtype, rows, q, k, *ctx.sizes, rows.stride(0), *ctx.reals)
        return q, k

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,) = ctx.saved_tensors
        d_q, d_k = (d.contiguous() for d in grad_outputs)
        d_x = x.new_empty(x.shape)
        rows = _rows(x, x.shape[2])
        sizes = *ctx.sizes, rows.stride(0), x.shape[2]
        call("unit_backward", x.dtype, rows, d_q, d_k, d_x, *sizes, *ctx.reals)
        return d_x, None, None


def gated(gate: Tensor, x: Tensor) -> Tensor:
    """silu(gate) * x, both of one shape."""
    if gate.shape != x.shape:
        raise KernelError(f"gated: the gate is {list(gate.shape)} and what it gates {list(x.shape)}")
    return _Gate.apply(*_wide(gate, x)).to(torch.promote_types(gate.dtype, x.dtype))


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        gate, x = (_rows(t, t.shape[-1]) for t in tensors)
        y = x.new_empty(tensors[1].shape)
        ctx.save_for_backward(*tensors)
        call("gate_forward", x.dtype, gate, x, y, *x.shape, gate.stride(0), x.stride(0))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        gate, x = ctx.saved_tensors
        d_gate, d_x = gate.new_empty(gate.shape), x.new_empty(x.shape)
        g, u, d_y = _rows(gate, gate.shape[-1]), _rows(x, x.shape[-1]), grad_outputs[0].contiguous()
        sizes = *u.shape, g.stride(0), u.stride(0), u.shape[1]
        call("gate_backward", x.dtype, g, u, d_y, d_gate, d_x, *sizes)
        return d_gate, d_x


def gated_delta(
    q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, log_a_BTH: Tensor, b_BTH: Tensor, s_BHKV: Tensor
) -> tuple[Tensor, Tensor]:
    """``blocks.gdn.gated_delta_reference`` as the recurrence it is. Returns (o_BTHV, last state)."""
    given = _wide(q_BTHK, k_BTHK, v_BTHV, log_a_BTH, b_BTH, s_BHKV)
    agree("gated_delta", *zip(given, ("BTHK", "BTHK", "BTHV", "BTH", "BTH", "BHKV"), strict=True))
    return _Delta.apply(*given)


class _Delta(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Any:
        inputs = [x.contiguous() for x in tensors]
        q, v, s = inputs[0], inputs[2], inputs[5]
        o, last, kept = (
            torch.empty_like(v),
            torch.empty_like(s),
            kept_states(s, q.shape[1]) if any(ctx.needs_input_grad) else None,
        )
        ctx.sizes = *q.shape, v.shape[3], v.shape[2] * v.shape[3]
        call("gated_delta_forward", q.dtype, *inputs, o, last, kept, *ctx.sizes)
        ctx.save_for_backward(*inputs, kept)
        return o, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        *inputs, kept = ctx.saved_tensors
        d_o, d_last = (d.contiguous() for d in grad_outputs)
        found = [torch.zeros_like(x) for x in inputs]
        call("gated_delta_backward", d_o.dtype, *inputs[:5], kept, d_o, d_last, *found, *ctx.sizes)
        return tuple(found)


def gated_linear(
    q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, log_a_BTHK: Tensor, s_BHKV: Tensor
) -> tuple[Tensor, Tensor]:
    """``blocks.gla.gla_reference`` as the recurrence it is. Returns (o_BTHV, last state)."""
    given = _wide(q_BTHK, k_BTHK, v_BTHV, s_BHKV, log_a_BTHK)
    agree("gated_linear", *zip(given, ("BTHK", "BTHK", "BTHV", "BHKV", "BTHK"), strict=True))
    return _Linear.apply(*given)


def linear_memory(q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, s_BHKV: Tensor) -> tuple[Tensor, Tensor]:
    """``blocks.linear.linear_reference`` as the recurrence it is. Returns (o_BTHV, last state)."""
    given = _wide(q_BTHK, k_BTHK, v_BTHV, s_BHKV)
    agree("linear_memory", *zip(given, ("BTHK", "BTHK", "BTHV", "BHKV"), strict=True))
    return _Linear.apply(*given)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Any:
        inputs = [x.contiguous() for x in tensors]
        q, k, v, s = inputs[:4]
        log_a = inputs[4] if len(inputs) > 4 else None
        o, last, kept = (
            torch.empty_like(v),
            torch.empty_like(s),
            kept_states(s, q.shape[1]) if any(ctx.needs_input_grad) else None,
        )
        ctx.sizes = *q.shape, v.shape[3]
        call("gated_linear_forward", q.dtype, q, k, v, log_a, s, o, last, kept, *ctx.sizes)
        ctx.save_for_backward(*inputs, kept)
        return o, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        *inputs, kept = ctx.saved_tensors
        q, k, v = inputs[:3]
        d_o, d_last = (d.contiguous() for d in grad_outputs)
        d_q, d_k, d_v, d_s, *d_log_a = (torch.zeros_like(x) for x in inputs)
        log_a, to = (inputs[4], d_log_a[0]) if d_log_a else (None, None)
        found = d_q, d_k, d_v, to, d_s
        call("gated_linear_backward", q.dtype, q, k, v, log_a, kept, d_o, d_last, *found, *ctx.sizes)
        return d_q, d_k, d_v, d_s, *d_log_a


def attention(
    q_BTHK: Tensor,
    k_BSGK: Tensor,
    v_BSGK: Tensor,
    log_f_BTH: Tensor | None = None,
    faded_BPH: Tensor | None = None,
) -> Tensor:
    """Causal attention of the last T of S positions; with ``log_f`` forgetting (``blocks.fox``), and then
    ``faded`` is what each of the P = S - T cached keys has already lost. Returns o_BTHK.
    """
    gates = ()
    if log_f_BTH is not None:
        gates = (log_f_BTH, log_f_BTH[:, :0] if faded_BPH is None else faded_BPH)
    given = _wide(q_BTHK, k_BSGK, v_BSGK, *gates)
    agree("attention", *zip(given, ("BTHK", "BSGK", "BSGK", "BTH", "BPH"), strict=False))
    heads, groups, past = q_BTHK.shape[2], k_BSGK.shape[2], k_BSGK.shape[1] - q_BTHK.shape[1]
    if past < 0 or heads % groups or (gates and gates[1].shape[1] != past):
        raise KernelError(
            f"attention: q {list(q_BTHK.shape)} and k {list(k_BSGK.shape)} do not fit"
            + (f" with gates of {gates[1].shape[1]} cached keys" if gates else "")
        )
    return _Attention.apply(*given).to(v_BSGK.dtype)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        inputs = [x.contiguous() for x in tensors]
        q, k = inputs[0], inputs[1]
        gates = inputs[3:] or (None, None)
        o, norms = torch.empty_like(q), q.new_empty(q.shape[:3])
        ctx.sizes = *q.shape[:2], k.shape[1], q.shape[2], k.shape[2], q.shape[3]
        ctx.save_for_backward(*inputs, norms)
        call("attention_forward", q.dtype, *inputs[:3], *gates, o, norms, *ctx.sizes)
        return o

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        *inputs, norms = ctx.saved_tensors
        q, k, v = inputs[:3]
        gates = inputs[3:] or (None, None)
        d_q, d_k, d_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        d_bias_BHS = q.new_zeros(q.shape[0], q.shape[2], k.shape[1])
        found = d_q, d_k, d_v, d_bias_BHS
        d_o = grad_outputs[0].contiguous()
        call("attention_backward", q.dtype, q, k, v, *gates, norms, d_o, *found, *ctx.sizes)
        if gates[0] is None:
            return d_q, d_k, d_v
        # A gate moves the keys before it against those from it on, and a softmax's gradients sum to 0.
        past = k.shape[1] - q.shape[1]
        d_log_f = -d_bias_BHS.flip(-1).cumsum(-1).flip(-1)[..., past:]
        return d_q, d_k, d_v, d_log_f.transpose(1, 2), d_bias_BHS[..., :past].transpose(1, 2)
