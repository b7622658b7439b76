"""Laws of the panel: what a cut run scores and costs, and which frames are refused."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from analysis.agreement import chosen, standings
from analysis.panel import LOST, PanelError, Pick, Protocol, cost, cut, load, panel, whole
from analysis.stats import rank
from analysis.tables import board

from .factory import CHANCE, STEPS, halved, make_folder, make_frame

LABELS = ("r=3", "r=4", "r=5", "r=6")


def wobbly(label, task, seed, lr):
    """A curve of its own for every run; the higher rate is the better one for all but r=4."""
    rng = np.random.default_rng([*(label + task).encode(), seed, round(1e6 * lr)])
    end = 0.5 + 0.05 * rng.standard_normal() + (30 if label != "r=4" else -30) * lr
    return [CHANCE, *np.linspace(0.2, end, 4)]


FRAME = make_frame(LABELS, lrs=(1e-3, 2e-3), curve=wobbly)


def solved_early(frame: pl.DataFrame) -> pl.DataFrame:
    """The runs of r=3 end at step 50, as solved runs do, with the area that the store would hold."""
    mine = (pl.col("label") == "r=3") & (pl.col("step") <= 50)
    ended = frame.filter(mine | (pl.col("label") != "r=3"))
    accs = pl.col("acc").sort_by("step")
    area = ((accs.sum() + 2 * accs.last()) / 5).over("run")
    last = (pl.col("label") == "r=3") & (pl.col("step") == 50)
    return ended.with_columns(
        pl.when(last).then(True).otherwise("final").alias("final"),
        pl.when(last).then(area).otherwise("auc").alias("auc"),
        pl.when(last).then(area).otherwise("auc_valid").alias("auc_valid"),
        pl.when(pl.col("label") == "r=3").then(pl.lit("solved")).otherwise("status").alias("status"),
    )


def diverged(frame: pl.DataFrame) -> pl.DataFrame:
    """The runs of r=5 break after step 50 and end with a row at chance, as the store has it."""
    mine = pl.col("label") == "r=5"
    kept = frame.filter(~mine | (pl.col("step") <= 50) | pl.col("final"))
    end = mine & pl.col("final")
    names = ("acc", "acc_valid", "auc", "auc_valid")
    return kept.with_columns(
        *(pl.when(end).then(CHANCE).otherwise(name).alias(name) for name in names),
        pl.when(mine).then(pl.lit("diverged")).otherwise("status").alias("status"),
    )


FRAMES = {"whole": FRAME, "solved": solved_early(FRAME), "diverged": diverged(FRAME)}


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize(("score", "column"), [("auc", "auc"), ("accuracy", "acc")])
def test_uncut_scores_are_the_stored_ones(name, score, column):
    found = panel(FRAMES[name], score)
    ends = FRAMES[name].filter(pl.col("final"))
    checked = 0
    for cell in found.cells:
        for row in ends.filter(pl.col("setting") == cell.setting).iter_rows(named=True):
            rate = found.trainings.index((row["lr"], row["weight_decay"], row["batch"]))
            at = found.labels.index(row["label"]), rate, cell.seeds.index(row["seed"]), -1
            assert cell.value[at] == pytest.approx(row[column], abs=1e-12)
            checked += 1
    assert checked == ends.height == 4 * 2 * 2 * 3 * 2


@pytest.mark.parametrize("name", FRAMES)
def test_costs_are_the_sums_of_the_stored_seconds(name):
    frame = FRAMES[name]
    # A diverged run has spent what it had spent at its last evaluation.
    stored = frame.filter(pl.col("final")).group_by("label").agg(pl.col("seconds").sum())
    if name != "diverged":
        assert cost(panel(frame)) == pytest.approx(dict(stored.iter_rows()))
    protocol = Protocol(
        (Pick("recall(vocab=16)", 50, 2), Pick("copying(vocab=32)", 25, 3)), ((1e-3, 0.1, 32),)
    )
    seen = frame.filter(pl.col("lr") == 1e-3)
    seen = seen.filter(
        ((pl.col("setting") == "recall(vocab=16)") & (pl.col("step") == 50) & (pl.col("seed") < 2))
        | ((pl.col("setting") == "copying(vocab=32)") & (pl.col("step") == 25))
    )
    wanted = dict(seen.group_by("label").agg(pl.col("seconds").sum()).iter_rows())
    assert cost(panel(frame), protocol) == pytest.approx(wanted)
    assert protocol.runs == 5


def test_a_cut_scores_the_mean_of_the_curve_so_far():
    found = panel(FRAME)
    cell = found.cell("recall(vocab=16)")
    curve = wobbly("r=5", "recall", 1, 1e-3)
    assert cell.steps == STEPS
    assert cell.value[2, 0, 1] == pytest.approx([np.mean(curve[: k + 1]) for k in range(5)])
    assert panel(FRAME, "accuracy").cell("recall(vocab=16)").value[2, 0, 1] == pytest.approx(curve)


def test_a_diverged_run_is_what_it_was_until_it_broke_and_then_chance():
    cell = panel(FRAMES["diverged"]).cell("recall(vocab=16)")
    before = panel(FRAME).cell("recall(vocab=16)")
    assert cell.value[2, 0, 0, :3] == pytest.approx(before.value[2, 0, 0, :3])
    assert cell.value[2, 0, 0, 3:] == pytest.approx([CHANCE, CHANCE])


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("score", ["auc", "accuracy"])
def test_the_ranking_of_the_whole_panel_is_that_of_the_lab(name, score):
    theirs = rank(board(FRAMES[name], score))
    assert theirs is not None
    mine = standings(cut(panel(FRAMES[name], score)))
    assert [row.label for row in mine] == [row.label for row in theirs.rows]
    assert [row.score for row in mine] == pytest.approx([row.score for row in theirs.rows])


def test_intervals_are_those_of_stats_where_a_task_has_one_cell():
    frame = FRAME.filter(pl.col("vocab") == 16)
    theirs = rank(board(frame, "auc"))
    assert theirs is not None
    for mine, row in zip(standings(cut(panel(frame))), theirs.rows, strict=True):
        assert mine.interval == pytest.approx(row.interval)


def test_order_of_rows_and_names_never_matter():
    shuffled = panel(FRAME.sample(fraction=1.0, shuffle=True, seed=3))
    for one, two in zip(panel(FRAME).cells, shuffled.cells, strict=True):
        assert one.setting == two.setting and np.array_equal(one.value, two.value)


def test_a_cell_that_is_not_complete_is_left_out_and_named():
    gap = FRAME.filter((pl.col("label") != "r=4") | (pl.col("setting") != "copying(vocab=32)"))
    found = panel(gap)
    assert found.left_out == ("copying(vocab=32)",)
    assert len(found.cells) == 3
    assert len(panel(FRAME.filter((pl.col("seed") < 2) | (pl.col("label") == "r=3"))).cells[0].seeds) == 2


REFUSED = {
    "2 schedules .* 4 are needed": (FRAME.filter(pl.col("label").is_in(["r=3", "r=4"])), 4),
    "at 2 seeds .* has 1": (FRAME.filter(pl.col("seed") == 0), 2),
    "lacks the columns .*acc_valid": (FRAME.drop("acc_valid"), 2),
    "0 schedules": (FRAME.clear(), 2),
    "differ in budget": (FRAME.with_columns((pl.col("steps") + pl.col("seed")).cast(pl.Int32)), 2),
    "no learning rate": (
        FRAME.filter((pl.col("lr") == 1e-3) == (pl.col("label") == "r=3")),
        2,
    ),
    "two runs of .*at lr .* in one recipe": (
        pl.concat([FRAME, FRAME.filter(pl.col("seed") == 1).with_columns(pl.col("run") + "stopped")]),
        2,
    ),
    "several schedules": (FRAME.with_columns(pl.lit("same").alias("label")), 2),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_a_panel_is_refused_in_one_sentence(words):
    frame, schedules = REFUSED[words]
    with pytest.raises(PanelError, match=words) as told:
        panel(frame, least_schedules=schedules)
    assert "\n" not in str(told.value)


def test_a_protocol_of_what_is_not_there_is_refused():
    found = panel(FRAME)
    for pick, words in (
        (Pick("mqar", 50, 2), "no complete cell"),
        (Pick("recall(vocab=16)", 60, 2), "no evaluation at step 60"),
        (Pick("recall(vocab=16)", 50, 9), "3 seeds; 9"),
    ):
        with pytest.raises(PanelError, match=words):
            cut(found, Protocol((pick,), found.trainings))
    with pytest.raises(PanelError, match="no schedule 'r=9'"):
        found.places(["r=9"])


def test_a_run_folder_and_one_file_are_read_alike(tmp_path):
    folder = make_folder(tmp_path / "run", FRAME)
    FRAME.write_parquet(tmp_path / "all.parquet")
    one, other = panel(load(folder)), panel(load(tmp_path / "all.parquet"))
    assert whole(one) == whole(other)
    assert all(np.array_equal(a.value, b.value) for a, b in zip(one.cells, other.cells, strict=True))
    (tmp_path / "bad.parquet").write_text("no parquet")
    for name, words in (("none", "no such file or folder"), ("bad.parquet", "no parquet file")):
        with pytest.raises(PanelError, match=words):
            load(tmp_path / name)


def test_a_halved_sweep_ranks_as_its_board_does_and_costs_what_it_ran():
    frame = halved(FRAME)
    found = panel(frame)
    assert found.halved
    assert not panel(FRAME).halved
    assert found.seeds == 3
    ranked = rank(board(frame, "auc"))
    assert ranked is not None
    mine = {row.label: row.score for row in standings(cut(found))}
    assert mine == pytest.approx({row.label: row.score for row in ranked.rows})
    spent = frame.filter(pl.col("final")).group_by("label").agg(pl.col("seconds").sum())
    assert cost(found) == pytest.approx(dict(spent.iter_rows()))
    # What was left behind is lost at every seed, and never chosen on whatever part of them.
    for part in cut(found).parts:
        lost = part.valid == LOST
        assert (lost.any(2) == lost.all(2)).all() and (lost == (part.value == LOST)).all()
    for seeds in ([0], [0, 1], [1, 2], [2, 0, 2]):
        some = cut(found).take([np.array(seeds)] * len(found.cells))
        assert all((values > LOST).all() for values in chosen(some.parts))
    unfinished = frame.filter(~((pl.col("seed") == 0) & (pl.col("lr") == 1e-3) & (pl.col("label") == "r=3")))
    assert panel(unfinished).seeds == 2


def test_settings_of_a_task_that_were_halved_apart_are_refused_and_those_of_two_tasks_are_not():
    rates = {"recall(vocab=16)": 1e-3, "recall(vocab=32)": 2e-3}
    rows = FRAME.filter(pl.col("task") == "recall")
    kept = pl.col("setting").replace_strict(rates, return_dtype=pl.Float64) == pl.col("lr")
    trainings = pl.when(pl.col("seed") == 0).then(2).otherwise(1).cast(pl.Int32)
    apart = rows.filter(kept | (pl.col("seed") == 0)).with_columns(trainings=trainings)
    with pytest.raises(PanelError, match="r=3 has no learning rate that ran in every round of"):
        panel(apart)
    assert len(panel(apart.with_columns(task="setting")).cells) == 2
