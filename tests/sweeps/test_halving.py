"""Halving: what each round leaves of the optimiser settings, by the rule and in sweeps that really run."""

import itertools
import random
import shutil
from pathlib import Path

import polars as pl
import pytest

from analysis.tables import board
from sweeps import results, space
from sweeps.halving import Setting, counts, floor, survivors
from sweeps.pool import use_one_thread
from sweeps.recipe import Recipe, loads
from sweeps.run import code_hash, execute, runs_of
from sweeps.study import Started, sweep

TEXT = """\
name: halved
pattern: r*gdn(conv=2) + fox
search: {r: [1:1, 2:1]}
shape: {dim: 16, heads: 2}
tasks:
  - recall(vocab=8, length=16, train_examples=128)
  - recall(vocab=8, length=24, train_examples=128)
  - memorization(vocab=16, length=16)
train:
  {steps: 10, batch: 8, eval_every: 2, eval_examples: 32, lr: [1e-6, 3e-3, 1e-2], weight_decay: [0.0, 0.1]}
score: auc
seeds: 4
halving: true
"""


def recipe(*overrides: str) -> Recipe:
    return loads(TEXT, "halved", overrides)


def ends(scores: dict[tuple[int, Setting], float], settings: int = 1) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {"seed": seed, "setting": f"t{s}", "lr": lr, "weight_decay": wd, "chance": 0.1}
            | {"acc_valid": value, "auc_valid": value}
            for (seed, (lr, wd)), value in scores.items()
            for s in range(settings)
        ]
    )


def test_every_round_keeps_the_better_half_on_the_mean_of_all_rounds_so_far() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(50):
        given = tuple((rng.random(), 0.1) for _ in range(rng.randint(1, 9)))
        rounds = rng.randint(1, 5)
        scores = {(s, one): rng.random() for s in range(rounds) for one in given}
        sizes = counts(len(given), rounds + 1)
        left: tuple[Setting, ...] = given
        for played in range(1, rounds + 1):
            mean = {one: sum(scores[s, one] for s in range(played)) for one in left}
            best = sorted(left, key=lambda one: -mean[one])[: sizes[played]]
            left = tuple(best)
            assert survivors(ends(scores, 2), given, 2, range(played), "auc") == left
        assert len(left) == sizes[-1]


def test_a_floor_is_the_least_that_can_still_be_among_the_better_half() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(300):
        given = tuple((i + 1.0, 0.0) for i in range(rng.randint(2, 7)))
        rounds, ahead = rng.randint(1, 3), rng.randint(0, len(given) - 1)
        scores = {(s, one): rng.random() for s in range(rounds) for one in given}
        sums = {one: sum(scores[s, one] for s in range(rounds)) for one in given}
        mine = given[ahead]
        before = sums[mine] - scores[rounds - 1, mine]
        least = floor([sums[one] for one in given[:ahead]], before, len(given))
        assert least >= 0
        # Only those that have run count; with all others as bad as can be, the floor is what decides.
        few = {key: 0.0 if given.index(key[1]) > ahead else value for key, value in scores.items()}
        for value, stays in ((least + 1e-6, True), (least - 1e-6, False)):
            new = few | {(rounds - 1, mine): value}
            mean = {one: sum(new[s, one] for s in range(rounds)) for one in given}
            best = sorted(given, key=lambda one: (-mean[one], one))[: -(-len(given) // 2)]
            assert (mine in best) == stays or (not stays and not least)


def test_a_round_that_lacks_a_run_leaves_all_and_a_tie_goes_to_the_smaller() -> None:
    given = ((1e-3, 0.0), (1e-3, 0.1), (1e-2, 0.0))
    even = {(0, one): 0.5 for one in given}
    assert survivors(ends(even), given, 1, [0], "accuracy") == given[:2]
    assert survivors(ends(even, 2).slice(1), given, 2, [0], "accuracy") == given
    assert survivors(ends({(0, given[0]): 1.0}), given[:1], 1, [], "auc") == given[:1]
    lost = even | {(0, given[0]): float("nan")}
    assert survivors(ends(lost), given, 1, [0], "auc") == given[1:]


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "halved"
    outcome = sweep(recipe(), folder, workers=2)
    assert (outcome.rounds, outcome.trained, outcome.failures) == (4, 2 * 3 * (6 + 3 + 2 + 1), ())
    return folder


def finals(folder: Path) -> pl.DataFrame:
    return results.read(folder).frame.filter("final")


@pytest.mark.slow
def test_a_halved_sweep_runs_what_the_rule_leaves(halved: Path) -> None:
    frame = finals(halved)
    for (label, task), part in frame.group_by("label", "task"):
        given = tuple(sorted(set(part.select("lr", "weight_decay").iter_rows())))
        for seed in range(4):
            mine = part.filter(pl.col("seed") == seed)
            settings = mine["setting"].n_unique()
            left = survivors(part, given, settings, range(seed), "auc")
            assert set(mine.select("lr", "weight_decay").iter_rows()) == set(left), (label, task, seed)
            assert mine["trainings"].unique().to_list() == [len(left)]
    ranked = board(results.read(halved).frame, "auc")
    assert ranked.seeds == (0, 1, 2, 3)
    # What is ranked ran at every seed.
    assert ranked.cells.height == 2 * 2 * 4


@pytest.mark.slow
def test_a_halved_sweep_that_was_ended_goes_on_to_the_same_rows(halved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere" / "halved"
    sweep(recipe("seeds=2"), folder, workers=1)
    for path in sorted((folder / "trials").iterdir())[::3]:  # as if it had been killed before these
        path.unlink()
    sweep(recipe(), folder, workers=2)
    first, second = (results.read(one).frame.drop("seconds") for one in (halved, folder))
    assert first.equals(second)
    assert sweep(recipe(), folder, workers=1).trained == 0


@pytest.mark.slow
def test_a_halved_sweep_is_found_finished_by_another_folder(halved: Path, tmp_path: Path) -> None:
    """Those given up under way, too, though their key has the floor they could not reach."""
    assert (finals(halved)["status"] == "stopped").any()
    shutil.copytree(halved, tmp_path / "halved")
    outcome = sweep(recipe("name=again"), tmp_path / "again", workers=1)
    assert (outcome.trained, outcome.stored) == (0, finals(halved).height)
    first, second = (results.read(tmp_path / name).frame for name in ("halved", "again"))
    assert first.equals(second)


@pytest.mark.slow
def test_runs_of_a_whole_grid_are_used_and_those_left_out_set_aside(halved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere" / "halved"
    sweep(recipe("halving=false", "seeds=2"), folder, workers=2)
    before = results.read(folder).frame
    assert before["trainings"].unique().to_list() == [6]
    assert board(before, "auc").seeds == (0, 1)
    outcome = sweep(recipe(), folder, workers=2)
    assert (outcome.trained, outcome.stored) == (2 * 3 * 3, 2 * 3 * 9)
    assert len(results.stored(folder, "earlier")) == 2 * 3 * 3
    names = ["label", "setting", "lr", "weight_decay", "seed"]
    asked = [finals(one).select(names).sort(names) for one in (halved, folder)]
    assert asked[0].equals(asked[1])
    assert board(results.read(folder).frame, "auc").cells.equals(
        board(results.read(halved).frame, "auc").cells
    )


@pytest.mark.slow
def test_runs_are_given_up_at_the_first_evaluation_that_decides(halved: Path) -> None:
    """On stored curves: what each run had to reach, and what it could at best reach after each evaluation."""
    frame = results.read(halved).frame
    evaluations, counted = 5, 0
    for (label,), part in frame.filter(pl.col("task") == "memorization").group_by("label"):
        last = part.filter("final")
        area = {(row["seed"], row["lr"], row["weight_decay"]): row["auc_valid"] for row in last.to_dicts()}
        given = tuple(itertools.product((1e-6, 3e-3, 1e-2), (0.0, 0.1)))
        for seed in range(4):
            left = survivors(last, given, 1, range(seed), "auc")
            sums: list[float] = []
            for setting in left:
                before = sum(area[one, *setting] for one in range(seed))
                least = floor(sums, before, len(left))
                mine = (pl.col("seed") == seed) & (pl.col("lr") == setting[0])
                curve = part.filter(mine & (pl.col("weight_decay") == setting[1])).sort("step")
                accs = curve["acc_valid"].to_list()
                best = [
                    (sum(accs[:n]) + evaluations - n) / evaluations < least - 1e-9
                    for n in range(1, len(accs) + 1)
                ]
                ended = curve["status"][-1]
                # Where the last evaluation decides, the run is at its end anyway.
                assert best == [False] * (len(best) - 1) + [best[-1]], (label, seed, setting)
                assert ended == "stopped" if best[-1] and len(accs) < evaluations else ended != "stopped"
                counted += ended == "stopped"
                sums.append(before + area[seed, *setting])
    assert counted > 0
    assert "stopped" not in frame.filter(pl.col("task") == "recall")["status"].to_list()  # two settings each


@pytest.mark.slow
def test_a_run_that_was_given_up_has_a_key_of_its_own(halved: Path) -> None:
    """Nobody takes it for a whole one; repeated to its end, it is still below what it had to reach."""
    stopped = finals(halved).filter(pl.col("status") == "stopped")
    use_one_thread()
    code, asked = code_hash(), recipe()
    for row in stopped.to_dicts()[:3]:
        (candidate,) = (c for c in space.candidates(asked) if c.label == row["label"])
        (run,) = (
            run
            for run in runs_of(asked, candidate, [row["setting"]], row["seed"])
            if (run.training.lr, run.training.weight_decay) == (row["lr"], row["weight_decay"])
        )
        whole = results.to_frame(execute(run, 0, code)).filter("final")
        assert row["run"] != run.key(code) == whole["run"][0]
        assert row["step"] < whole["step"][0]
        assert whole["auc_valid"][0] < float(row["reason"].split()[-5]) + 1e-4


@pytest.mark.slow
def test_a_round_in_the_middle_does_not_count_as_a_halved_one(halved: Path) -> None:
    frame = results.read(halved).frame
    last = frame.filter((pl.col("seed") == 1) & (pl.col("lr") != frame["lr"].max()))
    partial = pl.concat([frame.filter(pl.col("seed") == 0), last])
    assert board(partial, "auc").seeds == (0,)


@pytest.mark.slow
def test_a_sweep_of_very_many_rounds_begins(halved: Path, tmp_path: Path) -> None:
    """What a round has left follows from the rounds before it, each of which is asked once."""
    folder = tmp_path / "many" / "halved"
    folder.parent.mkdir()
    shutil.copytree(halved, folder)
    events: list[object] = []
    outcome = sweep(recipe("seeds=60"), folder, workers=1, time_limit=0.01, on_event=events.append)
    assert (outcome.rounds, outcome.trained) == (4, 0)
    assert isinstance(events[0], Started)
    assert events[0].runs == 2 * 3 * (6 + 3 + 2 + 57)
