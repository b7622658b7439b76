"""Marginal means: plain means on a whole grid, the truth behind a part of one, and nothing where none is."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from analysis.marginal import Importance, choices_of, defined, marginals
from analysis.report import asked, render
from analysis.stats import estimate
from lab.answer import answer_of, effects_page
from sweeps.results import read

from .boards import make_board
from .factory import flat, make_folder, make_frame

SEED = 20_270
R, M = (3, 4, 6), ("gdn", "gla")


def grid(rng, seeds=5, combinations=None, truth=None, **more):
    """A board over r and m, its values and its combinations; the candidates in a random order."""
    every = list(combinations or itertools.product(R, M))
    every = [every[place] for place in rng.permutation(len(every))]
    level = np.array([0.5 if truth is None else truth(r, m) for r, m in every])
    values = level[:, None, None] + 0.05 * rng.standard_normal((len(every), 2, seeds))
    texts = [json.dumps({"r": r, "m": m, "same": 1}) for r, m in every]
    return make_board(values, [f"r={r}, m={m}" for r, m in every], choices=texts, **more), values, every


def effects_of(found):
    return {(v.name, one.value): one for v in found.variables for one in v.effects}


def test_on_a_whole_grid_it_is_the_plain_mean_and_the_intervals_are_those_of_stats():
    ranked, values, every = grid(np.random.default_rng(SEED))
    found = marginals(ranked)
    assert found is not None and found.whole and (found.candidates, found.space) == (6, 6)
    assert [v.name for v in found.variables] == ["r", "m"]  # "same" never varies
    for (name, value), one in effects_of(found).items():
        place = "rm".index(name)
        mine = [str(combination[place]) == value for combination in every]
        expected = estimate(list(values[mine].mean(axis=0)))
        apart = estimate(list(values[mine].mean(axis=0) - values.mean(axis=0)))
        assert one.candidates == sum(mine)
        assert one.mean == pytest.approx(expected.mean) and one.interval == pytest.approx(expected.interval())
        assert one.effect == pytest.approx(apart.mean)
        assert one.effect_interval == pytest.approx(apart.interval())


def test_effects_of_a_variable_add_up_to_nothing_and_noise_of_a_seed_cancels_from_them():
    rng = np.random.default_rng(SEED)
    ranked, values, _ = grid(rng)
    shaken = make_board(
        values + rng.standard_normal((1, 2, 5)),
        ranked.candidates["label"].to_list(),
        choices=ranked.runs.unique("arch", maintain_order=True)["choices"].to_list(),
    )
    calm, loud = marginals(ranked), marginals(shaken)
    assert calm is not None and loud is not None
    for variable in calm.variables:
        assert sum(one.effect or 0.0 for one in variable.effects) == pytest.approx(0, abs=1e-12)
    for key, one in effects_of(calm).items():
        other = effects_of(loud)[key]
        assert other.effect == pytest.approx(one.effect, abs=1e-9)
        assert other.effect_interval == pytest.approx(one.effect_interval, abs=1e-9)
        assert one.interval and other.interval and np.ptp(other.interval) > np.ptp(one.interval)


def test_a_part_of_a_grid_gives_the_truth_where_variables_add_up_and_plain_means_do_not():
    def truth(r, m):
        return 0.1 * r + (0.3 if m == "gla" else 0.0)

    part = [(3, "gdn"), (3, "gla"), (4, "gdn"), (6, "gla")]
    rng = np.random.default_rng(SEED)
    ranked, *_ = grid(rng, 4000, part, truth)
    found = marginals(ranked)
    assert found is not None and not found.whole and "4 of 6 combinations" in defined(found)
    effects = effects_of(found)
    print(f"seed {SEED}", end=" ")
    for r in R:
        assert effects["r", str(r)].mean == pytest.approx(0.1 * r + 0.15, abs=0.01)
    assert effects["m", "gla"].effect == pytest.approx(0.15, abs=0.01)


def test_values_that_cannot_be_told_from_another_variables_have_no_mean():
    ranked, *_ = grid(np.random.default_rng(SEED), combinations=[(3, "gdn"), (4, "gla")])
    found = marginals(ranked)
    assert found is not None
    for one in effects_of(found).values():
        assert (one.mean, one.effect, one.interval, one.effect_interval) == (None,) * 4


def test_one_variable_is_the_ranking_and_nothing_is_shown():
    ranked, *_ = grid(np.random.default_rng(SEED), combinations=[(r, "gdn") for r in R])
    assert marginals(ranked) is None and choices_of(ranked) == {}
    assert marginals(make_board(np.zeros((2, 1, 2)))) is None


def test_one_seed_has_means_and_no_intervals_and_who_left_has_its_seeds():
    ranked, *_ = grid(np.random.default_rng(SEED), seeds=1)
    found = marginals(ranked)
    assert found is not None and "no intervals" in defined(found)
    assert all(one.mean is not None and one.interval is None for one in effects_of(found).values())
    ranked, *_ = grid(np.random.default_rng(SEED), gone={"r=6, m=gla": 2})
    found = marginals(ranked)
    assert found is not None and found.seeds == (0, 1) and found.whole


def two_variables(folder):
    labels = [f"r={r}, m={m}" for r, m in itertools.product(R, M)]
    frame = make_frame(
        labels=labels,
        seeds=range(3),
        curve=lambda label, task, seed, _: flat(
            0.4 + 0.05 * (label[2] == "3") + 0.01 * ((seed + len(task)) % 3)
        ),
    )
    texts = {label: json.dumps({"r": f"{label[2]}:1", "m": label[-3:]}) for label in labels}
    frame = frame.with_columns(choices=frame["label"].replace_strict(texts))
    return make_folder(folder, frame, "name: two\n")


def test_report_text_and_page_show_the_means_with_the_importance_beside(tmp_path):
    folder = two_variables(tmp_path / "two")
    answer = answer_of(folder)
    assert answer.importance is not None and set(answer.importance.shares) == {"r", "m"}
    assert answer.importance.shares["r"] > answer.importance.shares["m"]
    text = effects_page(answer)
    for word in ("r=3:1", "m=gdn", "every combination", "PED-ANOVA", "best 1 of 6"):
        assert word in text
    results = read(folder)
    page = render(results, asked(results, folder), answer.importance)
    assert "What each variable does" in page and "PED-ANOVA" in page and "r=6:1" in page
    hostile = render(results, asked(results, folder), Importance("<b>", {"<i>": 1.0}))
    assert "&lt;b&gt;: &lt;i&gt; 1.00" in hostile
    alone = render(results, asked(results, folder))
    assert "What each variable does" in alone and "PED-ANOVA" not in alone


def conditional(rng):
    """A board over r and m, where only m=sparse has a k: values [candidate, task, seed], and the choices."""
    every = [{"r": r, "m": "swiglu"} for r in R] + [
        {"r": r, "m": "sparse", "k": k} for r in R for k in (0.1, 0.3)
    ]
    every = [every[place] for place in rng.permutation(len(every))]
    values = 0.5 + 0.05 * rng.standard_normal((len(every), 2, 5))
    labels = [", ".join(f"{name}={value}" for name, value in one.items()) for one in every]
    return make_board(values, labels, choices=[json.dumps(one) for one in every]), values, every


def test_a_variable_under_a_value_of_another_is_compared_among_the_candidates_that_have_it():
    print(f"seed {SEED}", end=" ")
    ranked, values, every = conditional(np.random.default_rng(SEED))
    found = marginals(ranked)
    assert found is not None and [v.name for v in found.variables] == ["r", "m", "k"]
    assert [v.among for v in found.variables] == [None, None, 6] and found.of == 9
    assert "k exists in 6 of 9 schedules and is compared among these." in defined(found)
    effects, score = effects_of(found), values.mean(axis=(1, 2))
    sparse = np.array([one["m"] == "sparse" for one in every])
    for k in (0.1, 0.3):
        one = effects["k", str(k)]
        plain = score[[of.get("k") == k for of in every]].mean()
        assert one.candidates == 3 and one.mean == pytest.approx(plain)
        assert one.effect == pytest.approx(plain - score[sparse].mean())
    # A ratio that is there with sparse at two k counts once under sparse, as under swiglu.
    assert found.whole and (found.candidates, found.space) == (6, 6)
    for r in R:
        own = np.array([one["r"] == r for one in every])
        expected = (score[own & sparse].mean() + score[own & ~sparse].mean()) / 2
        assert effects["r", str(r)].mean == pytest.approx(expected)
    assert set(choices_of(ranked)[ranked.runs["arch"][0]]) == {"r", "m"}  # importance is of these two
