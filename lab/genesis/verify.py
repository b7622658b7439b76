"""Parity with genesis-llm: the same weights and ids through both, every shipped mode, awkward lengths.

Weights are randomised whole, so that what starts at 0 counts. Three places are kept away from, and draws near
them counted: a cut of the top-k between two equal magnitudes, a first token whose query and key are
orthogonal (its output is normalised: a sign over nothing), and decays at which the package's own gate gradient
is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.base import Block
from blocks.ffn import Sparse
from blocks.genesis import GenesisGLA, l2_normalise_outside
from blocks.genesis_model import GenesisConfig, GenesisModel, Mode
from lab.genesis.peer import Case, noise, run
from lab.genesis.weights import to_released

__all__ = ["LENGTHS", "SHIPPED", "SMALL", "Row", "compare", "randomised"]

SMALL = GenesisConfig(vocab=211, dim=64, depth=6, heads=4, kv_heads=2, base_width=48)
"""Six layers, one of them full: two heads a key, half a key rotated, logits scaled, as in the full model."""
LENGTHS = (1, 7, 63, 64, 65, 130, 520)
SHIPPED: tuple[Mode, ...] = ("shipped-eval", "shipped-eval-delta", "shipped-train", "shipped-cache")
BATCH = 2
CLOSE = 1e-9
"""A margin below this is drawn again."""
WEAKEST = 1.2
"""Decay -log a a step that no draw may reach; the package's own gate gradient is NaN from about 1.4."""


@dataclass(frozen=True)
class Row:
    """One comparison: the largest difference, absolute, and over 1 + the size of what is compared."""

    what: str
    mode: Mode
    length: int
    difference: float
    relative: float


@torch.no_grad()
def randomised(config: GenesisConfig, seed: int, batch: int = BATCH) -> tuple[GenesisModel, Tensor, int]:
    """A model in float64, ids [B, max(LENGTHS)], and how many draws lay too near a jump and were redrawn."""
    for redrawn in range(100):
        torch.manual_seed(seed + redrawn * 1_000_003)
        model = GenesisModel(config, "shipped-eval").double()
        for name, parameter in model.named_parameters():
            _randomise(name, parameter)
            parameter.copy_(parameter.float())  # the package holds its weights in float32
        ids_BT = torch.randint(config.vocab, (batch, max(LENGTHS)))
        if _far_from_jumps(model, ids_BT):
            return model, ids_BT, redrawn
    raise AssertionError(f"a hundred draws from seed {seed} all lie near a jump: the margins are wrong")


def _randomise(name: str, t: Tensor) -> None:
    last = name.rsplit(".", 2)[-2:]
    if t.ndim >= 2:
        t.copy_(torch.randn_like(t) / math.sqrt(t.shape[-1]))
    elif last[-1] == "log_pace":
        t.uniform_(math.log(0.05), math.log(0.3))
    elif last[-1] == "step_bias":
        t.uniform_(-3, 0.5)
    elif last[-1] == "log_lr":
        t.uniform_(math.log(0.002), math.log(0.02))
    elif last[-1] == "bias":
        t.copy_(torch.randn_like(t))
    else:
        t.add_(0.3 * torch.randn_like(t))


def _far_from_jumps(model: GenesisModel, ids_BT: Tensor) -> bool:
    """Whether every margin of this model on these ids is wide enough."""
    margins: list[float] = []

    def watch(block: Block) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            margins.append(_margin(block, module, model.config, inputs[0]))

        return hook

    hooks = [
        part["block"].register_forward_pre_hook(watch(block))  # pyright: ignore
        for layer, parts in zip(model.config.schedule(model.mode), model.stack.layers, strict=True)
        for block, part in zip(layer, parts, strict=True)  # pyright: ignore
    ]
    model(ids_BT)
    for hook in hooks:
        hook.remove()
    return min(margins) > CLOSE


def _margin(block: Block, module: Any, config: GenesisConfig, x_BTD: Tensor) -> float:
    """How far this block is from its jump on this input."""
    if isinstance(block, Sparse):
        size = (F.silu(module.gate(x_BTD)) * module.up(x_BTD)).abs().sort(-1).values
        cut = config.hidden - block.kept(config.shape)
        return (size[..., cut] - size[..., cut - 1]).amin().item() if cut else math.inf
    if isinstance(block, GenesisGLA):
        mixed, step, _ = module.project(x_BTD).split(module.split, dim=-1)
        decay = module.log_pace.exp() * F.softplus(step + module.step_bias)
        sizes = [config.heads * module.k, config.kv_heads * module.k, config.kv_heads * module.v]
        q, k, _ = module.conv(mixed[:, :1])[0][:, 0].split(sizes, dim=-1)
        q, k = (l2_normalise_outside(x.unflatten(-1, (-1, module.k))) for x in (q, k))
        first = (q * k.repeat(1, config.heads // config.kv_heads, 1)).sum(-1)
        return min(first.abs().amin().item(), WEAKEST - decay.amax().item())
    return math.inf


def compare(
    ours: GenesisModel,
    weights: Path,
    ids_BT: Tensor,
    lengths: Sequence[int] = LENGTHS,
    modes: Sequence[Mode] = SHIPPED,
    wide: bool = True,
    seed: int = 0,
) -> Iterator[Row]:
    """Logits of every mode and length, and gradients in ``shipped-train``, one row each.

    weights: the file that holds ``ours``. wide: both in float64; else in float32, the package as shipped.
    One row at a time is held in memory, so that the full model fits.
    """
    parameters = dict(ours.named_parameters())
    for mode in modes:
        model = ours.in_mode(mode)
        for length in lengths:
            ids = ids_BT[:, :length].contiguous()
            train = mode == "shipped-train"
            case = Case("logits", mode, "ids", gradients=train)
            theirs = run(weights, {"ids": ids.numpy()}, [case], wide, seed)
            with torch.set_grad_enabled(train):
                logits, _ = model(ids)
            yield _row("logits", mode, length, logits.detach(), theirs.pop("logits"))
            if train:
                grads = torch.autograd.grad(
                    logits,
                    list(parameters.values()),
                    noise(tuple(logits.shape), seed, logits.dtype),
                    allow_unused=True,
                    materialize_grads=True,
                )
                mine = to_released(ours.config, dict(zip(parameters, grads, strict=True)))
                rows = [
                    _row(f"gradient of {name}", mode, length, g, theirs.get(f"logits/{name}", np.zeros(1)))
                    for name, g in mine.items()
                ]
                yield max(rows, key=lambda row: row.relative)


def _row(what: str, mode: Mode, length: int, mine: Tensor, theirs: np.ndarray) -> Row:
    other = torch.from_numpy(theirs).to(mine.dtype)
    gap = (mine - other).abs()
    return Row(what, mode, length, gap.amax().item(), (gap / (1 + other.abs())).amax().item())
