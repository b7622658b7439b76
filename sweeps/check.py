"""What is wrong with a recipe whose form is right: everything that would stop a sweep later, found before.

``problems`` returns them all, each with its path in the recipe, and trains nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch

from blocks import BLOCKS
from blocks.base import Block, OptionError, Shape
from blocks.design import design_of
from blocks.kernels.native import compiler
from blocks.notation import NotationError, show_call
from blocks.schedule import parse
from sweeps import objectives, space
from sweeps.candidate import unembedded
from sweeps.check_search import rates, variables
from sweeps.form import Choices, DesignPart, ListedPart, Recipe, TaskPart
from sweeps.match import MatchError, knob
from sweeps.protocols import parts_of
from sweeps.space import Path, SpaceError, Unmatched
from sweeps.variables import idle
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
    found = [*variables(recipe, blocks), *_tasks(recipe), *rates(recipe), *_size(recipe), *_designs(recipe)]
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


def _designs(recipe: Recipe) -> Iterator[Problem]:
    """Texts of designs that mean nothing, where they stand."""
    written: list[tuple[Path, DesignPart, Iterable[str]]] = [
        (("design",), recipe.design, DesignPart.model_fields)
    ]
    for label, one in (recipe.schedules or {}).items():
        if isinstance(one, ListedPart):
            written.append((("schedules", label), one, sorted(one.model_fields_set - {"schedule"})))
    for path, part, names in written:
        for name in names:
            try:
                design_of(**{name: getattr(part, name)})
            except (NotationError, OptionError) as exc:
                yield (*path, name), str(exc)


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
            if knob(text, blocks).option == "dim" and isinstance(recipe.shape.dim, str):
                said = f"is dim, which the variable {recipe.shape.dim!r} gives; solve an option of a block"
                yield ("match", "by", i), said
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
    said: set[str] = set()
    tried: set[tuple[Block, Shape]] = set()
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
        part = space.design_part(recipe, choices)
        if (problem := unembedded(part.values, schedule)) and problem not in said:
            said.add(problem)
            path = ("design",) if recipe.schedules is None else ("schedules", str(choices[0][1]))
            yield path, f"{_for(recipe, choices)}{problem}"
        shape = space.shape_of(recipe, choices)
        for block in dict.fromkeys(block for layer in schedule for block in layer):
            if (block, shape) in tried:
                continue
            tried.add((block, shape))
            if (problem := _does_not_fit(block, shape)) and problem not in said:
                said.add(problem)
                yield ("shape",), f"{_for(recipe, choices)}{problem}"


def _for(recipe: Recipe, choices: Choices) -> str:
    listed = recipe.schedules is not None and len(choices) == 1  # the place says which one it is
    return f"for {space.label_of(recipe, choices)}: " if choices and not listed else ""


def _to_try(recipe: Recipe) -> Iterator[Choices]:
    """All combinations; of a space too large for that, each value once, beside the others' first values.

    Beside those under which it has a say, where it has none otherwise; and of depth, width and heads some
    combinations, spread evenly.
    """
    if space.size(recipe) <= space.LIMIT:
        yield from space.grid(recipe)
        return
    axes = space.axes(recipe)
    first = {name: values[0] for name, values in axes.items()}
    for name, value in itertools.chain.from_iterable(((n, v) for v in vs) for n, vs in axes.items()):
        heard = tuple((first | {name: value}).items())
        if name in idle(recipe, heard):
            others = ({**first, n: v, name: value} for n, vs in axes.items() if n != name for v in vs)
            found = (tuple(one.items()) for one in others)
            heard = next((one for one in found if name not in idle(recipe, one)), heard)
        yield heard
    counted = {name: axes[name] for name in dict.fromkeys(recipe.numbers.values())}
    every = math.prod(map(len, counted.values()))
    for values in itertools.islice(itertools.product(*counted.values()), 0, None, -(-every // SEEN)):
        yield tuple((first | dict(zip(counted, values, strict=True))).items())


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
