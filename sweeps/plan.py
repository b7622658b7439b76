"""What a sweep would do, before it does anything: candidates with their costs, runs, estimated time."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from blocks import BLOCKS
from blocks.base import Block
from blocks.cost import counts, flops_per_token, params_by_part, state_size
from blocks.schedule import parse
from sweeps import space
from sweeps.candidate import Candidate
from sweeps.clock import Clock
from sweeps.form import Recipe
from sweeps.match import Solved
from sweeps.run import Run, runs_of
from synthetics.fit import HELD_OUT, Training, fit
from synthetics.protocol import parse_task

__all__ = ["LeftOut", "Plan", "PlanRow", "left_out", "measure", "plan"]

CALIBRATION_SECONDS = 2.0
CALIBRATION_FLOPS = 1e10
"""Of the first two steps that are measured, with their evaluations: some seconds on a slow core."""
SHOWN_OF_SAMPLED = 100


@dataclass(frozen=True)
class PlanRow:
    """One candidate. params, flops (forward, per token) and state are the largest over the recipe's tasks.

    solved: what ``match`` made of it (costs without embedding and head), None in a recipe without.
    also: labels that come out as the same architecture and are not trained again.
    """

    label: str
    schedule: str
    params: int
    flops: int
    state: int
    depth: int
    n_linear: int
    n_window: int
    n_full: int
    also: tuple[str, ...]
    solved: Solved | None = None


@dataclass(frozen=True)
class LeftOut:
    """A candidate that is not trained, and why."""

    label: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """The whole sweep. rows: every candidate, or examples of the space where Optuna chooses (``sampled``).
    left_out: likewise, those that break a constraint, or of a sampled recipe cannot be matched.

    runs: of all rounds. optimiser_settings: of the first round. seconds: estimated wall time of all rounds,
    every run using its whole budget, at ``gflops`` (1e9 FLOP/s per worker); runs that solve their task early
    end early. seconds_per_round: of the first.
    """

    name: str
    sampled: bool
    candidates: int
    space: int
    tasks: tuple[str, ...]
    optimiser_settings: int
    rounds: int
    runs: int
    workers: int
    gflops: float
    seconds_per_round: float
    seconds: float
    rows: tuple[PlanRow, ...]
    left_out: tuple[LeftOut, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``."""
        return asdict(self)


def plan(
    recipe: Recipe,
    blocks: Mapping[str, type[Block]] = BLOCKS,
    workers: int | None = None,
    gflops: float | None = None,
) -> Plan:
    """What ``lab sweep`` would do with ``recipe``. The rate is measured where it is not given."""
    workers = workers or len(os.sched_getaffinity(0))
    sampled = space.is_sampled(recipe)
    shown, without = _looked_at(recipe, blocks)
    count = int(recipe.trials) if sampled else len(shown)
    tasks = space.task_texts(recipe)
    runs = [run for candidate in shown for run in runs_of(recipe, candidate, tasks, recipe.first_seed)]
    clock = Clock(blocks)
    work = [clock.work(run) for run in runs]
    if gflops is None:
        middle = sorted(range(len(runs)), key=work.__getitem__)[len(runs) // 2]
        gflops = measure(runs[middle], blocks)
    one = max(sum(work) / workers, max(work)) * count / len(shown) / (gflops * 1e9)
    settings = space.optimiser_counts(recipe)
    return Plan(
        name=recipe.name,
        sampled=sampled,
        candidates=count,
        space=space.size(recipe),
        tasks=tuple(tasks),
        optimiser_settings=settings[0],
        rounds=recipe.seeds,
        runs=count * len(tasks) * sum(settings),
        workers=workers,
        gflops=gflops,
        seconds_per_round=one,
        seconds=one * sum(settings) / settings[0],
        rows=tuple(_row(candidate, tasks, blocks) for candidate in shown),
        left_out=without,
    )


def left_out(recipe: Recipe, blocks: Mapping[str, type[Block]] = BLOCKS) -> tuple[LeftOut, ...]:
    """Who is not trained: all of them, or examples where Optuna chooses."""
    return _looked_at(recipe, blocks)[1] if recipe.match or recipe.constraints else ()


def _looked_at(
    recipe: Recipe, blocks: Mapping[str, type[Block]]
) -> tuple[list[Candidate], tuple[LeftOut, ...]]:
    """Those that are trained and those that are not; of a space that Optuna searches, some spread evenly."""
    if not space.is_sampled(recipe):
        every = space.census(recipe, blocks)
        return list(every.candidates), tuple(LeftOut(one.label, one.refusal) for one in every.left_out)
    found: dict[tuple[Any, ...], Candidate] = {}
    without: list[LeftOut] = []
    against = space.yardstick(recipe, blocks)
    for choices in space.spread(recipe, SHOWN_OF_SAMPLED):
        try:
            new = space.candidate(recipe, choices, blocks, against)
            who = space.identity(new, blocks)
        except space.Unmatched as exc:
            without.append(LeftOut(space.label_of(recipe, choices), exc.reason))
            continue
        except space.SpaceError:
            continue
        if new.refusal:
            without.append(LeftOut(new.label, new.refusal))
        else:
            found.setdefault(who, new)
    if not found:
        raise space.SpaceError(
            ("constraints",), f"of {len(without)} candidates looked at, none may be trained"
        )
    return list(found.values()), tuple(without)


def _row(candidate: Candidate, tasks: list[str], blocks: Mapping[str, type[Block]]) -> PlanRow:
    schedule = parse(candidate.schedule, blocks)
    shape, design = candidate.shape, candidate.design
    sizes = [(task.vocab, task.tokens) for task in map(parse_task, tasks)]
    number = counts(schedule)
    return PlanRow(
        label=candidate.label,
        schedule=candidate.schedule,
        params=max(
            sum(params_by_part(schedule, shape, v, blocks=blocks, design=design).values()) for v, _ in sizes
        ),
        flops=max(flops_per_token(schedule, shape, v, length, design) for v, length in sizes),
        state=max(state_size(schedule, shape, length, design) for _, length in sizes),
        depth=number.depth,
        n_linear=number.linear,
        n_window=number.window,
        n_full=number.full,
        also=candidate.also,
        solved=candidate.solved,
    )


def measure(run: Run, blocks: Mapping[str, type[Block]] = BLOCKS) -> float:
    """GFLOP/s of training that this process reaches on ``run``, evaluations included.

    Takes about two seconds, or two steps, which are cut down to fewer rows where they would take very long.
    Set the thread count before (``sweeps.pool.use_one_thread``): a worker has one.
    """
    schedule, task = parse(run.candidate.schedule, blocks), parse_task(run.task)
    work = Clock(blocks).work(run)
    a_row = work / (run.training.steps * run.training.batch)
    steps = 2
    while True:
        training = _short(run.training, steps, CALIBRATION_FLOPS / a_row)
        # Rows for a short run only: drawing the whole training set is no part of a step.
        few = replace(task, train_examples=min(task.train_examples, 4 * training.batch))  # type: ignore[type-var]
        started = time.perf_counter()
        fit(schedule, run.candidate.shape, few, training, run.seed)
        spent = time.perf_counter() - started
        if spent > CALIBRATION_SECONDS / 4 or steps >= 256:
            return work / _rows(run.training) * _rows(training) / spent / 1e9
        steps *= 2


def _short(asked: Training, steps: int, limit: float) -> Training:
    """``steps`` steps such as ``asked``, evaluated as often per step as there; two come to ``limit`` rows."""
    held_out = asked.eval_examples * min(1.0, steps / asked.eval_every)
    whole = replace(asked, steps=steps, eval_every=steps, eval_examples=math.ceil(held_out), stop=1.0)
    share = min(1.0, limit / (_rows(whole) * 2 / steps))
    return replace(
        whole, batch=max(1, round(asked.batch * share)), eval_examples=max(1, math.ceil(held_out * share))
    )


def _rows(training: Training) -> float:
    """Rows that a run goes through, in those trained on; without a way back a row is a third of the work."""
    evaluations = math.ceil(training.steps / training.eval_every) * len(HELD_OUT) + sum(training.extrapolate)
    return training.steps * training.batch + evaluations * training.eval_examples / 3
