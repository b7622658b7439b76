"""Laws of tau, its ties, its interval and its ceiling."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import kendalltau

from analysis.agreement import agreement, chosen, repeat, signs, split_half, standings, tau
from analysis.panel import PanelError, Part, Sheet, cut
from analysis.stats import estimate, holm

from .factory import make_panel

SEED = 20_264


def sheet(scores, noise=0.0, seeds=3, rng=None, cells=1):
    """A sheet of one cell per task with these mean scores."""
    return cut(make_panel([scores] * cells, [noise] * cells, seeds, rng or np.random.default_rng(SEED)))


def order_signs(scores):
    first, second = np.triu_indices(len(scores), 1)
    return np.sign(np.asarray(scores)[first] - np.asarray(scores)[second])


def test_a_ranking_agrees_with_itself_and_not_with_its_reverse():
    up = np.random.default_rng(SEED).permutation(9) / 10
    assert agreement(sheet(up), sheet(up), draws=0).tau == 1
    assert agreement(sheet(up), sheet(-up), draws=0).tau == -1
    assert tau(np.zeros(3), np.ones(3)) == 0


@pytest.mark.parametrize("levels", [100, 4])
def test_tau_is_that_of_scipy_with_and_without_equal_scores(levels):
    rng = np.random.default_rng(SEED)
    for _ in range(50):
        x, y = rng.integers(levels, size=(2, 8))
        wanted = kendalltau(x, y).statistic
        if np.isfinite(wanted):
            assert tau(order_signs(x), order_signs(y)) == pytest.approx(wanted)


def test_renaming_the_schedules_changes_nothing():
    rng = np.random.default_rng(SEED)
    one, two = sheet(np.arange(7) / 30, 0.05, 4, rng, 3), sheet(np.arange(7) / 30, 0.05, 3, rng, 2)
    mixed = rng.permutation(7).tolist()
    for ties in ("paired", "overlap", "none"):
        before = agreement(one, two, ties, draws=100, seed=1)
        after = agreement(one.only(mixed), two.only(mixed), ties, draws=100, seed=1)
        assert before == after


def test_paired_ties_are_those_of_stats():
    rng = np.random.default_rng(SEED)
    one = sheet(np.arange(5) / 25, 0.05, 4, rng, 3)
    values = chosen(one.parts)
    pairs = list(itertools.combinations(range(5), 2))
    gaps = [estimate([cell[a] - cell[b] for cell in values]) for a, b in pairs]
    p = holm([gap.p_value() or 0.0 for gap in gaps])
    wanted = [np.sign(gap.mean) * (value <= 0.05) for gap, value in zip(gaps, p, strict=True)]
    assert signs(values, one.weights).tolist() == wanted
    assert 0 < np.abs(wanted).sum() < len(pairs)


def test_overlap_ties_are_overlapping_intervals():
    one = sheet(np.arange(6) / 25, 0.04, 4, np.random.default_rng(SEED), 2)
    edges = {row.label: row.interval or (0.0, 0.0) for row in standings(one)}
    told = signs(chosen(one.parts), one.weights, "overlap")
    for sign, (a, b) in zip(told, itertools.combinations(one.labels, 2), strict=True):
        apart = edges[a][0] > edges[b][1] or edges[b][0] > edges[a][1]
        assert bool(sign) == apart


def test_noise_that_schedules_share_makes_no_ties_when_paired():
    rng = np.random.default_rng(SEED)
    one = cut(make_panel([np.arange(4) / 50], [0.001], 5, rng, shared=0.2))
    assert np.abs(signs(chosen(one.parts), one.weights)).sum() == 6
    assert np.abs(signs(chosen(one.parts), one.weights, "overlap")).sum() == 0


def test_the_rate_is_chosen_on_validation_and_scored_on_test():
    value, valid = np.zeros((2, 2, 2)), np.zeros((2, 2, 2))
    value[:, 0], value[:, 1] = 0.9, 0.4
    valid[0, 1], valid[1, 0] = 1.0, 1.0
    assert chosen([Part("recall", value, valid)])[0].tolist() == [[0.4, 0.4], [0.9, 0.9]]


def test_counts_say_what_was_told_apart_and_contradicted():
    found = agreement(sheet([0.1, 0.2, 0.3]), sheet([0.1, 0.3, 0.2]), draws=0)
    assert (found.pairs, found.told_first, found.told_second, found.told_both) == (3, 3, 3, 3)
    assert found.contradicted == 1 and found.tau == pytest.approx(1 / 3)
    half = agreement(sheet([0.1, 0.2, 0.3]), sheet([0.1, 0.1, 0.3]), draws=0)
    assert half.told_both == 2 and half.contradicted == 0 and half.tau == pytest.approx(2 / 6**0.5)


@pytest.mark.parametrize(("step", "ties"), [(0.03, "paired"), (0.06, "paired"), (0.03, "none")])
def test_the_interval_covers_the_mean_tau_of_fresh_runs(step, ties):
    rng = np.random.default_rng(SEED)
    effects, repeats = [np.arange(8) * step] * 6, 60

    def fresh():
        long, short = make_panel(effects, [0.05] * 6, 4, rng), make_panel(effects[:3], [0.05] * 3, 3, rng)
        return cut(long), cut(short)

    truth = float(np.mean([agreement(*fresh(), ties=ties, draws=0).tau for _ in range(200)]))
    covered = 0
    for seed in range(repeats):
        low, high = agreement(*fresh(), ties=ties, draws=200, seed=seed).interval or (0.0, 0.0)
        covered += low <= truth <= high
    print(f"seed {SEED}: step {step}, ties {ties}: mean tau {truth:.2f} covered in {covered} of {repeats}")
    assert covered >= 50  # below has probability 0.001 at 95 %


def width(one, two, **options):
    low, high = agreement(one, two, draws=300, **options).interval or (0.0, 0.0)
    return high - low


def test_more_seeds_narrow_the_interval_and_drawn_schedules_widen_it():
    rng = np.random.default_rng(SEED)
    wide, narrow = [], []
    for seeds, into in ((3, wide), (24, narrow)):
        for seed in range(6):
            one, two = (sheet(np.arange(8) * 0.03, 0.05, seeds, rng, 3) for _ in range(2))
            into.append((width(one, two, seed=seed), width(one, two, seed=seed, schedules=True)))
    print(f"seed {SEED}: widths at 3 seeds {np.mean(wide, 0)}, at 24 {np.mean(narrow, 0)} (seeds; schedules)")
    assert np.mean(narrow, 0)[0] < 0.6 * np.mean(wide, 0)[0]
    assert np.mean(wide, 0)[1] > np.mean(wide, 0)[0] and np.mean(narrow, 0)[1] > np.mean(narrow, 0)[0]


def test_the_same_seed_gives_the_same_interval():
    one = sheet(np.arange(6) * 0.03, 0.05, 3, cells=3)
    assert agreement(one, one, draws=50, seed=4) == agreement(one, one, draws=50, seed=4)


def test_ceilings_rise_with_the_seeds_and_are_one_without_noise():
    rng = np.random.default_rng(SEED)
    few, many = (sheet(np.arange(8) * 0.03, 0.05, seeds, rng, 3) for seeds in (4, 32))
    assert split_half(few).mean < split_half(many).mean
    assert repeat(few).mean < repeat(many).mean
    exact = sheet(np.arange(5) / 10)
    assert split_half(exact).mean == repeat(exact).mean == 1


def test_halves_of_one_seed_compare_bare_orders_and_say_so():
    for seeds, ties, each in ((2, "none", 1), (3, "none", 1), (4, "paired", 2), (7, "paired", 3)):
        found = split_half(sheet(np.arange(5) / 10, 0.01, seeds), splits=5)
        assert (found.ties, found.seeds) == (ties, each)


def test_too_little_is_refused_in_a_sentence():
    one = sheet([0.1, 0.2], seeds=1)
    for call in (lambda: split_half(one), lambda: repeat(one), lambda: signs(chosen(one.parts), one.weights)):
        with pytest.raises(PanelError, match="2 seeds are needed"):
            call()
    with pytest.raises(PanelError, match="different schedules"):
        agreement(sheet([0.1, 0.2]), sheet([0.1, 0.2, 0.3]))
    with pytest.raises(PanelError, match="no ranking; 2 are needed"):
        agreement(sheet([0.1]), sheet([0.1]))
    assert agreement(one, one, "none").interval is None


def test_tasks_weigh_alike_however_many_cells_they_have():
    parts = tuple(Part(task, np.zeros((2, 1, 2)), np.zeros((2, 1, 2))) for task in "aab")
    assert Sheet(("x", "y"), parts).weights.tolist() == [0.25, 0.25, 0.5]
