"""``lab genesis verify``: the same function as genesis-llm? In float64, on random weights or a file's."""

from __future__ import annotations

import dataclasses
import itertools
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.genesis.commands import ConfigOption, config_named
from lab.terminal import CommandError, JsonOption, emit, note, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from blocks.genesis_model import GenesisConfig, GenesisModel, Mode
    from lab.genesis.verify import Row

__all__ = ["verify"]

KNOWN = ("2.0.1", "2.0.3")
"""Releases of genesis-llm that differ in nothing but their number."""

LARGE = 10_000_000
"""Parameters from which one mode, and in training one length, is asked at a time: the answers lie on disk."""

HEADER = ("mode", "tokens", "logits", "gradients", "as shipped", "")


def verify(
    weights: Annotated[
        Path | None, typer.Argument(metavar="[WEIGHTS]", help="A released file; without it, random weights.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Random weights of the full size.")] = False,
    seed: Annotated[
        int | None,
        typer.Option(help="Of weights and ids; drawn and printed if absent.", min=0, max=2**31 - 1),
    ] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Run the same weights through genesis-llm and through the lab, in float64, and compare.

    Every shipped mode, at 1 to 520 tokens: logits, and in training mode the gradients of all parameters, with
    the package's casts to float32 lifted; beside them the logits with the casts as shipped. Installs nothing.

    Examples:
      lab genesis verify
      lab genesis verify --full
      lab genesis verify genesis_152m_instruct.safetensors
    """
    from lab.genesis.peer import needed

    installed = needed()
    if installed not in KNOWN:
        note(f"genesis-llm is {installed}; this comparison is known for {' and '.join(KNOWN)}")
    if weights is not None and full:
        raise CommandError("WEIGHTS and --full are both given; --full is about random weights, choose one")
    if weights is None and config is not None:
        raise CommandError("--config is given without WEIGHTS; it says what a file without a header holds")
    seed = random.randrange(2**31) if seed is None else seed
    note(f"seed {seed}")
    if weights is None:
        rows, redrawn = _on_random_weights(full, seed, json)
    else:
        rows, redrawn = _on_a_file(weights, config_named(config), seed, json)
    held = all(row.held for row in rows)
    if json:
        document = {"genesis_llm": installed, "seed": seed, "redrawn": redrawn, "held": held}
        emit({**document, "rows": [dataclasses.asdict(row) for row in rows]})
    else:
        say(f"\n{_verdict(rows, redrawn, installed)}")
    raise typer.Exit(0 if held else 1)


def _on_random_weights(full: bool, seed: int, quiet: bool) -> tuple[list[Row], int]:
    from blocks.genesis_model import GENESIS_152M
    from lab.genesis.verify import SMALL, randomised
    from lab.genesis.weights import save

    model, ids, redrawn = randomised(GENESIS_152M if full else SMALL, seed, batch=1 if full else 2)
    with tempfile.TemporaryDirectory(prefix="lab-verify-") as folder:
        path = Path(folder, "random.safetensors")
        save(model, path)
        return _rows(model, path, ids, seed, quiet), redrawn


def _on_a_file(path: Path, config: GenesisConfig | None, seed: int, quiet: bool) -> tuple[list[Row], int]:
    import torch

    from lab.genesis.verify import LENGTHS, far_from_jumps
    from lab.genesis.weights import build, copy_narrow, read

    weights = read(path, config)
    # The package holds its weights in float32, so that is what both sides get.
    model = build(weights, "shipped-eval", torch.float32).double()
    torch.manual_seed(seed)
    redrawn = 0
    while True:
        ids = torch.randint(model.config.vocab, (1, max(LENGTHS)))
        with torch.no_grad():
            if far_from_jumps(model, ids, cuts_alone=True):
                break
        redrawn += 1
        if redrawn == 20:
            note("twenty draws of ids meet a tie at the cut of the top-k: a row may differ for that alone")
            break
    with tempfile.TemporaryDirectory(prefix="lab-verify-") as folder:
        copy = Path(folder, "weights.safetensors")
        copy_narrow(weights, copy)
        return _rows(model, copy, ids, seed, quiet), redrawn


def _rows(model: GenesisModel, path: Path, ids: Tensor, seed: int, quiet: bool) -> list[Row]:
    from lab.genesis.verify import LENGTHS, SHIPPED, compare

    rows = []
    groups: list[tuple[Sequence[Mode], Sequence[int]]] = [(SHIPPED, LENGTHS)]
    if sum(model.config.params().values()) > LARGE:
        groups = [
            ([mode], lengths)
            for mode in SHIPPED
            for lengths in ([(n,) for n in LENGTHS] if mode == "shipped-train" else [LENGTHS])
        ]
    line = note if quiet else say
    line(_line(*HEADER))
    for row in itertools.chain.from_iterable(compare(model, path, ids, *group, seed) for group in groups):
        gradients = "-" if row.gradients is None else f"{row.gradients:.1e}"
        worst = "" if row.held else f"differs, most in {row.worst or 'the logits'}"
        if row.broken:
            worst = f"{worst} {row.broken} gradients of genesis-llm are not finite; ours are".strip()
        line(_line(row.mode, row.length, f"{row.logits:.1e}", gradients, f"{row.as_shipped:.1e}", worst))
        rows.append(row)
    return rows


def _line(*cells: object) -> str:
    return "{:<20}{:>7}{:>11}{:>11}{:>12}  {}".format(*cells).rstrip()


def _verdict(rows: list[Row], redrawn: int, installed: str) -> str:
    worst = max(max(row.logits, row.gradients or 0.0) for row in rows)
    cast = max(row.as_shipped for row in rows)
    apart = sum(not row.held for row in rows)
    said = (
        f"the same function in all {len(rows)} rows" if not apart else f"{apart} of {len(rows)} rows differ"
    )
    return (
        f"{said}, against genesis-llm {installed}: largest difference {worst:.1e} of 1 + |value|, "
        f"1e-8 is allowed; its own casts to float32 move the logits by up to {cast:.1e}. "
        f"Draws repeated because they lay near a jump: {redrawn}."
    )
