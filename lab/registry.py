"""The registry as a page of the docs: what each block is, costs, may be told, and has been seen to learn.

docs/blocks.md is what ``lab blocks --markdown`` prints; a test holds the two together.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence

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
LEARNT = (
    ("Soon", "blocks.parquet", "m={}"),
    ("In the end", "reference.parquet", "{}"),
)
"""A title, a shipped sweep, and how it labels a mixer that stands alone."""


def page(blocks: Mapping[str, type[Block]] = BLOCKS) -> str:
    """The page as markdown."""
    learnt = [(title, _learnt(file, label)) for title, file, label in LEARNT]
    parts = [_HEAD.format(dim=SHAPE.dim, heads=SHAPE.heads, solved=100 * SOLVED, lengths=_lengths())]
    parts += [
        _section(name, cls, [f"*{title}*: {told[name]}" for title, told in learnt if name in told])
        for name, cls in blocks.items()
    ]
    return "\n".join(parts).rstrip() + "\n"


_HEAD = """# The blocks

Written by `lab blocks --markdown`; change the blocks' docstrings, not this page. A block is one
word of a schedule; here is each with its formula and source.

Costs are those of one block with its defaults at width {dim} with {heads} heads: state in scalars
per sequence, FLOPs forward and per token, after and over {lengths} tokens.

What a mixer solves was seen in two sweeps, in each alone with a SwiGLU. *Soon* is the recipe `blocks`: two
layers of width 32, 400 steps at one rate, one seed, default options; it says who is quick, not what a
mixer can do in the end. *In the end* is the recipe `reference` ([trust.md](trust.md)): 20 layers of width
32, trained for longer at rates of their own, with the options that stand there. A task counts from
{solved:.0f} % of what its data allow; where it does not, what was reached stands behind it. Channel mixers
see one token at a time, and solve nothing alone.
"""


def _lengths() -> str:
    return " and ".join(f"{length:,}" for length in LENGTHS)


def _section(name: str, cls: type[Block], learnt: Sequence[str]) -> str:
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
    for said in learnt:
        lines += [said, ""]
    return "\n".join(lines)


def _learnt(file: str, label: str) -> dict[str, str]:
    """By block, what it solved alone in a shipped sweep, and what it did not. label: of a mixer there."""
    ranked = board(read_runs([KNOWN / file]))
    means = ranked.cells.group_by("label", "task").agg(pl.col("value").mean())
    ceilings = dict(ranked.tasks.select("task", "ceiling").iter_rows())
    found: dict[str, str] = {}
    for name in BLOCKS:
        mine = dict(
            means.filter(pl.col("label") == label.format(name))
            .sort("task")
            .select("task", "value")
            .iter_rows()
        )
        if not mine:
            continue
        solved = [task for task, value in mine.items() if value >= SOLVED * ceilings[task]]
        rest = [f"{task} ({100 * value:.0f} %)" for task, value in mine.items() if task not in solved]
        told = [f"{', '.join(solved) or 'none'} solved"] + ([f"not {', '.join(rest)}"] if rest else [])
        found[name] = "; ".join(told) + "."
    return found
