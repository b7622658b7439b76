"""An ablation as a figure: a row for every part, its effect in the whole and alone, with intervals."""

from __future__ import annotations

import plotly.graph_objects as go

from analysis.ablation import Ablation, Effect
from analysis.plots import INK, safe, styled

__all__ = ["figure"]

PLACES = (
    ("left out of all", "in_full", "#0072b2", "circle"),
    ("added to none", "alone", "#d55e00", "diamond"),
)
ROW, AROUND = 34, 120
"""Height of a part, and of everything else, in pixels."""


def figure(found: Ablation) -> go.Figure:
    """Dots with 95 % intervals around a line at 0; right of it a part helps. The first part is on top."""
    names = [safe(one.part) for one in found.worth]
    unit = 1.0 if found.score == "steps" else 100.0
    drawn = go.Figure()
    drawn.add_vline(x=0, line={"color": INK, "width": 1})
    for number, (name, place, colour, symbol) in enumerate(PLACES):
        effects: list[Effect | None] = [getattr(one, place) for one in found.worth]
        there = [(row, effect) for row, effect in enumerate(effects) if effect is not None]
        offset = 0.14 * (2 * number - 1)
        drawn.add_trace(
            go.Scatter(
                x=[unit * effect.mean for _, effect in there],
                y=[row + offset for row, _ in there],
                mode="markers",
                name=name,
                marker={"color": colour, "symbol": symbol, "size": 9},
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [_reach(effect, 1) * unit for _, effect in there],
                    "arrayminus": [_reach(effect, 0) * unit for _, effect in there],
                    "color": colour,
                    "thickness": 1.5,
                    "width": 0,
                },
                hovertext=[f"{names[row]}: {unit * effect.mean:+.1f}" for row, effect in there],
                hoverinfo="text",
            )
        )
    styled(drawn, AROUND + ROW * len(names), right=20)
    drawn.update_layout(showlegend=True, legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"})
    title = "steps saved by the part" if found.score == "steps" else f"points of {found.score} from the part"
    drawn.update_xaxes(title_text=title, zeroline=False)
    drawn.update_yaxes(
        tickvals=list(range(len(names))), ticktext=names, range=[len(names) - 0.5, -0.5], automargin=True
    )
    return drawn


def _reach(effect: Effect, side: int) -> float:
    """How far the interval reaches from the mean to one side."""
    return 0.0 if effect.interval is None else abs(effect.interval[side] - effect.mean)
