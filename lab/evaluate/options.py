"""The options of ``lab eval``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "ChunkOption",
    "DataOption",
    "ExamplesOption",
    "FitOption",
    "FreshOption",
    "GolfOption",
    "IncludeOption",
    "KernelOption",
    "LimitOption",
    "SetOption",
    "StrideOption",
    "SyntheticOption",
    "TasksOption",
    "TextOption",
    "TokenizerOption",
    "TttContaminatedOption",
    "TttOption",
    "WholeOption",
    "WindowOption",
]

TextOption = Annotated[
    Path | None, typer.Option("--text", metavar="FILE", help="A text file in UTF-8 to score.")
]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="FOLDER|corpus",
        help="Prepared tokens whose validation split to score; default: the specification's.",
    ),
]
TokenizerOption = Annotated[
    str | None,
    typer.Option(metavar="bytes|FILE", help="The model's tokenizer, where it has moved since training."),
]
LimitOption = Annotated[
    int | None, typer.Option(metavar="BYTES", help="Score only so many bytes, from the beginning.", min=1)
]
WindowOption = Annotated[
    int | None, typer.Option(help="Tokens that a window reads; default: a row of the training.", min=1)
]
StrideOption = Annotated[
    int | None, typer.Option(help="Tokens that windows move on by; default: half a window.", min=1)
]
WholeOption = Annotated[
    bool, typer.Option("--whole", help="Read the text in one pass, state carried on, without windows.")
]
ChunkOption = Annotated[
    int | None, typer.Option(help="Tokens at a time of --whole; the result does not hang on it.", min=1)
]
TttOption = Annotated[
    bool, typer.Option("--ttt", help="Test-time training, score-first: learn what has been scored.")
]
TttContaminatedOption = Annotated[
    bool,
    typer.Option("--ttt-contaminated", help="CONTAMINATED: learn the text, then score the same text."),
]
GolfOption = Annotated[
    bool,
    typer.Option(
        "--golf", help="As in OpenAI's parameter golf: stride 64, both kinds of test-time training."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting of test-time training: lr=1e-3, epochs=3."),
]
FreshOption = Annotated[
    float, typer.Option(help="Share at the end of the text that no test-time training sees.")
]
SyntheticOption = Annotated[
    list[str] | None,
    typer.Option(
        "--synthetic",
        metavar="TASK|recalls|mad",
        help="Ask a task of lab tasks; recalls: the associative recalls; mad: the families of MAD.",
    ),
]
FitOption = Annotated[
    int | None,
    typer.Option(metavar="STEPS", help="Train the trunk on each --synthetic, and one from scratch.", min=1),
]
TasksOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES|genesis", help="Tasks of lm-eval-harness; genesis: the eight of its model card."
    ),
]
IncludeOption = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Task files of your own for the harness.")
]
ExamplesOption = Annotated[
    int | None,
    typer.Option(help="Of each task at most; default: 256 of --synthetic, all of --tasks.", min=1),
]
KernelOption = Annotated[str, typer.Option(help="auto, torch or c; auto is c where a C compiler is.")]
