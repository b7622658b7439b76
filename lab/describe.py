"""``lab describe``: what a schedule is and costs, by formula; nothing is trained."""

from __future__ import annotations

import textwrap
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analysis.counts import short
from lab.terminal import (
    BlocksOption,
    CommandError,
    DepthOption,
    DimOption,
    HeadsOption,
    JsonOption,
    VarOption,
    emit,
    known_blocks,
    percent,
    say,
    table,
    variables,
)

if TYPE_CHECKING:
    from blocks.base import Block, Shape
    from blocks.design import Design
    from blocks.schedule import Schedule

__all__ = ["describe", "layer_lines", "read_schedule"]

LENGTHS = (64, 256, 1024, 4096, 16384, 65536)
"""Tokens at which the state is stated; the results store keeps the same."""

MARKS = {"linear": "-", "window": "~", "full": "#", "channel": "."}
"""One character per layer, by how the memory of its mixer grows."""

BYTES = 4  # a scalar in float32


def describe(
    context: typer.Context,
    schedule: Annotated[
        str,
        typer.Argument(help='Such as "3*(gdn, swiglu) + (fox, swiglu)"; or a preset, such as golf-518.'),
    ],
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

    The name of a preset stands for a whole published architecture, its shape and vocabulary included.

    Examples:
      lab describe "3*(gdn, swiglu) + (fox, swiglu)"
      lab describe "r*(gdn, sparse) + (fox, sparse)" --var r=4:1 --depth 20 --dim 64
      lab describe "attn(window=64)" --length 4096 --json
      lab describe smollm2-135m
    """
    from blocks.base import Shape
    from lab.model.preset import shipped

    table_of_blocks = known_blocks(blocks)
    if schedule in shipped():
        document = _preset(schedule, length, context, table_of_blocks)
    else:
        layers = read_schedule(schedule, depth, var, table_of_blocks)
        document = account(layers, Shape(dim=dim, heads=heads), vocab, length, table_of_blocks)
    if json:
        emit(document)
    else:
        say(_page(document))


def _preset(name: str, length: int, context: typer.Context, blocks: dict[str, type[Block]]) -> dict[str, Any]:
    """What ``account`` says of a preset, and where that stands.

    CommandError for an option that the preset has itself.
    """
    from lab.model.preset import load
    from lab.model.spec import design_of, schedule_of, shape_of

    for option in ("dim", "heads", "vocab", "depth", "var"):
        source = context.get_parameter_source(option)
        if source is not None and source.name == "COMMANDLINE":
            raise CommandError(f"--{option} is part of the preset {name}; describe its schedule to change it")
    preset = load(name, blocks)
    part, layers, shape = preset.model, schedule_of(preset, blocks), shape_of(preset)
    found = account(layers, shape, part.vocab, length, blocks, part.tied, design_of(preset))
    told = {key: getattr(preset, key) for key in ("name", "source", "note", "ours", "params", "published")}
    around = {key: getattr(part, key) for key in ("inputs", "residual", "values", "norms", "softcap", "init")}
    return {"preset": told, **found, "around": around}


def read_schedule(
    text: str, depth: int | None, var: list[str] | None, blocks: dict[str, type[Block]]
) -> Schedule:
    """The layers of ``text`` with variables put in, repeated and cut at ``depth`` if one is given."""
    from blocks.schedule import parse, tile

    layers = parse(text, blocks, variables(var))
    return layers if depth is None else tile(layers, depth)


def account(
    schedule: Schedule,
    shape: Shape,
    vocab: int,
    length: int,
    blocks: dict[str, type[Block]],
    tied: bool = False,
    design: Design | None = None,
) -> dict[str, Any]:
    """All that ``describe`` says, as plain values. OptionError where a block does not fit ``shape``."""
    from blocks.cost import counts, flops_per_token, layer_role, params_by_part, state_size, strip
    from blocks.design import PLAIN
    from blocks.schedule import show

    design = design or PLAIN
    realised = counts(schedule)
    parts = params_by_part(schedule, shape, vocab, tied, blocks, design)
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
        "flops_per_token": flops_per_token(schedule, shape, vocab, length, design),
        "state": [
            {"length": at, "scalars": size, "bytes": BYTES * size}
            for at in sorted({*LENGTHS, length})
            for size in [state_size(schedule, shape, at, design)]
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
        *_of_preset(found),
        f"schedule  {found['schedule']}",
        f"shape     dim {found['dim']}, heads {found['heads']}, vocab {found['vocab']}",
        *(f"{key:<9} {value}" for key, value in found.get("around", {}).items() if value is not None),
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


def _of_preset(found: dict[str, Any]) -> list[str]:
    """Where a preset comes from, and whether its count is the published one."""
    if (preset := found.get("preset")) is None:
        return []
    known = "this lab's own" if preset["ours"] else "as published"
    count = f"{preset['params']:,} parameters, {known}"
    if whole := preset["published"]:
        count = f"{preset['params']:,} of {whole:,} published parameters"
    note = f"note      {preset['note']}" if preset["note"] else ""
    return [
        f"preset    {preset['name']}: {count}",
        f"source    {preset['source']}",
        *textwrap.wrap(note, 110, subsequent_indent=" " * 10),
        "",
    ]


def _bytes(size: int) -> str:
    return f"{short(size)}B" if size >= 1000 else f"{size} B"
