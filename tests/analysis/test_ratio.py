"""The ratio curve: realised counts, the same mixers on one line, and nothing where no ratio varies."""

from __future__ import annotations

import polars as pl

from analysis import ratio
from analysis.stats import Ranking, rank
from analysis.tables import Board, board

from .factory import make_frame


def layered(**stacks: tuple[str, int, str, int]) -> tuple[Board, Ranking]:
    """A board of stacks: linear mixer, how many, full mixer, how many; labels are the names."""
    frame = make_frame(tuple(stacks), tasks=("recall",), settings=1)
    parts = []
    for label, (linear, many, full, few) in stacks.items():
        strip = [f"{linear} swiglu"] * many + [f"{full} swiglu"] * few
        parts.append(
            frame.filter(pl.col("label") == label).with_columns(
                pl.lit(many, pl.Int32).alias("n_linear"),
                pl.lit(few, pl.Int32).alias("n_full"),
                pl.lit(many + few, pl.Int32).alias("depth"),
                pl.lit(strip, pl.List(pl.String)).alias("strip"),
                pl.lit(["linear"] * many + ["full"] * few, pl.List(pl.String)).alias("roles"),
            )
        )
    ranked = board(pl.concat(parts))
    ranking = rank(ranked)
    assert ranking is not None
    return ranked, ranking


STACKS = {
    "a": ("gdn", 3, "fox", 1),
    "b": ("gdn", 6, "fox", 1),
    "c": ("gdn", 3, "fox", 1),  # the same counts in another order of layers
    "d": ("gdn", 7, "", 0),
    "e": ("", 0, "fox", 5),
    "f": ("gla", 3, "fox", 1),
    "g": ("gla", 1, "", 0),
}


def test_a_line_is_one_pair_of_mixers_with_its_ends():
    ranked, ranking = layered(**STACKS)
    (line,) = ratio.lines(ranked, ranking)  # gla was tried at one ratio only
    assert line.name == "gdn + fox"
    assert [row.label for row in line.rows] == ["e", "a", "c", "b", "d"]


def test_the_labels_are_the_realised_counts_and_the_line_is_the_mean():
    ranked, ranking = layered(**STACKS)
    part = ratio.section_of(ranked, ranking)
    assert part is not None
    figure = part.figures["fig-ratio"]
    words = dict(zip(figure.layout.xaxis.ticktext, figure.layout.xaxis.tickvals, strict=True))
    assert list(words) == ["full alone<br>0 + 5", "3:1<br>3 + 1", "6:1<br>6 + 1", "no full<br>7 + 0"]
    assert sorted(words.values()) == list(words.values())
    line, points = figure.data[0], {trace.name: trace for trace in figure.data[1:]}
    scores = {row.label: row.score for row in ranking.rows}
    assert line.y[1] == (scores["a"] + scores["c"]) / 2
    assert all(points[label].y[0] == scores[label] for label in "abcde")
    assert all(trace.error_y.array[0] > 0 for trace in points.values())


def test_there_is_no_curve_where_no_ratio_varies():
    for names in ("ac", "adefg", "d"):
        ranked, ranking = layered(**{name: STACKS[name] for name in names})
        assert ratio.section_of(ranked, ranking) is None


def test_the_closer_the_ratios_the_wider_the_figure_that_a_narrow_page_scrolls():
    stacks = {name: ("gdn", many, "fox", 1) for name, many in (("a", 3), ("b", 4), ("c", 6))}
    wide = ratio._wide(ratio.lines(*layered(**stacks)))
    closer = ratio._wide(ratio.lines(*layered(**stacks, d=("gdn", 5, "fox", 1))))
    assert wide < closer <= 1040
