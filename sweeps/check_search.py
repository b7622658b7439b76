"""What is wrong with the variables of a recipe, and with the optimiser settings beside them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from blocks.base import Block
from blocks.notation import suggest
from blocks.schedule import ScheduleError, names
from sweeps import space
from sweeps.form import DEEPEST, MOST_HEADS, OPTIMISER, WIDEST, Recipe, Value
from sweeps.space import Path, SpaceError
from sweeps.variables import reached

__all__ = ["rates", "variables"]

Problem = tuple[Path, str]
Blocks = Mapping[str, type[Block]]


def variables(recipe: Recipe, blocks: Blocks) -> Iterator[Problem]:
    """Variables without values or use, texts that do not parse, and values that mean nothing."""
    if (recipe.pattern is None) == (recipe.schedules is None):
        path: Path = ("pattern",) if recipe.pattern is None else ("schedules",)
        yield path, "give exactly one of pattern (a schedule with variables) and schedules (label: schedule)"
        return
    given = [name for name in recipe.search if name not in OPTIMISER]
    wanted: dict[str, Path] = {}
    parsed = True
    for path, text in _texts(recipe, blocks).items():
        try:
            wanted |= {name: path for name in sorted(names(text, blocks)) if name not in wanted}
        except ScheduleError as exc:
            parsed = False
            yield path, str(exc)
    for name, path in wanted.items():
        if recipe.schedules is not None:
            yield path, f"unknown block {name!r}{suggest(name, blocks)}; schedules take no variables"
        elif name not in given:
            yield (
                path,
                (
                    f"{name!r} is no block, and as a variable it has no values; "
                    f"add search: {{{name}: [...]}}{suggest(name, {*blocks, *given})}"
                ),
            )
    counted = set(recipe.numbers.values())
    for name in given:
        path = ("search", name)
        if name in blocks:
            yield path, "is a variable named like a block; call it something else"
        elif name in counted:
            if recipe.schedules is not None and name == "schedule":
                yield path, "is how the listed schedules are called; call the variable something else"
        elif recipe.schedules is not None:
            yield (
                path,
                "is a variable, and schedules take none; use pattern, or write the schedules out "
                "(depth and shape may name variables)",
            )
        elif parsed and name not in wanted:
            yield path, f"is never used in the pattern, for depth or in shape{suggest(name, wanted)}"
    for name, values in recipe.search.items():
        yield from _values(("search", name), values)
    yield from _numbers(recipe)


def _texts(recipe: Recipe, blocks: Blocks) -> dict[Path, str]:
    """The schedules by their places: those listed, or the pattern and what may be put into it."""
    if recipe.listed is not None:
        return {("schedules", label): text for label, text in recipe.listed.items()}
    pattern = recipe.pattern or ""
    found: dict[Path, str] = {("pattern",): pattern}
    for text, place in reached(pattern, recipe.search, blocks):
        if place is not None:
            found["search", *place] = text
    return found


_MOST = {("depth",): DEEPEST, ("shape", "dim"): WIDEST, ("shape", "heads"): MOST_HEADS}


def _numbers(recipe: Recipe) -> Iterator[Problem]:
    """What depth, width and heads name that is no variable of whole numbers."""
    for path, name in recipe.numbers.items():
        if name not in recipe.search or name in OPTIMISER:
            known = [one for one in recipe.search if one not in OPTIMISER]
            yield (
                path,
                f"is {name!r}; it must be a whole number, or the name of a variable of search"
                f"{suggest(name, known)}",
            )
            continue
        for i, value in enumerate(recipe.search[name]):
            if type(value) is not int or not 1 <= value <= _MOST[path]:
                what = path[-1]
                yield (
                    ("search", name, i),
                    f"is {value!r}; as {what} it must be a whole number of 1 to {_MOST[path]:,}",
                )


def _values(path: Path, values: Iterable[Value]) -> Iterator[Problem]:
    """Ratios that mean nothing, numbers that are not finite, and values given twice."""
    seen: list[Value] = []
    for i, value in enumerate(values):
        if isinstance(value, float) and not math.isfinite(value):
            yield (*path, i), f"is {value}; a number must be finite"
            continue
        try:
            real = space.realise(value)
        except SpaceError as exc:
            yield (*path, i), str(exc)
            continue
        if any(space.same(real, other) for other in seen):
            yield (*path, i), f"{value!r} is given twice"
        seen.append(real)


def rates(recipe: Recipe) -> Iterator[Problem]:
    """Learning rates and weight decays that are given twice, or not for every value."""
    for name in OPTIMISER:
        in_train = name in recipe.train.model_fields_set
        given: Any = recipe.search.get(name, getattr(recipe.train, name))
        path: Path = ("search", name) if name in recipe.search else ("train", name)
        if name in recipe.search and in_train:
            yield (
                path,
                f"is also given under train; say it once (train: {{{name}: ...}} takes a list as well)",
            )
        elif name in recipe.search:
            allowed = "a number of at least 0" if name == "weight_decay" else "a number above 0"
            for i, value in enumerate(given):
                number = type(value) in (int, float)
                if not number or value < 0 or (value == 0 and name == "lr"):
                    yield (*path, i), f"is {value!r}; it must be {allowed}"
        elif isinstance(given, Mapping):
            yield from _rate_by_variable(recipe, path, given)
        elif isinstance(given, tuple):
            yield from _values(path, given)


def _rate_by_variable(
    recipe: Recipe, path: Path, given: Mapping[str, Mapping[Value, float]]
) -> Iterator[Problem]:
    """``lr: {r: {3:1: 2e-3, 4:1: 3e-3}}``: one number for every value of one variable, no more, no less."""
    ((variable, by_value),) = given.items()
    path = (*path, variable)
    axes = space.axes(recipe)
    if variable not in axes:
        yield path, f"is no variable of this recipe{suggest(variable, axes)}"
        return
    reals: list[Value] = []
    for key in by_value:
        try:
            reals.append(space.realise(key))
        except SpaceError as exc:
            yield (*path, key), str(exc)
            return
        if not any(space.same(reals[-1], space.realise(value)) for value in axes[variable]):
            yield (*path, key), f"is no value of {variable}{suggest(str(key), map(str, axes[variable]))}"
    for value in axes[variable]:
        times = sum(space.same(real, space.realise(value)) for real in reals)
        if times != 1:
            yield path, f"gives {times or 'no'} numbers for {variable}={value}; every value needs exactly one"
