"""Score against the ratio of linear to full-attention layers, at the counts that were realised.

A pattern that is cut at some depth has other counts than its ratio says, so that the realised ones are the
labels. Schedules of the same mixers are one line: the mean at each ratio, where several have it. A stack of
one of its mixers alone is an end of the line. Windowed layers are of neither kind: schedules that have any
are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import plotly.graph_objects as go

from analysis.fragments import Part, section, spot
from analysis.plots import DASHES, LISTED, brief, colours, room, safe, styled
from analysis.stats import Ranking, Row
from analysis.tables import Board, natural
from analysis.words import score_name, value_text

__all__ = ["Line", "figure", "lines", "section_of"]


@dataclass(frozen=True)
class Line:
    """Schedules with the same mixers, from few linear layers per full one to many.

    name: ``gdn + fox``. rows: those that mix both kinds, and the ends: stacks of one of these mixers alone.
    """

    name: str
    rows: tuple[Row, ...]


def lines(ranked: Board, ranking: Ranking) -> tuple[Line, ...]:
    """Every pair of mixers that was tried at more than one ratio, in natural order of the names."""
    of = {row["arch"]: _mixers(row["strip"], row["roles"]) for row in ranked.candidates.iter_rows(named=True)}
    plain = [row for row in ranking.rows if not row.n_window and row.n_linear + row.n_full]
    found = []
    for pair in {of[row.arch] for row in plain if row.n_linear and row.n_full}:
        mixed = [row for row in plain if of[row.arch] == pair]
        if len({_place(row) for row in mixed}) < 2:
            continue
        ends = [row for row in plain if of[row.arch] in ((pair[0], ()), ((), pair[1]))]
        rows = sorted([*mixed, *ends], key=lambda row: (_place(row), natural(row.label)))
        found.append(Line(" + ".join("/".join(side) for side in pair), tuple(rows)))
    return tuple(sorted(found, key=lambda line: natural(line.name)))


def section_of(ranked: Board, ranking: Ranking) -> Part | None:
    """The section with the curve; None where no mixers were tried at more than one ratio."""
    found = lines(ranked, ranking)
    if not found:
        return None
    bars = "Bars are 95 % intervals over seeds." if len(ranking.seeds) > 1 else "One seed: no intervals."
    note = (
        "The counts under the axis are those that were realised, linear + full layers. A line joins "
        f"schedules of the same mixers, at their mean where several have the same ratio. {bars}"
    )
    alt = f"{score_name(ranking)} by the number of linear layers per full-attention layer."
    drawn = spot("fig-ratio", "", alt, wide=_wide(found))
    return section("ratio", "By ratio", note, drawn, {"fig-ratio": figure(found, ranking)})


def figure(found: Sequence[Line], ranking: Ranking) -> go.Figure:
    """One line per pair of mixers; the axis is logarithmic in layers per full layer.

    Of a line of more than LISTED schedules the points have no names and no bars. A stack without a full layer
    stands apart at the right end.
    """
    every = {row.arch: row for line in found for row in line.rows}
    at = _across(found)
    palette = colours([line.name for line in found])
    drawn = go.Figure()
    for number, line in enumerate(found):
        _add(drawn, ranking, line, at, palette[line.name], DASHES[number % len(DASHES)])
    ticks: dict[float, Row] = {at[arch]: row for arch, row in every.items()}
    counts = {
        place: sorted({(row.n_linear, row.n_full) for row in every.values() if at[row.arch] == place})
        for place in ticks
    }
    words = [
        f"{_ratio(row)}<br>" + "<br>".join(f"{linear} + {full}" for linear, full in counts[place])
        for place, row in ticks.items()
    ]
    drawn.update_xaxes(
        title="linear layers per full-attention layer, and the counts in the stack",
        tickmode="array",
        tickangle=0,
        tickvals=list(ticks),
        ticktext=words,
    )
    drawn.update_yaxes(title=score_name(ranking))
    return styled(drawn, height=400, right=room([line.name for line in found]))


def _across(found: Sequence[Line]) -> dict[str, float]:
    """Where every schedule stands on the axis, by arch."""
    every = {row.arch: row for line in found for row in line.rows}
    finite = [_place(row) for row in every.values() if row.n_full]
    end = max(finite) + max(0.5, 0.25 * (max(finite) - min(finite)))
    return {arch: min(end, _place(row)) for arch, row in every.items()}


def _wide(found: Sequence[Line]) -> int:
    """The pixels at which the words of the ticks, some 56 wide, stand beside each other; at most a page's."""
    places = sorted(set(_across(found).values()))
    gaps = [after - before for before, after in pairwise(places)]
    beside = 70 + room([line.name for line in found])
    return min(1040, beside + round(56 * (places[-1] - places[0]) / min(gaps))) if gaps else 320


def _add(
    drawn: go.Figure,
    ranking: Ranking,
    line: Line,
    at: dict[str, float],
    colour: str,
    dash: str,
) -> None:
    """The line through the means of ``line``, and its schedules."""
    means: dict[float, list[float]] = {}
    for row in line.rows:
        means.setdefault(at[row.arch], []).append(row.score)
    x, y = list(means), [sum(scores) / len(scores) for scores in means.values()]
    style = {"color": colour, "width": 2, "dash": dash}
    drawn.add_trace(go.Scatter(x=x, y=y, mode="lines", line=style, hoverinfo="skip", name=safe(line.name)))
    if len(line.rows) > LISTED:
        drawn.add_trace(
            go.Scatter(
                x=[at[row.arch] for row in line.rows],
                y=[row.score for row in line.rows],
                text=[safe(row.label) for row in line.rows],
                mode="markers",
                marker={"color": colour, "size": 5, "opacity": 0.4},
                hovertemplate="%{text}: %{y:.3f}<extra></extra>",
            )
        )
    for row in line.rows if len(line.rows) <= LISTED else ():
        drawn.add_trace(_point(ranking, row, at[row.arch], colour))
    place = x.index(max(x))
    drawn.add_annotation(
        x=x[place],
        y=y[place],
        text=brief(line.name),
        showarrow=False,
        xanchor="left",
        xshift=8,
        font={"color": colour, "size": 12},
    )


def _point(ranking: Ranking, row: Row, x: float, colour: str) -> go.Scatter:
    low, high = row.interval or (row.score, row.score)
    error = {"array": [high - row.score], "arrayminus": [row.score - low], "color": colour, "width": 4}
    return go.Scatter(
        x=[x],
        y=[row.score],
        error_y={"type": "data", "thickness": 1.5, **error},
        mode="markers",
        marker={"color": colour, "size": 9},
        name=safe(row.label),
        meta={"schedule": safe(row.label), "colour": colour},
        hovertemplate=f"{row.n_linear} + {row.n_full}: {value_text(ranking, row.score)}",
    )


def _mixers(strip: Sequence[str], roles: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The first block of every layer by its kind: names of the linear mixers, of the full ones."""
    of = list(zip((layer.split(" ")[0] for layer in strip), roles, strict=True))
    linear, full = ({name for name, role in of if role == kind} for kind in ("linear", "full"))
    return tuple(sorted(linear)), tuple(sorted(full))


def _place(row: Row) -> float:
    """Where a schedule stands on the axis: log2 of layers per full layer, infinite without one."""
    return math.log2((row.n_linear + row.n_full) / row.n_full) if row.n_full else math.inf


def _ratio(row: Row) -> str:
    if not row.n_full:
        return "no full"
    return f"{row.n_linear / row.n_full:.3g}:1" if row.n_linear else "full alone"
