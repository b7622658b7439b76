"""Recipe -> candidates: what the variables of a pattern stand for, and which schedules come out."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, cast

from blocks import BLOCKS
from blocks.base import Block, Shape
from blocks.notation import suggest
from blocks.schedule import Schedule, ScheduleError, parse, show, tile
from sweeps.candidate import Candidate
from sweeps.form import OPTIMISER, Choices, DesignPart, Recipe, Value
from sweeps.halving import counts
from sweeps.match import MatchError
from sweeps.protocols import PROTOCOLS, parts_of
from sweeps.realised import realised
from sweeps.variables import filled, idle
from sweeps.yardstick import Fitted, Yardstick
from synthetics import TASKS
from synthetics.base import Task
from synthetics.protocol import SUITES, parse_task, settings, show_task

__all__ = [
    "LIMIT",
    "Census",
    "Choices",
    "SpaceError",
    "Unmatched",
    "at",
    "axes",
    "baseline",
    "budgets",
    "candidate",
    "candidates",
    "census",
    "design_part",
    "grid",
    "identity",
    "is_sampled",
    "label_of",
    "layers",
    "longest",
    "optimiser_count",
    "optimiser_counts",
    "realise",
    "same",
    "shape_of",
    "size",
    "spread",
    "task_texts",
    "tasks_of",
    "yardstick",
]

LIMIT = 10_000
"""Candidates of one sweep. Runs are limited to a hundred times that."""

Blocks = Mapping[str, type[Block]]
Path = tuple[Any, ...]


class SpaceError(ValueError):
    """Something in a recipe stands for no schedule. ``path`` is where in the recipe."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path


class Unmatched(SpaceError):
    """A candidate cannot be brought to what ``match`` asks for. ``miss``: as of ``MatchError``."""

    def __init__(self, label: str, reason: MatchError) -> None:
        super().__init__(("match",), f"for {label}: {reason}")
        self.reason, self.miss = str(reason), reason.miss


def realise(value: Value) -> Value:
    """What a recipe's value stands for: ``3:1`` is the whole number 3, everything else itself.

    Raises SpaceError for a ratio that no count of layers realises.
    """
    if not isinstance(value, str) or ":" not in value:
        return value
    found = re.fullmatch(r"\s*(\d{1,4})\s*:\s*1\s*", value)
    if not found:
        raise SpaceError(
            (),
            f"{value!r} is a ratio that cannot be realised: only n:1 stands for a count, n layers to one; "
            "write another layout out in the pattern, such as 3*gdn + 2*fox",
        )
    return int(found[1])


def axes(recipe: Recipe) -> dict[str, tuple[Value, ...]]:
    """What multiplies candidates: the variables of ``search``, or the labels of ``schedules``."""
    found = {name: values for name, values in recipe.search.items() if name not in OPTIMISER}
    return {"schedule": tuple(recipe.schedules), **found} if recipe.schedules is not None else found


def size(recipe: Recipe) -> int:
    """Combinations of values in the whole grid."""
    return math.prod(len(values) for values in axes(recipe).values())


def is_sampled(recipe: Recipe) -> bool:
    """Whether Optuna chooses which candidates to try, because fewer than all are asked for."""
    return recipe.trials != "all" and recipe.trials < size(recipe)


def grid(recipe: Recipe) -> Iterator[Choices]:
    """Every combination, the last variable varying fastest."""
    space = axes(recipe)
    for values in itertools.product(*space.values()):
        yield tuple(zip(space, values, strict=True))


def at(recipe: Recipe, index: int) -> Choices:
    """Combination number ``index`` of ``grid``, without walking there."""
    chosen: list[tuple[str, Value]] = []
    for name, values in reversed(axes(recipe).items()):
        index, i = divmod(index, len(values))
        chosen.append((name, values[i]))
    return tuple(reversed(chosen))


def spread(recipe: Recipe, number: int) -> Iterator[Choices]:
    """At most ``number`` combinations, spread evenly over the grid."""
    every = size(recipe)
    for i in range(min(number, every)):
        yield at(recipe, i * every // min(number, every))


def label_of(recipe: Recipe, choices: Choices) -> str:
    """``r=3:1, m=gdn``, of the variables that have a say; a listed schedule's own label stands first.

    A variable of one value tells no candidate from another: it is left out, unless all are such.
    """
    if recipe.schedules is not None:
        varied = (f"{name}={value}" for name, value in choices[1:] if len(recipe.search[name]) > 1)
        return ", ".join((str(choices[0][1]), *varied))
    unheard = idle(recipe, choices)
    heard = [(name, value) for name, value in choices if name not in unheard]
    several = any(len(values) > 1 for values in axes(recipe).values())
    told = (f"{name}={value}" for name, value in heard if not several or len(recipe.search[name]) > 1)
    return ", ".join(told) or recipe.name


def layers(recipe: Recipe, choices: Choices, blocks: Blocks = BLOCKS) -> Schedule:
    """The schedule of one combination. Raises SpaceError where it cannot be realised."""
    values: dict[str, Value] = {}
    where: Path = ("pattern",)
    text = recipe.pattern or ""
    if recipe.schedules is None:
        values = {name: realise(value) for name, value in choices}
    else:
        own = str(choices[0][1])
        where, text = ("schedules", own), (recipe.listed or {})[own]
    try:
        pattern = parse(filled(text, values, blocks), blocks, values)
        if recipe.depth is None:
            return pattern
        depth = _number(recipe.depth, choices)
        if depth < len(pattern):
            raise SpaceError(
                ("depth",),
                f"{label_of(recipe, choices)} cannot be realised at depth {depth}: its pattern is "
                f"{len(pattern)} layers and would be cut short; give a depth of at least {len(pattern)}",
            )
        return tile(pattern, depth)
    except ScheduleError as exc:
        raise SpaceError(where, str(exc)) from None


@dataclass(frozen=True)
class Census:
    """All candidates of an enumerated recipe: those that are trained, and those that break a constraint."""

    candidates: tuple[Candidate, ...]
    left_out: tuple[Candidate, ...]


def longest(recipe: Recipe) -> int:
    """Tokens of the longest task."""
    return max(task.tokens for entry in recipe.entries for task in tasks_of(entry.task))


def baseline(recipe: Recipe) -> Choices:
    """The combination that ``baseline`` names; the first if it names none. Raises SpaceError."""
    if recipe.baseline is None:
        return at(recipe, 0)
    for choices in itertools.islice(grid(recipe), LIMIT):
        if label_of(recipe, choices) == recipe.baseline:
            return choices
    labels = [label_of(recipe, choices) for choices in itertools.islice(grid(recipe), 20)]
    among = f" among the first {LIMIT:,}" if size(recipe) > LIMIT else ""
    hint = suggest(recipe.baseline, labels)
    raise SpaceError(("baseline",), f"no candidate{among} is called {recipe.baseline!r}{hint}")


def yardstick(recipe: Recipe, blocks: Blocks = BLOCKS) -> Yardstick | None:
    """What ``match`` and ``constraints`` hold candidates against; None if there is neither.

    Raises SpaceError, also where the baseline cannot be realised.
    """
    if recipe.match is None and recipe.constraints is None:
        return None
    choices = baseline(recipe)
    label = label_of(recipe, choices)
    written = (label, layers(recipe, choices, blocks), shape_of(recipe, choices))
    try:
        return Yardstick.of(recipe.match, recipe.constraints, written, longest(recipe), blocks)
    except MatchError as exc:
        raise SpaceError(("match",), str(exc)) from None
    except ValueError as exc:  # OptionError, and whatever a block of the user's own raises
        raise SpaceError(("shape",), f"for {label}: {exc}") from None


def candidate(
    recipe: Recipe, choices: Choices, blocks: Blocks = BLOCKS, against: Yardstick | None = None
) -> Candidate:
    """The candidate of one combination, matched and measured where the recipe says so.

    against: the recipe's ``yardstick``, to spare working it out for every candidate. Raises SpaceError where
    the combination cannot be realised, Unmatched where it cannot be matched.
    """
    against = against or yardstick(recipe, blocks)
    label = label_of(recipe, choices)
    made = Fitted(layers(recipe, choices, blocks), shape_of(recipe, choices))
    if against is not None:
        try:
            made = against.fit(made.schedule, made.shape, blocks)
        except MatchError as exc:
            raise Unmatched(label, exc) from None
        except ValueError as exc:
            raise SpaceError(("shape",), f"for {label}: {exc}") from None
    rates = partial(_rates, recipe, dict(choices))
    return Candidate(
        label=label,
        choices=choices,
        schedule=show(made.schedule, blocks),
        dim=made.shape.dim,
        heads=made.shape.heads,
        norm=made.shape.norm,
        optimisers=tuple(itertools.product(rates("lr"), rates("weight_decay"))),
        solved=made.solved,
        held=made.held,
        idle=idle(recipe, choices),
        around=_around(recipe, choices),
    )


def design_part(recipe: Recipe, choices: Choices) -> DesignPart:
    """The design of one combination, as written."""
    return recipe.design_of(None if recipe.schedules is None else str(choices[0][1]))


def _around(recipe: Recipe, choices: Choices) -> tuple[tuple[str, str | float], ...]:
    """What the design of one combination has that is not plain."""
    return tuple(design_part(recipe, choices).model_dump(exclude_defaults=True).items())


def identity(one: Candidate, blocks: Blocks = BLOCKS) -> tuple[Any, ...]:
    """Equal for candidates that train the same models with the same optimisers, however they are spelled.

    Raises SpaceError where a block does not fit the shape.
    """
    try:
        schedule, design = parse(one.schedule, blocks), one.design
        built = realised(schedule, one.shape)
    except ValueError as exc:
        raise SpaceError(("shape",), f"for {one.label}: {exc}") from None
    # Where layers are joined in some way of their own, it matters where one ends.
    ends = tuple(map(len, schedule)) if design.residual else ()
    return built, ends, one.shape, design, one.optimisers


def census(recipe: Recipe, blocks: Blocks = BLOCKS) -> Census:
    """All candidates of an enumerated recipe, each architecture once; the others' labels are in ``also``."""
    first: dict[tuple[Any, ...], Candidate] = {}
    against = yardstick(recipe, blocks)
    for choices in grid(recipe):
        new = candidate(recipe, choices, blocks, against)
        who = identity(new, blocks)
        if who in first:
            labels = dict.fromkeys((first[who].label, *first[who].also, new.label))
            first[who] = replace(first[who], also=tuple(labels)[1:])
        else:
            first[who] = new
    return Census(
        tuple(one for one in first.values() if not one.refusal),
        tuple(one for one in first.values() if one.refusal),
    )


def candidates(recipe: Recipe, blocks: Blocks = BLOCKS) -> list[Candidate]:
    """The candidates that an enumerated recipe trains."""
    return list(census(recipe, blocks).candidates)


def shape_of(recipe: Recipe, choices: Choices) -> Shape:
    """The shape of one combination as written, before ``match``."""
    part = recipe.shape
    return Shape(dim=_number(part.dim, choices), heads=_number(part.heads, choices), norm=part.norm)


def _number(given: int | str, choices: Choices) -> int:
    """A depth, width or number of heads: itself, or the value of the variable that it names."""
    return cast(int, dict(choices)[given]) if isinstance(given, str) else given


def _rates(recipe: Recipe, choices: Mapping[str, Value], name: str) -> tuple[float, ...]:
    """The values of lr or weight_decay to try on the candidate of ``choices``."""
    given: Any = recipe.search.get(name, getattr(recipe.train, name))
    if isinstance(given, Mapping):
        ((variable, by_value),) = given.items()
        wanted = realise(choices[variable])
        return (next(float(v) for key, v in by_value.items() if same(realise(key), wanted)),)
    return tuple(map(float, given)) if isinstance(given, Sequence) else (float(given),)


def same(a: Value, b: Value) -> bool:
    """Equal, and not only as 1 equals True."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def optimiser_count(recipe: Recipe) -> int:
    """Optimiser settings tried on every candidate."""
    given = (recipe.search.get(name, getattr(recipe.train, name)) for name in OPTIMISER)
    return math.prod(len(values) if isinstance(values, tuple) else 1 for values in given)


def optimiser_counts(recipe: Recipe) -> list[int]:
    """The same round by round: with halving, ever fewer."""
    settings = optimiser_count(recipe)
    return counts(settings, recipe.seeds) if recipe.halving else [settings] * recipe.seeds


def task_texts(recipe: Recipe) -> list[str]:
    """The canonical text of every task setting, suites such as ``mad`` spelled out."""
    return list(budgets(recipe))


def budgets(recipe: Recipe) -> dict[str, dict[str, int]]:
    """Task settings by their canonical text -> what the recipe gives their runs instead of ``train``'s."""
    return {
        show_task(task): part.budget | entry.budget
        for entry in recipe.entries
        for part in parts_of(entry.task)
        for task in tasks_of(part.task)
    }


@cache  # asked again for every round of every candidate
def tasks_of(text: str) -> tuple[Task, ...]:
    """The settings one entry of ``tasks`` stands for. Raises TaskError."""
    word = text.strip()
    if word in PROTOCOLS:
        return tuple(task for part in PROTOCOLS[word] for task in tasks_of(part.task))
    return settings(word) if word in SUITES and word not in TASKS else (parse_task(word),)
