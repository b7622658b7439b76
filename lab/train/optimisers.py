"""The optimisers of a training: AdamW for all, or Muon for matrices of the stack and AdamW for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from lab.model.form import OptimiserPart

__all__ = ["Group", "groups", "optimisers", "set_rate"]


@dataclass(frozen=True)
class Group:
    """Parameters that are stepped alike: ``lr`` multiplies the base rate; ``matrix``: Muon may take them."""

    names: tuple[str, ...]
    params: tuple[nn.Parameter, ...]
    lr: float
    decays: bool
    matrix: bool


def groups(model: nn.Module) -> Sequence[Group]:
    """Every parameter in one group: hidden matrices; embedding and head; vectors, which do not decay."""
    found: dict[tuple[bool, bool], dict[str, nn.Parameter]] = {}
    for name, p in model.named_parameters():
        # A short convolution's weight [C, W] is C little vectors, no map between widths.
        matrix = p.ndim == 2 and name.startswith("stack.") and "conv" not in name
        found.setdefault((p.ndim >= 2, matrix), {})[name] = p
    return [
        Group(tuple(params), tuple(params.values()), 1.0, decays, matrix)
        for (decays, matrix), params in found.items()
    ]


def optimisers(model: nn.Module, part: OptimiserPart) -> list[Optimizer]:
    """One or two optimisers over all parameters of ``model``; ``set_rate`` sets their rates before a step.

    Muon's update has singular values near 1 whatever the width, times sqrt(max(1, rows / columns)) (Jordan et
    al. 2024), so that the multiplier of a group is AdamW's alone.
    """
    muon: list[dict[str, Any]] = []
    adamw: list[dict[str, Any]] = []
    for group in groups(model):
        by_muon = part.name == "muon" and group.matrix
        base = part.muon_lr if by_muon else part.lr * group.lr
        (muon if by_muon else adamw).append(
            {
                "params": list(group.params),
                "lr": base,
                "base_lr": base,
                "weight_decay": part.weight_decay if group.decays else 0.0,
            }
        )
    made: list[Optimizer] = []
    if adamw:
        made.append(AdamW(adamw, betas=part.betas, eps=part.eps, fused=True))
    if muon:
        made.append(Muon(muon))
    return made


def set_rate(made: Sequence[Optimizer], share: float) -> None:
    """Set every group's rate to ``share`` of its highest."""
    for optimiser in made:
        for group in optimiser.param_groups:
            group["lr"] = share * group["base_lr"]
