"""The hard inputs of the contract (``tests.blocks.hard``) for the Triton kernels that compute its cores."""

from tests.blocks.draws import Draw
from tests.blocks.hard import CORES

HARD: dict[str, dict[str, Draw]] = {}
"""Kernel -> case -> what draws its tensors from a generator; their length is the case's own."""

for kernel, core in {
    "fox": "forgetting_attention",
    "gated_delta": "gated_delta",
    "gated_linear": "gla",
    "ttt": "ttt",
}.items():
    HARD[kernel] = dict(CORES[core].inputs)
