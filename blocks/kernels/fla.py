"""flash-linear-attention's kernels as functions of ours, for whoever trusts them more, or finds them faster.

The package is fla-core, which the extra ``fla`` installs; what is called of it is imported then. Its kernels
are held to the same references as ours (``blocks.kernels.check``), though not to the tests' hard inputs: its
attention subtracts sums of log gates over the whole row, which lose digits where a long row fades much.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

from torch import Tensor

from blocks.kernels.native import KernelError

__all__ = ["WIDEST", "forgetting_attention", "gated_delta", "gated_linear"]


WIDEST = 256
"""Of a head."""


@cache
def _op(module: str, name: str) -> Callable[..., Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it says of a GPU, its caller has found out
            return getattr(importlib.import_module(f"fla.ops.{module}"), name)
    except ImportError as exc:
        raise KernelError(
            f'kernel "fla" needs the package fla-core ({exc}); '
            "pip install 'hybrid-architecture-lab[fla]', or choose \"triton\""
        ) from exc


def gated_delta(
    q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, log_a_BTH: Tensor, b_BTH: Tensor, s_BHKV: Tensor
) -> tuple[Tensor, Tensor]:
    """``blocks.gdn.gated_delta_reference``: (o_BTHV, last state)."""
    run = _op("gated_delta_rule", "chunk_gated_delta_rule")
    kept = {"initial_state": s_BHKV, "output_final_state": True}
    return run(q_BTHK, k_BTHK, v_BTHV, g=log_a_BTH, beta=b_BTH, scale=1.0, **kept)


def gated_linear(
    q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, log_a_BTHK: Tensor, s_BHKV: Tensor
) -> tuple[Tensor, Tensor]:
    """``blocks.gla.gla_reference``: (o_BTHV, last state)."""
    run = _op("gla", "chunk_gla")
    kept = {"initial_state": s_BHKV, "output_final_state": True}
    return run(q_BTHK, k_BTHK, v_BTHV, g=log_a_BTHK, scale=1.0, **kept)


def forgetting_attention(
    q_BTHK: Tensor, k_BSGK: Tensor, v_BSGK: Tensor, log_f_BTH: Tensor, faded_BPH: Tensor
) -> Tensor:
    """``blocks.fox.forgetting_attention_reference`` without its second result: o_BTHK.

    Raises KernelError where there are cached keys, P > 0: fla's kernel has queries for all of its keys.
    """
    if faded_BPH.shape[1]:
        raise KernelError(
            f'kernel "fla" has no forgetting attention over cached keys, and here are {faded_BPH.shape[1]}; '
            'choose "triton" or "torch" where text is generated or read in pieces'
        )
    return _op("forgetting_attn", "parallel_forgetting_attn")(q_BTHK, k_BSGK, v_BSGK, log_f_BTH)
