"""Laws of the reduction from runs to scores."""

from __future__ import annotations

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from analysis.tables import SCORES, TableError, board, curves, diverged, natural, one_number, positions

from .factory import CHANCE, STEPS, flat, make_frame


@pytest.mark.parametrize("score", SCORES)
def test_order_of_rows_never_matters(score):
    frame = make_frame(lrs=(1e-3, 2e-3))
    seed = 11
    print("shuffle seed", seed)
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=seed)
    one, two = board(frame, score), board(shuffled, score)
    for part in ("cells", "candidates", "tasks", "chosen"):
        assert_frame_equal(getattr(one, part), getattr(two, part))
    assert_frame_equal(curves(frame, one), curves(shuffled, two))


def test_task_score_is_the_mean_over_settings():
    level = {"recall": 0.8, "copying": 0.2}
    cells = board(make_frame(curve=lambda _l, task, _s, _lr: flat(level[task]))).cells
    assert set(cells.filter(pl.col("task") == "recall")["value"].round(9).to_list()) == {0.8}
    frame = make_frame(labels=("a",), tasks=("recall",), seeds=(0,))
    low = pl.col("setting") == "recall(vocab=16)"
    frame = frame.with_columns(pl.when(low).then(0.4).otherwise(0.6).alias("acc"))
    assert board(frame).cells["value"].to_list() == [pytest.approx(0.5)]


@pytest.mark.parametrize("column", ["steps", "batch"])
def test_settings_of_one_task_may_have_budgets_of_their_own(column: str) -> None:
    """The rate is chosen over all settings of a task, and all of them count, whatever their budgets."""
    frame = make_frame(labels=("a", "b"), tasks=("recall",), lrs=(1e-3, 2e-3))
    low = pl.col("setting") == "recall(vocab=16)"
    frame = frame.with_columns(pl.when(low).then(0.4).otherwise(0.6).alias("acc"))
    longer = frame.with_columns(pl.when(low).then(2 * pl.col(column)).otherwise(pl.col(column)).alias(column))
    one, two = board(frame), board(longer)
    assert two.seeds == one.seeds and not two.waiting
    assert_frame_equal(one.cells, two.cells)
    assert set(two.cells["value"].round(9)) == {0.5}


@pytest.mark.parametrize("score", ["accuracy", "auc"])
def test_diverged_and_nan_runs_count_as_chance_and_are_never_dropped(score):
    def lost(_label, _task, seed, _lr):
        return "diverged" if seed == 1 else "budget"

    frame = make_frame(curve=lambda *_: flat(0.6), status=lost)
    gone = (pl.col("seed") == 2) & (pl.col("label") == "r=3")
    columns = ("acc", "acc_valid", "auc", "auc_valid")
    frame = frame.with_columns(
        pl.when(gone).then(float("nan")).otherwise(pl.col(c)).alias(c) for c in columns
    )
    cells = board(frame, score).cells
    assert cells.height == 3 * 2 * 3
    assert set(cells.filter(pl.col("seed") == 1)["value"].to_list()) == {CHANCE}
    assert set(cells.filter(gone)["value"].to_list()) == {CHANCE}
    assert cells.filter(pl.col("failed")).height == 3 * 2 + 2
    assert cells["value"].is_finite().all()


def test_steps_never_reached_or_diverged_count_the_budget():
    def end(label, _task, _seed, _lr):
        return flat({"r=3": 0.9, "r=4": 0.3, "r=5": 0.9}[label])

    def lost(label, *_):
        return "diverged" if label == "r=5" else "budget"

    cells = board(make_frame(curve=end, status=lost), "steps").cells
    by = {label: set(part["value"].to_list()) for (label,), part in cells.group_by("label")}
    assert by == {"r=3": {25.0}, "r=4": {float(STEPS[-1])}, "r=5": {float(STEPS[-1])}}
    assert set(cells.filter(pl.col("censored"))["label"].to_list()) == {"r=4", "r=5"}


def test_training_is_chosen_on_validation_alone_per_candidate_and_task():
    def end(label, task, _seed, lr):
        good = 1e-3 if (label == "r=3") == (task == "recall") else 2e-3
        return flat(0.7 if lr == good else 0.4)

    frame = make_frame(lrs=(1e-3, 2e-3), curve=end)
    lures = frame.with_columns((1 - pl.col("acc")).alias("acc"))  # the test split says the opposite
    for given in (frame, lures):
        chosen = {(r["arch"], r["task"]): r["lr"] for r in board(given).chosen.iter_rows(named=True)}
        for label in ("r=3", "r=4"):
            for task in ("recall", "copying"):
                assert chosen[f"arch-{label}", task] == (
                    1e-3 if (label == "r=3") == (task == "recall") else 2e-3
                )
    assert set(board(lures).cells["value"].round(9).to_list()) == {0.3}


def test_an_incomplete_round_is_ignored_and_counted():
    frame = make_frame(lrs=(1e-3, 2e-3))
    whole = board(frame.filter(pl.col("seed") < 2))
    hole = (
        (pl.col("seed") == 2)
        & (pl.col("label") == "r=4")
        & (pl.col("setting") == "recall(vocab=32)")
        & (pl.col("lr") == 2e-3)
    )
    broken = board(frame.filter(~hole))
    assert broken.seeds == (0, 1) and broken.left_out == (2,)
    assert_frame_equal(broken.cells, whole.cells)
    assert_frame_equal(broken.chosen, whole.chosen)


def test_a_candidate_without_a_complete_round_waits_and_holds_nobody_up():
    frame = make_frame()
    late = board(frame.filter((pl.col("label") != "r=5") | (pl.col("task") == "recall")))
    assert late.waiting == ("r=5",) and late.labels == ("r=3", "r=4") and late.seeds == (0, 1, 2)


def test_labels_stay_apart_and_one_schedule_under_two_labels_is_one_candidate():
    frame = make_frame()
    same = frame.with_columns(pl.lit("twin").alias("label"))
    assert len(set(board(same).labels)) == 3
    merged = board(frame.with_columns(pl.lit("arch").alias("arch"), pl.lit("s").alias("schedule")))
    assert merged.labels == ("r=3 / r=4 / r=5",)
    assert merged.cells.height == 2 * 3


def test_a_curve_keeps_its_last_value_and_a_diverged_one_falls_to_chance():
    frame = make_frame(labels=("a", "b"), tasks=("recall",), seeds=(0,), settings=1)
    short = frame.filter((pl.col("label") != "a") | (pl.col("step") <= 50))
    short = short.with_columns(
        ((pl.col("label") == "a") & (pl.col("step") == 50) | pl.col("final")).alias("final")
    )
    status = pl.when(pl.col("label") == "a").then(pl.lit("solved")).otherwise(pl.lit("diverged"))
    short = short.with_columns(status.alias("status"))
    drawn = curves(short, board(short))
    a, b = (drawn.filter(pl.col("label") == label)["mean"].to_list() for label in "ab")
    assert len(a) == len(STEPS) and a[-1] == a[-2] == a[2]
    assert b[-1] == CHANCE and b[-2] > CHANCE


def test_positions_are_of_the_longest_setting_and_skip_what_is_never_scored():
    data = positions(board(make_frame(curve=lambda *_: flat(0.6))))
    assert set(data["setting"].to_list()) == {"recall(vocab=32)", "copying(vocab=32)"}
    assert set(data["position"].to_list()) == {1, 2}
    assert set(data["mean"].round(9).to_list()) == {0.6, 0.3}


def test_every_diverged_run_is_listed_with_step_and_reason():
    frame = make_frame(
        status=lambda label, _t, seed, _lr: "diverged" if (label, seed) == ("r=4", 1) else "budget"
    )
    lost = diverged(frame, [("arch-r=4", "r=4")])
    assert lost.height == 4 and set(lost["step"].to_list()) == {100}
    assert all("first bad layer" in reason for reason in lost["reason"].to_list())


def test_nothing_to_rank_and_unknown_scores_are_refused_in_a_sentence():
    with pytest.raises(TableError, match="no finished run"):
        board(make_frame().clear())
    with pytest.raises(TableError, match="accuracy, auc, steps"):
        board(make_frame(), "speed")  # pyright: ignore[reportArgumentType]


def test_labels_are_ordered_as_people_count():
    assert sorted(["r=10:1", "r=9:1", "r=2:1"], key=natural) == ["r=2:1", "r=9:1", "r=10:1"]
    assert one_number(["r=3:1", "r=10:1"]) and not one_number(["gdn", "gla"]) and not one_number(["r=3"])
