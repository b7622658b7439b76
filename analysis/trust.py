"""The page of a calibration: the frontier as a figure, and one self-contained HTML file around tables.

``figure`` is pure: a calibration in, a plotly Figure out. ``render`` returns the whole page as text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from analysis.agreement import Ceiling
from analysis.calibration import MAD_SECONDS, TARGET, Calibration
from analysis.fragments import Part, cell, e, table
from analysis.plots import INK, OKABE_ITO, faint, styled
from analysis.report import document

__all__ = ["figure", "render", "share_text"]


@dataclass(frozen=True)
class _Look:
    """How one kind of point is drawn. Dash and symbol repeat what the colour says."""

    name: str
    colour: str
    dash: str
    symbol: str
    wide: bool = False


CHOSEN = _Look("chosen on all schedules (95 % bootstrap interval)", OKABE_ITO[0], "solid", "circle")
HELD_OUT = _Look("held-out half (mean, 95 % of the halves)", OKABE_ITO[5], "dash", "square", wide=True)
CLOSE = _Look("close schedules", OKABE_ITO[2], "dot", "triangle-up")
REAL = _Look("real runs (95 % bootstrap interval)", OKABE_ITO[1], "solid", "star")
MARGIN = 1.25
"""How far the axis of costs goes beyond what it shows, as a factor."""
TOP = 1.05


def figure(found: Calibration) -> go.Figure:
    """Tau against CPU-minutes per architecture, of the protocols of the frontier.

    Thin bars are 95 % bootstrap intervals, wide ones hold 95 % of the held-out halves. The band is what the
    reference agrees with itself, the dashed corner the target within the budget. Tau runs from 0 to 1, and
    lower where something is.
    """
    points, real = found.frontier, found.real
    at = [point.choice.seconds / 60 for point in points]
    both = list(zip(at, points, strict=True))
    spots = {
        CLOSE: [(m, p.close.tau, None) for m, p in both if p.close],
        HELD_OUT: [(m, p.held_out.mean, p.held_out.interval) for m, p in both if p.held_out],
        CHOSEN: [(m, p.agreement.tau, p.agreement.interval) for m, p in both],
        REAL: [(real.seconds / 60, real.agreement.tau, real.agreement.interval)] if real else [],
    }
    shown = [found.budget / 60, *(m for some in spots.values() for m, _, _ in some)]
    edges = min(shown) / MARGIN, max(shown) * MARGIN
    drawn = go.Figure([*_ceiling(found.repeat, edges), _target(edges[0], found.budget / 60)])
    # Wide bars come before thin ones, which then lie on top of them.
    drawn.add_traces([_line(some, look) for look, some in spots.items() if some])
    ticks = _ticks(*edges, found.budget / 60)
    drawn.update_xaxes(
        title="CPU-minutes per architecture (log scale)",
        type="log",
        range=[math.log10(edge) for edge in edges],
        tickvals=ticks,
        ticktext=[f"{tick:.4g}" for tick in ticks],
    )
    low = min([0.0, *(y for some in spots.values() for _, tau, ends in some for y in (tau, *(ends or ())))])
    drawn.update_yaxes(title="Kendall's tau-b with the reference", range=[low - 0.03, TOP], dtick=0.2)
    return _framed(styled(drawn, height=480), found)


def _framed(drawn: go.Figure, found: Calibration) -> go.Figure:
    """A title that says what was measured, and the legend below."""
    cells = found.cells["setting"].n_unique()
    size = f"{len(found.labels)} schedules, {found.seeds} seeds, {cells} cell{'' if cells == 1 else 's'}"
    drawn.update_layout(
        title={
            "text": "Agreement with the reference against cost",
            "font_size": 15,
            "subtitle": {"text": f"{size}, score {found.score}", "font_size": 12},
            "x": 0,
            "xref": "paper",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 10},
        },
        margin_t=60,
        showlegend=True,
        # The last drawn lies on top and matters most.
        legend={
            "orientation": "h",
            "traceorder": "reversed",
            "yref": "container",
            "y": 0,
            "yanchor": "bottom",
            "font_size": 12,
        },
    )
    return drawn


def _ceiling(repeat: Ceiling, edges: tuple[float, float]) -> list[go.Scatter]:
    """What the reference agrees with itself: a band, and a line at its mean."""
    (left, right), (low, high) = edges, repeat.interval
    colour = OKABE_ITO[3]
    band = go.Scatter(
        x=[left, right, right, left],
        y=[high, high, low, low],
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=faint(colour),
        name="the reference with itself (mean, 95 % of redraws)",
        legendgroup="ceiling",
        hoverinfo="skip",
    )
    mean = go.Scatter(
        x=[left, right],
        y=[repeat.mean] * 2,
        mode="lines",
        line={"color": colour, "width": 1.5},
        legendgroup="ceiling",
        showlegend=False,
        hovertemplate="the reference with itself: %{y:.2f}<extra></extra>",
    )
    return [band, mean]


def _target(left: float, minutes: float) -> go.Scatter:
    """The corner at the upper left in which a protocol is good and cheap enough."""
    return go.Scatter(
        x=[left, minutes, minutes],
        y=[TARGET, TARGET, TOP],
        mode="lines",
        line={"color": INK, "width": 2, "dash": "6px,3px"},
        name=f"target: tau {TARGET:g} within {minutes:g} CPU-minutes",
        hoverinfo="skip",
    )


def _line(spots: Sequence[tuple[float, float, tuple[float, float] | None]], look: _Look) -> go.Scatter:
    """Points of cost, tau and the ends of its bar, where there is one."""
    edges = [ends or (tau, tau) for _, tau, ends in spots]
    bars = {
        "type": "data",
        # Tau shares runs with the reference and may lie outside its interval; no bar is negative.
        "array": [max(0.0, high - tau) for (_, tau, _), (_, high) in zip(spots, edges, strict=True)],
        "arrayminus": [max(0.0, tau - low) for (_, tau, _), (low, _) in zip(spots, edges, strict=True)],
        "color": faint(look.colour, 0.3) if look.wide else look.colour,
        "thickness": 9 if look.wide else 1.5,
        "width": 0 if look.wide else 4,
    }
    return go.Scatter(
        x=[minutes for minutes, _, _ in spots],
        y=[tau for _, tau, _ in spots],
        error_y=bars if any(ends for _, _, ends in spots) else None,
        name=look.name,
        mode="lines+markers" if len(spots) > 1 else "markers",
        line={"color": look.colour, "width": 2, "dash": look.dash},
        marker={"color": look.colour, "size": 14 if look is REAL else 9, "symbol": look.symbol},
        hovertemplate="%{x:.2f} min: %{y:.2f}",
    )


def _ticks(low: float, high: float, budget: float) -> list[float]:
    """The budget, and 1, 2 and 5 times the powers of ten that lie between and not too near to it."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    rounded = [head * 10.0**power for power in powers for head in (1, 2, 5)]
    clear = [tick for tick in rounded if low <= tick <= high and abs(math.log(tick / budget)) > math.log(1.3)]
    return sorted([*clear, budget])


def share_text(seconds: float) -> str:
    """The cost as a fraction of MAD's own protocol: ``1/8,160``."""
    return f"1/{MAD_SECONDS / seconds:,.0f}" if seconds > 0 else "-"


def render(found: Calibration) -> str:
    """The page: it needs no network, and forbids itself one."""
    body = (
        "<header><h1>How far to trust a score</h1>"
        f'<p class="question">{len(found.labels)} schedules, {found.seeds} seeds, {e(found.score)}</p>'
        "</header>",
        f'<section><h2>Tau against cost</h2><div id="frontier"></div>{_frontier(found)}</section>',
        f"<section><h2>The reference</h2>{_ranking(found)}</section>",
        f"<section><h2>Published orders</h2>{_published(found)}</section>",
    )
    return document("How far to trust a score", [Part("page", "\n".join(body), {"frontier": figure(found)})])


def _frontier(found: Calibration) -> str:
    rows = [
        (
            cell("CPU-min", f"{point.choice.seconds / 60:.3g}"),
            cell("of MAD", share_text(point.choice.seconds)),
            cell("runs", str(point.choice.protocol.runs if point.choice.protocol else 0)),
            cell("tau", f"{point.agreement.tau:.2f}"),
            cell("95 %", _edges(point.agreement.interval)),
            cell("held out", f"{point.held_out.mean:.2f}" if point.held_out else "-"),
            cell("close", f"{point.close.tau:.2f}" if point.close else "-"),
        )
        for point in found.frontier
    ]
    return table(rows, "cards") if rows else "<p>No protocol fits.</p>"


def _ranking(found: Calibration) -> str:
    rows = [
        (
            cell("schedule", e(one.label)),
            cell("score", f"{one.score:.3f}"),
            cell("95 %", _edges(one.interval, 3)),
        )
        for one in found.ranking
    ]
    return table(rows, "cards")


def _published(found: Calibration) -> str:
    rows = [
        (
            cell("claim", e(one.claim.text) + (" (published figures are open)" if one.claim.open else "")),
            cell("verdict", e(one.verdict)),
            cell("here, points", e(one.found)),
        )
        for one in found.published
    ]
    return table(rows, "cards")


def _edges(interval: tuple[float, float] | None, digits: int = 2) -> str:
    return f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}" if interval else "-"
