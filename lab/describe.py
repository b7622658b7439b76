"""``lab describe``: what a schedule is and costs, by formula; nothing is trained."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.terminal import (
    BlocksOption,
    DepthOption,
    DimOption,
    HeadsOption,
    JsonOption,
    VarOption,
    emit,
    known_blocks,
    percent,
    say,
    short,
    table,
    variables,
)

if TYPE_CHECKING:
    from blocks.base import Block, Shape
    from blocks.schedule import Schedule

__all__ = ["describe", "layer_lines", "read_schedule"]

LENGTHS = (64, 256, 1024, 4096, 16384, 65536)
"""Tokens at which the state is stated; the results store keeps the same."""

MARKS = {"linear": "-", "window": "~", "full": "#", "channel": "."}
"""One character per layer, by how the memory of its mixer grows."""

BYTES = 4  # a scalar in float32


def describe(
    schedule: Annotated[str, typer.Argument(help='Such as "3*(gdn, swiglu) + (fox, swiglu)".')],
    dim: DimOption = 128,
    heads: HeadsOption = 4,
    vocab: Annotated[int, typer.Option(help="Token ids.", min=1)] = 256,
    length: Annotated[int, typer.Option(help="Tokens over which FLOPs are averaged.", min=1)] = 1024,
    depth: DepthOption = None,
    var: VarOption = None,
    blocks: BlocksOption = None,
    json: JsonOption = False,
) -> None:
    """Show what a schedule is and costs: its layers, parameters, FLOPs and state. Nothing is trained.

    Examples:
      lab describe "3*(gdn, swiglu) + (fox, swiglu)"
      lab describe "r*(gdn, sparse) + (fox, sparse)" --var r=4:1 --depth 20 --dim 64
      lab describe "attn(window=64)" --length 4096 --json
    """
    from blocks.base import Shape

    table_of_blocks = known_blocks(blocks)
    layers = read_schedule(schedule, depth, var, table_of_blocks)
    document = account(layers, Shape(dim=dim, heads=heads), vocab, length, table_of_blocks)
    if json:
        emit(document)
    else:
        say(_page(document))


def read_schedule(
    text: str, depth: int | None, var: list[str] | None, blocks: dict[str, type[Block]]
) -> Schedule:
    """The layers of ``text`` with variables put in, repeated and cut at ``depth`` if one is given."""
    from blocks.schedule import parse, tile

    layers = parse(text, blocks, variables(var))
    return layers if depth is None else tile(layers, depth)


def account(
    schedule: Schedule, shape: Shape, vocab: int, length: int, blocks: dict[str, type[Block]]
) -> dict[str, Any]:
    """All that ``describe`` says, as plain values. OptionError where a block does not fit ``shape``."""
    from blocks.cost import counts, flops_per_token, layer_role, params_by_part, state_size, strip
    from blocks.schedule import show

    realised = counts(schedule)
    parts = params_by_part(schedule, shape, vocab, blocks=blocks)
    return {
        "schedule": show(schedule, blocks),
        "dim": shape.dim,
        "heads": shape.heads,
        "vocab": vocab,
        "length": length,
        "layers": [
            {"blocks": words, "role": layer_role(layer)}
            for words, layer in zip(strip(schedule, blocks), schedule, strict=True)
        ],
        "counts": vars(realised),
        "params": {"total": sum(parts.values()), **parts},
        "flops_per_token": flops_per_token(schedule, shape, vocab, length),
        "state": [
            {"length": at, "scalars": size, "bytes": BYTES * size}
            for at in sorted({*LENGTHS, length})
            for size in [state_size(schedule, shape, at)]
        ],
    }


def layer_lines(layers: list[dict[str, str]]) -> list[str]:
    """Runs of equal layers, one a line: ``1-3  gdn swiglu  linear``."""
    rows, at = [], 1
    for (words, role), run in groupby(layers, key=lambda layer: (layer["blocks"], layer["role"])):
        last = at + len(list(run)) - 1
        rows.append((str(at) if last == at else f"{at}-{last}", words, role))
        at = last + 1
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    return [f"{where:>{widths[0]}}  {words:<{widths[1]}}  {role}" for where, words, role in rows]


def _page(found: dict[str, Any]) -> str:
    counts, params = found["counts"], found["params"]
    strip = "".join(MARKS[layer["role"]] for layer in found["layers"])
    legend = ", ".join(f"{mark} {role}" for role, mark in MARKS.items() if mark in strip)
    split = ", ".join(f"{counts[kind]} {kind}" for kind in ("linear", "window", "full"))
    lines = [
        f"schedule  {found['schedule']}",
        f"shape     dim {found['dim']}, heads {found['heads']}, vocab {found['vocab']}",
        f"layers    {counts['depth']}: {split}",
        f"strip     {strip}   ({legend})",
        "",
        *("  " + line for line in layer_lines(found["layers"])),
        "",
        table(
            ("parameters", "count", "share"),
            [(part, f"{size:,}", percent(size / params["total"])) for part, size in params.items()],
        ),
        "",
        f"FLOPs     {short(found['flops_per_token'])} a token, forward, mean over {found['length']:,} tokens",
        "",
        table(
            ("tokens", "state, scalars", "state, fp32"),
            [(f"{at['length']:,}", f"{at['scalars']:,}", _bytes(at["bytes"])) for at in found["state"]],
        ),
    ]
    return "\n".join(lines)


def _bytes(size: int) -> str:
    return f"{short(size)}B" if size >= 1000 else f"{size} B"
