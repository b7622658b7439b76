"""What the commands of ``lab genesis`` share: their options, and what the names in them stand for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import torch

    from blocks.genesis_model import GenesisConfig, Mode

__all__ = [
    "ConfigOption",
    "DtypeOption",
    "ModeOption",
    "PenaltyOption",
    "SeedOption",
    "StepsOption",
    "TemperatureOption",
    "TokenizerOption",
    "TopKOption",
    "TopPOption",
    "WeightsArgument",
    "config_named",
    "dtype_named",
    "mode_named",
]

WeightsArgument = Annotated[Path, typer.Argument(metavar="WEIGHTS", help="A released .safetensors file.")]
ModeOption = Annotated[
    str, typer.Option("--mode", help="Which function of the weights; lab genesis info lists them.")
]
ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config",
        help="The model of a file whose header does not say: genesis-152m, genesis-147m, genesis-sweetspot.",
    ),
]
DtypeOption = Annotated[
    str, typer.Option("--dtype", help="Type to compute in: float32, float64 or bfloat16.")
]
StepsOption = Annotated[int, typer.Option("--steps", help="Tokens at most.", min=1)]
TemperatureOption = Annotated[
    float, typer.Option("--temperature", help="Above 1 more even, below 1 less; 0 takes the likeliest token.")
]
TopKOption = Annotated[
    int | None, typer.Option("--top-k", help="Draw from so many of the likeliest tokens; 1 is the likeliest.")
]
TopPOption = Annotated[
    float,
    typer.Option("--top-p", help="Draw from the fewest tokens whose probabilities reach this; 1 is all."),
]
PenaltyOption = Annotated[
    float,
    typer.Option("--repetition-penalty", help="Above 1, tokens already read or written are less likely."),
]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of the draws.", min=0, max=2**63 - 1)]
TokenizerOption = Annotated[
    Path | None,
    typer.Option("--tokenizer", metavar="FILE.json", help="The tokenizer.json of the model, as of GPT-NeoX."),
]


def mode_named(name: str) -> Mode:
    """The mode of this name. Raises ModeError."""
    from blocks.genesis_model import MODES, ModeError

    if name not in MODES:
        raise ModeError(f"--mode is {name!r}; known are {', '.join(MODES)}")
    return name


def config_named(name: str | None) -> GenesisConfig | None:
    """The configuration of this name, None for None. Raises CommandError."""
    from blocks.genesis_model import CONFIGS
    from lab.terminal import CommandError

    if name is not None and name not in CONFIGS:
        raise CommandError(f"--config is {name!r}; known are {', '.join(CONFIGS)}")
    return None if name is None else CONFIGS[name]


def dtype_named(name: str) -> torch.dtype:
    """The torch type of this name. Raises CommandError."""
    import torch

    from lab.terminal import CommandError

    if name not in ("float32", "float64", "bfloat16"):
        raise CommandError(f"--dtype is {name!r}; known are float32, float64 and bfloat16")
    return getattr(torch, name)
