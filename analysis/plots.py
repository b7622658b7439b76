"""Figures of a sweep: a board or a ranking in, a plotly Figure out, nothing read and nothing written.

Colours hold for colour-blind readers and on light and dark pages: all are of middle lightness, backgrounds
are clear, and text is a grey that a page may override. Labels that differ in one number are on one ramp
from blue over grey to orange; others take the palette of Okabe and Ito (2008), and of more than its eight
six further ones. Line dashes repeat what colour says. Text from users is escaped, because plotly reads a
small HTML in every string.

What belongs to one schedule says so, so that a page can filter by it: a trace in ``meta`` (the label, and the
colour it would have if it were not grey), an annotation in ``name``; a figure about one task in ``meta``.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
import polars as pl

from analysis.tables import Board, natural, one_number

__all__ = [
    "DASHES",
    "GRID",
    "INK",
    "LISTED",
    "NAMED",
    "ROLE_COLOURS",
    "as_hex",
    "brief",
    "by_position",
    "colours",
    "faint",
    "learning_curve",
    "level",
    "mix",
    "room",
    "safe",
    "styled",
]

INK = "#767b85"
GRID = "rgba(128,132,142,0.25)"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif"
OKABE_ITO = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a8f98", "#a89a00")
FURTHER = ("#8a63d2", "#a0694b", "#1aa5a5", "#c2405f", "#7fa32b", "#6c86b8")
"""Colours for what Okabe and Ito's eight do not reach: of the same middle lightness."""
RAMP = ((47, 116, 208), (139, 139, 139), (222, 120, 10))
LONGEST = 20
LISTED = 60
"""Candidates of a long ranking that are drawn and listed one by one."""
NAMED = 8
"""Labels drawn in colour in the curves; the rest of a long ranking is grey."""
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
ROLE_COLOURS = {"linear": "#56b4e9", "window": "#009e73", "full": "#d55e00", "none": "#8a8f98"}


def colours(labels: Sequence[str]) -> dict[str, str]:
    """A colour per label: a ramp when the labels differ in one number, else a palette."""
    order = sorted(labels, key=natural)
    if one_number(order):
        return {label: as_hex(mix(RAMP, place / (len(order) - 1))) for place, label in enumerate(order)}
    palette = (*OKABE_ITO, *FURTHER)
    return {label: palette[place % len(palette)] for place, label in enumerate(order)}


def learning_curve(data: pl.DataFrame, ranked: Board, task: str, named: Sequence[str]) -> go.Figure:
    """Test accuracy by step on one task: the mean over seeds, a band from the lowest to the highest seed.

    data is ``tables.curves``. Labels stand at the ends of the lines, moved apart; candidates that are not in
    ``named`` are thin grey lines. Dashed grey lines mark chance and ceiling.
    """
    data = data.filter(pl.col("task") == task)
    facts = ranked.tasks.filter(pl.col("task") == task).row(0, named=True)
    figure = go.Figure()
    palette = colours(ranked.labels)
    ends: list[tuple[float, str]] = []
    for place, label in enumerate(ranked.labels):
        part = data.filter(pl.col("label") == label)
        if part.is_empty():
            continue  # not yet run on this task
        steps, mean = part["step"].to_list(), part["mean"].to_list()
        if label in named:
            low, high = part["low"].to_list(), part["high"].to_list()
            figure.add_trace(_band(steps, low, high, label, palette[label]))
            ends.append((mean[-1], label))
        figure.add_trace(_line(steps, mean, label, place, palette[label], label in named, "step"))
    last = max(data["step"].to_list())
    level(figure, facts["chance"], "chance", right=True)
    level(figure, facts["ceiling"], "ceiling")
    _end_labels(figure, ends, last, palette)
    figure.update_layout(meta={"of": safe(task)})
    figure.update_xaxes(title="training step", range=[0, last])
    figure.update_yaxes(title="test accuracy", range=[-0.03, 1.06], tickformat=".1f")
    return styled(figure, height=300, right=room(named))


def by_position(data: pl.DataFrame, ranked: Board, task: str, named: Sequence[str]) -> go.Figure:
    """Final accuracy by position in the sequence on a task's longest setting; data: ``tables.positions``."""
    data = data.filter(pl.col("task") == task)
    palette = colours(ranked.labels)
    figure = go.Figure()
    ends: list[tuple[float, str]] = []
    for place, label in enumerate(ranked.labels):
        part = data.filter(pl.col("label") == label)
        if part.is_empty():
            continue
        at, mean = part["position"].to_list(), part["mean"].to_list()
        if label in named:
            ends.append((mean[-1], label))
        figure.add_trace(_line(at, mean, label, place, palette[label], label in named, "position"))
    last = max(data["position"].to_list())
    _end_labels(figure, ends, last, palette)
    level(figure, ranked.tasks.filter(pl.col("task") == task)["chance"][0], "chance", right=True)
    figure.update_layout(meta={"of": safe(task)})
    figure.update_xaxes(title="position in the sequence", range=[min(data["position"].to_list()), last])
    figure.update_yaxes(title="test accuracy", range=[-0.03, 1.06], tickformat=".1f")
    return styled(figure, height=300, right=room(named))


def safe(text: str) -> str:
    """Text for plotly, which reads a small HTML in strings and takes ``%{`` for a template."""
    return html.escape(text, quote=False)


def brief(label: str) -> str:
    """A label short enough to be written inside a figure; the whole one shows on hovering.

    What is left out is its middle: labels of several variables begin alike and often end differently.
    """
    head, tail = LONGEST // 2 - 1, LONGEST - LONGEST // 2
    return safe(label if len(label) <= LONGEST else f"{label[:head]}\N{HORIZONTAL ELLIPSIS}{label[-tail:]}")


def room(labels: Sequence[str]) -> int:
    """Pixels at the right of a figure for the labels beside its lines."""
    return 14 + 7 * min(LONGEST, max(map(len, labels), default=0))


def mix(stops: Sequence[tuple[int, int, int]], place: float) -> tuple[int, int, int]:
    """The colour at ``place`` (0 to 1) between three stops."""
    low, high = (stops[0], stops[1]) if place < 0.5 else (stops[1], stops[2])
    share = 2 * place if place < 0.5 else 2 * place - 1
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(low, high, strict=True))
    return red, green, blue


def as_hex(colour: tuple[int, int, int]) -> str:
    """``#rrggbb``, of parts from 0 to 255."""
    return "#" + "".join(f"{part:02x}" for part in colour)


def faint(colour: str, opacity: float = 0.16) -> str:
    """A hexadecimal colour, mostly clear, for areas that lie behind lines."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def _band(steps: list[int], low: list[float], high: list[float], label: str, colour: str) -> go.Scatter:
    return go.Scatter(
        x=steps + steps[::-1],
        y=high + low[::-1],
        mode="none",
        fill="toself",
        fillcolor=faint(colour),
        meta={"schedule": safe(label), "colour": colour},
        hoverinfo="skip",
    )


def _line(
    x: list[int], y: list[float], label: str, place: int, colour: str, named: bool, unit: str
) -> go.Scatter:
    """One candidate's line; if it is not named it is thin and grey."""
    look = {"color": colour, "width": 2, "dash": DASHES[place % len(DASHES)]}
    return go.Scatter(
        x=x,
        y=y,
        mode="lines",
        name=safe(label),
        line=look if named else {"color": GRID, "width": 1},
        meta={"schedule": safe(label), "colour": colour},
        hovertemplate=f"{unit} %{{x}}: %{{y:.3f}}",
    )


def _end_labels(
    figure: go.Figure, ends: Sequence[tuple[float, str]], last: float, palette: Mapping[str, str]
) -> None:
    """Write each label at the right end of its line, in the line's colour."""
    for at, label in _apart(ends, 0.075):
        figure.add_annotation(
            x=last,
            y=at,
            text=brief(label),
            name=safe(label),
            xanchor="left",
            xshift=4,
            showarrow=False,
            font={"color": palette[label], "size": 12},
        )


def level(figure: go.Figure, value: float, name: str, right: bool = False) -> None:
    """A dashed line across the figure, its name on top of it at the left or the right end."""
    end, x = ("right", 0.99) if right else ("left", 0.01)
    figure.add_hline(
        y=value,
        line={"color": INK, "width": 1, "dash": "dash"},
        annotation={"text": name, "font": {"size": 11, "color": INK}, "xanchor": end, "x": x},
        annotation_position=f"top {end}",
    )


def _apart(ends: Sequence[tuple[float, str]], least: float) -> list[tuple[float, str]]:
    """Heights of labels at line ends, in the lines' order, as near as can be, ``least`` apart."""
    order = sorted(ends)
    blocks: list[
        tuple[float, int]
    ] = []  # mean wanted height less the room below, and how many labels share it
    for place, (at, _) in enumerate(order):
        mean, count = at - place * least, 1
        while blocks and blocks[-1][0] >= mean:
            below, many = blocks.pop()
            mean, count = (mean * count + below * many) / (count + many), count + many
        blocks.append((mean, count))
    flat = [mean for mean, count in blocks for _ in range(count)]
    heights = [mean + place * least for place, mean in enumerate(flat)]
    over = max(0.0, heights[-1] - 1.03) if heights else 0.0
    return [(at - over, label) for at, (_, label) in zip(heights, order, strict=True)]


def styled(figure: go.Figure, height: int, right: int = 12) -> go.Figure:
    """The look that all figures share: clear background, grey text, no legend."""
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 8, "r": right, "t": 24, "b": 8},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": INK, "activecolor": INK},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": 13, "color": INK},
        showlegend=False,
        hovermode="closest",
    )
    figure.update_xaxes(automargin=True, gridcolor=GRID, zeroline=False, title_standoff=8, title_font_size=12)
    figure.update_yaxes(automargin=True, gridcolor=GRID, zeroline=False, title_standoff=8, title_font_size=12)
    return figure
