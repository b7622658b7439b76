"""Laws of a comparison of two, and simulations of what its p and its predicted seeds promise."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy import stats as scipy_stats

from analysis.compare import CompareError, compare, find
from analysis.honesty import clopper_pearson
from analysis.pair_words import pair_notes, pair_sentence
from analysis.power import seeds_to_find
from analysis.stats import holm, rank
from analysis.tables import SCORES, board

from .boards import BUDGET, make_board
from .factory import make_frame

SEED = 20_269


def draw(rng, candidates=3, tasks=3, seeds=6, noise=0.05, spread=0.05):
    """Scores [A, T, S] around a level of each candidate, with noise of a seed that all share."""
    level = 0.5 + spread * rng.standard_normal((candidates, 1, 1))
    shared = noise * rng.standard_normal((1, tasks, seeds))
    return level + shared + noise * rng.standard_normal((candidates, tasks, seeds))


def boards(many=30):
    """Random boards of every score, some with one that left the race."""
    rng = np.random.default_rng(SEED)
    print(f"seed {SEED}", end=" ")
    for place in range(many):
        score = SCORES[place % 3]
        values = draw(rng, tasks=int(rng.integers(1, 5)), seeds=int(rng.integers(2, 12)))
        if score == "steps":
            values = np.clip(np.round(values * 20) * 50, 50, BUDGET)
        gone = {"c1": 2 + place % 2} if place % 5 == 4 and values.shape[2] > 3 else None
        yield make_board(values, score=score, grid=50.0 if score == "steps" else 0.0, gone=gone)


def turned(interval):
    return pytest.approx((-interval[1], -interval[0]), abs=1e-12)


def test_swapping_the_two_turns_every_sign_and_nothing_else():
    for ranked in boards():
        one, other = compare(ranked, "c0", "c1"), compare(ranked, "c1", "c0")
        assert one.labels == other.labels[::-1] and one.lead == -other.lead
        for a, b in zip((one.whole, *one.tasks), (other.whole, *other.tasks), strict=True):
            assert (a.task, a.first, a.second, a.p) == (b.task, b.second, b.first, b.p)
            assert a.difference == -b.difference
            assert a.interval and b.interval == turned(a.interval)
            assert (a.effect is None) == (b.effect is None)
            assert a.effect is None or a.effect == -(b.effect or 0.0)
        assert one.bootstrap and other.bootstrap == turned(one.bootstrap)
        assert one.worse_by and one.worse_by[::-1] == other.worse_by
        assert (one.within or ())[::-1] == (other.within or ())
        assert one.told_apart == other.told_apart and one.left == other.left[::-1]
        seeds = [[p and p.seeds for p in (found.as_seen, found.as_margin)] for found in (one, other)]
        assert seeds[0] == seeds[1]


def test_it_agrees_with_the_ranking_on_gap_interval_p_and_margin():
    for ranked in boards():
        found = compare(ranked, "c0", "c1", 0.03)
        keep = pl.col("label").is_in(["c0", "c1"])
        pair = rank(
            replace(
                ranked,
                cells=ranked.cells.filter(keep),
                candidates=ranked.candidates.filter(keep),
                runs=ranked.runs.filter(keep),
            ),
            0.03,
        )
        assert pair is not None
        best, other = pair.rows
        place = found.labels.index(other.label)
        sign = 1.0 if place == 1 else -1.0
        assert sign * found.lead == pytest.approx(other.gap, abs=1e-12)
        assert found.whole.p == pytest.approx(other.p)  # one pair: nothing to correct for
        assert found.worse_by and found.worse_by[place] == pytest.approx(other.bound)
        assert found.margin == pytest.approx(pair.margin)
        if other.left is None:
            assert found.within and found.within[place] == other.within
        else:
            assert found.within is None and other.within is None
        if not any(found.left):
            mine = dict(zip(found.labels, (found.whole.first, found.whole.second), strict=True))
            assert [mine[row.label] for row in (best, other)] == pytest.approx([best.score, other.score])


def test_a_third_candidate_changes_nothing_about_the_pair():
    rng = np.random.default_rng(SEED)
    values = draw(rng)
    assert compare(make_board(values), "c0", "c1") == compare(make_board(values[:2]), "c0", "c1")


@pytest.mark.parametrize("score", SCORES)
def test_order_of_rows_never_matters(score):
    frame = make_frame()
    mixed = frame.sample(fraction=1.0, shuffle=True, seed=3)
    assert compare(board(frame, score), "r=3", "r=5") == compare(board(mixed, score), "r=3", "r=5")


def test_one_task_is_the_paired_t_test_and_its_effect_size_the_corrected_one():
    rng = np.random.default_rng(SEED)
    values = draw(rng, tasks=1, seeds=9)
    found = compare(make_board(values), "c0", "c1")
    one, other = values[0, 0], values[1, 0]
    assert found.whole.p == pytest.approx(scipy_stats.ttest_rel(one, other).pvalue)
    factor = 1 - 3 / (4 * 8 - 1)  # Hedges' approximation, good to 1 % here
    assert found.whole.effect == pytest.approx(
        factor * (one - other).mean() / (one - other).std(ddof=1), rel=0.01
    )
    assert found.tasks[0].difference == found.whole.difference


def test_the_effect_size_is_unbiased_where_cohens_is_not():
    rng = np.random.default_rng(SEED)
    found = [
        compare(make_board(0.5 + np.stack([rng.normal(0.8, 1, (1, 5)), np.zeros((1, 5))])), "c0", "c1")
        for _ in range(200)
    ]
    effects = np.array([one.whole.effect for one in found])
    error = effects.std() / math.sqrt(len(effects))
    print(f"seed {SEED}: mean effect {effects.mean():.3f} +- {error:.3f}, truth 0.8")
    assert abs(effects.mean() - 0.8) < 3 * error


def test_p_of_tasks_is_corrected_over_the_tasks_and_of_the_whole_over_nothing():
    values = draw(np.random.default_rng(SEED), tasks=4)
    found = compare(make_board(values), "c0", "c2")
    raw = [scipy_stats.ttest_rel(values[0, t], values[2, t]).pvalue for t in range(4)]
    assert [line.p for line in found.tasks] == pytest.approx(holm(raw))
    assert [line.task for line in found.tasks] == [f"task{t}" for t in range(4)]
    assert found.whole.difference == pytest.approx(np.mean([line.difference for line in found.tasks]))


def test_one_that_left_is_compared_on_shared_seeds_and_pays_for_the_looks():
    values = draw(np.random.default_rng(SEED), seeds=8)
    found = compare(make_board(values, gone={"c1": 5}), "c0", "c1")
    alike = compare(make_board(values[..., :5]), "c0", "c1")
    assert found.seeds == (0, 1, 2, 3, 4) and found.looks == 4 and found.within is None
    assert found.whole.interval == alike.whole.interval and found.worse_by == alike.worse_by
    assert found.whole.p == pytest.approx(min(1.0, 4 * (alike.whole.p or 0.0)))
    assert any("left the race after round 5 of 8" in note for note in pair_notes(found))
    both = compare(make_board(values, gone={"c0": 3, "c1": 5}), "c0", "c1")
    assert both.seeds == (0, 1, 2) and both.looks == 2


def test_of_steps_fewer_are_better_and_a_shared_grid_point_is_not_certainty():
    values = np.broadcast_to(np.array([400.0, 450.0])[:, None, None], (2, 2, 3))
    found = compare(make_board(values, score="steps", grid=50.0), "c0", "c1", 0.02)
    assert (found.whole.difference, found.lead, found.margin) == (-50, 50, 20)
    assert found.whole.p is not None and found.whole.p > 1e-6
    assert found.worse_by and found.worse_by[0] < 0 < found.worse_by[1]
    assert pair_sentence(found).startswith("c0 is better than c1 on the mean of 2 tasks by 50 steps fewer to")
    assert found.as_seen and found.as_seen.seeds and found.as_seen.seeds >= 2


def test_one_seed_gives_scores_and_says_how_many_it_takes():
    found = compare(make_board(draw(np.random.default_rng(SEED), seeds=1)), "c0", "c1")
    nothing = (found.whole.p, found.whole.interval, found.whole.effect, found.bootstrap, found.worse_by)
    assert nothing == (None,) * 5 and (found.within, found.as_seen, found.told_apart) == (None,) * 3
    assert "2 seeds are the least" in pair_sentence(found) and "better" not in pair_sentence(found)


def test_seeds_predicted_grow_with_noise_and_fall_with_the_difference():
    rng = np.random.default_rng(SEED)
    base, apart = rng.standard_normal((1, 3, 6)), np.array([0.02, 0.0])[:, None, None]
    noise = np.concatenate([base, np.zeros_like(base)]) - np.array([base.mean(), 0.0])[:, None, None]

    def wanted(scale, gap=1.0):
        found = compare(make_board(0.5 + gap * apart + scale * noise), "c0", "c1")
        assert found.as_seen and found.as_margin and found.as_seen.seeds and found.as_margin.seeds
        return found.as_seen.seeds, found.as_margin.seeds

    seen, margin = zip(*(wanted(scale) for scale in (0.01, 0.02, 0.04, 0.08)), strict=True)
    assert list(seen) == sorted(set(seen)) and list(margin) == sorted(set(margin))
    assert wanted(0.08, 2.0)[0] < wanted(0.08)[0] and wanted(0.08, 2.0)[1] == wanted(0.08)[1]


@pytest.mark.slow
def test_equal_candidates_are_called_different_in_no_more_than_five_per_cent():
    rng = np.random.default_rng(SEED)
    repeats, alarms = 1000, 0
    for _ in range(repeats):
        ranked = make_board(draw(rng, candidates=2, tasks=2, seeds=5, spread=0.0))
        alarms += bool(compare(ranked, "c0", "c1").told_apart)
    low, high = clopper_pearson(alarms, repeats)
    print(f"seed {SEED}: {alarms} alarms of {repeats} ({low:.3f} to {high:.3f})")
    assert low <= 0.05


@pytest.mark.slow
def test_five_points_are_found_with_the_seeds_that_were_predicted_in_about_the_stated_power():
    """The prediction from a large pilot for a difference of its margin, tried on other seeds."""
    rng = np.random.default_rng(SEED)
    pilot = compare(make_board(draw(rng, 2, 2, 400, 0.05, 0.0)), "c0", "c1", 0.05).as_margin
    assert pilot is not None and pilot.seeds is not None and pilot.seeds > 4
    repeats, found = 300, 0
    for _ in range(repeats):
        values = draw(rng, 2, 2, pilot.seeds, 0.05, 0.0) + np.array([0.05, 0.0])[:, None, None]
        result = compare(make_board(values), "c0", "c1")
        found += bool(result.told_apart) and result.lead > 0
    low, high = clopper_pearson(found, repeats, 0.999)
    print(f"seed {SEED}: {pilot.seeds} seeds, found {found} of {repeats} ({low:.3f} to {high:.3f}),", end=" ")
    print(f"predicted {pilot.reached:.3f}")
    assert low <= pilot.reached <= high and pilot.reached >= pilot.power


def test_the_predicted_seeds_of_the_pair_are_those_of_power():
    values = draw(np.random.default_rng(SEED), 2, 3, 7)
    found = compare(make_board(values), "c0", "c1")
    apart = values[0] - values[1]
    expected = seeds_to_find(apart.mean(), apart.var(axis=1, ddof=1).tolist(), [1 / 3] * 3, 7)
    assert found.as_seen is not None and found.as_seen.seeds == expected.seeds
    assert found.as_seen.reached == pytest.approx(expected.reached)


def test_a_sentence_claims_what_is_shown_and_is_one_sentence():
    for ranked in boards(60):
        found = compare(ranked, "c0", "c1", 0.05)
        text = pair_sentence(found)
        assert text.endswith(".") and ". " not in text and "None" not in text and "nan" not in text
        assert "c0" in text and "c1" in text and "c2" not in text
        assert ("is better than" in text) == found.told_apart
        assert ("cannot be told apart" in text) == (not found.told_apart)
        for place, label in enumerate(found.labels):
            if f"{label} is shown to be" in text or "each is shown" in text:
                assert found.within and found.within[place]
        assert found.left == (None, None) or "shown to be" not in text


def test_when_every_task_is_full_more_seeds_are_not_promised():
    values = 0.99 + 0.001 * np.random.default_rng(SEED).standard_normal((2, 2, 4))
    found = compare(make_board(values), "c0", "c1")
    assert found.told_apart or "more seeds would not help" in pair_sentence(found)


def test_equal_runs_are_no_difference_that_seeds_could_show():
    values = np.broadcast_to(draw(np.random.default_rng(SEED), 1), (2, 3, 6))
    found = compare(make_board(values), "c0", "c1")
    assert (found.whole.p, found.as_seen, found.told_apart) == (1.0, None, False)
    assert "no difference was seen" in pair_sentence(found)


def test_labels_are_found_or_refused_in_a_sentence():
    values = draw(np.random.default_rng(SEED), 4)
    ranked = make_board(values, ["r=3:1", "r=4:1 / r=5:1", "m #1", "m #2"])
    assert find(ranked, "r=4:1") == find(ranked, "r=5:1") == find(ranked, "r=4:1 / r=5:1")
    for labels, words in (
        (("r=3:1", "r=3:2"), ("no candidate 'r=3:2'", "did you mean 'r=3:1'", "m #1")),
        (("r=3:1", "zzz"), ("no candidate 'zzz'", "known: r=3:1")),
        (("r=3:1", "r=3:1"), ("r=3:1 is given twice", "r=4:1 / r=5:1")),
        (("r=4:1", "r=5:1"), ("same architecture", "r=3:1")),
    ):
        with pytest.raises(CompareError) as caught:
            compare(ranked, *labels)
        assert all(word in str(caught.value) for word in words), str(caught.value)
    with pytest.raises(CompareError, match="no complete round"):
        compare(replace(ranked, waiting=("m #1",)), "r=3:1", "m #1")
    with pytest.raises(CompareError, match="from 0 to 1"):
        compare(ranked, "r=3:1", "m #1", margin=float("nan"))
    crowd = make_board(draw(np.random.default_rng(SEED), 60, 1, 2))
    with pytest.raises(CompareError, match="and 40 more"):
        compare(crowd, "c0", "other")
