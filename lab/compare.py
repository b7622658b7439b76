"""``lab compare``: two candidates of a run folder, as a sentence and a table."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.sweep import RunsOption, run_folder
from lab.terminal import CommandError, JsonOption, emit, plural, say, table

if TYPE_CHECKING:
    from analysis.compare import Comparison, Line

__all__ = ["compare", "document", "page"]


def compare(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or the name of one in --runs.")],
    first: Annotated[str, typer.Argument(metavar="A", help="The label of a candidate: r=3:1.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The label of another.")],
    runs: RunsOption = Path("runs"),
    margin: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="What counts as not worse: 0.02 is two points; default: the recipe's."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Compare two candidates of a sweep: a sentence to send, and the figures task by task.

    Paired by task and seed, for two that were named before their results were seen.

    Examples:
      lab compare ratios r=3:1 r=6:1
      lab compare runs/ratios r=3:1 r=4:1 --margin 0.05 --json
    """
    from analysis.compare import compare as held
    from analysis.report import asked
    from analysis.tables import board
    from sweeps.results import read

    if margin is not None and not 0 <= margin <= 1:
        raise CommandError(f"--margin is {margin:g}; it must be from 0 to 1, such as 0.02 for two points")
    folder = run_folder(run, runs)
    results = read(folder)
    about = asked(results, folder)
    ranked = board(results.frame, about.score, results.pruned)
    found = held(ranked, first, second, about.margin if margin is None else margin)
    emit(document(found)) if json else say(page(found))


def document(found: Comparison) -> dict[str, Any]:
    """The comparison for ``--json``; differences are first - second in the unit of the score."""
    from analysis.pair_words import pair_notes, pair_sentence

    plain = asdict(found)
    pair = plain.pop("pair")
    about = {"score": pair["score"], "told_apart": found.told_apart, "threshold": pair["threshold"]}
    return {"sentence": pair_sentence(found), "notes": pair_notes(found), **about, **plain}


def page(found: Comparison) -> str:
    """Sentence, table, bounds and seeds, notes: what stands on stdout."""
    from analysis.pair_words import pair_notes, pair_sentence
    from analysis.words import score_name

    name = score_name(found.pair)
    size = f"{plural(len(found.tasks), 'task')}, {plural(len(found.seeds), 'seed')}"
    title = f"{name[0].upper()}{name[1:]}, paired by task and seed; {size}"
    below = "\n".join((*_more(found), *pair_notes(found)))
    return "\n\n".join((pair_sentence(found), title, _table(found), below))


def _table(found: Comparison) -> str:
    from analysis.words import unit

    difference = f"difference, {unit(found.pair)}s"
    header = ("", *found.labels, difference, "95 % interval", "d_z", "p")
    lines = (*found.tasks, found.whole) if len(found.tasks) > 1 else found.tasks
    return table(header, [_row(found, line) for line in lines])


def _row(found: Comparison, line: Line) -> tuple[str, ...]:
    from analysis.pair_words import p_text, range_text
    from analysis.words import amount, value_text

    return (
        "all tasks" if line.task is None else line.task,
        value_text(found.pair, line.first, 3),
        value_text(found.pair, line.second, 3),
        amount(found.pair, line.difference),
        range_text(found, line.interval) if line.interval else "one seed",
        "-" if line.effect is None else f"{line.effect:.2f}".replace("-", "\N{MINUS SIGN}"),
        "-" if line.p is None else p_text(line.p),
    )


def _more(found: Comparison) -> list[str]:
    """What the table has no column for: the columns explained, the bootstrap, the bounds, the seeds."""
    from analysis.pair_words import bound_text, cost_text, range_text, seeds_text
    from analysis.words import margin_text, unit

    if found.worse_by is None or found.bootstrap is None:
        return []
    units = f"{unit(found.pair)}s"
    several = "; of the tasks p is corrected for all of them (Holm)" if len(found.tasks) > 1 else ""
    told = [
        "Difference: first less second, Student's interval over seeds. d_z: Cohen's, the difference in "
        f"standard deviations of one seed's, corrected for few seeds{several}.",
        f"Bootstrap over seeds, over all tasks: {range_text(found, found.bootstrap)} {units} (95 %).",
    ]
    if found.within:
        told += [f"{bound_text(found, place, bound)}." for place, bound in enumerate(found.worse_by)]
    if not any(found.left):
        whats = (("one as large as was seen", found.as_seen), (margin_text(found.pair), found.as_margin))
        needs = [f"{what}: {seeds_text(found, needed)}" for what, needed in whats if needed]
        told += [f"To show a difference with a power of 80 %, {'; '.join(needs)}."] if needs else []
    return [*told, cost_text(found)]
