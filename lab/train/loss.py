"""The training loss: cross entropy of the targets that count, as sums, so that any split of a batch adds up.

B rows, T time, V vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.base import at_least_fp32

__all__ = ["IGNORE", "summed_loss", "targets_of"]

IGNORE = -100
"""A target that does not count; torch's own mark."""


def targets_of(
    tokens_BS: np.ndarray, segments_BS: np.ndarray, mask_BS: np.ndarray, documents: bool
) -> Tensor:
    """Targets [B, T] int64 of rows of S = T + 1 tokens, ``IGNORE`` where none is learned.

    mask_BS: whether a token counts as a target. documents: a token of another segment than the one before
    it does not count, because the model sees each document alone.
    """
    counted_BT = mask_BS[:, 1:].astype(bool)
    if documents:
        counted_BT = counted_BT & (segments_BS[:, 1:] == segments_BS[:, :-1])
    return torch.from_numpy(np.where(counted_BT, tokens_BS[:, 1:].astype(np.int64), IGNORE))


def summed_loss(logits_BTV: Tensor, targets_BT: Tensor, z_loss: float = 0.0) -> tuple[Tensor, Tensor]:
    """Cross entropy in nats summed over the targets that count, and the same with the z-loss added.

    The z-loss is ``z_loss`` times the sum of log^2 Z, Z the sum of the exponentials of a token's logits: it
    keeps logits from drifting (Chowdhery et al. 2022, sec. 5). The first is what is reported, the second
    what is learned from; without z-loss they are one.
    """
    logits_NV, targets_N = at_least_fp32(logits_BTV).flatten(0, 1), targets_BT.flatten()
    nats = F.cross_entropy(logits_NV, targets_N, ignore_index=IGNORE, reduction="sum")
    if not z_loss:
        return nats, nats
    log_z_N = torch.logsumexp(logits_NV, dim=-1) * (targets_N != IGNORE)
    return nats, nats + z_loss * log_z_N.square().sum()
