"""A ranking in which some left the race early: what counts, what is said, and what it may never say."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from analysis.report import asked, render, write
from analysis.stats import estimate, holm, rank
from analysis.tables import SCORES, board
from analysis.words import sentence
from lab.answer import page, ranking_of
from sweeps.pruning import Race
from sweeps.recipe import loads
from sweeps.results import Pruned, ResultsError, read, write_pruned
from sweeps.scores import instances

from .factory import flat, halved, make_folder, make_frame

SEED = 20_261
SWEEPS = int(os.environ.get("SIMULATED_SWEEPS", "150"))


def left(label: str, after: int, rounds: int = 8) -> Pruned:
    return Pruned(f"arch-{label}", label, after, rounds, "r=3", 2 * after, 2 * after, 0.01)


def level(effects: dict[str, float], noise: float = 0.004):
    def curve(label, task, seed, _lr):
        rng = np.random.default_rng([*(label + task).encode(), seed])
        return flat(effects[label] + noise * rng.standard_normal())

    return curve


EFFECTS = {"r=3": 0.6, "r=4": 0.598, "r=5": 0.5}
FULL = make_frame(seeds=range(8), curve=level(EFFECTS))
SHORT = FULL.filter((pl.col("label") != "r=5") | (pl.col("seed") < 4))
GONE = (left("r=5", 4),)


def ranking(frame, score="accuracy", pruned=GONE, margin=0.02):
    found = rank(board(frame, score, pruned), margin)
    assert found is not None
    return found


@pytest.mark.parametrize("halve", [False, True])
@pytest.mark.parametrize("score", SCORES)
def test_a_sweep_prunes_by_the_numbers_that_are_ranked(score, halve):
    """Chance for what diverged, the budget for what never got there, the training that validation chose."""

    def lost(label, _task, seed, lr):
        return "diverged" if (label, seed, lr) in {("r=4", 1, 1e-3), ("r=5", 2, 2e-3)} else "budget"

    frame = make_frame(lrs=(1e-3, 2e-3), seeds=range(4), status=lost)
    rng = np.random.default_rng(SEED)
    columns = ("acc", "acc_valid", "auc", "auc_valid")
    frame = frame.with_columns(pl.Series(name, rng.uniform(size=frame.height)) for name in columns)
    holes = pl.Series(rng.uniform(size=frame.height) < 0.1)
    frame = frame.with_columns(
        pl.when(holes).then(float("nan")).otherwise(pl.col(c)).alias(c) for c in columns
    )
    steps = [None if step > 100 else int(step) for step in rng.choice([25, 50, 75, 100, 125], frame.height)]
    reached = pl.Series("steps_to", steps, pl.Int32)
    frame = frame.with_columns(reached)
    if halve:
        frame = halved(frame)
    mine = instances(frame.filter("final"), score)
    mine = mine.group_by("arch", "label", "task", "seed").agg(pl.col("value").mean())
    theirs = board(frame, score).cells.select("arch", "label", "task", "seed", "value")
    order = ["task", "arch", "seed"]
    assert theirs["value"].n_unique() > 2
    assert_frame_equal(mine.sort(order).select(theirs.columns), theirs.sort(order))


def test_who_left_counts_with_its_own_rounds_and_costs_the_others_none():
    ranked = board(SHORT, "accuracy", GONE)
    assert ranked.seeds == tuple(range(8)) and ranked.left_out == () and ranked.waiting == ()
    assert Counter(ranked.cells["label"].to_list()) == {"r=3": 16, "r=4": 16, "r=5": 8}
    without = board(SHORT)
    assert without.seeds == (0, 1, 2, 3) and without.left_out == (4, 5, 6, 7)  # a frame alone: as ever
    one, other = ranking(SHORT), ranking(FULL.filter(pl.col("label") != "r=5"), pruned=())
    for label in ("r=3", "r=4"):
        assert one.row(label).interval == other.row(label).interval
        assert (one.row(label).seeds, one.row(label).runs, one.row(label).left) == (8, 32, None)
    assert (one.row("r=5").seeds, one.row("r=5").runs, one.row("r=5").left) == (4, 16, GONE[0])
    assert one.row("r=5").interval == ranking(FULL.filter(pl.col("seed") < 4), pruned=()).row("r=5").interval


def test_each_pair_is_compared_on_the_seeds_it_shares_and_pays_for_the_looks():
    found = ranking(SHORT)
    cells = board(FULL).cells
    values = {
        key: dict(part.select("seed", "value").iter_rows()) for key, part in cells.group_by("label", "task")
    }

    def apart(a, b, seeds):
        tasks = ("recall", "copying")
        return estimate([np.array([values[a, t][s] - values[b, t][s] for s in seeds]) for t in tasks])

    near, far, third = (
        apart("r=3", "r=4", range(8)),
        apart("r=3", "r=5", range(4)),
        apart("r=4", "r=5", range(4)),
    )
    looks = 3  # after the second, third and fourth round
    p = holm([near.p_value() or 0.0, looks * (far.p_value() or 0.0), looks * (third.p_value() or 0.0)])
    assert found.best.label == "r=3"
    assert [found.row("r=4").p, found.row("r=5").p] == pytest.approx(p[:2])
    assert found.row("r=5").gap == pytest.approx(far.mean)
    assert found.row("r=5").gap_interval == pytest.approx(far.interval())
    assert found.row("r=5").tied is False


def test_one_that_left_early_may_stand_before_one_that_has_more_seeds():
    close = {"r=3": 0.6, "r=4": 0.4, "r=5": 0.5}
    frame = make_frame(seeds=range(8), curve=level(close))
    frame = frame.filter((pl.col("label") != "r=5") | (pl.col("seed") < 4))
    found = ranking(frame)
    assert [row.label for row in found.rows] == ["r=3", "r=5", "r=4"]
    assert [row.tied for row in found.rows] == [None, False, False]


@pytest.mark.parametrize("score", SCORES)
def test_without_pruning_nothing_is_another(score):
    found = ranking(FULL, score, ())
    stranger = ranking(FULL, score, (left("r=9", 4),))
    assert found == stranger
    assert found == ranking(FULL.sample(fraction=1.0, shuffle=True, seed=SEED), score, ())
    assert all(row.left is None and row.seeds == 8 for row in found.rows)


def lucky(label: str, _task: str, seed: int, _lr: float) -> list[float]:
    """r=5 has the better mean over its own four seeds, though it is behind r=3 on each of them."""
    base = 0.7 if seed < 4 else 0.4
    return flat(base + {"r=3": 0.02, "r=4": 0.01, "r=5": 0.0}[label] + 0.001 * (seed % 3))


def test_fewer_seeds_never_make_a_winner_nor_the_cheapest_within_the_margin():
    frame = make_frame(seeds=range(8), curve=lucky)
    frame = frame.filter((pl.col("label") != "r=5") | (pl.col("seed") < 4))
    found = ranking(frame, margin=0.5)
    assert found.row("r=5").score > found.best.score
    assert [row.label for row in found.rows] == ["r=3", "r=4", "r=5"]
    assert found.row("r=5").bound < 0.5 and found.row("r=5").within is None  # the cheapest of the three
    assert found.cheapest == "r=4"
    alone = ranking(frame.filter(pl.col("label") != "r=4"), margin=0.5)
    assert alone.best.label == alone.cheapest == "r=3"
    assert "no cheaper one that is still in the race is shown" in sentence(alone)
    # It loses by a constant, and so its comparison is beyond doubt.
    assert alone.row("r=5").tied is False


def test_who_left_is_not_worse_than_a_best_that_it_was_ahead_of():
    """The leader of the round in which it left need not be the best in the end."""

    def curve(label, _task, seed, _lr):
        late = 0.9 if seed >= 4 else 0.4
        return flat({"r=3": 0.6, "r=4": late, "r=5": 0.5}[label] + 0.001 * (seed % 3))

    frame = make_frame(seeds=range(8), curve=curve)
    found = ranking(frame.filter((pl.col("label") != "r=5") | (pl.col("seed") < 4)))
    assert found.best.label == "r=4"
    row = found.row("r=5")
    assert row.gap == pytest.approx(-0.1) and row.p < 0.05
    assert row.tied is True


def test_nothing_to_compare_it_by_is_waiting():
    found = ranking(SHORT.filter((pl.col("label") == "r=5") | (pl.col("seed") > 2)))
    assert found.waiting == ("r=5",) and [row.label for row in found.rows] == ["r=3", "r=4"]
    nobody = SHORT.filter(pl.col("label") == "r=5")
    assert rank(board(nobody, "accuracy", GONE)) is None


def test_the_sentence_says_who_left_when_and_what_that_stands_on():
    text = sentence(ranking(SHORT))
    assert (
        "Note: r=5 after 4 of 8 rounds left the race, by Wilcoxon's test at p 0.01; "
        "its comparison stands on 4 seeds." in text
    )
    assert "at up to 8 seeds" in text
    both = SHORT.filter((pl.col("label") != "r=4") | (pl.col("seed") < 6))
    text = sentence(ranking(both, pruned=(*GONE, left("r=4", 6))))
    assert "r=4 after 6 and r=5 after 4 of 8 rounds left the race" in text
    assert "their comparisons stand on 6 and 4 seeds" in text
    assert "left the race" not in sentence(ranking(FULL, pruned=()))
    steps = make_frame(seeds=range(8), curve=lambda label, *_: flat(0.4 if label == "r=5" else 0.6))
    assert "missed by r=5 in 32 of 32 runs" in sentence(ranking(steps, "steps", ()))
    text = sentence(ranking(steps.filter((pl.col("label") != "r=5") | (pl.col("seed") < 4)), "steps"))
    assert "the threshold was missed by r=5 in 16 of 16 runs" in text


def test_terminal_and_page_say_it_too(tmp_path):
    folder = make_folder(tmp_path / "run", SHORT)
    plain = render(read(folder), asked(read(folder), folder))
    assert plain.count("left the race") == 0
    write_pruned(folder, GONE)
    assert read(folder).pruned == GONE
    text = page(ranking_of(folder))
    assert "worse, left after round 4" in text and "8 seeds, 80 runs" in text
    html = write(folder).read_text(encoding="utf-8")
    wanted = ("left after round 4", "<dt>left the race</dt>", "its gap is somewhat too large")
    assert [
        words for words in wanted if words not in html
    ] == []  # the page is long, keep it out of a failure
    write_pruned(folder, ())
    assert read(folder).pruned == () and not (folder / "pruned.json").exists()


@pytest.mark.parametrize("content", ["[", "3", "[3]", '[{"arch": "x"}]'])
def test_a_broken_record_is_one_sentence(tmp_path, content):
    folder = make_folder(tmp_path / "run", SHORT)
    (folder / "pruned.json").write_text(content)
    with pytest.raises(ResultsError, match=r"pruned\.json: .*run the sweep again to renew it"):
        read(folder)


# -- whole sweeps, simulated


@dataclass(frozen=True)
class Rates:
    """Of simulated sweeps: in how many anybody is said to be worse, and rounds after which each left.

    careless: in how many anybody would be, if looks were not paid for; for two candidates only.
    """

    alarms: int
    careless: int
    gone: list[list[int | None]]


def simulate(effects: list[float], noise: float, sweeps: int, p: float, rng: np.random.Generator) -> Rates:
    """Sweeps of 16 rounds on two tasks, played by the race itself and ranked as any sweep is."""
    labels = [f"r={3 + place}" for place in range(len(effects))]
    frame = make_frame(labels=labels, seeds=range(16), settings=1).filter("final")
    frame = frame.drop("acc").join(pl.DataFrame({"label": labels, "effect": effects}), on="label")
    recipe = loads(
        "name: x\npattern: r*gdn + fox\nsearch: {r: [1, 2]}\ntasks: recall\n",
        overrides=(f"pruning={p}", "seeds=16"),
    )
    alarms, careless, gone = 0, 0, []
    for _ in range(sweeps):
        drawn = frame.with_columns(
            acc=0.5 + pl.col("effect") + pl.Series(noise * rng.normal(size=frame.height))
        )
        race, rounds = Race(recipe), drawn.partition_by("seed", as_dict=True)
        asked: list[pl.DataFrame] = []

        def finals(seed: int, race=race, rounds=rounds) -> pl.DataFrame:
            part = rounds[(seed,)]
            return part.filter([race.takes_part(arch, seed) for arch in part["arch"]])

        for seed in recipe.rounds:
            asked.append(finals(seed))
            race.go_on(lambda seed: True, finals, seed)
        found = rank(board(pl.concat(asked).select(make_frame().columns), "accuracy", [*race.left.values()]))
        assert found is not None
        alarms += any(row.tied is False for row in found.rows)
        careless += any(row.p / (row.seeds - 1 if row.left else 1) <= 0.05 for row in found.rows[1:])
        gone.append(
            [race.left[f"arch-{name}"].round if f"arch-{name}" in race.left else None for name in labels]
        )
    return Rates(alarms, careless, gone)


@pytest.mark.slow
@pytest.mark.parametrize("many", [2, 4])
def test_rates_equal_candidates_are_rarely_said_to_be_worse(many):
    found = simulate([0.0] * many, 0.05, SWEEPS, 0.01, np.random.default_rng(SEED))
    share = found.alarms / SWEEPS
    spared = np.mean([16 - (after or 16) for sweep in found.gone for after in sweep]) / 16
    somebody = np.mean([any(after for after in sweep) for sweep in found.gone])
    error = 3 * (0.05 * 0.95 / SWEEPS) ** 0.5
    print(
        f"seed {SEED}: {many} equal candidates, {SWEEPS} sweeps of 16 rounds: said worse in {share:.3f}",
        end="",
    )
    print(f" (+- {error:.3f} at 5 %)" + f", careless {found.careless / SWEEPS:.3f}" * (many == 2), end="")
    print(f"; somebody left in {somebody:.3f}, seeds spared {spared:.3f}")
    assert share <= 0.05 + error
    assert somebody > 0  # else nothing was tried


@pytest.mark.slow
def test_rates_fifteen_points_behind_leaves_soon():
    sweeps = max(40, SWEEPS // 3)
    rng = np.random.default_rng(SEED)
    found = simulate([0.0, 0.0, 0.0, -0.15], 0.05, sweeps, 0.01, rng)
    after = [sweep[-1] or 99 for sweep in found.gone]
    shares = {rounds: float(np.mean([a <= rounds for a in after])) for rounds in (4, 5, 6, 8)}
    print(f"seed {SEED}: 15 points behind, {sweeps} sweeps: left within so many rounds {shares};", end=" ")
    print(f"a schedule is said worse in {found.alarms / sweeps:.3f}")
    assert shares[8] >= 0.95 and shares[5] >= 0.8
    # Four seeds, three looks and six pairs: what left soon is not always shown to be worse.
    assert found.alarms / sweeps >= 0.6
