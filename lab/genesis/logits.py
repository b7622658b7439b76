"""``lab genesis logits``: what the weights say of given ids, as an array."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lab.genesis.commands import (
    ConfigOption,
    DtypeOption,
    ModeOption,
    WeightsArgument,
    config_named,
    dtype_named,
    mode_named,
)
from lab.terminal import say

__all__ = ["logits"]


def logits(
    weights: WeightsArgument,
    ids: Annotated[
        Path, typer.Option("--ids", metavar="FILE.npy", help="Token ids [B, T], of any integer type.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.npy", help="Where the logits [B, T, V] go.")],
    mode: ModeOption = "documented",
    dtype: DtypeOption = "float32",
    config: ConfigOption = None,
) -> None:
    """Write the logits [B, T, V] of token ids [B, T], in one of the five modes.

    The array is of the type computed in; bfloat16 is written as float32, which holds it exactly.

    Examples:
      lab genesis logits genesis.safetensors --ids ids.npy --mode shipped-eval --out logits.npy
      lab genesis logits genesis.safetensors --ids ids.npy --dtype float64 --out logits.npy
    """
    which, kind, named = mode_named(mode), dtype_named(dtype), config_named(config)

    import torch

    from lab.genesis.ids import check_ids, check_out, note_length, read_ids, write_array
    from lab.genesis.weights import build, read

    check_out(out)
    ids_BT = read_ids(ids)
    held = read(weights, named)
    check_ids(ids_BT, held.released.vocab_size, f"--ids {ids}")
    note_length(ids_BT.shape[1], held.released.block_size)
    model = build(held, which, kind)
    with torch.no_grad():
        found_BTV, _ = model(torch.from_numpy(ids_BT.astype("int64")))
    if kind == torch.bfloat16:
        found_BTV = found_BTV.float()
    write_array(out, found_BTV.numpy())
    say(f"logits {list(found_BTV.shape)} in {dtype}, {which}: {out}")
