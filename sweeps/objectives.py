"""What a sweep is after: the score alone, or the score weighed against costs, of which a front is drawn.

The score is maximised, costs are minimised. Costs are known before training and are those of the stack after
the longest task's tokens, as ``constraints`` have them. An enumerated recipe trains the same runs whatever
its objectives are; where Optuna chooses, they decide what it goes on with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from blocks import BLOCKS
from blocks.base import Block
from blocks.schedule import parse
from sweeps import space
from sweeps.candidate import Candidate
from sweeps.form import Recipe
from sweeps.match import costs

__all__ = ["directions", "problems", "values"]

Direction = Literal["maximize", "minimize"]


def directions(recipe: Recipe) -> list[Direction]:
    """Which way each objective goes, in Optuna's words."""
    return ["maximize" if name == "score" else "minimize" for name in recipe.objective]


def values(
    recipe: Recipe, one: Candidate, score: float, blocks: Mapping[str, type[Block]] = BLOCKS
) -> list[float]:
    """What a candidate reaches of each objective, in the recipe's order."""
    if recipe.objective == ("score",):
        return [score]
    spent = costs(parse(one.schedule, blocks), one.shape, space.longest(recipe))
    return [score if name == "score" else float(spent[name]) for name in recipe.objective]


def problems(recipe: Recipe) -> Iterator[tuple[tuple[Any, ...], str]]:
    """What makes no sense of ``objective``, each with its path in the recipe."""
    asked = recipe.objective
    for i, name in enumerate(asked):
        if name in asked[:i]:
            yield ("objective", i), f"{name} is given twice"
        elif recipe.match is not None and name in recipe.match.aims:
            yield (
                ("objective", i),
                f"is {name}, which match brings to one value for all; leave one of them out",
            )
    if not asked:
        yield ("objective",), "is empty; give score, or a list such as [score, state]"
    elif "score" not in asked:
        yield (
            ("objective",),
            f"lacks score, and {' and '.join(asked)} alone need no training; "
            f"give what the cost is weighed against, too: [score, {', '.join(asked)}]",
        )
    elif len(asked) > 1 and recipe.pruning is not None:
        yield (
            ("pruning",),
            f"ends schedules that score less, which objective [{', '.join(asked)}] may want for their cost; "
            "leave one of the two out",
        )
