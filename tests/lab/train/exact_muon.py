"""The command line with Muon's iteration in float32: what is left of a difference is not its rounding.

python -m tests.lab.train.exact_muon ... is python -m lab ...
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from lab.cli import run

__all__ = ["kept"]


def kept(self: Tensor) -> Tensor:
    """In place of ``Tensor.bfloat16``, which nothing but Muon calls in a training in float32."""
    return self.clone()


if __name__ == "__main__":
    torch.Tensor.bfloat16 = kept
    sys.exit(run(sys.argv[1:]))
