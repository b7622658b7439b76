"""An ablation as a figure: a row for every part, its effects in the whole and alone, and its cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
COLUMN = 82
"""Width of a column of costs, in pixels: of ``parameters``, its widest heading, and what sets it apart."""


def figure(found: Ablation, costs: Sequence[Mapping[str, str]]) -> go.Figure:
    """Dots with 95 % intervals around a line at 0; right of it a part helps. The first part is on top.

    costs: of each part heading -> words, the same headings for all; they stand in columns at the right.
    """
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
    headings = list(costs[0])
    for number, heading in enumerate(headings, 1):
        _write(drawn, number, heading, y=1, yref="paper", yanchor="bottom")
        for row, words in enumerate(costs):
            _write(drawn, number, words[heading], y=row, yref="y", yanchor="middle")
    styled(drawn, AROUND + ROW * len(names), right=20 + COLUMN * len(headings))
    drawn.update_layout(showlegend=True, legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"})
    title = "steps saved by the part" if found.score == "steps" else f"points of {found.score} from the part"
    drawn.update_xaxes(title_text=title, zeroline=False)
    drawn.update_yaxes(
        tickvals=list(range(len(names))), ticktext=names, range=[len(names) - 0.5, -0.5], automargin=True
    )
    return drawn


def _write(drawn: go.Figure, column: int, text: str, **place: object) -> None:
    """Words that end where the column does, which is counted from 1 and stands right of the axes."""
    right = {"x": 1, "xref": "paper", "xanchor": "right", "xshift": COLUMN * column}
    drawn.add_annotation(text=safe(text), showarrow=False, font_size=12, **right, **place)


def _reach(effect: Effect, side: int) -> float:
    """How far the interval reaches from the mean to one side."""
    return 0.0 if effect.interval is None else abs(effect.interval[side] - effect.mean)
