"""Laws of an ablation: what a part was given comes back out, its costs too; p is that of the whole table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from analysis.ablation import Parts, ablation
from analysis.ablation_plot import figure
from analysis.stats import estimate, holm
from analysis.tables import SCORES
from lab.ablate.page import costs

from .boards import BUDGET, make_board

SEED = 61_803
NAMES = ("gate", "taps", "norm")
PARTS = Parts(
    full="all",
    bare="none",
    without={name: f"without {name}" for name in NAMES},
    only={name: f"only {name}" for name in NAMES},
)
LABELS = ["all", *PARTS.without.values(), "none", *PARTS.only.values()]


def values(rng, gains, seeds=5, tasks=3, noise=0.02):
    """Scores [A, T, S]: a bare 0.4 plus what each part gives, and noise of which seeds share a half."""
    has = [NAMES, *(set(NAMES) - {name} for name in NAMES), (), *({name} for name in NAMES)]
    level = np.array([0.4 + sum(gains[name] for name in one) for one in has])[:, None, None]
    shared = noise * rng.standard_normal((1, tasks, seeds))
    return level + shared + noise * rng.standard_normal((len(has), tasks, seeds))


@pytest.mark.parametrize("score", SCORES)
def test_effects_are_paired_differences_with_p_over_the_whole_table(score) -> None:
    rng = np.random.default_rng(SEED)
    print(f"seed {SEED}")
    drawn = values(rng, {"gate": 0.2, "taps": 0.0, "norm": -0.1})
    if score == "steps":
        drawn = np.round(drawn * BUDGET)
    board = make_board(drawn, LABELS, score)
    found = ablation(board, PARTS)
    assert found is not None and found.seeds == 5
    sign, least = (-1, 2 * board.grid**2 / 12) if score == "steps" else (1, 0.0)
    pairs = [(0, 1 + i) for i in range(3)] + [(5 + i, 4) for i in range(3)]
    gaps = [estimate(list(sign * (drawn[a] - drawn[b])), least) for a, b in pairs]
    corrected = holm([gap.p_value() or 0.0 for gap in gaps])
    effects = [one.in_full for one in found.worth] + [one.alone for one in found.worth]
    for effect, gap in zip(effects, gaps, strict=True):
        assert effect is not None
        assert effect.mean == pytest.approx(gap.mean) and effect.interval == pytest.approx(gap.interval())
    by_place = [p for name in range(3) for p in (effects[name], effects[3 + name])]
    order = [i for name in range(3) for i in (name, 3 + name)]
    assert [effect.p for effect in by_place] == pytest.approx([corrected[i] for i in order])
    told = {one.part: {one.in_full.verdict, one.alone.verdict} for one in found.worth}
    better, worse = ("hurts", "helps") if score == "steps" else ("helps", "hurts")
    assert told == {"gate": {better}, "taps": {"open"}, "norm": {worse}}


def test_no_part_is_found_where_there_is_none() -> None:
    """At most about one table in twenty names any part of six effects that are nothing."""
    rng = np.random.default_rng(SEED)
    print(f"seed {SEED}")
    named = 0
    for _ in range(200):
        found = ablation(make_board(values(rng, dict.fromkeys(NAMES, 0.0)), LABELS), PARTS)
        assert found is not None
        named += any(e.verdict != "open" for one in found.worth for e in (one.in_full, one.alone))
    assert named <= 20, named


def with_costs(board):
    """Of every variant another number, and another of each kind."""
    sizes = pl.Series([1000 + 7 * i**2 for i in range(len(LABELS))])
    order = [LABELS.index(label) for label in board.candidates["label"]]
    frame = board.candidates.with_columns(params=sizes[order], flops=2 * sizes[order], state=3 * sizes[order])
    return replace(board, candidates=frame)


def drawn_of(found):
    return figure(found, [costs(one) for one in found.worth])


def test_costs_are_what_the_part_adds_to_the_whole() -> None:
    found = ablation(
        with_costs(make_board(values(np.random.default_rng(0), dict.fromkeys(NAMES, 0.0)), LABELS)), PARTS
    )
    assert found is not None
    for i, one in enumerate(found.worth, 1):
        assert (one.params, one.flops, one.state) == tuple(-7 * k * i**2 for k in (1, 2, 3))


def test_at_one_seed_there_is_a_mean_and_nothing_is_told() -> None:
    found = ablation(
        make_board(values(np.random.default_rng(0), {"gate": 0.2, "taps": 0, "norm": 0}, seeds=1), LABELS),
        PARTS,
    )
    assert found is not None and found.full[1] is None
    assert {e.verdict for one in found.worth for e in (one.in_full, one.alone)} == {"one seed"}
    assert all(e.interval is None and e.p is None for one in found.worth for e in (one.in_full, one.alone))


def test_what_is_not_trained_yet_has_no_effect_and_without_the_whole_there_is_no_table() -> None:
    drawn = values(np.random.default_rng(0), dict.fromkeys(NAMES, 0.1))
    less = [i for i, label in enumerate(LABELS) if label != "only taps"]
    found = ablation(make_board(drawn[less], [LABELS[i] for i in less]), PARTS)
    assert found is not None
    assert [one.alone is None for one in found.worth] == [False, True, False]
    assert len(drawn_of(found).data) == 2
    assert ablation(make_board(drawn[1:], LABELS[1:]), PARTS) is None


def test_the_figure_has_every_effect_and_every_cost_where_it_is() -> None:
    drawn = values(np.random.default_rng(0), {"gate": 0.2, "taps": 0, "norm": 0})
    found = ablation(with_costs(make_board(drawn, LABELS)), PARTS)
    assert found is not None
    picture = drawn_of(found)
    for trace, place in zip(picture.data, ("in_full", "alone"), strict=True):
        effects = [getattr(one, place) for one in found.worth]
        assert list(trace.x) == pytest.approx([100 * e.mean for e in effects])
        assert [round(y) for y in trace.y] == [0, 1, 2]
        ends = np.array(trace.x) + np.array(trace.error_x.array)
        assert ends == pytest.approx([100 * e.interval[1] for e in effects])
    columns = {}
    for written in picture.layout.annotations:
        at = "heading" if written.yref == "paper" else written.y
        columns.setdefault(written.xshift, {})[at] = written.text
    assert {column.pop("heading"): column for column in columns.values()} == {
        "parameters": {0: "-7", 1: "-28", 2: "-63"},
        "FLOPs": {0: "-14", 1: "-56", 2: "-126"},
        "state": {0: "-21", 1: "-84", 2: "-189"},
    }
