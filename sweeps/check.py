"""What is wrong with a recipe whose form is right: everything that would stop a sweep later, found before.

``problems`` returns them all, each with its path in the recipe, and trains nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from blocks import BLOCKS
from blocks.base import Block, Shape
from blocks.kernels.native import compiler
from blocks.notation import NotationError, show_call, suggest
from blocks.schedule import ScheduleError, names, parse
from sweeps import objectives, space
from sweeps.form import OPTIMISER, Recipe, TaskPart, Value
from sweeps.match import MatchError, knob
from sweeps.protocols import parts_of
from sweeps.space import Choices, Path, SpaceError, Unmatched
from synthetics.base import Task
from synthetics.protocol import show_task, stretch
from synthetics.splits import draw, split_of

__all__ = ["Problem", "problems"]

Problem = tuple[Path, str]
"""Where in the recipe, and one sentence."""

RUNS_LIMIT = 100 * space.LIMIT
SHOWN = 5
"""Of many candidates wrong in different ways, so many are named."""

SEEN = 1000
"""Of a space that Optuna searches, so many combinations, evenly spread, are matched before a sweep starts."""

MOST_PARAMS = 10_000_000_000
"""Of one block: 40 GB in float32."""

Blocks = Mapping[str, type[Block]]


def problems(recipe: Recipe, blocks: Blocks = BLOCKS) -> list[Problem]:
    """Everything wrong with ``recipe``, in the order of a recipe; empty if a sweep of it can start."""
    variables = list(_variables(recipe, blocks))
    rates = list(_optimiser(recipe))
    found = [*variables, *_tasks(recipe), *rates, *_size(recipe)]
    found.extend(_stretches(recipe))
    found.extend(_comparisons(recipe, blocks))
    found.extend(objectives.problems(recipe))
    if recipe.train.eval_every > recipe.train.steps:
        found.append(
            (
                ("train", "eval_every"),
                f"is {recipe.train.eval_every}, more than the {recipe.train.steps} steps of a run; "
                "at least one evaluation is needed",
            )
        )
    if recipe.train.kernel == "c" and compiler() is None:
        found.append(
            (
                ("train", "kernel"),
                "is 'c', which needs a C compiler, and none of $CC, cc, gcc and clang is here; "
                "install one (apt install gcc), or choose auto or torch",
            )
        )
    if not found:  # candidates of a recipe that is wrong so far would only repeat what is said above
        found.extend(_candidates(recipe, blocks))
    if not found and (recipe.match or recipe.constraints):
        found.extend(_fitted(recipe, blocks))
    return found


def _variables(recipe: Recipe, blocks: Blocks) -> Iterator[Problem]:
    if (recipe.pattern is None) == (recipe.schedules is None):
        path: Path = ("pattern",) if recipe.pattern is None else ("schedules",)
        yield path, "give exactly one of pattern (a schedule with variables) and schedules (label: schedule)"
        return
    texts: dict[Path, str] = {("pattern",): recipe.pattern or ""}
    if recipe.schedules is not None:
        texts = {("schedules", label): text for label, text in recipe.schedules.items()}
    wanted: dict[str, Path] = {}
    parsed = True
    for path, text in texts.items():
        try:
            wanted |= dict.fromkeys(sorted(names(text, blocks)), path)
        except ScheduleError as exc:
            parsed = False
            yield path, str(exc)
    given = [name for name in recipe.search if name not in OPTIMISER]
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
    for name in given:
        path = ("search", name)
        if name in blocks:
            yield path, "is a variable named like a block; call it something else"
        elif recipe.schedules is not None:
            yield path, "is a variable, and schedules take none; use pattern, or write the schedules out"
        elif parsed and name not in wanted:
            yield path, f"is never used in the pattern{suggest(name, wanted)}"
    for name, values in recipe.search.items():
        yield from _values(("search", name), values)


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


def _optimiser(recipe: Recipe) -> Iterator[Problem]:
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


def _tasks(recipe: Recipe) -> Iterator[Problem]:
    seen: dict[Task, str] = {}
    for i, (given, entry) in enumerate(zip(recipe.tasks, recipe.entries, strict=True)):
        path: Path = ("tasks", i) if isinstance(given, str) else ("tasks", i, "task")
        try:
            for task in space.tasks_of(entry.task):
                if task in seen:
                    yield path, f"{show_task(task)} is given twice (also as {seen[task]!r})"
                seen[task] = entry.task
                _can_be_drawn(task)
        except NotationError as exc:
            yield path, str(exc)
        yield from _budget(recipe, entry, ("tasks", i))


def _budget(recipe: Recipe, entry: TaskPart, path: Path) -> Iterator[Problem]:
    """A budget that leaves no room for an evaluation, where the entry itself gives one."""
    for part in parts_of(entry.task):
        steps = entry.steps or part.steps or recipe.train.steps
        every = entry.eval_every or part.eval_every or recipe.train.eval_every
        if entry.budget and every > steps:
            yield (
                (*path, "eval_every" if entry.eval_every else "steps"),
                f"leaves {steps} steps with an evaluation every {every}; at least one evaluation is needed",
            )
            return


def _can_be_drawn(task: Task) -> None:
    """Raise TaskError if a split of ``task`` cannot be filled."""
    rows = task.sample(np.random.default_rng(0), 64)
    if len(set(split_of(rows.inputs).tolist())) < 3:  # by chance once in 10^7; then look closely
        for split in ("train", "valid", "test"):
            draw(task, split, 0, 32)


def _stretches(recipe: Recipe) -> Iterator[Problem]:
    """Factors of ``train.extrapolate`` given twice, and tasks that cannot be stretched by one."""
    path: Path = ("train", "extrapolate")
    factors = recipe.train.extrapolate
    for i, factor in enumerate(factors):
        if factor in factors[:i]:
            yield (*path, i), f"{factor} is given twice"
            continue
        for entry in recipe.entries:
            try:
                tasks = space.tasks_of(entry.task)
            except NotationError:
                continue  # said of the task itself
            for task in tasks:
                try:
                    stretch(task, factor)
                except NotationError as exc:
                    yield (*path, i), str(exc)


def _comparisons(recipe: Recipe, blocks: Blocks) -> Iterator[Problem]:
    """What ``baseline``, ``match`` and ``constraints`` say, each by itself."""
    part, limits = recipe.match, recipe.constraints
    if part is not None and len(part.aims) != 1:
        yield ("match",), "give exactly one of params and state: baseline, or a number of scalars"
    if part is not None and part.length is not None and part.state is None:
        yield ("match", "length"), "is of use to a state only; leave it out"
    for i, text in enumerate(part.by if part is not None else ()):
        try:
            knob(text, blocks)
        except MatchError as exc:
            yield ("match", "by", i), str(exc)
    if limits is not None and not limits.bounds:
        yield ("constraints",), "bound nothing; give at least one of params, state and flops"
    if limits is not None and limits.length is not None and limits.state is None and limits.flops is None:
        yield ("constraints", "length"), "is of use to state and flops only; leave it out"
    own = part is not None and "baseline" in part.aims.values()
    if (
        recipe.baseline is not None
        and not own
        and not any(b.is_share for b in (limits.bounds if limits else ()))
    ):
        yield ("baseline",), "is used by neither match nor constraints; leave it out"


def _fitted(recipe: Recipe, blocks: Blocks) -> Iterator[Problem]:
    """Candidates that cannot be matched, and constraints that leave none.

    Where Optuna chooses, it is told of those that cannot be matched, as of those that break a constraint;
    such a recipe is wrong only if nothing is left.
    """
    sampled, said, left, reason = space.is_sampled(recipe), 0, 0, ""
    tried: set[tuple[Block, Shape]] = set()
    try:
        against = space.yardstick(recipe, blocks)
    except SpaceError as exc:
        yield exc.path, str(exc)
        return
    for choices in space.spread(recipe, SEEN) if sampled else space.grid(recipe):
        try:
            new = space.candidate(recipe, choices, blocks, against)
        except SpaceError as exc:
            reason = reason or str(exc)
            if not (sampled and isinstance(exc, Unmatched)) and said < SHOWN:
                said += 1
                yield exc.path, str(exc)
            continue
        left, reason = left + (not new.refusal), reason or f"for {new.label}: {new.refusal}"
        for block in dict.fromkeys(b for layer in parse(new.schedule, blocks) for b in layer):
            if (
                (block, new.shape) not in tried
                and (problem := _does_not_fit(block, new.shape))
                and said < SHOWN
            ):
                said += 1
                yield ("match",), f"for {new.label}: {problem}"
            tried.add((block, new.shape))
    if not left and not said:
        path: Path = ("constraints",) if recipe.constraints else ("match",)
        yield path, f"leave no candidate to train; {reason}"


def _size(recipe: Recipe) -> Iterator[Problem]:
    asked = recipe.trials if isinstance(recipe.trials, int) else space.size(recipe)
    count = min(asked, space.size(recipe))
    if count > space.LIMIT:
        path: Path = ("trials",) if "trials" in recipe.model_fields_set else ("search",)
        yield (
            path,
            (
                f"makes {count:,} candidates, at most {space.LIMIT:,} are allowed; "
                "give fewer values, or trials: a number"
            ),
        )
        return
    try:
        tasks = len(space.task_texts(recipe))
    except NotationError:
        return
    settings = space.optimiser_count(recipe)
    if (runs := count * tasks * settings * recipe.seeds) > RUNS_LIMIT:
        yield (
            (),
            (
                f"makes {runs:,} runs ({count:,} candidates, {tasks} task settings, {settings} optimiser "
                f"settings, {recipe.seeds} seeds); at most {RUNS_LIMIT:,} are allowed"
            ),
        )


def _candidates(recipe: Recipe, blocks: Blocks) -> Iterator[Problem]:
    """Schedules that do not come out, and blocks that do not fit the shape."""
    shape = Shape(dim=recipe.shape.dim, heads=recipe.shape.heads, norm=recipe.shape.norm)
    said: set[str] = set()
    tried: set[Block] = set()
    for choices in _to_try(recipe):
        if len(said) >= SHOWN:
            return
        try:
            schedule = space.layers(recipe, choices, blocks)
        except SpaceError as exc:
            if str(exc) not in said:
                said.add(str(exc))
                about = "" if exc.path == ("depth",) else _for(recipe, choices)
                yield exc.path, f"{about}{exc}"
            continue
        for block in dict.fromkeys(block for layer in schedule for block in layer):
            if block in tried:
                continue
            tried.add(block)
            if (problem := _does_not_fit(block, shape)) and problem not in said:
                said.add(problem)
                yield ("shape",), f"{_for(recipe, choices)}{problem}"


def _for(recipe: Recipe, choices: Choices) -> str:
    return f"for {space.label_of(recipe, choices)}: " if choices and recipe.schedules is None else ""


def _to_try(recipe: Recipe) -> Iterator[Choices]:
    """All combinations; of a space too large for that, each value once, beside the others' first values."""
    if space.size(recipe) <= space.LIMIT:
        yield from space.grid(recipe)
        return
    axes = space.axes(recipe)
    first = {name: values[0] for name, values in axes.items()}
    for name, value in itertools.chain.from_iterable(((n, v) for v in vs) for n, vs in axes.items()):
        yield tuple((first | {name: value}).items())


def _does_not_fit(block: Block, shape: Shape) -> str:
    """Why ``block`` cannot be built in ``shape``; empty if it can. On the meta device: no memory, no time."""
    shown = show_call(type(block).__name__.lower(), block)
    try:
        if (params := block.params(shape)) > MOST_PARAMS:  # from 2**63 on, torch cannot even say so
            return f"{shown} has {params:.3g} parameters; at most {MOST_PARAMS:,} are allowed"
        with torch.device("meta"):
            block.build(shape)
    except ValueError as exc:
        return str(exc)
    except OverflowError:
        return f"{shown} has more parameters than there are numbers; give smaller options"
    return ""
