"""``lab report``: the answer of a run folder and its page; of two folders, how they differ."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.sweep import RunsOption, run_folder
from lab.terminal import CommandError, FiguresOption, FormatOption, JsonOption, emit, plural, say, table

if TYPE_CHECKING:
    from analysis.versus import Pair

__all__ = ["report"]


def report(
    run: Annotated[
        list[str],
        typer.Argument(metavar="RUN [RUN]", help="A run folder, or the name of one in --runs; or two."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Default: report.html in the folder; of two, A/versus-B.html."),
    ] = None,
    figures: FiguresOption = None,
    format_: FormatOption = "svg",
    runs: RunsOption = Path("runs"),
    json: JsonOption = False,
) -> None:
    """Print the answer of a run folder and write its report, one HTML file that needs no network.

    Its rows are written beside it as parquet. Two folders are compared: the schedules that both have, with
    intervals, and what differs in recipe and environment.

    Examples:
      lab report runs/ratios
      lab report ratios --out ratios.html
      lab report ratios --figures figures --format png
      lab report ratios ratios-again
    """
    if len(run) > 2:
        raise CommandError(f"{len(run)} run folders are given; one is reported, two are compared")
    if figures is not None:
        from lab.figures import check_folder

        check_folder(figures, format_)
    if len(run) == 2:
        _versus(run, runs, out, figures, format_, json)
    else:
        _report(run_folder(run[0], runs), out, figures, format_, json)


def _report(folder: Path, out: Path | None, figures: Path | None, format_: str, json: bool) -> None:
    from analysis.report import asked, write
    from analysis.report import figures as figures_of
    from analysis.rows import beside
    from lab.answer import answer_of, document, effects_document, effects_page, page
    from sweeps.results import read

    answer = answer_of(folder)
    written = write(folder, out, answer.importance)
    drawn = []
    if figures is not None:
        from lab.figures import draw

        results = read(folder)
        drawn = draw(figures_of(results, asked(results, folder)), figures, format_)
    if json:
        more = {"effects": effects_document(answer), "front": answer.front, "report": str(written)}
        more |= {"rows": str(beside(written))}
        emit({**document(answer.ranking), **more, **({"figures": drawn} if figures else {})})
        return
    parts = (page(answer.ranking), answer.front, effects_page(answer), f"report: {written}")
    say("\n\n".join(part for part in parts if part))
    say(f"rows: {beside(written)}")
    if figures is not None:
        say(f"{plural(len(drawn), 'figure')}: {figures}")


def _versus(
    run: list[str], runs: Path, out: Path | None, figures: Path | None, format_: str, json: bool
) -> None:
    from analysis.versus_page import compared, difference, sentence, write

    folders = run_folder(run[0], runs), run_folder(run[1], runs)
    if folders[0].resolve() == folders[1].resolve():
        raise CommandError(f"{run[0]} and {run[1]} are the same run folder; give two")
    one, other = (folder.resolve().name for folder in folders)
    names = (one, other) if one != other else (str(folders[0]), str(folders[1]))
    found = compared(folders, names)
    written = write(found, out or folders[0] / f"versus-{other}.html")
    drawn = []
    if figures is not None:
        from lab.figures import draw

        drawn = draw({"difference": difference(found)}, figures, format_)
    if json:
        more = {"report": str(written), **({"figures": drawn} if figures else {})}
        emit({"sentence": sentence(found), **asdict(found), **more})
        return
    say(f"{sentence(found)}\n\n{_table(found.names, found.pairs)}\n\nreport: {written}")
    if figures is not None:
        say(f"{plural(len(drawn), 'figure')}: {figures}")


def _table(names: tuple[str, str], pairs: tuple[Pair, ...]) -> str:
    """The schedules that both have, a line each."""
    rows = [
        (
            pair.labels[0],
            f"{pair.scores[0]:.3f}",
            f"{pair.scores[1]:.3f}",
            f"{pair.difference:+.3f}",
            f"{pair.interval[0]:+.3f} to {pair.interval[1]:+.3f}" if pair.interval else "-",
            "cannot be told apart" if pair.verdict == "open" else pair.verdict,
        )
        for pair in pairs
    ]
    return table(("", *names, "difference", "95 % interval", "the second is"), rows)
