"""Laws of a transfer study's answer, on tables whose tau is known."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy.stats import kendalltau

from analysis.frontier import Spot, frontier
from analysis.panel import PanelError, Part, Sheet
from analysis.transfer import SCORE, transfer
from analysis.transfer_page import figures, render
from analysis.transfer_words import headline, notes

SEED = 20_279
LABELS = tuple("abcdefgh")
FULL = (0, 0, 0, 1, 1, 2, 4, 8)


def scipys(first, second) -> float:
    return float(np.asarray(kendalltau(first, second))[0])


def verdict_of(scores, noise=0.0, labels=LABELS) -> Sheet:
    """Four seeds of one cell."""
    rng = np.random.default_rng(SEED)
    value = np.asarray(scores, float)[:, None, None] + noise * rng.normal(size=(len(scores), 1, 4))
    return Sheet(tuple(labels), (Part("recall", value, value),))


def frame_of(bits, sizes=("s", "m"), counts=(100, 200), seeds=2, noise=0.0) -> pl.DataFrame:
    """Rows with these losses in every cell, a little lower for more tokens and larger sizes."""
    rng = np.random.default_rng(SEED + 1)
    rows = [
        {
            "label": label,
            "size": size,
            "dim": 16 * (at + 1),
            "seed": seed,
            "tokens": tokens,
            "bits": float(bits[place] - 0.3 * at - 0.001 * tokens + noise * rng.normal()),
            "status": "finished",
            "n_linear": 8 - FULL[place],
            "n_window": 0,
            "n_full": FULL[place],
            "state": 1000 * (at + 1) * (1 + FULL[place]),
            "flops": 100 * (at + 1) * (10 + FULL[place]),
            "train_flops": 300.0 * (at + 1) * (10 + FULL[place]) * tokens,
        }
        for at, size in enumerate(sizes)
        for tokens in counts
        for seed in range(seeds)
        for place, label in enumerate(LABELS)
    ]
    return pl.DataFrame(rows)


def test_tau_is_that_of_scipy_for_the_score_and_for_every_plain_predictor():
    rng = np.random.default_rng(SEED)
    for _ in range(5):
        scores, bits = rng.permutation(8) / 10, 2 + rng.permutation(8) / 10
        found = transfer(frame_of(bits), verdict_of(scores), LABELS, 32, draws=50)
        assert found.overall and found.complete
        want = {
            SCORE: scipys(scores, -bits),
            "more full layers": scipys(FULL, -bits),
        }
        for about in (found.overall, *(one for one in found.against if one.among == "all")):
            taus = {held.predictor: held for held in about.held}
            assert {name: taus[name].tau for name in want} == pytest.approx(want)
            plain = taus["more full layers"]
            between = scipys(scores, FULL)
            left = (want[SCORE] - between * plain.tau) / np.sqrt((1 - between**2) * (1 - plain.tau**2))
            assert plain.ahead == pytest.approx(want[SCORE] - plain.tau)
            assert plain.partial == pytest.approx(left)
        assert [one.label for one in found.lines] == [LABELS[at] for at in np.argsort(-scores)]


@pytest.mark.parametrize(
    ("sign", "words"),
    [(1, "Synthetic scores predict loss here"), (-1, "Synthetic scores mislead here")],
)
def test_a_clear_order_is_called_what_it_is(sign, words):
    scores = np.arange(8) / 10
    found = transfer(frame_of(3 - sign * scores, noise=1e-4), verdict_of(scores, 1e-4), LABELS, 32, draws=300)
    assert found.overall and found.overall.score.tau == sign
    assert headline(found).startswith(words) and f"tau-b {sign:.2f}" in headline(found)
    assert found.ceiling and found.ceiling.mean == 1


def test_an_order_without_relation_is_shown_to_be_nothing_and_a_plain_predictor_may_say_more():
    scores = np.array([3, 7, 0, 6, 2, 5, 1, 4]) / 10  # tau 0 with the number of full layers, or near it
    found = transfer(frame_of(3 - np.arange(8) / 10), verdict_of(scores), LABELS, 32, draws=300)
    assert found.overall
    low, high = found.overall.score.interval
    assert low < 0 < high and headline(found).startswith("It is not shown")
    assert any("'more full layers' says more than the score" in note for note in notes(found))


def test_seeds_widen_the_interval_and_schedules_widen_it_more():
    scores = np.arange(8) / 10

    def width(noise, alone):
        found = transfer(frame_of(3 - scores, noise=noise), verdict_of(scores, noise), LABELS, 32, draws=300)
        assert found.overall
        low, high = found.overall.score.seeds_alone if alone else found.overall.score.interval
        return high - low

    assert width(1e-6, True) == 0 < width(0.2, True) < width(0.2, False)


def test_a_study_under_way_is_not_decided_and_counts_whole_cells_alone():
    frame = frame_of(3 - np.arange(8) / 10)
    some = frame.filter((pl.col("seed") == 0) & ((pl.col("size") == "s") | (pl.col("label") != "c")))
    found = transfer(some, verdict_of(np.arange(8)), LABELS, 32, draws=300)
    assert found.cells == (("s", 100), ("s", 200)) and not found.complete
    assert headline(found).startswith(
        f"Not yet decided: {some.height} of 32 trainings are done. So far, over 2 cells"
    )
    assert any(note.startswith("One seed") for note in notes(found))
    none = transfer(frame.clear(), verdict_of(np.arange(8)), LABELS, 32, draws=300)
    assert (
        headline(none).startswith("Not yet decided: 0 of 32") and none.overall is None and notes(none) == []
    )
    assert figures(none) == {}


def test_hybrids_are_held_apart():
    found = transfer(frame_of(3 - np.arange(8) / 10), verdict_of(np.arange(8)), LABELS, 32, draws=300)
    assert found.hybrids and found.hybrids.schedules == 4  # with both linear and full layers
    assert {line.label for line in found.lines if line.hybrid} == set("defg")


def test_a_verdict_without_a_schedule_is_refused():
    with pytest.raises(PanelError, match=r"no schedule 'h'.*--verdict"):
        transfer(frame_of(np.arange(8)), verdict_of(np.arange(7), labels=LABELS[:7]), LABELS, 32, draws=300)


def test_the_frontier_is_the_power_law_it_was_made_from_whatever_lies_above_it():
    on = [Spot("a", "s", 1, cost, 5 * cost**-0.1) for cost in (10.0, 100.0, 1000.0, 1e4)]
    above = [Spot("b", "s", 1, cost, 6 * cost**-0.1) for cost in (15.0, 500.0)]
    found = frontier("FLOPs", [*above, *on])
    assert found and found.on == tuple(on) and found.error == pytest.approx(0, abs=1e-9)
    assert (found.scale, found.power) == (pytest.approx(5), pytest.approx(0.1))
    assert found.at(100.0) == pytest.approx(on[1].bits)
    few = frontier("FLOPs", on[:2])
    assert few and few.power is None and few.at(3.0) is None and frontier("FLOPs", []) is None


def test_the_page_holds_the_sentence_and_needs_no_network():
    found = transfer(frame_of(3 - np.arange(8) / 10), verdict_of(np.arange(8)), LABELS, 32, draws=50)
    page = render(found, "<toy>")
    assert headline(found) in page and "&lt;toy&gt;" in page and "<toy>" not in page
    drawn = figures(found)
    assert drawn.keys() == {"cells", "scores", "flops", "state"}
    assert all(f'data-figure="{name}"' in page for name in drawn)
    assert "default-src 'none'" in page
