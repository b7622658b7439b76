"""``lab score``: one schedule, one task, one run, beside what chance, the data and a short window allow."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from lab.describe import read_schedule
from lab.terminal import (
    BlocksOption,
    DepthOption,
    DimOption,
    HeadsOption,
    JsonOption,
    VarOption,
    emit,
    known_blocks,
    note,
    percent,
    say,
)

if TYPE_CHECKING:
    from synthetics.base import Task
    from synthetics.difficulty import Profile
    from synthetics.fit import Fit, Point, Training

__all__ = ["score"]

CURVE = "{:>6}  {:>8}  {:>8}  {:>8}  {:>8}"


def score(
    schedule: Annotated[str, typer.Argument(help='Such as "2*[(gdn, swiglu) + (attn, swiglu)]".')],
    task: Annotated[str, typer.Option(help='Such as "recall(vocab=32)"; see lab tasks.')],
    dim: DimOption = 64,
    heads: HeadsOption = 4,
    depth: DepthOption = None,
    steps: Annotated[int, typer.Option(help="Budget of training steps.")] = 400,
    extrapolate: Annotated[
        list[int] | None, typer.Option(help="Score rows so many times as long, too; may be repeated.")
    ] = None,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3,
    seed: Annotated[int, typer.Option(help="Of data, order and weights.", min=0)] = 0,
    kernel: Annotated[str, typer.Option(help="auto, torch or c; auto is c where a C compiler is.")] = "auto",
    precision: Annotated[str, typer.Option(help="Of matrix products: fp32 or bf16.")] = "fp32",
    var: VarOption = None,
    blocks: BlocksOption = None,
    json: JsonOption = False,
) -> None:
    """Train one schedule on one task and print its learning curve and score.

    Examples:
      lab score "2*(attn, swiglu)" --task "recall(vocab=32)" --steps 200
      lab score "r*(gdn, swiglu) + (fox, swiglu)" --var r=3:1 --task copying --lr 1e-3 --json
      lab score "2*(gdn, swiglu)" --task parity --steps 200 --extrapolate 2 --extrapolate 4
    """
    from blocks.base import Shape
    from blocks.schedule import show
    from sweeps.pool import use_one_thread
    from sweeps.run import chosen_kernel
    from synthetics.difficulty import profile
    from synthetics.fit import Training, fit
    from synthetics.protocol import parse_task, show_task

    table_of_blocks = known_blocks(blocks)
    layers = read_schedule(schedule, depth, var, table_of_blocks)
    shape, setting = Shape(dim=dim, heads=heads), parse_task(task)
    usual = Training().eval_every
    training = Training(
        steps=steps,
        lr=lr,
        eval_every=max(1, min(usual, steps)),
        kernel=chosen_kernel(kernel),  # pyright: ignore[reportArgumentType]
        precision=precision,  # pyright: ignore[reportArgumentType]
        extrapolate=tuple(extrapolate or ()),
    )
    use_one_thread()  # as in a sweep, so that the same run gives the same bits here and there
    level = profile(setting)
    line = note if json else say
    line(f"{show(layers, table_of_blocks)} on {show_task(setting)}")
    line(CURVE.format("step", "seconds", "loss", "valid", "test"))
    result = fit(layers, shape, setting, training, seed, progress=lambda point: line(_row(point)))
    if json:
        emit(
            {
                "schedule": show(layers, table_of_blocks),
                "shape": dataclasses.asdict(shape),
                "task": show_task(setting),
                "training": dataclasses.asdict(training),
                "seed": seed,
                **dataclasses.asdict(level),
                **dataclasses.asdict(result),
            }
        )
    else:
        say("\n" + _summary(result, level, setting, training))


def _row(point: Point) -> str:
    return CURVE.format(
        point.step,
        f"{point.seconds:.1f}",
        f"{point.loss:.3f}",
        percent(point.acc_valid),
        percent(point.acc),
    )


def _summary(result: Fit, level: Profile, task: Task, training: Training) -> str:
    how = {
        "solved": "solved before the budget was spent",
        "budget": "the budget is spent",
        "diverged": f"diverged and scored as chance ({result.reason})",
    }[result.status]
    reached = "never" if result.steps_to is None else f"after {result.steps_to} steps"
    window = "no lag" if level.window_share is None else percent(level.window_share)
    rows = [
        ("test accuracy", f"{percent(result.acc)}  ({how})"),
        ("area under the curve", percent(result.auc)),
        (f"{100 * training.threshold:g} % accuracy", reached),
        ("macro accuracy as mad-lab counts", percent(result.acc_madlab)),
        ("chance", percent(level.chance)),
        ("ceiling of the data", percent(level.ceiling)),
        ("within a 32-token window", window),
    ]
    for factor, acc in zip(training.extrapolate, result.acc_stretched, strict=True):
        rows.append((f"rows {factor} times as long", percent(acc)))
    if len(result.levels) > 1:
        rows.append(("test accuracy by", task.LEVEL))
        rows.extend((f"  {one.level}", f"{percent(one.acc)}  of {one.count:,}") for one in result.levels)
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
