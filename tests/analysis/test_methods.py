"""The methods paragraph tells what the runs were, and changes with them."""

import polars as pl
import pytest

from analysis.methods import paragraph
from analysis.stats import rank
from analysis.tables import board
from sweeps.results import Results
from tests.analysis.factory import make_frame

FRAME = make_frame(seeds=range(3))


def told(frame: pl.DataFrame, score: str = "accuracy", margin: float = 0.02) -> str:
    ranking = rank(board(frame, score), margin)
    assert ranking is not None
    return paragraph(Results(frame, "", {}, (), ()), ranking)


def test_every_figure_is_that_of_the_runs():
    text, ends = told(FRAME), FRAME.filter("final")
    for what in (
        f"{ends['label'].n_unique()} schedules of {ends['depth'][0]} layers",
        f"width {ends['dim'][0]}",
        f"at most {ends['steps'][0]} steps of {ends['batch'][0]} sequences",
        f"{ends.height:,} runs",
        "over 3 seeds",
        "within 2 points",
        str(ends["torch"][0]),
        *ends["task"].unique().to_list(),
    ):
        assert what in text, what


@pytest.mark.parametrize(
    "change",
    [
        pl.col("steps") + 7,
        pl.col("batch") + 3,
        pl.col("dim") * 2,
        pl.col("depth") + 1,
        pl.lit("bf16").alias("precision"),
        pl.lit("another machine").alias("machine"),
        pl.col("lr") * 3,
        pl.col("weight_decay") + 0.5,
    ],
)
def test_what_was_done_otherwise_is_told_otherwise(change):
    assert told(FRAME.with_columns(change.cast(FRAME.schema[change.meta.output_name()]))) != told(FRAME)


def test_score_and_margin_are_those_of_the_recipe():
    assert "area under the learning curve" in told(FRAME, "auc")
    assert "within 5 points" in told(FRAME, margin=0.05)


def test_runs_of_an_older_schema_are_told_without_what_they_lack():
    lacking = FRAME.with_columns(precision=pl.lit(None, pl.String))
    assert "(fp32)" in told(lacking)
