"""How layers are joined: what stands between the plain sums x + block(norm(x)) of the residual stack.

``x0_mix + unet + ln_scale + branch_scale`` is how such a list is written (``blocks.design``); an empty one is
the plain stack. All parts start as the plain stack or near to it, act token by token, and hold no memory.

B batch, T time, D model width, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = [
    "RESIDUAL",
    "BranchScale",
    "LnScale",
    "Parallel",
    "Part",
    "Topology",
    "UNet",
    "X0Mix",
    "pairs",
    "params",
]


@dataclass(frozen=True, kw_only=True)
class X0Mix:
    """Every layer starts from a x + b x0 with the first layer's input x0; a = 1, b = 0 per channel at first.

    From OpenAI's parameter golf (resid_mix).
    """


@dataclass(frozen=True, kw_only=True)
class UNet:
    """Layers of the first half hand their output to the second half, last to first: x + w y, w per channel.

    Layer L//2 + j takes that of layer L//2 - 1 - j; with an odd L the last layer takes none. The first pair
    are neighbours, so that it doubles x and is no skip: that is how parameter golf has it.

    start: where w starts. neighbours: keep the first pair.
    """

    start: float = 1.0
    neighbours: bool = True


@dataclass(frozen=True, kw_only=True)
class LnScale:
    """The input of every block, after its norm, is divided by sqrt(i + 1) in layer i = 0, 1, ... (golf)."""


@dataclass(frozen=True, kw_only=True)
class BranchScale:
    """x + s block(norm(x)) with a learned s = 1 per channel (Touvron et al. 2021, LayerScale; golf)."""


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """The blocks of a layer all read its input, and their outputs are added (Wang & Komatsuzaki 2021)."""


Part = X0Mix | UNet | LnScale | BranchScale | Parallel

RESIDUAL: dict[str, type[Part]] = {
    "x0_mix": X0Mix,
    "unet": UNet,
    "ln_scale": LnScale,
    "branch_scale": BranchScale,
    "parallel": Parallel,
}
"""The registry: one word of a list -> the dataclass."""


def pairs(depth: int, neighbours: bool = True) -> dict[int, int]:
    """Which layer's output a layer takes up, by layer."""
    half = depth // 2
    return {half + j: half - 1 - j for j in range(0 if neighbours else 1, half)}


class Topology(nn.Module):
    """What ``parts`` ask for between the layers of a stack of ``depth`` layers."""

    def __init__(self, parts: Sequence[Part], depth: int, dim: int) -> None:
        super().__init__()
        kinds = {type(part): part for part in parts}
        unet = kinds.get(UNet)
        self.pairs = pairs(depth, unet.neighbours) if isinstance(unet, UNet) else {}
        self.mixes = X0Mix in kinds
        self.parallel = Parallel in kinds
        if self.mixes:
            self.stay_LD = nn.Parameter(torch.ones(depth, dim))
            self.again_LD = nn.Parameter(torch.zeros(depth, dim))
        if isinstance(unet, UNet):
            self.skip_LD = nn.Parameter(torch.full((len(self.pairs), dim), unet.start))

    def enter(self, layer: int, x_BTD: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """What ``layer`` starts from after x; ``outputs``: the first input, and every layer's so far."""
        if (giver := self.pairs.get(layer)) is not None:
            at = layer - min(self.pairs)
            x_BTD = x_BTD + self.skip_LD[at] * outputs[giver + 1]
        if self.mixes:
            x_BTD = self.stay_LD[layer] * x_BTD + self.again_LD[layer] * outputs[0]
        return x_BTD


def params(parts: Sequence[Part], depth: int, dim: int, blocks: int) -> int:
    """Learned scalars of ``parts`` in a stack of ``depth`` layers and ``blocks`` blocks."""
    total = 0
    for part in parts:
        match part:
            case X0Mix():
                total += 2 * depth * dim
            case UNet(neighbours=neighbours):
                total += len(pairs(depth, neighbours)) * dim
            case BranchScale():
                total += blocks * dim
            case LnScale() | Parallel():
                pass
    return total
