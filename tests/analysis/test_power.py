"""Laws of the power of cells and of the number of seeds that tells two schedules apart."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import f_oneway, ttest_rel

from analysis.agreement import chosen
from analysis.panel import PanelError, cut
from analysis.power import components, power_at, seeds_between, seeds_for, separation
from analysis.stats import estimate

from .factory import make_panel

SEED = 20_265


def test_f_is_that_of_the_two_way_analysis_of_variance():
    x = np.random.default_rng(SEED).normal(size=(5, 4))
    between, noise = components(x)
    # Without differences between seeds it is the one-way F with fewer degrees of freedom below.
    flat = x - x.mean(0)
    grand, rows = flat.mean(), flat.mean(1)
    assert between == pytest.approx(4 * ((rows - grand) ** 2).sum() / 4)
    assert noise == pytest.approx(((flat - rows[:, None]) ** 2).sum() / 12)
    assert between / noise == pytest.approx(f_oneway(*flat).statistic * 12 / 15)
    assert components(x + np.arange(4)) == pytest.approx((between, noise))


def test_two_schedules_give_the_square_of_the_paired_t():
    x = np.random.default_rng(SEED).normal(size=(2, 6))
    between, noise = components(x)
    assert between / noise == pytest.approx(ttest_rel(x[0], x[1]).statistic ** 2)


def test_components_are_right_on_average():
    rng = np.random.default_rng(SEED)
    effect, found = 0.03 * np.arange(6), []
    for _ in range(300):
        between, noise = components(
            effect[:, None] + 0.05 * rng.normal(size=(6, 4)) + 0.2 * rng.normal(size=4)
        )
        found.append((noise, (between - noise) / 4))
    print(f"seed {SEED}: noise^2 and spread^2 {np.mean(found, axis=0)}")
    assert np.mean(found, axis=0) == pytest.approx([0.05**2, effect.var(ddof=1)], rel=0.06)


def test_the_cell_with_more_signal_for_the_same_time_comes_first():
    rng = np.random.default_rng(SEED)
    effects = [np.arange(6) * 0.002, np.arange(6) * 0.04, np.arange(6) * 0.04]
    made = make_panel(effects, [0.05] * 3, 6, rng, seconds=[1.0, 1.0, 8.0], rates=2)
    table = separation(made)
    assert table["setting"][0] == "task1(cell=1)"
    assert table.height == 6 and table["per_second"].is_sorted(descending=True)
    best = table.row(0, named=True)
    # Seconds of a schedule and seed hold all trainings.
    assert best["seconds"] == pytest.approx(2.0 * best["step"] / 200)
    assert best["per_second"] == pytest.approx((best["spread"] / best["noise"]) ** 2 / best["seconds"])
    weak = table.filter(table["setting"] == "task0(cell=0)")
    assert weak["apart"].max() < 0.5 < table["apart"].max()


def test_a_cell_without_noise_or_difference_is_no_trouble():
    flat = separation(make_panel([np.zeros(3), np.arange(3)], [0.0, 0.0], 3, np.random.default_rng(0)))
    assert set(flat.filter(flat["setting"] == "task0(cell=0)")["per_second"]) == {0.0}
    assert set(flat.filter(flat["setting"] == "task1(cell=1)")["per_second"]) == {float("inf")}


@pytest.mark.parametrize(("delta", "cells"), [(0.06, 1), (0.05, 3), (0.03, 3)])
def test_the_predicted_number_of_seeds_is_right(delta, cells):
    """Exact when variances and difference are known: as many finds as the power says."""
    rng = np.random.default_rng(SEED)
    sd = np.linspace(0.03, 0.06, cells)
    weights = [1 / cells] * cells
    seeds = next(n for n in range(2, 500) if power_at(delta, 2 * sd**2, weights, n) >= 0.8)
    repeats = 400
    hits = 0
    for _ in range(repeats):
        gaps = [delta + s * rng.normal(size=seeds) - s * rng.normal(size=seeds) for s in sd]
        one = estimate(gaps)
        hits += (one.p_value() or 0.0) <= 0.05 and one.mean > 0
    power = power_at(delta, 2 * sd**2, weights, seeds)
    error = 3 * (power * (1 - power) / repeats) ** 0.5
    print(f"seed {SEED}: {seeds} seeds: predicted {power:.3f}, found {hits / repeats:.3f} (+- {error:.3f})")
    assert abs(hits / repeats - power) <= error


def test_a_large_pilot_predicts_what_the_truth_predicts():
    rng = np.random.default_rng(SEED)
    truth = next(n for n in range(2, 500) if power_at(0.02, [2 * 0.05**2], [1.0], n) >= 0.8)
    pilot = make_panel([[0.52, 0.50]], [0.05], 2000, rng)
    found = seeds_for(cut(pilot), "s00", "s01")
    print(f"seed {SEED}: {truth} seeds from the truth, {found.seeds} from a pilot of 2,000")
    assert found.seeds == pytest.approx(truth, rel=0.15)
    assert found.delta == pytest.approx(0.02, abs=0.005) and found.pilot == 2000


def test_seeds_fall_with_the_difference_and_rise_with_power_and_family():
    rng = np.random.default_rng(SEED)
    base = [0.05 * rng.normal(size=8)]

    def seeds(delta, **options):
        return seeds_between([base[0] + delta], [0.05 * np.ones(8)], [1.0], **options).seeds or 10**9

    assert seeds(0.2) < seeds(0.1)
    assert seeds(0.1, power=0.5) < seeds(0.1, power=0.95)
    assert seeds(0.1) < seeds(0.1, family=10)
    few = seeds_between([base[0] + 0.1], [0.05 * np.ones(8)], [1.0])
    assert few.reached >= 0.8 > power_at(few.delta, [base[0].var(ddof=1)], [1.0], (few.seeds or 0) - 1)


def test_equal_schedules_are_never_told_apart_and_a_sure_difference_at_once():
    same = [np.array([0.1, 0.2, 0.3])]
    assert seeds_between(same, same, [1.0]).seeds is None
    assert seeds_between([same[0] + 0.1], same, [1.0]).seeds == 2
    with pytest.raises(PanelError, match="2 seeds are needed"):
        seeds_between([same[0][:1]], [same[0][:1]], [1.0])
    with pytest.raises(PanelError, match="between 0 and 1"):
        seeds_between(same, same, [1.0], power=80)
    sheet = cut(make_panel([[0.1, 0.2]], [0.01], 3, np.random.default_rng(0)))
    with pytest.raises(PanelError, match="no schedule 'x'"):
        seeds_for(sheet, "s00", "x")
    assert len(chosen(sheet.parts)) == 1
