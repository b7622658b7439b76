"""Small pieces of a page: text escaped for HTML, the layer strip and the whisker as SVG, tables, figures."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import plotly.graph_objects as go
from plotly.utils import PlotlyJSONEncoder

from analysis.plots import ROLE_COLOURS

__all__ = [
    "CONFIG",
    "Part",
    "cell",
    "e",
    "embedded",
    "embedded_json",
    "in_script",
    "key",
    "section",
    "spot",
    "strip",
    "table",
    "whisker",
]

CONFIG = {
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "displaylogo": False,
    "responsive": True,
    "modeBarButtons": [["toImage"]],
}

_HEIGHTS = {"linear": 9, "window": 13, "full": 18, "none": 5}
_TALL = 18


@dataclass(frozen=True)
class Part:
    """A piece of a page: HTML with an empty element for each figure, and the figures by the ids of these.

    A page that is written once has the figures as data at its end; one that is renewed compares the pieces by
    ``name`` and redraws what has changed.
    """

    name: str
    html: str
    figures: Mapping[str, go.Figure] = field(default_factory=dict)


def section(
    name: str, title: str, note: str, content: str, figures: Mapping[str, go.Figure] | None = None
) -> Part:
    """A section of the page; title and note are text, the content is HTML."""
    inner = f'<h2>{e(title)}</h2><p class="note">{e(note)}</p>{content}'
    return Part(name, f"<section>{inner}</section>", figures or {})


def spot(name: str, title: str, alt: str, wide: int = 0, task: str = "") -> str:
    """Where a figure will be drawn, with its heading and a text for those who do not see it."""
    least = f' style="min-width:{wide}px"' if wide else ""
    heading = f"<h3>{e(title)}</h3>" if title else ""
    inner = f'{heading}<div class="scroll"><div{least}><div id="{name}"></div></div></div>'
    of = f' data-task="{e(task)}"' if task else ""
    return f'<figure role="img" aria-label="{e(alt)}"{of}>{inner}</figure>'


def embedded(name: str, figure: go.Figure) -> str:
    """``figure`` as data, to be drawn into the element with the id ``name``, with the height it will have."""
    known = figure.to_dict() | {"config": CONFIG}
    text = in_script(json.dumps(known, cls=PlotlyJSONEncoder, separators=(",", ":")))
    height = figure.layout.height or 0
    return f'<script type="application/json" data-figure="{name}" data-height="{height}">{text}</script>'


def e(text: object) -> str:
    """Text for the page, whoever wrote it."""
    return html.escape(str(text), quote=True)


def embedded_json(value: object, name: str) -> str:
    """A JSON script block that no text inside can end."""
    text = in_script(json.dumps(value, separators=(",", ":"), allow_nan=False))
    return f'<script type="application/json" id="{name}">\n{text}\n</script>'


def in_script(text: str) -> str:
    """JSON written so that it may stand inside a script element."""
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def cell(name: str, content: str, kind: str = "") -> tuple[str, str, str]:
    """A table cell: name of its column, content as HTML, CSS class."""
    return name, content, kind


def table(
    rows: Sequence[Sequence[tuple[str, str, str]]],
    kind: str,
    marked: int | None = None,
    schedules: Sequence[str] = (),
) -> str:
    """Rows of cells, headed by the names of the first; on a narrow page each row becomes a card.

    ``schedules``: the label that each row is about, if rows are, so that a page can filter them.
    """
    head = "".join(f'<th scope="col"{_class(css)}>{e(name)}</th>' for name, _, css in rows[0])
    body = ""
    for place, row in enumerate(rows):
        cells = "".join(
            f'<td data-name="{e(name)}"{_class(css)}>{content}</td>' for name, content, css in row
        )
        about = f' data-schedule="{e(schedules[place])}"' if schedules else ""
        body += f"<tr{_class('first' if place == marked else '')}{about}>{cells}</tr>\n"
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>'


def strip(roles: Sequence[str], layers: Sequence[str]) -> str:
    """One bar per layer, bottom layer first; height and colour say how the memory of its mixer grows."""
    wide = max(2.0, min(12.0, 300 / max(1, len(roles))))
    bars = "".join(
        f'<rect x="{place * wide:.1f}" y="{_TALL - _HEIGHTS.get(role, 5)}" width="{wide * 0.84:.1f}" '
        f'height="{_HEIGHTS.get(role, 5)}" rx="1" fill="{ROLE_COLOURS.get(role, ROLE_COLOURS["none"])}">'
        f"<title>layer {place + 1}: {e(layer)} ({e(role)})</title></rect>"
        for place, (role, layer) in enumerate(zip(roles, layers, strict=True))
    )
    size = wide * len(roles)
    return (
        f'<svg class="strip" role="img" aria-label="{e(_strip_text(roles))}" width="{size:.0f}" '
        f'height="{_TALL}" viewBox="0 0 {size:.1f} {_TALL}">{bars}</svg>'
    )


def key(roles: Sequence[str]) -> str:
    """What the bars of the strips mean, for the roles that occur."""
    words = {
        "linear": "linear: state of fixed size",
        "window": "window: state up to a window",
        "full": "full: state grows with length",
        "none": "no token mixer",
    }
    parts = [
        f'<span><svg width="10" height="{_TALL}" aria-hidden="true"><rect y="{_TALL - _HEIGHTS[role]}" '
        f'width="10" height="{_HEIGHTS[role]}" rx="1" fill="{ROLE_COLOURS[role]}"/></svg>{text}</span>'
        for role, text in words.items()
        if role in roles
    ]
    return f'<div class="key">{"".join(parts)}</div>'


def whisker(value: float, interval: tuple[float, float] | None, span: tuple[float, float]) -> str:
    """A dot with its interval on the scale that all rows share; the words beside it say the same."""
    wide, low, high = 130, *span
    scale = (wide - 8) / (high - low) if high > low else 0.0

    def at(x: float) -> float:
        return 4 + (x - low) * scale

    bar = ""
    if interval:
        bar = (
            f'<line x1="{at(interval[0]):.1f}" x2="{at(interval[1]):.1f}" y1="7" y2="7" stroke-width="1.5"/>'
        )
    return (
        f'<svg class="whisker" aria-hidden="true" width="{wide}" height="14" viewBox="0 0 {wide} 14">'
        f'<line class="axis" x1="0" x2="{wide}" y1="7" y2="7"/>{bar}'
        f'<circle cx="{at(value):.1f}" cy="7" r="3"/></svg>'
    )


def _class(css: str) -> str:
    return f' class="{css}"' if css else ""


def _strip_text(roles: Sequence[str]) -> str:
    counts = ", ".join(f"{roles.count(role)} {role}" for role in _HEIGHTS if role in roles)
    full = [str(place) for place, role in enumerate(roles, 1) if role == "full"]
    where = f"; full in layer {', '.join(full)}" if full else ""
    return f"{len(roles)} layers: {counts}{where}"
