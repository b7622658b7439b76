"""Where a model broke: the first part whose output or gradient is not finite."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["where_it_broke"]


def where_it_broke(model: nn.Module, inputs_BT: Tensor, step: int, loss: float, norm: float) -> str:
    """One sentence: the step, and the first part whose output or gradient is not finite."""
    bad: list[str] = []

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], object], None]:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: object) -> None:
            y = output[0] if isinstance(output, tuple) else output
            if isinstance(y, Tensor) and not torch.isfinite(y).all():
                bad.append(name)

        return hook

    hooks = [m.register_forward_hook(note(name)) for name, m in model.named_modules() if name]
    with torch.no_grad():
        model(inputs_BT)
    for hook in hooks:
        hook.remove()
    if bad:
        return f"step {step}: first not finite in the output of {_layer_name(bad[0])}"
    for name, p in reversed(list(model.named_parameters())):
        if p.grad is not None and not torch.isfinite(p.grad).all():
            return f"step {step}: first not finite in the gradient of {_layer_name(name)}"
    return f"step {step}: loss {loss:.3g}, gradient norm {norm:.3g}"


def _layer_name(path: str) -> str:
    """``stack.layers.3.0.block.q`` -> ``layer 4, block 1: q``; layers and blocks count from 1."""
    parts = path.split(".")
    if parts[:2] == ["stack", "layers"] and len(parts) > 3:
        inner = ".".join(parts[5:]) or parts[4] if len(parts) > 4 else "residual"
        return f"layer {int(parts[2]) + 1}, block {int(parts[3]) + 1}: {inner}"
    return path
