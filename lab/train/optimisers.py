"""The optimisers of a training: AdamW for all, or Muon for matrices of the stack and AdamW for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.optim import AdamW, Muon, Optimizer

from blocks.model import LanguageModel
from blocks.mup import groups
from lab.model.form import OptimiserPart

__all__ = ["optimisers", "set_rate"]


def optimisers(model: LanguageModel, part: OptimiserPart) -> list[Optimizer]:
    """One or two optimisers over all parameters of ``model``; ``set_rate`` sets their rates before a step.

    The multiplier of a group (``blocks.mup.Group.lr``) is AdamW's alone: Muon's update has singular values
    near 1 whatever the width, times sqrt(max(1, rows / columns)) (Jordan et al. 2024). Raises MupError.
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
