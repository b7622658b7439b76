"""What the score costs: the front of score against state at a chosen length, FLOPs and parameters.

A schedule is on the front of some axes if no other is at least as good on all of them and better on one. That
is worked out here, over every schedule with a complete round: a study's own best trials lack those that left
the race, and what a crash left out. It goes by the means; the intervals say how sure a place on the front is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from analysis.fragments import Part, e, section, spot
from analysis.plots import GRID, INK, LISTED, NAMED, brief, colours, level, room, safe, styled
from analysis.stats import Ranking, Row
from analysis.tables import Board, natural
from analysis.words import score_name, value_text

__all__ = ["Axis", "axes", "figures", "front", "nondominated", "section_of", "sentence"]

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels, down the page."""

CROWD = 16
"""So many schedules all have their names in the figure; of more, the front, the best and the cheapest."""

PALE = 0.5
"""Opacity of what is not on the front."""

TITLE = {"font": {"size": 12}, "standoff": 8}
"""Of an axis, as ``plots.styled`` has it."""

NAMES = {"state": "state", "flops": "FLOPs", "params": "parameters"}


@dataclass(frozen=True)
class Axis:
    """A cost by arch. key: for files and pages, ``state-1024``. words: as they stand in a sentence."""

    key: str
    title: str
    words: str
    cost: Mapping[str, int]


def nondominated(values: np.ndarray) -> np.ndarray:
    """Which rows no other row beats; more is better in every column. Equal rows stand or fall together.

    values: (rows, columns), finite. Returns a bool per row.
    """
    on = np.zeros(len(values), dtype=bool)
    kept = np.empty((0, values.shape[1]))
    # Best first: whoever beats a row comes before it, and one of those that beat it is on the front itself.
    for at in np.lexsort(-values.T[::-1]):
        row = values[at]
        if not ((kept >= row).all(axis=1) & (kept > row).any(axis=1)).any():
            on[at] = True
            kept = np.vstack([kept, row])
    return on


def axes(ranked: Board, ranking: Ranking) -> tuple[Axis, ...]:
    """The costs to choose from: state at the tasks' length and at every stored one, FLOPs, parameters."""
    facts = {row["arch"]: row for row in ranked.candidates.iter_rows(named=True)}
    sizes = {
        row.arch: dict(zip(facts[row.arch]["state_lengths"], facts[row.arch]["state_sizes"], strict=True))
        for row in ranking.rows
    }
    common = set.intersection(*(set(of) for of in sizes.values()))
    return (
        Axis(
            "state",
            "state at the tasks' length, scalars",
            "state at the length of the tasks",
            {row.arch: row.state for row in ranking.rows},
        ),
        *(
            Axis(
                f"state-{length}",
                f"state after {length:,} tokens, scalars",
                f"state after {length:,} tokens",
                {arch: of[length] for arch, of in sizes.items()},
            )
            for length in sorted(common)
        ),
        Axis(
            "flops",
            "forward FLOPs per token",
            "FLOPs per token",
            {row.arch: row.flops for row in ranking.rows},
        ),
        Axis("params", "parameters", "parameters", {row.arch: row.params for row in ranking.rows}),
    )


def front(ranking: Ranking, costs: Sequence[Mapping[str, int]]) -> tuple[Row, ...]:
    """The schedules on the front of the score and ``costs`` (by arch), the cheapest first."""
    sign = -1.0 if ranking.score == "steps" else 1.0
    values = [[sign * row.score, *(-float(cost[row.arch]) for cost in costs)] for row in ranking.rows]
    on = [row for row, is_on in zip(ranking.rows, nondominated(np.array(values)), strict=True) if is_on]
    return tuple(sorted(on, key=lambda row: ([cost[row.arch] for cost in costs], natural(row.label))))


def sentence(ranking: Ranking | None, objectives: Sequence[str]) -> str:
    """The front of what a recipe weighs, in words; empty where that is the score alone."""
    weighed = [name for name in objectives if name != "score"]
    if ranking is None or not weighed:
        return ""
    costs = [{row.arch: getattr(row, name) for row in ranking.rows} for name in weighed]
    on = front(ranking, costs)
    named = ", ".join(row.label for row in on[:LISTED])
    more = f" and {len(on) - LISTED:,} more" if len(on) > LISTED else ""
    what = " and ".join((", ".join(["score", *(NAMES[name] for name in weighed[:-1])]), NAMES[weighed[-1]]))
    return (
        f"On the front of {what}, of {len(ranking.rows):,} {_schedules(ranking)}, the cheapest first: "
        f"{named}{more}."
    )


def _schedules(ranking: Ranking) -> str:
    return "schedule" if len(ranking.rows) == 1 else "schedules"


def section_of(ranked: Board, ranking: Ranking, objectives: Sequence[str] = ()) -> Part:
    """The figure with a choice of its cost axis; at first the first cost that the recipe weighs, or state."""
    every = axes(ranked, ranking)
    wanted = next((name for name in objectives if name != "score"), "state")
    fronts = _fronts(ranking, every)
    captions = {axis.key: _caption(fronts[axis.key], axis) for axis in every}
    drawn = _drawn(ranking, next(axis for axis in every if axis.key == wanted), fronts)
    choices = [_choice(ranking, axis, fronts) | {"caption": captions[axis.key]} for axis in every]
    drawn.update_layout(meta={"axes": choices})
    options = "".join(
        f'<option value="{axis.key}"{" selected" if axis.key == wanted else ""}>{e(axis.words)}</option>'
        for axis in every
    )
    chooser = f'<label class="choose">Cost <select data-axis-of="fig-front">{options}</select></label>'
    caption = f'<p class="note" data-caption-of="fig-front">{e(captions[wanted])}</p>'
    alt = f"{score_name(ranking)} of each schedule against its cost, the front as a dotted line."
    bars = "Bars are 95 % intervals over seeds." if len(ranking.seeds) > 1 else "One seed: no intervals."
    ring = " The ring marks the cheapest that is shown to be within the margin." if ranking.cheapest else ""
    lost = len(ranking.waiting)
    without = f" Without a complete round, so not drawn: {lost:,}." if lost else ""
    few = " Of so many, those on the front are named." if len(ranking.rows) > CROWD else ""
    note = f"Pale: another scores no less and costs no more. {bars}{ring}{few}{without}"
    inner = f"{chooser}{spot('fig-front', '', alt, wide=560 if len(ranking.rows) > NAMED else 0)}{caption}"
    return section("front", "Score against cost", note, inner, {"fig-front": drawn})


def figures(ranked: Board, ranking: Ranking) -> dict[str, go.Figure]:
    """Score against every cost, with intervals over seeds, by names for files: ``front-state-1024``.

    A dotted line joins the front; the rest is pale. A ring marks the cheapest candidate that is shown to be
    within the margin of the best, a dashed line the margin itself. The axis is logarithmic when the costs
    span more than a factor of four. Of more than LISTED candidates all but the first NAMED, the cheapest and
    those on a front are grey dots in one trace.
    """
    every = axes(ranked, ranking)
    fronts = _fronts(ranking, every)
    return {f"front-{axis.key}": _drawn(ranking, axis, fronts) for axis in every}


def _fronts(ranking: Ranking, every: Sequence[Axis]) -> dict[str, tuple[Row, ...]]:
    return {axis.key: front(ranking, [axis.cost]) for axis in every}


def _caption(on: Sequence[Row], axis: Axis) -> str:
    named = ", ".join(row.label for row in on[:LISTED]) + (", ..." if len(on) > LISTED else "")
    return f"On the front of score and {axis.words}, the cheapest first: {named}."


def _choice(ranking: Ranking, axis: Axis, fronts: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """What a page changes in the figure when its reader chooses ``axis``: per trace, and of the axis."""
    own, rest = _split(ranking, fronts)
    on = fronts[axis.key]
    on_it = {row.arch for row in on}
    dots = [{"x": [axis.cost[row.arch] for row in rest]}] if rest else []
    beside = _beside(ranking, _worded(ranking, own, on), axis)
    points = [
        {
            "x": [axis.cost[row.arch]],
            "opacity": 1.0 if row.arch in on_it else PALE,
            "mode": "markers+text" if row.arch in beside else "markers",
            "textposition": beside.get(row.arch, "bottom right"),
        }
        for row in own
    ]
    line = {"x": [axis.cost[row.arch] for row in on], "y": [row.score for row in on]}
    scale = _scale(axis)
    xaxis = {"type": scale.get("type", "linear"), "dtick": scale.get("dtick")}
    title = {"text": axis.title, **TITLE}
    return {"key": axis.key, "traces": [line, *dots, *points], "xaxis": {"title": title, **xaxis}}


def _scale(axis: Axis) -> dict[str, Any]:
    """Logarithmic where the costs span more than a factor of four."""
    costs = list(axis.cost.values())
    return {"type": "log", "dtick": "D2"} if min(costs) > 0 and max(costs) > 4 * min(costs) else {}


def _split(ranking: Ranking, fronts: Mapping[str, Sequence[Row]]) -> tuple[list[Row], list[Row]]:
    """Who is drawn with a name, in natural order, and the rest: dots."""
    many = NAMED if len(ranking.rows) > LISTED else LISTED
    named = {row.arch for rows in fronts.values() for row in rows}
    named |= {row.arch for row in ranking.rows[:many]}
    named |= {row.arch for row in ranking.rows if row.label == ranking.cheapest}
    own = sorted((row for row in ranking.rows if row.arch in named), key=lambda row: natural(row.label))
    return own, [row for row in ranking.rows if row.arch not in named]


def _drawn(ranking: Ranking, axis: Axis, fronts: Mapping[str, Sequence[Row]]) -> go.Figure:
    own, rest = _split(ranking, fronts)
    on = fronts[axis.key]
    on_it = {row.arch for row in on}
    palette = colours([row.label for row in own])
    drawn = go.Figure(_line(on, axis))
    if rest:
        drawn.add_trace(_dots(ranking, rest, axis))
    beside = _beside(ranking, _worded(ranking, own, on), axis)
    for row in own:
        point = _point(ranking, row, axis, palette[row.label], row.arch in on_it)
        mode = "markers+text" if row.arch in beside else "markers"
        drawn.add_trace(point.update(mode=mode, textposition=beside.get(row.arch, "bottom right")))
    if len(ranking.rows) > 1:
        level(drawn, _level(ranking), "best less the margin")
    drawn.update_xaxes(title=axis.title, tickformat="~s", **_scale(axis))
    drawn.update_yaxes(title=score_name(ranking))
    return styled(drawn, height=440, right=room([row.label for row in own]))


def _line(on: Sequence[Row], axis: Axis) -> go.Scatter:
    """The best score at no more than each cost: steps from point to point of the front."""
    return go.Scatter(
        x=[axis.cost[row.arch] for row in on],
        y=[row.score for row in on],
        mode="lines",
        line={"color": INK, "width": 1.5, "dash": "dot", "shape": "hv"},
        hoverinfo="skip",
    )


def _worded(ranking: Ranking, own: Sequence[Row], on: Sequence[Row]) -> list[Row]:
    """Whose names are written in the figure of a front ``on``."""
    if len(ranking.rows) <= CROWD:
        return list(own)
    named = {row.label for row in on} | {ranking.best.label, ranking.cheapest}
    return [row for row in own if row.label in named]


def _level(ranking: Ranking) -> float:
    """The score that is the margin behind the best."""
    return ranking.best.score + (1 if ranking.score == "steps" else -1) * ranking.margin


def _beside(ranking: Ranking, own: Sequence[Row], axis: Axis) -> dict[str, str]:
    """At which corner of its point each name covers least of the points, bars and names before it, by arch.

    Reckoned in pixels of a page 800 wide; a name is some seven a letter.
    """
    logarithmic = _scale(axis).get("type") == "log"
    costs = {row.arch: math.log(axis.cost[row.arch]) if logarithmic else axis.cost[row.arch] for row in own}
    spans = [row.interval or (row.score, row.score) for row in own]
    low, high = min(span[0] for span in spans), max(span[1] for span in spans)
    least, most = min(costs.values()), max(costs.values())
    x = {arch: 800 * (cost - least) / ((most - least) or 1) for arch, cost in costs.items()}

    def y(score: float) -> float:
        return 360 * (high - score) / ((high - low) or 1)

    taken = [
        (x[row.arch] - 6, min(y(top), y(row.score) - 6), x[row.arch] + 6, max(y(bottom), y(row.score) + 6))
        for row, (bottom, top) in zip(own, spans, strict=True)
    ]
    margin = y(_level(ranking))
    taken.append((0, margin - 4, 1000, margin + 4))
    found: dict[str, str] = {}
    for row in own:
        wide, middle, height = 7 * len(brief(row.label)), x[row.arch], y(row.score)
        corners = {
            f"{side} {hand}": (
                middle + (7 if hand == "right" else -7 - wide),
                height + (3 if side == "bottom" else -17),
                middle + (7 + wide if hand == "right" else -7),
                height + (17 if side == "bottom" else -3),
            )
            for hand in ("right", "left")
            for side in ("bottom", "top")
        }
        covered = {place: sum(_common(box, one) for one in taken) for place, box in corners.items()}
        outside = {place: max(0.0, -box[0]) * 14 for place, box in corners.items()}
        best = min(corners, key=lambda place: covered[place] + outside[place])
        taken.append(corners[best])
        found[row.arch] = best
    return found


def _common(one: Box, other: Box) -> float:
    """The area that two boxes (left, top, right, bottom) have in common."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    tall = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, tall)


def _point(ranking: Ranking, row: Row, axis: Axis, colour: str, is_on: bool) -> go.Scatter:
    low, high = row.interval or (row.score, row.score)
    ring = row.label == ranking.cheapest
    return go.Scatter(
        x=[axis.cost[row.arch]],
        y=[row.score],
        error_y={
            "type": "data",
            "array": [high - row.score],
            "arrayminus": [row.score - low],
            "color": colour,
            "thickness": 1.5,
            "width": 4,
        },
        text=[brief(row.label)],
        textfont={"color": colour, "size": 12},
        marker={
            "color": colour,
            "size": 16 if ring else 10,
            "symbol": "circle-dot" if ring else "circle",
            "line": {"color": INK, "width": 2.5 if ring else 0},
        },
        opacity=1.0 if is_on else PALE,
        name=safe(row.label),
        meta={"schedule": safe(row.label), "colour": colour},
        hovertemplate=f"%{{x:,}}: {value_text(ranking, row.score)}",
        cliponaxis=False,
    )


def _dots(ranking: Ranking, rows: Sequence[Row], axis: Axis) -> go.Scatter:
    """Many candidates as grey dots without names; hovering gives them."""
    return go.Scatter(
        x=[axis.cost[row.arch] for row in rows],
        y=[row.score for row in rows],
        text=[f"{safe(row.label)}: {value_text(ranking, row.score)}" for row in rows],
        mode="markers",
        marker={"color": GRID, "size": 6},
        hovertemplate="%{text}, %{x:,}<extra></extra>",
    )
