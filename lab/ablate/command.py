"""``lab ablate``: a preset's parts, each left out and each alone, in one recipe that is swept and told."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.sweep import RunsOption, SetOption, Teller, seconds_of
from lab.terminal import JsonOption, emit, note, say

if TYPE_CHECKING:
    from analysis.ablation import Ablation, Parts
    from lab.model.preset import Preset
    from sweeps.recipe import Recipe

__all__ = ["ablate"]


def ablate(
    preset: Annotated[str, typer.Argument(metavar="PRESET", help="Such as golf-518; see lab describe.")],
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", metavar="FILE", help="Write the recipe there and train nothing."),
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Tell what was trained so far, and train nothing.")
    ] = False,
    runs: RunsOption = Path("runs"),
    workers: Annotated[
        int | None, typer.Option(help="Processes of one thread each; default: one per core.", min=1)
    ] = None,
    set_: SetOption = None,
    time: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="End with the last round that fits: 90s, 15m, 2h, 1h30m."),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw it to a file: .svg, .png or .html.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Measure what each part of a preset is worth: left out of the whole, and added to what has none.

    One recipe is made of them, at a small size, and swept; the same command goes on after a stop.

    Examples:
      lab ablate golf-518 --time 30m
      lab ablate genesis-152m --set seeds=8 --figure parts.svg
      lab ablate golf-518 --show
      lab ablate golf-518 --recipe parts.yaml
    """
    from lab.ablate.plan import ablation_of, recipe_text
    from lab.figures import check
    from lab.model.preset import load
    from sweeps.recipe import loads

    if figure is not None:
        check(figure)
    limit = None if time is None else seconds_of(time)
    found = load(preset)
    text = recipe_text(found)
    asked = loads(text, f"the recipe of {preset}", set_ or ())
    if recipe is not None:
        from sweeps.results import write_text

        write_text(recipe, asked.text)
        say(f"{recipe}: written; lab sweep {recipe} runs it, as {asked.name}")
        return
    folder = runs / asked.name
    if not show:
        _train(asked, folder, workers, limit)
    worth = _worth(asked, folder, found)
    if worth is None:
        say(f"{folder}: no round is complete yet, so nothing is to be told; the same command goes on")
        return
    if figure is not None:
        from analysis.ablation_plot import figure as drawn
        from lab.ablate.page import costs
        from lab.figures import write

        write(drawn(worth, [costs(one) for one in worth.worth]), figure)
    if json:
        emit({"preset": preset, "folder": str(folder), **asdict(worth)})
    else:
        from lab.ablate.page import page

        say(page(worth, ablation_of(found), preset))


def _train(asked: Recipe, folder: Path, workers: int | None, limit: float | None) -> None:
    """Sweep it; the ranking of the variants is left to the report, which is written."""
    from analysis.report import write
    from sweeps.study import sweep

    teller = Teller(folder, quiet=True)
    try:
        with teller.progress:
            done = sweep(asked, folder, workers=workers, time_limit=limit, on_event=teller.tell)
    except KeyboardInterrupt:
        note(teller.kept())
        raise typer.Exit(130) from None
    if done.rounds:
        note(f"report of the sweep: {write(done.folder)}")


def _worth(asked: Recipe, folder: Path, preset: Preset) -> Ablation | None:
    from analysis.ablation import ablation
    from analysis.tables import board
    from sweeps.results import read

    results = read(folder)
    if results.frame.filter("final").is_empty():
        return None
    return ablation(board(results.frame, asked.score), _parts(asked, preset))


def _parts(asked: Recipe, preset: Preset) -> Parts:
    """The labels in the results; variants that come out as one architecture have the first one's."""
    from analysis.ablation import Parts
    from lab.ablate.plan import BARE, FULL, ablation_of, added, left_out
    from sweeps.space import candidates

    label = {name: one.label for one in candidates(asked) for name in (one.label, *one.also)}
    names = ablation_of(preset).parts
    return Parts(
        full=label[FULL],
        bare=label[BARE],
        without={name: label[left_out(name)] for name in names},
        only={name: label[added(name)] for name in names},
    )
