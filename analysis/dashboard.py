"""The page of a sweep that is under way: the parts of the report, and what there is before it can rank.

Results in, named parts out; nothing is read and no time is asked for here. The page (``page``, with its
script and style beside this file) fetches ``state`` again and again and redraws the parts that differ.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Literal

import polars as pl

from analysis import sections
from analysis.fragments import CONFIG, Part, cell, e, table
from analysis.plots import LISTED, NAMED, colours, safe
from analysis.report import Asked, Judged, beside, body, judged
from analysis.tables import Board, natural, so_far
from sweeps.results import Results

__all__ = ["POLICY", "Pulse", "page", "parts", "progress", "script", "state", "version"]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""For the header of the page: it may ask its own server and nobody else, and runs no script but the server's.
plotly.js writes styles."""

CHIPS = 24
"""Schedules that have a button of their own; the words of the filter reach the others."""

_STATES = {
    "working": "At work",
    "idle": "No sweep is at work here",
    "complete": "Complete",
    "decided": "Complete, one candidate is left",
    "time": "Ended by --time",
    "stopped": "Stopped; the same lab sweep goes on from here",
}


@dataclass(frozen=True)
class Pulse:
    """How far a sweep is, as far as its folder tells; what it does not tell is None.

    state: ``working`` while a sweep holds the folder; ``complete``, ``decided``, ``time`` or ``stopped`` as
    the sweep said at its end; ``idle`` where none is at work and none said how it ended. finished and failed
    count runs, and so do total (as the recipe stands now) and running. heard: when the folder last changed,
    in seconds since 1970. eta: seconds to the end.
    """

    state: Literal["working", "idle", "complete", "decided", "time", "stopped"]
    finished: int
    failed: int = 0
    heard: float | None = None
    total: int | None = None
    running: int | None = None
    round: int | None = None
    rounds: int | None = None
    eta: float | None = None

    @property
    def early(self) -> bool:
        """Whether the first round is known to be incomplete."""
        return self.round == 1 and self.state in ("working", "stopped")


def version(*seen: object) -> str:
    """A name for what was seen: the same for the same, another for anything else."""
    return hashlib.sha256(repr(seen).encode()).hexdigest()[:16]


def state(results: Results, about: Asked, early: bool = False) -> dict[str, Any]:
    """All that the page draws but the progress, as JSON values; figures as the text of their JSON.

    early: the sweep says that its first round is not complete. The rows alone cannot tell: they look complete
    whenever all schedules have been run on the first tasks.
    """
    found = judged(results, about)
    found = replace(found, ranking=None) if early else found
    made = [
        {"name": part.name, "html": part.html, "figures": {k: f.to_json() for k, f in part.figures.items()}}
        for part in parts(found)
    ]
    return {
        "title": about.name,
        "config": CONFIG,
        "parts": made,
        "schedules": _schedules(found),
        "tasks": [] if found.board is None else found.board.tasks["task"].to_list(),
    }


def parts(found: Judged) -> tuple[Part, ...]:
    """The parts of the page, in order: those of the report, or before it can rank how far the runs are."""
    head = sections.head(
        found.about.name, found.about.question, found.ranking, found.finished, "a sweep as it runs"
    )
    whole = body(found)
    if found.board is None or found.ranking is not None:
        return head, *whole
    verdict, *rest = whole
    early = _early(found)
    note = "So far, of the runs that have ended; no round is complete, so nothing can be compared. "
    named = early.labels[:NAMED]
    return head, verdict, _ended(early), sections.learning(found.results.frame, early, named, note), *rest


def _early(found: Judged) -> Board:
    """Every run that has ended, of the first schedules if there are very many."""
    whole = so_far(found.results.frame, found.about.score)
    mine = pl.col("label").is_in(whole.labels[:LISTED])
    return replace(whole, cells=whole.cells.filter(mine), runs=whole.runs.filter(mine))


def _ended(early: Board) -> Part:
    """How many runs of each schedule have ended on each task."""
    tasks = early.tasks["task"].to_list()
    counts = {(arch, task): n for arch, task, n in early.runs.group_by("arch", "task").len().iter_rows()}
    known = early.candidates.filter(pl.col("label").is_in(early.labels)).select("arch", "label").rows()
    rest = early.candidates.height - len(known)
    rows = [
        [cell("schedule", e(label)), *(cell(task, str(counts.get((arch, task), 0)), "num") for task in tasks)]
        for arch, label in known
    ]
    listed = table(rows, "cards", schedules=[label for _, label in known])
    note = "Runs that have ended, by schedule and task; the ranking comes with the first complete round."
    note += f" {rest:,} schedules more are not listed." if rest else ""
    return Part("ended", f'<section><h2>Runs so far</h2><p class="note">{note}</p>{listed}</section>')


def _schedules(found: Judged) -> list[dict[str, object]]:
    """What the filter knows of each schedule; ``key`` is its label as figures have it."""
    if found.board is None:
        return []
    if found.ranking is None:
        drawn = _early(found).labels
    else:
        drawn = sections.listed(found.board, found.ranking)[0].labels
    palette = colours(drawn)
    texts = dict(found.board.candidates.select("label", "schedule").iter_rows())
    return [
        {
            "label": label,
            "key": safe(label),
            "text": texts[label],
            "colour": palette[label],
            "chip": place < CHIPS,
        }
        for place, label in enumerate(sorted(drawn, key=natural))
    ]


def progress(pulse: Pulse) -> Part:
    """The bar, the counts, and when the sweep was last heard of."""
    total = max(pulse.total or 0, pulse.finished + pulse.failed)
    counts = [
        f"<b>{pulse.finished:,}</b> of {total:,} runs" if pulse.total else f"<b>{pulse.finished:,}</b> runs"
    ]
    if pulse.running:
        counts.append(f"{pulse.running:,} under way")
    if pulse.failed:
        counts.append(f'<span class="bad">{pulse.failed:,} failed</span>')
    if pulse.round and pulse.rounds:
        counts.append(f"round {pulse.round} of {pulse.rounds}")
    if pulse.eta is not None:
        counts.append(f"about {_left(pulse.eta)} left")
    bar = ""
    if pulse.total:
        spans = (("done", pulse.finished), ("lost", pulse.failed), ("now", pulse.running or 0))
        drawn = "".join(
            f'<span class="{kind}" style="width:{100 * many / max(1, total):.2f}%"></span>'
            for kind, many in spans
        )
        bar = (
            f'<div class="bar" role="progressbar" aria-label="runs finished" aria-valuemin="0" '
            f'aria-valuemax="{total}" aria-valuenow="{pulse.finished}">{drawn}</div>'
        )
    heard = "" if pulse.heard is None else f'last change <time data-at="{pulse.heard:.0f}"></time>'
    words = f'<span class="{pulse.state}">{_STATES[pulse.state]}</span>'
    listed = "".join(f"<span>{one}</span>" for one in counts)
    return Part("progress", f'{bar}<p class="pulse">{words}{listed}<span class="heard">{heard}</span></p>')


def _left(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def page(title: str, export: str) -> str:
    """The empty page, which its script fills; ``export``: what the names of files to keep begin with."""
    links = "".join(
        f'<a href="{path}" download="{e(export)}{ending}">{text}</a>'
        for path, ending, text in (
            ("report.html", "-report.html", "report, one file"),
            ("runs.parquet", ".parquet", "all rows, parquet"),
        )
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{e(title)}: live</title>\n<style>\n{beside('report.css')}{beside('dashboard.css')}</style>\n"
        '<script src="plotly.js" defer></script><script src="dashboard.js" defer></script></head>\n'
        '<body><div id="bar" role="status"><div data-part="progress"></div><p id="away" hidden></p></div>\n'
        '<main><div id="top"></div>\n<section id="tools" aria-label="Filter and export" hidden>\n'
        '<div class="row"><input id="words" type="search" autocomplete="off" spellcheck="false" '
        'placeholder="Filter schedules: part of a name or of the layers ( / )" aria-label="Filter schedules">'
        f'<span class="export">Keep: {links}</span></div>\n'
        '<div class="row chips" id="schedules" role="group" aria-label="Schedules"></div>\n'
        '<div class="row chips" id="tasks" role="group" aria-label="Tasks"></div>\n'
        '<p class="note" id="shown" aria-live="polite"></p></section>\n'
        '<div id="rest"></div></main></body></html>\n'
    )


def script() -> str:
    """The script of the page."""
    return beside("page.js") + beside("dashboard.js")
