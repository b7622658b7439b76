"""Figures are pure, marked with chance and ceiling, and readable by anyone on any page."""

from __future__ import annotations

import itertools
import json

import plotly.graph_objects as go
import pytest

from analysis import front, plots
from analysis.heat import heatmap
from analysis.stats import rank
from analysis.tables import SCORES, board, curves, positions

from .factory import make_frame

FRAME = make_frame(labels=("r=3:1", "r=4:1", "r=10:1"), tasks=("recall", "noisy_recall"))
HOSTILE = "<b>x</b><script>alert(1)</script><a href='http://evil.example'>%{x}</a>"


def figures(frame, score="accuracy") -> list[go.Figure]:
    ranked = board(frame, score)
    ranking = rank(ranked)
    assert ranking is not None
    found = [heatmap(ranking), *front.figures(ranked, ranking).values()]
    for task in ranked.tasks["task"].to_list():
        found.append(plots.learning_curve(curves(frame, ranked), ranked, task, ranked.labels))
        found.append(plots.by_position(positions(ranked), ranked, task, ranked.labels))
    return found


def strings(value) -> list[str]:
    if isinstance(value, dict):
        return [text for part in value.values() for text in strings(part)]
    if isinstance(value, list | tuple):
        return [text for part in value for text in strings(part)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("score", SCORES)
def test_every_figure_holds_every_label_and_draws_no_backdrop(score):
    for figure in figures(FRAME, score):
        texts = " ".join(strings(json.loads(figure.to_json() or "")["data"]))
        texts += " ".join(strings(json.loads(figure.to_json() or "")["layout"]))
        assert all(label in texts for label in ("r=3:1", "r=4:1", "r=10:1"))
        assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0,0,0,0)"
        assert figure.layout.width is None  # as wide as the page


@pytest.mark.parametrize("score", SCORES)
def test_no_markup_of_a_label_reaches_a_figure(score):
    for figure in figures(make_frame(labels=("r=3", HOSTILE), tasks=("recall", "t<i>x</i>")), score):
        parsed = json.loads(figure.to_json() or "")
        texts = strings(parsed["data"]) + strings(parsed["layout"])
        for bad in ("<script", "<a ", "<b>", "<i>"):
            assert not [text for text in texts if bad in text], bad


def test_labels_of_one_number_are_on_a_ramp_in_order_of_the_number():
    ramp = plots.colours(["r=10:1", "r=3:1", "r=4:1"])
    assert list(ramp) == ["r=3:1", "r=4:1", "r=10:1"]
    blue = [int(colour[5:7], 16) for colour in ramp.values()]
    assert blue == sorted(blue, reverse=True) and len(set(blue)) == 3
    assert set(plots.colours(["gdn", "gla"]).values()) <= set(plots.OKABE_ITO)


def test_line_colours_can_be_seen_on_white_and_on_black():
    for labels in (["r=3", "r=4", "r=5", "r=6"], [f"name {word}" for word in "abcdefghijklmn"]):
        for colour in plots.colours(labels).values():
            red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
            light = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
            assert len(set(plots.colours(labels).values())) == len(labels)
            assert 1.05 / (light + 0.05) > 1.9 and (light + 0.05) / 0.05 > 3, colour


def test_a_long_label_keeps_its_ends():
    shown = {plots.brief(f"p=3*g + f, m=sparse(k_ratio=k), d={d}, w={w}") for d in (4, 8) for w in (32, 64)}
    assert len(shown) == 4 and all(len(one) == plots.LONGEST and one.startswith("p=3*g + f") for one in shown)


def test_end_labels_keep_their_order_and_their_distance():
    wanted = [(0.5, "a"), (0.51, "b"), (0.5, "c"), (0.99, "d"), (1.0, "e"), (0.1, "f")]
    placed = plots._apart(wanted, 0.075)
    heights = [at for at, _ in placed]
    assert [label for _, label in placed] == ["f", "a", "c", "b", "d", "e"]
    assert all(high - low >= 0.075 - 1e-9 for low, high in itertools.pairwise(heights))
    assert max(heights) <= 1.03 + 1e-9


def test_candidates_that_are_not_named_are_grey_and_unlabelled():
    ranked = board(FRAME)
    figure = plots.learning_curve(curves(FRAME, ranked), ranked, "recall", ["r=3:1"])
    grey = [trace.name for trace in figure.data if trace.line.color == plots.GRID]
    assert grey == ["r=4:1", "r=10:1"]
    assert "r=4:1" not in [note.text for note in figure.layout.annotations]
