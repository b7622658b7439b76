"""Multiply-adds of a module, counted while it runs: what the FLOP formulas are held against.

Counted are the products that reference forms are written with (linear layers, einsum of two tensors, matmul,
conv1d) and the short convolution, whose shifted adds are no product in PyTorch's eyes. A product that would
go uncounted is an error, so that a reference form cannot hide its work. The network of an implicit filter is
left out: it sees lags, never tokens, and works once for a batch of any size.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from blocks.hyena import ImplicitFilter
from blocks.parts import ShortConv

MATMUL = {torch.matmul, torch.bmm, torch.mm, torch.mv, Tensor.matmul, Tensor.__matmul__, Tensor.bmm}
UNCOUNTED = {
    torch.baddbmm,
    torch.addmm,
    torch.addbmm,
    torch.tensordot,
    torch.dot,
    torch.outer,
    torch.linalg.solve_triangular,
    F.scaled_dot_product_attention,
    F.bilinear,
}


class Products(TorchFunctionMode):
    """Inside ``with Products() as p``, ``p.multiply_adds`` grows with every product."""

    multiply_adds = 0
    counting = True

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not self.counting:
            return out
        if func in UNCOUNTED:
            raise AssertionError(f"a reference form calls {func.__name__}; write it with torch.einsum")
        if func is F.linear:
            self.multiply_adds += out.numel() * args[1].shape[1]
        elif func in MATMUL:
            self.multiply_adds += out.numel() * args[0].shape[-1]
        elif func is F.conv1d:
            self.multiply_adds += out.numel() * math.prod(args[1].shape[1:])
        elif func is torch.einsum:
            self.multiply_adds += _einsum(*args)
        return out


def _einsum(equation: str, *tensors: Tensor) -> int:
    """The product of the sizes of all letters."""
    names = equation.split("->")[0].replace(" ", "").split(",")
    if len(names) != 2:
        raise AssertionError(f"einsum {equation!r} has {len(names)} operands; write products of two")
    sizes = {c: n for name, t in zip(names, tensors, strict=True) for c, n in zip(name, t.shape, strict=True)}
    return math.prod(sizes.values())


def multiply_adds(module: nn.Module, x_BTD: Tensor) -> int:
    """Multiply-adds of ``module(x)``, one forward pass over the whole batch."""
    with torch.no_grad(), Products() as products:

        def conv(part: nn.Module, inputs: tuple[Tensor, ...], _: Any) -> None:
            assert isinstance(part, ShortConv)
            products.multiply_adds += inputs[0].numel() * part.width

        def pause(*_: Any) -> None:
            products.counting = False

        def go_on(*_: Any) -> None:
            products.counting = True

        hooks = [p.register_forward_hook(conv) for p in module.modules() if isinstance(p, ShortConv)]
        for part in module.modules():
            if isinstance(part, ImplicitFilter):
                hooks += [part.register_forward_pre_hook(pause), part.register_forward_hook(go_on)]
        module(x_BTD)
    for hook in hooks:
        hook.remove()
    return products.multiply_adds
