"""The page of a calibration: the frontier as a figure, and one self-contained HTML file around tables.

``figure`` is pure: points in, a plotly Figure out. ``render`` returns the whole page as text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import plotly.graph_objects as go

from analysis.calibration import MAD_SECONDS, TARGET, Calibration
from analysis.choice import Point
from analysis.fragments import cell, e, in_script, table
from analysis.plots import INK, OKABE_ITO, level, styled
from analysis.report import document
from analysis.sections import CONFIG

__all__ = ["figure", "render", "share_text"]


def figure(
    points: Sequence[Point], ceiling: float | None = None, real: tuple[float, float] | None = None
) -> go.Figure:
    """Tau against CPU-minutes per schedule: with the reference (95 % interval), and on the held-out half.

    ceiling: a dashed line, what the reference agrees with itself. real: minutes and tau of real runs, a star.
    """
    drawn = go.Figure()
    minutes = [point.choice.seconds / 60 for point in points]
    taus = [point.agreement.tau for point in points]
    edges = [point.agreement.interval or (tau, tau) for point, tau in zip(points, taus, strict=True)]
    bars = {
        "type": "data",
        # Tau shares runs with the reference and may lie outside its interval; no bar is negative.
        "array": [max(0.0, high - tau) for (_, high), tau in zip(edges, taus, strict=True)],
        "arrayminus": [max(0.0, tau - low) for (low, _), tau in zip(edges, taus, strict=True)],
        "color": OKABE_ITO[0],
        "thickness": 1.5,
        "width": 4,
    }
    drawn.add_trace(_line(minutes, taus, "whole panel", OKABE_ITO[0], "solid", bars))
    held = [(m, p.held_out.mean) for m, p in zip(minutes, points, strict=True) if p.held_out]
    close = [(m, p.close.tau) for m, p in zip(minutes, points, strict=True) if p.close]
    for found, name, colour, dash in (
        (held, "held-out half", OKABE_ITO[5], "dash"),
        (close, "close schedules", OKABE_ITO[2], "dot"),
    ):
        if found:
            drawn.add_trace(_line([m for m, _ in found], [t for _, t in found], name, colour, dash))
    if real:
        mark = {"symbol": "star", "size": 14, "color": OKABE_ITO[1]}
        drawn.add_trace(go.Scatter(x=[real[0]], y=[real[1]], mode="markers", name="real runs", marker=mark))
    level(drawn, TARGET, "target")
    if ceiling is not None:
        level(drawn, ceiling, "the reference with itself", right=True)
    drawn.update_xaxes(title="CPU-minutes per schedule", type="log")
    drawn.update_yaxes(title="tau-b with the reference", range=[-0.1, 1.08])
    styled(drawn, height=380)
    drawn.update_layout(showlegend=True, legend={"orientation": "h", "y": -0.25, "font": {"color": INK}})
    return drawn


def _line(
    x: list[float], y: list[float], name: str, colour: str, dash: str, bars: dict[str, object] | None = None
) -> go.Scatter:
    return go.Scatter(
        x=x,
        y=y,
        error_y=bars,
        name=name,
        mode="lines+markers",
        line={"color": colour, "width": 2, "dash": dash},
        marker={"color": colour, "size": 8},
        hovertemplate="%{x:.2f} min: %{y:.2f}",
    )


def share_text(seconds: float) -> str:
    """The cost as a fraction of MAD's own protocol: ``1/8,160``."""
    return f"1/{MAD_SECONDS / seconds:,.0f}" if seconds > 0 else "-"


def render(found: Calibration) -> str:
    """The page: it needs no network, and forbids itself one."""
    real = (found.real.seconds / 60, found.real.agreement.tau) if found.real else None
    drawn = figure(found.frontier, found.repeat.mean, real)
    body = (
        "<header><h1>How far to trust a score</h1>"
        f'<p class="question">{len(found.labels)} schedules, {found.seeds} seeds, {e(found.score)}</p>'
        "</header>",
        f'<section><h2>Tau against cost</h2><div id="frontier"></div>{_frontier(found)}</section>',
        f"<section><h2>The reference</h2>{_ranking(found)}</section>",
        f"<section><h2>Published orders</h2>{_published(found)}</section>",
        f'<script>Plotly.newPlot("frontier", Object.assign({in_script(drawn.to_json() or "")}, '
        f"{{config: {in_script(json.dumps(CONFIG))}}}))</script>",
    )
    return document("How far to trust a score", body)


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
