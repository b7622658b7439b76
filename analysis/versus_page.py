"""Two run folders against each other, as a sentence and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import plotly.graph_objects as go

from analysis.fragments import Part, cell, e, section, spot, table
from analysis.plots import INK, LISTED, brief, safe, styled
from analysis.report import asked, document
from analysis.versus import Change, Pair, Verdict, Versus, versus
from sweeps.results import ResultsError, read, write_text

__all__ = ["compared", "difference", "page", "sentence", "write"]

COLOURS: dict[Verdict, str] = {"better": "#0072b2", "worse": "#d55e00", "open": INK, "one seed": INK}


def compared(folders: tuple[Path, Path], names: tuple[str, str]) -> Versus:
    """Two run folders against each other, by the first recipe's score. Raises as ``versus`` and ``read``."""
    first, second = (read(folder) for folder in folders)
    score = asked(first, folders[0]).score
    asked(second, folders[1])  # its recipe is looked at, too
    return versus(first, second, names, score)


def write(found: Versus, path: Path) -> Path:
    """Write the page of a comparison. Raises ResultsError if ``path`` cannot be a file."""
    if path.is_dir() or not path.parent.is_dir():
        raise ResultsError(
            f"{path}: the page needs a file name in a folder that exists; choose another --out"
        )
    write_text(path, page(found))
    return path


def sentence(found: Versus) -> str:
    """What the seeds show of the candidates that both have."""
    one, other = found.names
    many = len(found.pairs)
    if not many:
        return (
            f"{one} and {other} share {_counted(len(found.lacking), 'schedule')}, but none that both have "
            "run on all of the tasks they share."
        )
    same = "" if not found.same_runs else f" {_counted(found.same_runs, 'run')} are the very same in both."
    told = [
        f"{words} in {number}"
        for words, number in (
            ("better", found.count("better")),
            ("worse", found.count("worse")),
            ("not to be told apart", found.count("open")),
            ("at one seed", found.count("one seed")),
        )
        if number
    ]
    return (
        f"{_counted(many, 'schedule')} in both, on {_counted(len(found.settings), 'shared task setting')}: "
        f"{other} is, against {one}, {', '.join(told)}.{same}"
    )


def difference(found: Versus) -> go.Figure:
    """Second less first of the first LISTED candidates, with 95 % intervals; colour where it is shown."""
    drawn = go.Figure()
    rows = found.pairs[:LISTED]
    for place, pair in enumerate(rows):
        low, high = pair.interval or (pair.difference, pair.difference)
        colour = COLOURS[pair.verdict]
        drawn.add_trace(
            go.Scatter(
                x=[pair.difference],
                y=[place],
                mode="markers",
                marker={"color": colour, "size": 9, "symbol": "circle" if pair.paired else "circle-open"},
                error_x={
                    "type": "data",
                    "array": [high - pair.difference],
                    "arrayminus": [pair.difference - low],
                    "color": colour,
                    "thickness": 1.5,
                },
                name=safe(pair.labels[0]),
                hovertemplate="%{x:.3f}",
            )
        )
    drawn.add_vline(x=0, line={"color": INK, "width": 1})
    drawn.update_xaxes(title=f"{found.score}: second less first")
    drawn.update_yaxes(
        tickmode="array",
        tickvals=list(range(len(rows))),
        ticktext=[brief(pair.labels[0]) for pair in rows],
        range=[len(rows) - 0.5, -0.5],
    )
    return styled(drawn, height=90 + 26 * len(rows))


def page(found: Versus) -> str:
    """The whole page as text; it needs no network, as the report."""
    one, other = found.names
    title = f"{one} against {other}"
    head = (
        f'<header><p class="kind">Hybrid-architecture lab, two sweeps</p><h1>{e(title)}</h1></header>'
        f'<p class="answer">{e(sentence(found))}</p>'
    )
    parts = [Part("head", head)]
    if found.pairs:
        parts.append(_pairs(found))
    parts += [
        _rest(found),
        _changes("recipe", "Recipe", found.recipe, found.names),
        _changes("environment", "Environment", found.environment, found.names),
    ]
    return document(title, parts)


def _pairs(found: Versus) -> Part:
    note = (
        f"Score: {found.score}, on {', '.join(found.settings)}. Second less first, paired by task and seed "
        "where both have two seeds or more in common (else Welch, open circles); 95 % intervals over seeds, "
        "p corrected over the schedules (Holm). A schedule is in both if its layers and shape are, "
        "whatever it is called."
    )
    shown = found.pairs[:LISTED]
    more = f" {len(shown)} of {len(found.pairs):,} are listed." if len(shown) < len(found.pairs) else ""
    listed = table([_row(found, pair) for pair in shown], "cards")
    drawn = spot(
        "fig-difference", "", f"Difference of {len(shown)} schedules with intervals; the table has it."
    )
    return section("shared", "In both", note + more, drawn + listed, {"fig-difference": difference(found)})


def _row(found: Versus, pair: Pair) -> list[tuple[str, str, str]]:
    one, other = found.names
    names = (
        e(pair.labels[0])
        if pair.labels[0] == pair.labels[1]
        else f"{e(pair.labels[0])} / {e(pair.labels[1])}"
    )
    edges = (
        f'<span class="range">{pair.interval[0]:+.3f} to {pair.interval[1]:+.3f}</span>'
        if pair.interval
        else ""
    )
    seeds = f"{pair.seeds[0]}, paired" if pair.paired else f"{pair.seeds[0]} and {pair.seeds[1]}"
    words = {"open": "cannot be told apart"}.get(pair.verdict, pair.verdict)
    return [
        cell("schedule", names),
        cell(one, f"{pair.scores[0]:.3f}", "num"),
        cell(other, f"{pair.scores[1]:.3f}", "num"),
        cell("difference", f"<div>{pair.difference:+.3f}{edges}</div>", "num"),
        cell(
            "p", "" if pair.p is None else "&lt;&thinsp;0.001" if pair.p < 0.001 else f"{pair.p:.3f}", "num"
        ),
        cell("seeds", seeds),
        cell("second is", f'<span class="tag">{e(words)}</span>'),
    ]


def _rest(found: Versus) -> Part:
    """What one alone has, and what cannot be compared."""
    rows = [
        (f"schedules of {found.names[0]} alone", found.only[0]),
        (f"schedules of {found.names[1]} alone", found.only[1]),
        (f"task settings of {found.names[0]} alone", found.other_settings[0]),
        (f"task settings of {found.names[1]} alone", found.other_settings[1]),
        ("in both, but not run on all shared tasks", found.lacking),
    ]
    listed = "".join(f"<dt>{e(name)}</dt><dd>{e(_some(values))}</dd>" for name, values in rows if values)
    inner = f"<dl>{listed}</dl>" if listed else "<p>Nothing: both have the same schedules and tasks.</p>"
    return Part("rest", f"<section><h2>In one alone</h2>{inner}</section>")


def _some(values: Sequence[str]) -> str:
    more = f" and {len(values) - LISTED:,} more" if len(values) > LISTED else ""
    return ", ".join(values[:LISTED]) + more


def _changes(name: str, title: str, found: Sequence[Change], names: tuple[str, str]) -> Part:
    rows = [
        [
            cell("what", e(one.what)),
            *(
                cell(of, "not given" if value is None else f"<code>{e(value)}</code>")
                for of, value in zip(names, (one.first, one.second), strict=True)
            ),
        ]
        for one in found
    ]
    inner = table(rows, "cards wrap") if rows else "<p>No difference.</p>"
    return Part(name, f"<section><h2>{e(title)}: what differs</h2>{inner}</section>")


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
