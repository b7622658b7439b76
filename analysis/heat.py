"""Scores of schedules by tasks in colour: a table in a page, a figure in a file.

In a page it is a table: there with the words, before anything is drawn; read out to who does not see it; and
sifted like every other table.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import plotly.graph_objects as go

from analysis.fragments import e
from analysis.plots import INK, as_hex, brief, mix, safe, styled
from analysis.stats import Ranking
from analysis.words import value_text

__all__ = ["Line", "colours_of", "heatmap", "lines", "table"]

HEAT = ((38, 52, 100), (124, 123, 120), (243, 220, 75))


@dataclass(frozen=True)
class Line:
    """A line of the heatmap: a schedule, or what no schedule can pass (``schedule`` is False).

    values: the score on each task. shades: where each stands between chance (0) and ceiling (1) of its task,
    so that columns compare; for steps the share of the budget that was not needed. intervals: over seeds.
    """

    label: str
    schedule: bool
    values: tuple[float, ...]
    shades: tuple[float, ...]
    intervals: tuple[tuple[float, float] | None, ...]


def lines(ranking: Ranking) -> list[Line]:
    """Schedules, best on top, between the possible (ceiling) and luck (chance), or above the budget."""
    tasks = ranking.tasks
    none = (None,) * len(tasks)
    if ranking.score == "steps":
        best, worst = [0.0] * len(tasks), [task.budget for task in tasks]
        over, under = [], [Line("budget", False, tuple(worst), (0.0,) * len(tasks), none)]
    else:
        best, worst = [task.ceiling for task in tasks], [task.chance for task in tasks]
        over = [Line("ceiling", False, tuple(best), (1.0,) * len(tasks), none)]
        under = [Line("chance", False, tuple(worst), (0.0,) * len(tasks), none)]
    drawn = []
    for row in ranking.rows:
        scores = [row.tasks[task.task] for task in tasks]
        values = tuple(score.mean for score in scores)
        shades = tuple(_place(*ends) for ends in zip(values, worst, best, strict=True))
        drawn.append(Line(row.label, True, values, shades, tuple(score.interval() for score in scores)))
    return [*over, *drawn, *under]


def table(ranking: Ranking) -> str:
    """The heatmap as HTML; what is about one schedule or one task says so, and a page can filter by it."""
    tasks = [task.task for task in ranking.tasks]
    # A long name may break at its underscores.
    names = [e(task).replace("_", "_<wbr>") for task in tasks]
    head = "".join(
        f'<th scope="col" data-task="{e(task)}">{name}</th>' for task, name in zip(tasks, names, strict=True)
    )
    body = ""
    for line in lines(ranking):
        each = zip(tasks, line.values, line.shades, line.intervals, strict=True)
        cells = "".join(_cell(ranking, *one) for one in each)
        about = f' data-schedule="{e(line.label)}"' if line.schedule else ' class="edge"'
        body += f'<tr{about}><th scope="row">{e(line.label)}</th>{cells}</tr>\n'
    top = f'<thead><tr><th scope="col">schedule</th>{head}</tr></thead>'
    return f'<div class="scroll"><table class="heat">{top}<tbody>\n{body}</tbody></table></div>'


def heatmap(ranking: Ranking) -> go.Figure:
    """The heatmap as a figure; its text is the score."""
    drawn = lines(ranking)
    rows = range(len(drawn))
    columns = [safe(task.task).replace("_", "<br>") for task in ranking.tasks]
    texts = [[value_text(ranking, value) for value in line.values] for line in drawn]
    figure = go.Figure(
        go.Heatmap(
            z=[line.shades for line in drawn],
            x=columns,
            y=list(rows),
            text=texts,
            customdata=[[safe(line.label)] * len(columns) for line in drawn],
            hovertemplate="%{customdata}, %{x}: %{text}<extra></extra>",
            zmin=0,
            zmax=1,
            colorscale=[[0.5 * place, as_hex(colour)] for place, colour in enumerate(HEAT)],
            showscale=False,
            xgap=2,
            ygap=2,
        )
    )
    spots = [(x, y) for y in rows for x in range(len(columns))]
    figure.add_trace(
        go.Scatter(
            x=[columns[x] for x, _ in spots],
            y=[y for _, y in spots],
            text=[texts[y][x] for x, y in spots],
            textfont={"color": [colours_of(drawn[y].shades[x])[1] for x, y in spots], "size": 13},
            mode="text",
            hoverinfo="skip",
        )
    )
    figure.update_xaxes(type="category", side="top", showgrid=False)
    figure.update_yaxes(
        tickmode="array",
        tickvals=list(rows),
        ticktext=[brief(line.label) for line in drawn],
        autorange="reversed",
        showgrid=False,
        zeroline=False,
    )
    for y, (above, below) in enumerate(pairwise(drawn)):
        if above.schedule != below.schedule:
            figure.add_hline(y=y + 0.5, line={"color": INK, "width": 1.5})
    # The button that keeps a figure stands in the corner above the last column's name.
    top = 36 + 17 * max(column.count("<br>") + 1 for column in columns)
    styled(figure, height=top + 44 + 34 * len(drawn))
    return figure.update_layout(margin_t=top)


def colours_of(shade: float) -> tuple[str, str]:
    """Of a cell and of its text: black or white, whichever stands out more (WCAG 2.2, relative luminance)."""
    colour = mix(HEAT, shade)
    linear = [((part / 255 + 0.055) / 1.055) ** 2.4 for part in colour]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return as_hex(colour), "#ffffff" if luminance < 0.179 else "#000000"


def _cell(
    ranking: Ranking, task: str, value: float, shade: float, interval: tuple[float, float] | None
) -> str:
    back, ink = colours_of(shade)
    words = value_text(ranking, value, 3)
    if interval:
        words += (
            f'<span class="range">{" to ".join(value_text(ranking, edge, 3) for edge in interval)}</span>'
        )
    return f'<td data-task="{e(task)}" style="background:{back};color:{ink}">{words}</td>'


def _place(value: float, worst: float, best: float) -> float:
    """Where a value stands between the two, from 0 to 1; where they are one, at the end."""
    return min(1.0, max(0.0, (value - worst) / (best - worst))) if best != worst else 1.0
