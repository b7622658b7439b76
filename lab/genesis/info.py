"""``lab genesis info``: what a model of Genesis is and costs, by formula; nothing is run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analysis.counts import short
from lab.describe import LENGTHS, MARKS, layer_lines
from lab.genesis.commands import ConfigOption, config_named
from lab.terminal import JsonOption, emit, percent, say, table

if TYPE_CHECKING:
    from blocks.genesis_model import GenesisConfig, Mode
    from blocks.schedule import Schedule

__all__ = ["account", "info"]


def info(
    weights: Annotated[
        Path | None, typer.Argument(metavar="[WEIGHTS]", help="A released file; without it, --config.")
    ] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Show a model of Genesis: its configuration, parameters, layers, modes, FLOPs and state. Nothing is run.

    Without a file and without --config it is genesis-152m. A file is checked whole.

    Examples:
      lab genesis info
      lab genesis info genesis.safetensors
      lab genesis info --config genesis-sweetspot --json
    """
    from blocks.genesis_model import GENESIS_152M

    shape = config_named(config)
    if weights is None:
        name, shape = config or "genesis-152m", shape or GENESIS_152M
    else:
        from lab.genesis.weights import read

        name, shape = str(weights), read(weights, shape).released.config()
    document = {"model": name, **account(shape)}
    if json:
        emit(document)
    else:
        say(_page(document))


def account(config: GenesisConfig) -> dict[str, Any]:
    """All that ``info`` says of a configuration, as plain values."""
    from blocks import BLOCKS
    from blocks.cost import counts, flops_per_token, layer_role, state_size, strip
    from blocks.genesis_model import MODES
    from blocks.schedule import show

    params = config.params()
    schedules: dict[Mode, Schedule] = {mode: config.schedule(mode) for mode in MODES}
    shipped = schedules["shipped-cache"]
    total = sum(params.values())
    return {
        "config": dataclasses.asdict(config),
        "params": {**params, "total": total, "total without embedding": total - params["embedding"]},
        "layers": [
            {"blocks": words, "role": layer_role(layer)}
            for words, layer in zip(strip(shipped, BLOCKS), shipped, strict=True)
        ],
        "counts": vars(counts(shipped)),
        "modes": [
            {
                "mode": mode,
                "what": MODES[mode].what,
                "schedule": show(schedule, BLOCKS),
                "costs": [
                    {
                        "length": length,
                        "flops_per_token": flops_per_token(schedule, config.shape, config.vocab, length)
                        + metacognition_flops(config, mode),
                        "state_scalars": _state(config, mode, state_size(schedule, config.shape, length)),
                    }
                    for length in LENGTHS
                ],
            }
            for mode, schedule in schedules.items()
        ],
    }


def metacognition_flops(config: GenesisConfig, mode: Mode) -> int:
    """Forward FLOPs a token of what runs after the last layer, as a recurrence; A B is formed once a call."""
    from blocks.genesis_model import MODES

    dim, form = config.dim, MODES[mode].metacognition
    if form is None:
        return 0
    confidence = (2 * dim + 1) * (dim // 2)
    # Both have out, gate, self model; then W0, A and B, or q, k, v, k W, q W and the state read and written.
    fast = dim * dim + 2 * dim * config.ttt_rank if form == "batch mean" else 7 * dim * dim
    return 2 * (3 * dim * dim + fast + confidence)


def _state(config: GenesisConfig, mode: Mode, layers: int) -> int | None:
    """Scalars held for one sequence, None in a mode that holds none."""
    from blocks.genesis_model import MODES

    form = MODES[mode].metacognition
    if form == "batch mean":
        return None
    return layers + (config.dim**2 if form == "per token" else 0)


def _page(found: dict[str, Any]) -> str:
    counts, params, modes = found["counts"], found["params"], found["modes"]
    strip = "".join(MARKS[layer["role"]] for layer in found["layers"])
    legend = ", ".join(f"{mark} {role}" for role, mark in MARKS.items() if mark in strip)
    split = ", ".join(f"{counts[kind]} {kind}" for kind in ("linear", "window", "full"))
    names = [one["mode"] for one in modes]
    return "\n".join(
        [
            f"model     {found['model']}",
            f"layers    {counts['depth']}: {split}",
            f"strip     {strip}   ({legend})",
            "",
            *("  " + line for line in layer_lines(found["layers"])),
            "",
            table(("option", "value"), [(key, _plain(value)) for key, value in found["config"].items()]),
            "",
            table(
                ("parameters", "count", "share"),
                [(part, f"{size:,}", percent(size / params["total"])) for part, size in params.items()],
            ),
            "",
            *(f"{one['mode']}\n  {one['what']}\n  {one['schedule']}" for one in modes),
            "",
            "FLOPs a token, forward, mean over so many tokens:",
            table(("tokens", *names), _rows(modes, "flops_per_token", short)),
            "",
            "state of one sequence, scalars:",
            table(("tokens", *names), _rows(modes, "state_scalars", lambda size: f"{size:,}")),
        ]
    )


def _plain(value: object) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value}"


def _rows(modes: list[dict[str, Any]], key: str, told: Any) -> list[list[str]]:
    """One row a length, one column a mode."""
    return [
        [f"{at['length']:,}", *("-" if cell is None else told(cell) for cell in cells)]
        for i, at in enumerate(modes[0]["costs"])
        for cells in [[mode["costs"][i][key] for mode in modes]]
    ]
