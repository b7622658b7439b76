"""Laws of the ranking, and simulations of the promises its intervals make."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest
from scipy import stats as scipy_stats

from analysis.stats import bootstrap, estimate, holm, rank
from analysis.tables import SCORES, board

from .factory import flat, make_frame

SEED = 20_261


def level(effects, noise=0.004):
    """A curve whose end is the label's effect plus noise that depends on (label, task, seed)."""

    def curve(label, task, seed, _lr):
        rng = np.random.default_rng([*(label + task).encode(), seed])
        return flat(effects[label] + noise * rng.standard_normal())

    return curve


def ranking(frame, score="accuracy", margin=0.02):
    found = rank(board(frame, score), margin)
    assert found is not None
    return found


@pytest.mark.parametrize("score", SCORES)
def test_order_of_rows_never_matters(score):
    frame = make_frame()
    assert ranking(frame, score) == ranking(frame.sample(fraction=1.0, shuffle=True, seed=3), score)


def test_tasks_weigh_alike_however_many_settings_they_have():
    end = {"recall": 0.8, "copying": 0.2}
    frame = make_frame(curve=lambda _l, task, *_: flat(end[task])).filter(
        pl.col("setting") != "copying(vocab=32)"
    )
    assert [row.score for row in ranking(frame).rows] == pytest.approx([0.5] * 3)


@pytest.mark.parametrize("score", ["accuracy", "auc"])
def test_a_constant_added_to_a_task_changes_no_comparison(score):
    frame = make_frame()
    columns = ("acc", "acc_valid", "auc", "auc_valid")
    shifted = frame.with_columns(
        pl.when(pl.col("task") == "recall").then(pl.col(c) + 0.125).otherwise(pl.col(c)).alias(c)
        for c in columns
    )
    for one, two in zip(ranking(frame, score).rows, ranking(shifted, score).rows, strict=True):
        assert (one.label, one.tied, one.within) == (two.label, two.tied, two.within)
        assert two.gap == pytest.approx(one.gap, abs=1e-12)
        assert two.score == pytest.approx(one.score + 0.0625)
        if one.gap_interval:
            assert two.gap_interval == pytest.approx(one.gap_interval, abs=1e-9)


def test_noise_shared_by_all_at_a_seed_cancels():
    def shared(label, task, seed, _lr):
        rng = np.random.default_rng([*task.encode(), seed])
        return flat(0.5 + 0.1 * rng.standard_normal() - 0.05 * (label == "r=4"))

    found = ranking(make_frame(labels=("r=3", "r=4"), curve=shared))
    assert found.best.label == "r=3" and found.rows[1].tied is False
    assert found.rows[1].gap == pytest.approx(0.05)
    low, high = found.best.interval or (0.0, 0.0)
    assert high - low > 0.1


def test_one_seed_allows_no_interval_and_no_claim():
    found = ranking(make_frame(seeds=(0,)))
    for row in found.rows:
        assert (row.interval, row.bootstrap, row.gap_interval, row.p, row.bound) == (None,) * 5
        assert row.tied is None and row.within is None
    assert found.cheapest is None and found.tied == ()


def test_a_clear_difference_is_seen_and_the_cheap_near_equal_is_offered():
    effects = {"r=3": 0.60, "r=4": 0.598, "r=5": 0.596, "r=6": 0.40}
    found = ranking(make_frame(labels=tuple(effects), seeds=range(5), curve=level(effects)))
    assert found.row("r=6").tied is False and found.row("r=6").within is False
    assert found.cheapest == "r=5"
    assert found.row("r=5").bound is not None and found.row("r=5").bound <= 0.02
    tight = ranking(make_frame(labels=tuple(effects), seeds=range(5), curve=level(effects)), margin=1e-6)
    assert tight.cheapest == tight.best.label


def test_a_gap_within_the_margin_is_not_enough_its_bound_must_be():
    gap = ranking(make_frame()).rows[1].gap
    narrow = ranking(make_frame(), margin=gap + 1e-9).rows[1]
    assert narrow.bound is not None and narrow.bound > gap and narrow.within is False
    assert ranking(make_frame(), margin=narrow.bound + 1e-9).rows[1].within is True


def test_p_is_corrected_in_the_family_of_all_pairs():
    found = ranking(make_frame(labels=("r=3", "r=4", "r=5", "r=6")))
    values = {
        (str(label), str(task)): part.sort("seed")["value"].to_numpy()
        for (label, task), part in board(make_frame(labels=("r=3", "r=4", "r=5", "r=6"))).cells.group_by(
            "label", "task"
        )
    }
    pairs = list(itertools.combinations([row.label for row in found.rows], 2))
    tasks = ("recall", "copying")
    raw = [estimate([values[a, task] - values[b, task] for task in tasks]).p_value() or 0.0 for a, b in pairs]
    expected = dict(zip(pairs, holm(raw), strict=True))
    assert len(pairs) == 6
    for row in found.rows[1:]:
        assert row.p == pytest.approx(expected[found.best.label, row.label])


def test_cheapest_is_by_state_then_flops_then_parameters():
    frame = make_frame(curve=lambda *_: flat(0.5), state=lambda _: 700)
    assert ranking(frame).cheapest == "r=5"  # fewest FLOPs
    level_flops = frame.with_columns(pl.lit(5).cast(pl.Int64).alias("flops"))
    assert ranking(level_flops).cheapest == "r=3"  # fewest parameters


def test_steps_rank_the_fastest_first_and_a_shared_grid_point_is_not_certainty():
    reach = {"r=3": 2, "r=4": 1, "r=5": 3}
    frame = make_frame(curve=lambda label, *_: [0.1] * reach[label] + [0.9] * (5 - reach[label]))
    found = ranking(frame, "steps")
    assert [row.label for row in found.rows] == ["r=4", "r=3", "r=5"]
    assert [row.gap for row in found.rows] == [0, 25, 50]
    assert found.margin == pytest.approx(2.0)  # 2 % of a budget of 100
    assert all(row.p is not None and row.p > 1e-6 for row in found.rows[1:])


def test_verdicts_name_tasks_that_are_full_or_at_chance():
    end = {"recall": 0.995, "copying": 0.105, "mqar": 0.6}
    frame = make_frame(tasks=tuple(end), curve=lambda _l, task, *_: flat(end[task]))
    assert {t.task: t.verdict for t in ranking(frame).tasks} == {
        "recall": "ceiling",
        "copying": "chance",
        "mqar": "open",
    }
    stuck = ranking(frame, "steps").tasks
    assert {t.task: t.verdict for t in stuck} == {"recall": "open", "copying": "chance", "mqar": "open"}


def test_no_complete_round_gives_no_ranking():
    frame = make_frame(labels=("r=3", "r=4"), seeds=(0, 1))
    apart = ((pl.col("label") == "r=3") & (pl.col("seed") == 0)) | (
        (pl.col("label") == "r=4") & (pl.col("seed") == 1)
    )
    assert rank(board(frame.filter(apart))) is None


def test_one_task_is_the_plain_t_interval():
    values = np.random.default_rng(SEED).normal(size=7)
    expected = scipy_stats.t.interval(0.95, 6, values.mean(), scipy_stats.sem(values))
    assert estimate([values]).interval() == pytest.approx(expected)
    assert estimate([values]).p_value() == pytest.approx(scipy_stats.ttest_1samp(values, 0).pvalue)


def test_two_tasks_are_welchs_formula():
    rng = np.random.default_rng(SEED)
    a, b = rng.normal(size=5), 3 * rng.normal(size=9)
    welch = scipy_stats.ttest_ind(a, -b, equal_var=False)  # mean(a) + mean(b), halved, has the same t
    assert estimate([a, b]).p_value() == pytest.approx(welch.pvalue)
    assert estimate([a, b]).df == pytest.approx(welch.df)


def test_holm_is_step_down_and_keeps_the_order_given():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("schedules", "tasks", "seeds"), [(4, 1, 2), (4, 2, 3), (7, 2, 3), (4, 6, 3), (4, 2, 10)]
)
def test_false_alarms_and_coverage(schedules, tasks, seeds):
    """All candidates equal: any 'worse than the best' is a false alarm, and must stay within 5 %."""
    rng = np.random.default_rng(SEED)
    repeats, alarms, covered = 400, 0, 0
    scale = np.linspace(0.5, 2.0, tasks)[:, None]
    for _ in range(repeats):
        x = rng.normal(size=(schedules, tasks, seeds)) * scale
        order = np.argsort(-x.mean(axis=(1, 2)))
        pairs = list(itertools.combinations(order, 2))
        p = holm([estimate(list(x[a] - x[b])).p_value() or 0.0 for a, b in pairs])
        alarms += any(value <= 0.05 for (a, _), value in zip(pairs, p, strict=True) if a == order[0])
        low, high = estimate(list(x[0])).interval() or (0.0, 0.0)
        covered += low <= 0 <= high
    error = 3 * (0.05 * 0.95 / repeats) ** 0.5
    print(f"seed {SEED}: {schedules} schedules, {tasks} tasks, {seeds} seeds:", end=" ")
    print(f"false alarms {alarms / repeats:.3f}, coverage {covered / repeats:.3f} (+- {error:.3f})")
    assert alarms / repeats <= 0.05 + error
    assert abs(covered / repeats - 0.95) <= error + 0.01  # Satterthwaite's df are an approximation


def test_the_ranking_itself_keeps_its_promise_on_equal_candidates():
    rng = np.random.default_rng(SEED)
    frame = make_frame(labels=("r=3", "r=4", "r=5", "r=6"), settings=1)
    repeats, alarms = 60, 0
    keys = frame.select("label", "task", "seed").unique(maintain_order=True)
    for _ in range(repeats):
        noise = keys.with_columns(pl.Series("noise", 0.5 + 0.05 * rng.standard_normal(keys.height)))
        drawn = frame.join(noise, on=["label", "task", "seed"]).with_columns(pl.col("noise").alias("acc"))
        alarms += any(row.tied is False for row in ranking(drawn.drop("noise")).rows)
    print(f"seed {SEED}: false alarms {alarms} of {repeats}")
    assert alarms <= 9  # 3 expected at 5 %; more than 9 has probability 0.001


def test_the_bootstrap_is_too_narrow_at_few_seeds_and_close_at_many():
    rng = np.random.default_rng(SEED)
    share = {}
    for seeds in (3, 25):
        hits = 0
        for repeat in range(300):
            low, high = bootstrap([rng.normal(size=seeds)], draws=400, seed=repeat) or (0.0, 0.0)
            hits += low <= 0 <= high
        share[seeds] = hits / 300
    print(f"seed {SEED}: bootstrap coverage by seeds {share}")
    assert share[3] < 0.85 and share[25] > 0.88
