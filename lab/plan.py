"""``lab plan`` and ``lab validate``: what a recipe would do, before it does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lab.progress import duration
from lab.sweep import RecipeArgument, SetOption
from lab.terminal import BlocksOption, JsonOption, emit, known_blocks, plural, say, short, table

if TYPE_CHECKING:
    from sweeps.plan import Plan

__all__ = ["plan", "validate"]


def validate(
    recipe: RecipeArgument,
    set_: SetOption = None,
    blocks: BlocksOption = None,
    json: JsonOption = False,
) -> None:
    """Check a recipe whole, as a sweep would before it starts. Nothing is trained.

    Examples:
      lab validate ratios.yaml
      lab validate smoke --set "search.r=[2:1, 3:1]" --json
    """
    from sweeps.plan import plan as make_plan
    from sweeps.recipe import find, load

    known = known_blocks(blocks)
    asked, file = load(recipe, set_ or (), known), str(find(recipe))
    size = make_plan(asked, known, gflops=1.0)  # any rate: the time it gives is not shown
    if json:
        names = ("name", "sampled", "candidates", "space", "tasks", "optimiser_settings", "rounds", "runs")
        emit({"valid": True, "file": file, **{name: getattr(size, name) for name in names}})
    else:
        say(f"{file} is valid: {_size(size)}")


def plan(
    recipe: RecipeArgument,
    set_: SetOption = None,
    blocks: BlocksOption = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes to plan for; default: one per core.", min=1)
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show what a recipe would train, what its candidates cost, and about how long it takes here.

    The time is measured: a few steps of one candidate, for some seconds.

    Examples:
      lab plan ratios.yaml
      lab plan ratios.yaml --set seeds=5 --workers 8 --json
    """
    from sweeps.plan import plan as make_plan
    from sweeps.pool import use_one_thread
    from sweeps.recipe import load

    known = known_blocks(blocks)
    asked = load(recipe, set_ or (), known)
    use_one_thread()
    found = make_plan(asked, known, workers)
    emit(found.as_json()) if json else say(_page(found))


def _size(found: Plan) -> str:
    chosen = f" chosen by Optuna out of {found.space:,}" if found.sampled else ""
    factors = (
        f"{plural(found.candidates, 'candidate')}{chosen}",
        plural(len(found.tasks), "task setting"),
        plural(found.optimiser_settings, "optimiser setting"),
        plural(found.rounds, "seed"),
    )
    whole = found.candidates * len(found.tasks) * found.optimiser_settings * found.rounds
    halved = ", the settings halved from round to round" if found.runs < whole else ""
    return f"{' x '.join(factors)}{halved} = {plural(found.runs, 'run')}"


def _page(found: Plan) -> str:
    counts = {
        "full": [row.n_full for row in found.rows],
        "window": [row.n_window for row in found.rows],
        "linear": [row.n_linear for row in found.rows],
    }
    counts = {kind: numbers for kind, numbers in counts.items() if any(numbers)}
    rows = [
        (
            ", ".join((row.label, *row.also)),
            row.depth,
            *(numbers[i] for numbers in counts.values()),
            short(row.params),
            short(row.flops),
            short(row.state),
            row.schedule,
        )
        for i, row in enumerate(found.rows)
    ]
    examples = ", for example" if found.sampled else ""
    time = f"At most about {duration(found.seconds)} on {plural(found.workers, 'worker')}"
    first = f"{duration(found.seconds_per_round)} the first round"
    return "\n\n".join(
        (
            f"{found.name}: {_size(found)}",
            f"Candidates{examples}; costs at the largest task:",
            table(("", "layers", *counts, "params", "FLOPs/token", "state", "schedule"), rows),
            "Tasks:\n" + "\n".join(f"  {text}" for text in found.tasks),
            f"{time}, {first}, at the measured {found.gflops:.2g} GFLOP/s a worker; solved runs end early.",
        )
    )
