"""Pruning: who is clearly behind leaves the race, and a sweep that was killed comes to the same decisions."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from sweeps import results
from sweeps.pruning import Race, losers
from sweeps.recipe import Recipe, loads
from sweeps.results import Pruned
from sweeps.scores import instances
from sweeps.study import Event, Outcome, RoundDone, RunDone, Started, sweep

TEXT = """\
name: race
pattern: r*gdn(conv=2) + fox
search: {r: [1, 2, 3]}
shape: {dim: 16, heads: 2}
tasks: ["memorization(vocab=16, length=16)", "memorization(vocab=24, length=16)"]
train: {steps: 20, batch: 8, eval_every: 10, eval_examples: 32, lr: {r: {1: 2e-2, 2: 2e-2, 3: 1e-9}}}
score: auc
seeds: 4
"""
BAD = "r=3"  # a learning rate of 1e-9 learns nothing

CLI = """\
import sys
from pathlib import Path
from sweeps.recipe import load
from sweeps.study import sweep
if __name__ == "__main__":
    say = lambda event: print(type(event).__name__, flush=True)
    sweep(load(sys.argv[1]), Path(sys.argv[2]), workers=1, on_event=say)
"""


def tiny(*overrides: str) -> Recipe:
    return loads(TEXT, "race", ("pruning=0.1", *overrides))


def rows(folder: Path) -> pl.DataFrame:
    return results.read(folder).frame.drop("seconds")


def runs_of(folder: Path, label: str) -> list[int]:
    """The seeds of a candidate's runs."""
    return rows(folder).filter("final", pl.col("label") == label)["seed"].sort().to_list()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep without the key: every candidate in every round."""
    folder = tmp_path_factory.mktemp("whole") / "race"
    events: list[Event] = []
    outcome = sweep(loads(TEXT), folder, workers=1, on_event=events.append)
    assert (outcome.trained, outcome.rounds, outcome.stopped) == (24, 4, "complete")
    assert not (folder / "pruned.json").exists()
    assert not any(isinstance(event, Pruned) for event in events)
    return folder


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome, list[Event]]:
    folder = tmp_path_factory.mktemp("pruned") / "race"
    events: list[Event] = []
    return folder, sweep(tiny(), folder, workers=1, on_event=events.append), events


@pytest.mark.slow
def test_who_learns_nothing_leaves_and_costs_nothing_further(
    pruned: tuple[Path, Outcome, list[Event]], whole: Path
) -> None:
    folder, outcome, events = pruned
    left = {one.label: one for one in results.pruned(folder)}
    assert left == {event.label: event for event in events if isinstance(event, Pruned)}
    bad = left[BAD]
    assert (bad.round, bad.rounds, bad.behind, bad.comparisons, bad.p) == (2, 4, 4, 4, 0.1)
    assert bad.leader in ("r=1", "r=2")
    assert runs_of(folder, BAD) == [0, 0, 1, 1]
    # What is trained is bit for bit what it is without the key.
    kept = rows(folder)["run"].unique().to_list()
    assert rows(folder).equals(rows(whole).filter(pl.col("run").is_in(kept)))
    assert outcome.trained == len(kept) < 24
    # The bar waits for no run that is spared.
    third = next(event for event in events if isinstance(event, RunDone) and event.round == 3)
    assert third.total == 24 - 2 * sum(4 - one.round for one in left.values() if one.round == 2)
    # Who leaves is said before the round is, whose answer already counts with it.
    place = events.index(bad)
    assert isinstance(events[place + 1], Pruned | RoundDone)
    assert outcome.rounds == max(e.number for e in events if isinstance(e, RoundDone))


@pytest.mark.slow
def test_runs_of_an_earlier_sweep_are_set_aside_and_come_back(
    pruned: tuple[Path, Outcome, list[Event]], whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "race"
    folder.mkdir()
    results.open_folder(folder, {}, "")
    for path in results.stored(whole).values():
        (folder / "trials" / path.name).write_bytes(path.read_bytes())
    events: list[Event] = []
    outcome = sweep(tiny(), folder, workers=1, on_event=events.append)
    assert outcome.trained == 0
    assert rows(folder).equals(rows(pruned[0]))
    assert results.pruned(folder) == results.pruned(pruned[0])
    assert len(results.stored(folder)) + len(results.stored(folder, "earlier")) == 24
    # Decisions found again are told too, after the start and before anything else.
    assert isinstance(events[0], Started) and events[0].runs == len(results.stored(folder))
    assert tuple(events[1:]) == results.pruned(folder)
    again = sweep(loads(TEXT), folder, workers=1)
    assert (again.trained, again.stored) == (0, 24)
    assert rows(folder).equals(rows(whole)) and not (folder / "pruned.json").exists()


@pytest.mark.slow
def test_killed_and_run_again_the_same_runs_are_there(
    pruned: tuple[Path, Outcome, list[Event]], tmp_path: Path
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    recipe, folder = tmp_path / "race.yaml", tmp_path / "runs" / "race"
    recipe.write_text(tiny().text)
    for stop_at in (rng.randrange(2, 8), rng.randrange(2, 8)):
        process = subprocess.Popen(
            [sys.executable, "-c", CLI, str(recipe), str(folder)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        for n, _ in enumerate(process.stdout):
            if n == stop_at:
                break
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    # A sweep that finds nothing stale: what stands in the file is never read by it.
    (folder / "pruned.json").write_text("[]")
    sweep(tiny(), folder, workers=1)
    assert rows(folder).equals(rows(pruned[0]))
    assert results.pruned(folder) == results.pruned(pruned[0])
    assert set(results.stored(folder)) == set(results.stored(pruned[0]))


@pytest.mark.slow
def test_a_sweep_ends_when_one_candidate_is_left(tmp_path: Path) -> None:
    two = ("search.r=[1, 3]", "train.lr={r: {1: 2e-2, 3: 1e-9}}")
    outcome = sweep(tiny(*two), tmp_path / "race", workers=1)
    assert (outcome.trained, outcome.rounds, outcome.rounds_asked) == (8, 2, 4)
    assert (outcome.stopped, outcome.reason) == ("decided", "r=1 alone is left after round 2 of 4")
    again = sweep(tiny(*two), tmp_path / "race", workers=1)
    assert (again.trained, again.stored, again.stopped) == (0, 8, "decided")
    # A recipe of one candidate has no race, so that it is never over.
    one = sweep(tiny("search.r=[1]", "train.lr=2e-2", "seeds=3"), tmp_path / "alone", workers=1)
    assert (one.rounds, one.stopped) == (3, "complete")


# -- the decision, on made-up rows


def finals(values: dict[str, list[float]], steps_to: bool = False) -> pl.DataFrame:
    """arch -> its score at seed 0, 1, ... on one task."""
    made = [
        {"arch": arch, "label": f"r={arch}", "task": "t", "setting": "t", "seed": seed, "value": value}
        for arch, many in values.items()
        for seed, value in enumerate(many)
    ]
    return pl.DataFrame(made).with_columns(
        acc=pl.col("value"),
        acc_valid=pl.col("value"),
        auc=pl.col("value"),
        auc_valid=pl.col("value"),
        steps_to=pl.when(pl.col("value") < 100).then("value") if steps_to else pl.lit(None, pl.Float64),
        lr=0.1,
        weight_decay=0.0,
        steps=100,
        chance=0.1,
        status=pl.lit("budget"),
    )


GOOD = [0.5, 0.6, 0.7, 0.8, 0.9, 0.65, 0.75]
WORSE = [value - 0.1 - 0.01 * i for i, value in enumerate(GOOD)]


def test_losing_every_comparison_is_enough_once_there_are_enough() -> None:
    # Seven in a row have a chance of 1/128, six of 1/64.
    for many, gone in ((7, True), (6, False)):
        found = losers(finals({"a": GOOD[:many], "b": WORSE[:many]}), "auc", 0.01)
        assert bool(found) == gone
    (one,) = losers(finals({"a": GOOD, "b": WORSE}), "accuracy", 0.01)
    assert vars(one) == {"arch": "b", "label": "r=b", "leader": "r=a", "behind": 7, "comparisons": 7}


def test_steps_are_better_when_fewer_and_never_is_the_budget() -> None:
    fast, slow = [10, 20, 30, 15, 25, 35, 12], [90, 100, 100, 80, 100, 70, 100]
    (one,) = losers(finals({"a": slow, "b": fast}, steps_to=True), "steps", 0.05)
    assert (one.label, one.leader, one.behind) == ("r=a", "r=b", 7)


def test_one_round_is_never_enough_whatever_its_instances() -> None:
    wide = finals({"a": GOOD, "b": WORSE}).with_columns(setting=pl.col("seed").cast(pl.String), seed=0)
    assert losers(wide, "auc", 0.5) == ()
    doubled = pl.concat(
        [wide, wide.with_columns(seed=pl.lit(1, pl.Int32).cast(pl.Int32))], how="vertical_relaxed"
    )
    assert [one.arch for one in losers(doubled, "auc", 0.01)] == ["b"]


def test_equals_stay_and_so_does_whoever_wins_on_most_but_loses_much_on_one() -> None:
    assert losers(finals({"a": GOOD, "b": GOOD, "c": GOOD}), "auc", 0.5) == ()
    ahead_but_once = [value + 0.01 for value in GOOD[:-1]] + [0.0]
    assert losers(finals({"a": GOOD, "b": ahead_but_once}), "auc", 0.1) == ()


def test_the_order_of_rows_never_matters() -> None:
    frame = finals({"a": GOOD, "b": WORSE, "c": GOOD[::-1]})
    seed = random.randrange(2**32)
    print("seed", seed)
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=seed)
    assert losers(frame, "auc", 0.2) == losers(shuffled, "auc", 0.2) != ()
    assert instances(frame, "auc").equals(instances(shuffled, "auc"))


class Played:
    """A race over made-up rows of which some are not there."""

    def __init__(self, missing: set[tuple[str, int]]) -> None:
        longer = {"a": GOOD * 2, "b": WORSE * 2}
        self.frame, self.missing = finals(longer), missing
        self.race = Race(tiny("pruning=0.01", "seeds=14"))

    def asked(self, seed: int) -> set[str]:
        return {arch for arch in "ab" if self.race.takes_part(arch, seed)}

    def complete(self, seed: int) -> bool:
        return not any((arch, seed) in self.missing for arch in self.asked(seed))

    def finals(self, seed: int) -> pl.DataFrame:
        return self.frame.filter(pl.col("arch").is_in(self.asked(seed)), pl.col("seed") == seed)

    def go_on(self, seed: int) -> tuple[Pruned, ...]:
        return self.race.go_on(self.complete, self.finals, seed)


def test_a_round_that_is_not_complete_prunes_nobody_and_counts_for_nothing() -> None:
    played = Played({("a", 2), ("b", 6)})
    found = {seed: played.go_on(seed) for seed in range(14)}
    assert [seed for seed, one in found.items() if one] == [8]  # the seventh complete round is the ninth
    assert (found[8][0].round, found[8][0].comparisons) == (9, 7)
    assert (played.race.over, played.race.winner) == (9, "r=a")


def test_a_round_that_is_completed_late_is_decided_on_in_its_place() -> None:
    late = Played({("a", 2)})
    assert [seed for seed in range(14) if late.go_on(seed)] == [7]
    late.missing.clear()
    (now,) = late.go_on(2)
    assert now.round == 7 and late.race.left == {"b": now}
    straight = Played(set())
    for seed in range(14):
        straight.go_on(seed)
    assert straight.race.left == late.race.left
    assert straight.race.over == late.race.over == 7
    assert late.race.rounds_of("b") == late.race.rounds_of("a") == 7
