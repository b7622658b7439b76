"""``lab plan`` and ``lab validate``: what a recipe, or a model's training, would do, before it does it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.counts import short
from lab.progress import duration
from lab.sweep import SetOption, not_trained
from lab.terminal import (
    BlocksOption,
    CommandError,
    JsonOption,
    emit,
    known_blocks,
    note,
    plural,
    say,
    table,
)

if TYPE_CHECKING:
    from sweeps.plan import Plan

__all__ = ["plan", "validate"]


FileArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE|SPEC",
        help="A YAML file: a recipe, or a model's specification; or the name of a shipped one.",
    ),
]

DEVICES = ("a100", "cpu")
"""What a training is planned for where nothing else is asked for."""


def validate(
    recipe: FileArgument,
    set_: SetOption = None,
    blocks: BlocksOption = None,
    json: JsonOption = False,
) -> None:
    """Check a recipe or a specification whole, as it would be before it starts. Nothing is trained.

    Examples:
      lab validate ratios.yaml
      lab validate golf
      lab validate smoke --set "search.r=[2:1, 3:1]" --json
    """
    from sweeps.plan import plan as make_plan
    from sweeps.recipe import find, load

    known = known_blocks(blocks)
    if (model := _model(recipe, "validate")) is not None:
        from lab.model.plan_page import validate_model

        validate_model(model, set_ or [], known, json)
        return
    asked, file = load(recipe, set_ or (), known), str(find(recipe))
    size = make_plan(asked, known, gflops=1.0)  # any rate: the time it gives is not shown
    if json:
        names = ("name", "sampled", "candidates", "space", "tasks", "optimiser_settings", "rounds", "runs")
        document = {name: getattr(size, name) for name in names}
        if asked.match or asked.constraints:
            document |= {name: size.as_json()[name] for name in ("rows", "left_out")}
        emit({"valid": True, "file": file, **document})
    else:
        say("\n\n".join((f"{file} is valid: {_size(size)}", *_comparisons(size))))


def _model(name: str, command: str) -> Path | None:
    """The file of a model's specification, given or shipped; None for a recipe.

    Of a name that both have the recipe is meant, and where the specification is, is said. Raises CommandError
    where nothing is of that name.
    """
    from lab.model.spec import kind_of
    from lab.train.shipped import shipped
    from sweeps.recipe import shipped as shipped_recipes
    from sweeps.written import WrittenError, find

    recipes, specs = shipped_recipes(), shipped()
    try:
        path = find(name, specs | recipes, "recipe or specification")
    except WrittenError as exc:
        raise CommandError(str(exc)) from None
    if path in recipes.values() and path.stem in specs:
        note(f"{path.stem} is a recipe, and a model's specification, too: lab {command} {specs[path.stem]}")
    return path if kind_of(path) == "model" else None


def plan(
    recipe: FileArgument,
    set_: SetOption = None,
    blocks: BlocksOption = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes to plan for; default: one per core.", min=1)
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:PEAK][@MFU]",
            help="Of a specification, repeatable: a100, h100, rtx4090, cpu (measured), or a peak in FLOP/s.",
        ),
    ] = None,
    devices: Annotated[
        int | None, typer.Option(help="Of a specification: so many devices share the work.", min=1)
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show what a recipe or a specification would train, what it costs, and about how long it takes.

    The time of a recipe is measured: a few steps of one candidate, for some seconds. That of a model's
    training is its FLOPs at a share of a device's peak; its memory is estimated.

    Examples:
      lab plan ratios.yaml
      lab plan ratios.yaml --set seeds=5 --workers 8 --json
      lab plan golf
      lab plan winner.yaml --device a100 --device "mine:100e12@0.3" --devices 8
    """
    known = known_blocks(blocks)
    if (model := _model(recipe, "plan")) is not None:
        from lab.model.plan_page import plan_model

        if workers is not None:
            raise CommandError(
                f"--workers is for recipes, and {recipe} is a model's specification: --devices"
            )
        plan_model(model, set_ or [], known, device or list(DEVICES), devices or 1, json)
        return
    if device or devices:
        raise CommandError(f"--device and --devices are for a model's specification; {recipe} is a recipe")
    from sweeps.plan import plan as make_plan
    from sweeps.pool import use_one_thread
    from sweeps.recipe import load

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


def _comparisons(found: Plan) -> Iterator[str]:
    """What ``match`` solved, and who is left out."""
    solved = [(row.label, row.solved) for row in found.rows if row.solved is not None]
    if solved:
        cost, target = solved[0][1].cost, solved[0][1].target
        rows = [
            (
                label,
                one.by or "as it is",
                ", ".join(f"{value:g}" if value is not None else "None" for value in one.before) or "-",
                "-" if one.after is None else f"{one.after:g}",
                f"{one.was:,}",
                f"{one.now:,}",
                f"{100 * (one.now / target - 1):+.2f} %",
            )
            for label, one in solved
        ]
        what = "params without embedding and head" if cost == "params" else "state"
        header = ("", "solved", "before", "after", f"{cost} before", "after", "off")
        yield f"Matched to {target:,.10g}, {what}:\n{table(header, rows)}"
    if found.left_out:
        yield not_trained(found.left_out, found.sampled)


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
            *_comparisons(found),
            "Tasks:\n" + "\n".join(f"  {text}" for text in found.tasks),
            f"{time}, {first}, at the measured {found.gflops:.2g} GFLOP/s a worker; solved runs end early.",
        )
    )
