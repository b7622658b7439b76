"""Where a training broke: the first part of the model whose output or gradient is not finite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lab.train.parallel import Crew
from lab.train.rows import Batch
from lab.train.score import called_with

__all__ = ["where_it_broke"]


def where_it_broke(
    model: nn.Module,
    called: nn.Module,
    batches: Sequence[Batch],
    precision: AbstractContextManager[object],
    crew: Crew,
) -> str:
    """``the output of layer 3, block 1: project`` or ``the gradient of ...``: the first, over all processes.

    The forward pass of ``batches``, this process's rows, is run once more; gradients are those at hand.
    """
    found = [one for batch in batches if (one := _output(model, called, batch, precision)) is not None]
    first = _first(found, crew)
    if first is not None:
        return f"the output of {first}"
    names = [name for name, _ in model.named_parameters()]
    bad = [
        (len(names) - i, name)
        for i, (name, p) in enumerate(model.named_parameters())
        if p.grad is not None and not _finite(p.grad)
    ]
    first = _first(bad, crew)
    return "the loss alone: outputs and gradients are finite" if first is None else f"the gradient of {first}"


def _finite(x: Tensor) -> bool:
    mine = x.to_local() if isinstance(x, DTensor) else x
    return bool(torch.isfinite(mine).all())


def _output(
    model: nn.Module, called: nn.Module, batch: Batch, precision: AbstractContextManager[object]
) -> tuple[int, str] | None:
    """The first module in the order of execution that puts out what is not finite, and its place in it."""
    seen = 0
    bad: list[tuple[int, str]] = []

    def note(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            nonlocal seen
            seen += 1
            y = output[0] if isinstance(output, tuple) else output
            if isinstance(y, Tensor) and not torch.isfinite(y).all():
                bad.append((seen, name))

        return hook

    hooks = [m.register_forward_hook(note(name)) for name, m in model.named_modules() if name]
    try:
        with torch.no_grad(), precision:
            called_with(called, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return bad[0] if bad else None


def _first(found: Sequence[tuple[int, str]], crew: Crew) -> str | None:
    """The name of the lowest place that any process found."""
    mine = min(found, default=None)
    everyone = [mine]
    if crew.world > 1:
        everyone = [None] * crew.world
        dist.all_gather_object(everyone, mine)
    lowest = min((one for one in everyone if one is not None), default=None)
    return None if lowest is None else _shown(lowest[1])


def _shown(path: str) -> str:
    """``stack.layers.3.0.block.q`` as ``layer 4, block 1: q``; layers and blocks count from 1."""
    parts = path.split(".")
    if parts[:2] != ["stack", "layers"] or len(parts) < 5:
        return path
    inner = ".".join(parts[5:]) if parts[4] == "block" else ".".join(parts[4:])
    return f"layer {int(parts[2]) + 1}, block {int(parts[3]) + 1}" + (f": {inner}" if inner else "")
