"""The heatmap: the same lines in the table of a page and the figure of a file, legible in every cell."""

from __future__ import annotations

import html
import re

import pytest

from analysis import heat
from analysis.stats import Ranking, rank
from analysis.tables import SCORES, Score, board

from .factory import CHANCE, make_frame

HOSTILE = "<b>x</b><script>alert(1)</script>"
LABELS = ("r=3:1", "r=4:1", HOSTILE)


def ranked(score: Score = "accuracy") -> Ranking:
    ranking = rank(board(make_frame(labels=LABELS, tasks=("recall", "noisy_recall")), score))
    assert ranking is not None
    return ranking


def cells(text: str) -> list[tuple[str, str, str]]:
    """Background, colour and content of every cell."""
    return re.findall(r'<td data-task="[^"]+" style="background:(#\w{6});color:(#\w{6})">(.*?)</td>', text)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_schedules_stand_between_ceiling_and_chance_in_the_order_of_the_ranking():
    ranking = ranked()
    lines = heat.lines(ranking)
    assert [line.label for line in lines] == ["ceiling", *(row.label for row in ranking.rows), "chance"]
    assert [line.schedule for line in lines] == [False, True, True, True, False]
    assert set(lines[0].shades) == {1.0} and set(lines[-1].shades) == {0.0}
    assert lines[-1].values == (CHANCE,) * 2
    top = lines[0].values
    for line in lines:
        shares = [(value - CHANCE) / (best - CHANCE) for value, best in zip(line.values, top, strict=True)]
        assert line.shades == pytest.approx([min(1.0, max(0.0, share)) for share in shares])


def test_fewer_steps_are_nearer_to_the_ceiling():
    *drawn, budget = heat.lines(ranked("steps"))
    assert budget.label == "budget" and set(budget.shades) == {0.0} and all(line.schedule for line in drawn)
    for line in drawn:
        spared = [1 - steps / most for steps, most in zip(line.values, budget.values, strict=True)]
        assert line.shades == pytest.approx(spared)


@pytest.mark.parametrize("score", SCORES)
def test_the_table_has_the_lines_of_the_figure(score: Score):
    ranking = ranked(score)
    text, figure = heat.table(ranking), heat.heatmap(ranking)
    names = [html.unescape(name) for name in re.findall(r'<th scope="row">(.*?)</th>', text)]
    lines = heat.lines(ranking)
    assert names == [line.label for line in lines]
    assert [row[0] for row in figure.data[0].customdata] == [html.escape(name, quote=False) for name in names]
    flat = [(line, place) for line in lines for place in range(len(ranking.tasks))]
    shown = [content.partition("<")[0] for *_, content in cells(text)]
    assert len(shown) == len(flat) and figure.layout.xaxis.type == "category"
    for (line, place), words in zip(flat, shown, strict=True):
        assert float(words) == pytest.approx(line.values[place], abs=0.5 if score == "steps" else 5e-4)
    whole = re.findall(r'<span class="range">', text)
    assert len(whole) == sum(interval is not None for line in lines for interval in line.intervals) > 0


def test_every_row_and_column_can_be_filtered_and_no_markup_of_a_label_is_left():
    ranking = ranked()
    text = heat.table(ranking)
    labels = {html.unescape(label) for label in re.findall(r'<tr data-schedule="(.*?)">', text)}
    assert labels == set(LABELS)
    for task in ranking.tasks:
        assert text.count(f'data-task="{task.task}"') == 1 + len(LABELS) + 2
    assert "<script" not in text and "<b>" not in text


def test_text_stands_out_from_every_colour():
    """By 4.5 to 1, as WCAG 2.2 asks of text (1.4.3)."""
    for step in range(101):
        line = heat.Line("x", True, (0.5,), (step / 100,), (None,))
        back, ink = heat.colours_of(line.shades[0])
        light, dark = sorted((luminance(back), luminance(ink)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (step, back, ink)
