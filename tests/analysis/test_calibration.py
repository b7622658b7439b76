"""The whole answer on a small reference: published rows, the recommended point, the figure, the page."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from analysis.calibration import MAD_SECONDS, Real, calibrate
from analysis.panel import PanelError, panel
from analysis.published import CLAIMS, FIGURES, Claim, hold
from analysis.trust import CHOSEN, figure, render, share_text

from .factory import CHANCE, STEPS, make_frame, make_panel

LABELS = ("attn", "gdn", "gla", "r=3:1", "r=4:1", "r=6:1")
ENDS = dict(zip(LABELS, (0.85, 0.75, 0.4, 0.7, 0.65, 0.5), strict=True))


def curve(label, task, seed, lr):
    rng = np.random.default_rng([*(label + task).encode(), seed, round(1e6 * lr)])
    end = ENDS[label] + 0.02 * rng.standard_normal()
    return [CHANCE + (end - CHANCE) * step / STEPS[-1] for step in STEPS]


def with_strips(frame: pl.DataFrame) -> pl.DataFrame:
    """The single mixers in all of their layers, the others as hybrids."""
    single = pl.col("label").is_in(["attn", "gdn", "gla"])
    layer = pl.concat_str(pl.col("label"), pl.lit(" swiglu")).repeat_by(pl.col("roles").list.len())
    return frame.with_columns(pl.when(single).then(layer).otherwise("strip").alias("strip"))


def reference(seeds=4):
    return with_strips(
        make_frame(LABELS, ("recall", "compression"), range(seeds), (1e-3, 2e-3), settings=1, curve=curve)
    )


@pytest.fixture(scope="module")
def found():
    return calibrate(reference(), close=("r=3:1", "r=4:1", "r=6:1"), budget=60.0, draws=50, halves=3)


def test_the_answer_holds_together(found):
    assert [row.label for row in found.ranking] == sorted(LABELS, key=lambda label: -ENDS[label])
    # Each run takes 10 s: 2 cells, 4 seeds, 2 rates.
    assert found.reference_seconds == pytest.approx(160.0)
    costs = [point.choice.seconds for point in found.frontier]
    assert costs == sorted(costs) and max(costs) <= 160.0
    assert found.chosen in found.frontier and found.chosen.choice.seconds <= 60.0
    assert found.honesty is not None and found.honesty.trials == 10_000
    assert found.dealt is not None and found.dealt.trials == 6 and found.dealt.seeds == 2
    assert [pair[:2] for pair in found.apart] == [("r=3:1", "r=4:1"), ("r=4:1", "r=6:1")]
    assert found.ceiling.order > 0.8 and found.repeat.mean > 0.6 and found.real is None


def test_the_same_frame_gives_the_same_answer(found):
    again = calibrate(reference(), close=("r=3:1", "r=4:1", "r=6:1"), budget=60.0, draws=50, halves=3)
    assert again.frontier == found.frontier and again.ranking == found.ranking


def test_nothing_is_recommended_that_exceeds_the_budget():
    found = calibrate(reference(), budget=1.0, draws=20, halves=0)
    assert found.frontier and found.chosen is None and found.apart == ()


def test_real_runs_are_scored_from_a_second_frame():
    later = make_frame(LABELS[::-1][:5], ("recall",), (7, 8, 9), (1e-3,), settings=1, curve=curve)
    found = calibrate(reference(), later, close=("r=3:1", "r=6:1"), draws=50, halves=0)
    assert found.real is not None and found.real.close is not None
    assert set(found.real.labels) == set(LABELS) - {"attn"}
    assert found.real.seconds == pytest.approx(30.0)
    assert found.real.agreement.order == 1 and found.real.agreement.pairs == 10
    with pytest.raises(PanelError, match="1 of them are in the reference"):
        calibrate(
            reference(), later.with_columns(pl.concat_str("label", pl.lit("?")).alias("label")).with_columns(
                pl.when(pl.col("label") == "gdn?").then(pl.lit("gdn")).otherwise("label").alias("label")
            ), halves=0,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "call"),
    [
        ("3 schedules .* 4 are needed", lambda f: calibrate(f.filter(pl.col("label").str.contains("r=")))),
        ("at 2 seeds", lambda f: calibrate(f.filter(pl.col("seed") == 0))),
        ("no schedule 'r=9'", lambda f: calibrate(f, close=("r=9", "gdn"))),
        ("name two or more", lambda f: calibrate(f, close=("gdn",))),
        ("above 0", lambda f: calibrate(f, budget=0.0)),
    ],
)
def test_bad_input_is_one_sentence(words, call):
    with pytest.raises(PanelError, match=words):
        call(reference())


def verdicts(frame, claims=CLAIMS):
    return {held.claim: held for held in hold(panel(frame, "accuracy"), claims)}


def test_published_rows_say_what_the_runs_say():
    held = verdicts(reference(6))
    by = {(c.above, c.below, c.tasks): one for c, one in held.items()}
    assert by["attn", "gla", ("compression",)].verdict == "agrees"
    assert "+4" in by["attn", "gla", ("compression",)].found
    assert by["gdn", "attn", ("recall",)].verdict == "disagrees"
    assert by["gdn", None, ("recall",)].verdict == "disagrees"  # 0.75 is not 0.99
    assert by["attn", "gla", ("copying",)].verdict == "not covered"
    assert by["attn", "ttt", ("compression", "fuzzy_recall")].verdict == "not covered"
    hybrids = verdicts(reference(6).filter(pl.col("label") != "gdn"))
    assert {held.verdict for claim, held in hybrids.items() if claim.above == "gdn"} == {"not covered"}
    # Below softmax on one of two tasks is enough, and one task is not enough to refute it.
    assert by["attn", "gla", ("compression", "fuzzy_recall")].verdict == "agrees"
    either = Claim("", "gla", "attn", ("compression", "fuzzy_recall"))
    assert verdicts(reference(6), [either])[either].verdict == "cannot tell"
    both = Claim("", "gla", "attn", ("compression", "recall"))
    assert verdicts(reference(6), [both])[both].verdict == "disagrees"


def test_equal_schedules_cannot_be_told_apart_by_a_published_row():
    made = replace(
        make_panel([[0.1, 0.1]] * 2, [0.0] * 2, 5, np.random.default_rng(5), tasks=["recall", "compression"]),
        kinds={"s00": (frozenset({"attn"}), frozenset()), "s01": (frozenset({"gla"}), frozenset())},
    )
    claims = [claim for claim in CLAIMS if (claim.above, claim.below) == ("attn", "gla")]
    assert {held.verdict for held in hold(made, claims)} == {"cannot tell", "not covered"}


def test_claims_are_those_of_the_published_figures():
    for claim in CLAIMS:
        if claim.below in FIGURES and len(claim.tasks) == 1:
            above, below = FIGURES[claim.above][claim.tasks[0]], FIGURES[claim.below][claim.tasks[0]]
            assert above[0] > below[0]
            assert claim.open == (min(above) - max(below) < 3)
    assert sum(claim.open for claim in CLAIMS) == 3
    assert len(CLAIMS) == 18 + 1 + 4


def test_the_figure_holds_the_points_and_the_page_needs_no_network(found):
    agreement = found.frontier[0].agreement
    drawn = figure(replace(found, real=Real(agreement, None, 6000.0, LABELS, 0)))
    traces = {trace.name.partition(" (")[0]: trace for trace in drawn.data if trace.name}
    assert list(traces) == [
        "the reference with itself",
        "target: tau 0.9 within 1 CPU-minutes",
        "close schedules",
        "held-out half",
        "chosen on all schedules",
        "real runs",
    ]
    chosen, held = traces["chosen on all schedules"], traces["held-out half"]
    assert list(chosen.y) == [point.agreement.tau for point in found.frontier]
    assert list(held.y) == [point.held_out.mean for point in found.frontier]
    assert max(chosen.error_y.array) > 0
    assert [tau + up for tau, up in zip(held.y, held.error_y.array, strict=True)] == pytest.approx(
        [point.held_out.interval[1] for point in found.frontier]
    )
    band, corner = traces["the reference with itself"], list(drawn.data[2].x)
    assert (max(band.y), min(band.y)) == found.repeat.interval[::-1] and corner[1:] == [1.0, 1.0]
    # The real runs are the dearest by far, and 1 minute, the budget, has a tick.
    assert 10 ** drawn.layout.xaxis.range[1] > 100 and "1" in drawn.layout.xaxis.ticktext
    page = render(found)
    assert "default-src 'none'" in page and all(label in page for label in LABELS)
    assert drawn.layout.yaxis.title.text in page


@pytest.mark.parametrize(("tau", "low"), [(0.5, 0.0), (-0.6, -0.6)])
def test_the_figure_shows_tau_from_0_to_1_and_below_where_it_is(found, tau, low):
    point = found.frontier[0]
    one = replace(
        point, close=None, held_out=None, agreement=replace(point.agreement, tau=tau, interval=None)
    )
    shown = figure(replace(found, frontier=(one,))).layout.yaxis.range
    assert low - 0.1 < shown[0] <= low and shown[1] >= 1


def test_no_bar_is_negative_where_tau_lies_outside_its_interval(found):
    point = found.frontier[0]
    one = replace(point, agreement=replace(point.agreement, tau=0.9, interval=(0.1, 0.5)))
    bars = next(t for t in figure(replace(found, frontier=(one,))).data if t.name == CHOSEN.name).error_y
    assert list(bars.array) == [0.0] and list(bars.arrayminus) == pytest.approx([0.8])


def test_a_frontier_without_points_has_its_axes(found):
    layout = figure(replace(found, frontier=())).layout
    assert layout.xaxis.type == "log" and list(layout.xaxis.ticktext) == ["1"]


def test_costs_are_fractions_of_the_full_protocol():
    assert MAD_SECONDS == 170 * 24 * 3600
    assert share_text(MAD_SECONDS / 5000) == "1/5,000"
    assert share_text(1800) == "1/8,160"
