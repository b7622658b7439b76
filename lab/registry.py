"""The registry as a page of the docs: what each block is, costs, may be told, and has been seen to learn.

docs/blocks.md is what ``lab blocks --markdown`` prints; a test holds the two together.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import polars as pl

from analysis.counts import short
from analysis.tables import board
from blocks import BLOCKS
from blocks.base import Block, Shape
from lab.catalogue import options
from sweeps.packs import KNOWN
from sweeps.results import read_runs

__all__ = ["page"]

SHAPE = Shape(dim=128, heads=4)
LENGTHS = (256, 4096)
SOLVED = 0.95
"""Of a task's ceiling: from this share on it counts as solved, the mean over seeds and settings."""


def page(blocks: Mapping[str, type[Block]] = BLOCKS) -> str:
    """The page as markdown."""
    learnt = _learnt()
    parts = [_HEAD.format(dim=SHAPE.dim, heads=SHAPE.heads, solved=100 * SOLVED, lengths=_lengths())]
    parts += [_section(name, cls, learnt.get(name)) for name, cls in blocks.items()]
    return "\n".join(parts).rstrip() + "\n"


_HEAD = """# The blocks

Written by `lab blocks --markdown`; change the blocks' docstrings, not this page. A block is one
word of a schedule; here is each with its formula and source.

Costs are those of one block with its defaults at width {dim} with {heads} heads: state in scalars
per sequence, FLOPs forward and per token, after and over {lengths} tokens. *Learns* says what the
block solved alone, with a channel mixer, in the reference sweep ([trust.md](trust.md)): 20 layers
of width 32, trained for long, with the options that it has there. A task counts from {solved:.0f} %
of what its data allow; where it does not, what was reached stands behind it. Blocks that are not in
that sweep have not been held against it.
"""


def _lengths() -> str:
    return " and ".join(f"{length:,}" for length in LENGTHS)


def _section(name: str, cls: type[Block], learnt: str | None) -> str:
    block = cls()
    about = inspect.getdoc(cls) or ""
    state, flops = (
        " / ".join(short(cost(SHAPE, length)) for length in LENGTHS)
        for cost in (block.state_size, block.flops)
    )
    told = [(f"`{one['name']}`", f"`{one['default']}`", f"{one['type']}") for one in options(cls)]
    lines = [f"## `{name}`", "", "```text", about.replace("``", "`"), "```", ""]
    lines += ["| memory | parameters | state | FLOPs |", "|---|---|---|---|"]
    lines += [f"| {block.role} | {short(block.params(SHAPE))} | {state} | {flops} |", ""]
    if told:
        lines += ["| option | default | |", "|---|---|---|"]
        lines += [f"| {' | '.join(cells)} |".replace(" | None |", " \\| None |") for cells in told] + [""]
    lines += [f"*Learns*: {learnt}", ""] if learnt else []
    return "\n".join(lines)


def _learnt() -> dict[str, str]:
    """By block, what it solved alone in the shipped reference, and what it did not."""
    ranked = board(read_runs([KNOWN / "reference.parquet"]))
    means = ranked.cells.group_by("label", "task").agg(pl.col("value").mean())
    ceilings = dict(ranked.tasks.select("task", "ceiling").iter_rows())
    found: dict[str, str] = {}
    for name in BLOCKS:
        mine = dict(means.filter(pl.col("label") == name).sort("task").select("task", "value").iter_rows())
        if not mine:
            continue
        solved = [task for task, value in mine.items() if value >= SOLVED * ceilings[task]]
        rest = [f"{task} ({100 * value:.0f} %)" for task, value in mine.items() if task not in solved]
        told = [f"{', '.join(solved) or 'none'} solved"] + ([f"not {', '.join(rest)}"] if rest else [])
        found[name] = "; ".join(told) + "."
    return found
