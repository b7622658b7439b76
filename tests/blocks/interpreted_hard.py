"""The hard inputs of the contract (``tests.blocks.hard``) for the Triton kernels that compute its cores.

And those of the others, which compute no core: tiny, huge and zero rows, ties everywhere, nothing to read.
"""

from functools import partial

import torch
from torch import Generator, Tensor

from tests.blocks.draws import Draw, H, normal
from tests.blocks.hard import CORES

ROWS, WIDTH = 5, 40


HARD: dict[str, dict[str, Draw]] = {}
"""Kernel -> case -> what draws its tensors from a generator; their length is the case's own."""

for kernel, core in {
    "fox": "forgetting_attention",
    "gated_delta": "gated_delta",
    "gated_linear": "gla",
    "ttt": "ttt",
}.items():
    HARD[kernel] = dict(CORES[core].inputs)


def _norm(rng: Generator, size: float) -> tuple[Tensor, ...]:
    """x, gain, gate: rows of one size, and between them rows of an ordinary one."""
    x = normal(rng, 1, ROWS, H, WIDTH)
    x[:, ::2] *= size
    return x, normal(rng, WIDTH, scale=0.3), normal(rng, 1, ROWS, H * WIDTH, scale=2)


def _level(rng: Generator, gate: float) -> tuple[Tensor, ...]:
    """gate, up: magnitudes that are all the same, of either sign, so that order alone decides."""
    up = torch.where(normal(rng, 1, ROWS, 3 * WIDTH) < 0, -1.0, 1.0)
    return torch.full((1, ROWS, 3 * WIDTH), gate), up.double()


def _unread(rng: Generator) -> tuple[Tensor, ...]:
    """y, weight: tokens without a single channel that is not 0."""
    return torch.zeros(1, ROWS, 3 * WIDTH), normal(rng, WIDTH, 3 * WIDTH)


HARD["rms_norm"] = {
    "tiny": partial(_norm, size=1e-12),
    "huge": partial(_norm, size=1e12),
    "zero": partial(_norm, size=0.0),
}
HARD["gated_largest"] = {"ties": partial(_level, gate=1.0), "zeros": partial(_level, gate=0.0)}
HARD["skipping_product"] = {"all_masked": _unread}
