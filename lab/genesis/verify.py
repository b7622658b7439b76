"""Parity with genesis-llm: the same weights and ids through both, every shipped mode, awkward lengths.

Weights are randomised whole, so that what starts at 0 counts. Three places are kept away from, and draws near
them counted: a cut of the top-k between two equal magnitudes; a first token whose query and key are at right
angles (its output is normalised: a sign over nothing); decays for which the package's gate gradient is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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

__all__ = ["LENGTHS", "SAME", "SHIPPED", "SMALL", "Row", "compare", "far_from_jumps", "randomised"]

SMALL = GenesisConfig(vocab=211, dim=64, depth=6, heads=4, kv_heads=2, base_width=48)
"""Six layers, one of them full: two heads a key, half a key rotated, logits scaled, as in the full model."""
LENGTHS = (1, 7, 63, 64, 65, 130, 520)
SHIPPED: tuple[Mode, ...] = ("shipped-eval", "shipped-eval-delta", "shipped-train", "shipped-cache")
BATCH = 2
SAME = 1e-8
"""float64, absolute plus relative: two orders of summation, nothing else."""
CLOSE = 1e-9
"""A margin below this is drawn again."""
NARROWEST = 1e-13
"""The same for a file, where only its ids can be drawn again."""
SLANT = 1e-4
"""Of |q.k| at the first token. Its gradient grows as 1 / |q.k| and would eat the digits that are compared."""
WEAKEST = 1.2
"""Decay -log a a step that no draw may reach; the package's own gate gradient is NaN from about 1.4."""


@dataclass(frozen=True)
class Row:
    """One comparison at one mode and length, in float64: differences over 1 + the size of what is compared.

    logits: with the package's casts to float32 lifted. as_shipped: with the casts where they are. gradients:
    the worst of all parameters and its released name, None where none were asked for. broken: parameters
    whose gradient is not finite in the package, which are left out.
    """

    mode: Mode
    length: int
    logits: float
    as_shipped: float
    gradients: float | None
    worst: str | None
    broken: int

    @property
    def held(self) -> bool:
        """Whether all that is compared with the casts lifted is the same function."""
        return max(self.logits, self.gradients or 0.0) <= SAME


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
        if far_from_jumps(model, ids_BT):
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


def far_from_jumps(model: GenesisModel, ids_BT: Tensor, cuts_alone: bool = False) -> bool:
    """Whether every margin of this model on these ids is wide enough.

    cuts_alone: only the cuts of the top-k, down to what float64 itself leaves open; a file's decays cannot be
    redrawn, and its first token's gradient is what it is.
    """
    margins: list[float] = []

    def watch(block: Block) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if not (cuts_alone and isinstance(block, GenesisGLA)):
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
    return min(margins) > (NARROWEST if cuts_alone else CLOSE)


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
        return min(first.abs().amin().item() - SLANT, WEAKEST - decay.amax().item())
    return math.inf


def compare(
    ours: GenesisModel,
    weights: Path,
    ids_BT: Tensor,
    modes: Sequence[Mode] = SHIPPED,
    lengths: Sequence[int] = LENGTHS,
    seed: int = 0,
) -> Iterator[Row]:
    """Every mode at every length, one row each; gradients too in ``shipped-train``.

    ``ours`` is in float64 and ``weights`` the file that holds the same. The package runs twice, in processes
    of its own, and its answers lie on disk: at full size 1 GB a mode, and 1.2 GB a length with gradients.
    """
    ids = {str(length): ids_BT[:, :length].numpy() for length in lengths}
    cases = [
        Case(f"{mode} {n}", mode, str(n), gradients=mode == "shipped-train")
        for mode in modes
        for n in lengths
    ]
    plain = [replace(case, gradients=False) for case in cases]
    with run(weights, ids, cases, seed=seed) as theirs, run(weights, ids, plain, lift=False) as shipped:
        for case in cases:
            model, length = ours.in_mode(case.mode), int(case.ids)
            with torch.set_grad_enabled(case.gradients):
                logits, _ = model(ids_BT[:, :length])
            gap, cast = (_gap(logits.detach(), other[case.name]) for other in (theirs, shipped))
            none = (None, None, 0)
            grads = _gradients(model, logits, theirs, case.name, seed) if case.gradients else none
            yield Row(case.mode, length, gap, cast, *grads)


def _gradients(
    model: GenesisModel, logits: Tensor, theirs: Mapping[str, np.ndarray], case: str, seed: int
) -> tuple[float, str, int]:
    """Of gradients of one random function of the logits: the largest difference, whose it is, and how many in
    the package are not finite.

    A parameter without any gradient in the package has to have none here.
    """
    parameters = dict(model.named_parameters())
    loss = noise(tuple(logits.shape), seed, logits.dtype)
    grads = torch.autograd.grad(
        logits, list(parameters.values()), loss, allow_unused=True, materialize_grads=True
    )
    mine = to_released(model.config, dict(zip(parameters, grads, strict=True)))
    gaps, broken = {}, 0
    for name, grad in mine.items():
        other = theirs[f"{case}/{name}"] if f"{case}/{name}" in theirs else np.zeros(tuple(grad.shape))
        if np.isfinite(other).all():
            gaps[name] = _gap(grad, other)
        else:
            broken += 1
            gaps[name] = 0.0 if bool(grad.isfinite().all()) else math.inf
    worst = max(gaps, key=lambda name: gaps[name])
    return gaps[worst], worst, broken


def _gap(mine: Tensor, theirs: np.ndarray) -> float:
    """max |mine - theirs| / (1 + |theirs|); infinite where either is not finite."""
    other = torch.from_numpy(np.asarray(theirs)).to(mine.dtype)
    gap = (mine - other).abs().div_(1 + other.abs()).amax().item()
    return gap if math.isfinite(gap) else math.inf
