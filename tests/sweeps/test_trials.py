"""The Optuna study: candidates are never lost nor doubled, whatever moment a sweep was killed at."""

import random
from pathlib import Path

import pytest

from blocks import BLOCKS
from sweeps import results, space
from sweeps.journal import JournalError
from sweeps.recipe import Recipe, loads
from sweeps.roster import Roster
from sweeps.study import sweep
from sweeps.trials import Trials

TEXT = "name: x\npattern: a*gdn + b*fox\ntasks: recall\nsearch: {a: [1:1, 2, 3, 4], b: [1, 2.0e0, 3]}\n"


def recipe(*overrides: str) -> Recipe:
    return loads(TEXT, "x", ("search.b=[1, 2, 3]", *overrides))


def test_a_grid_is_enqueued_once(tmp_path: Path) -> None:
    every = space.candidates(recipe())
    numbers = Trials(tmp_path, recipe()).enqueue(every)
    assert list(numbers.values()) == list(range(12))
    trials = Trials(tmp_path, recipe())
    assert trials.enqueue(every) == numbers == trials.known
    trials.tell(3, [0.5])
    assert Trials(tmp_path, recipe()).is_told(3)
    # Other values are another study; the first is found again after it.
    other = recipe("search.a=[1, 2]")
    assert len(Trials(tmp_path, other).enqueue(space.candidates(other))) == 6
    assert Trials(tmp_path, recipe()).known == numbers


def test_suggestions_are_new_until_the_space_is_used_up(tmp_path: Path) -> None:
    trials = Trials(tmp_path, recipe())
    found: list[space.Choices] = []
    for i in range(12):
        suggestion = trials.suggest()
        assert suggestion is not None
        number, choices = suggestion
        found.append(choices)
        trials.tell(number, [0.1 * i])
        if i % 4 == 3:  # a new coordinator every few candidates
            trials = Trials(tmp_path, recipe())
            assert list(trials.known) == found
    assert set(found) == set(space.grid(recipe()))
    assert trials.suggest() is None


def test_killed_at_any_byte_of_the_journal(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    every = space.candidates(recipe())
    whole = tmp_path / "whole"
    whole.mkdir()
    trials = Trials(whole, recipe())
    numbers = trials.enqueue(every)
    trials.tell(0, [1.0])
    journal = (whole / "study.log").read_bytes()
    for i in range(12):
        folder = tmp_path / str(i)
        folder.mkdir()
        (folder / "study.log").write_bytes(journal[: rng.randrange(len(journal))])
        (folder / "study.log.lock").symlink_to("study.log")
        results.tidy(folder)
        assert Trials(folder, recipe()).enqueue(every) == numbers
        assert Trials(folder, recipe()).known == numbers


def test_a_sampled_roster_goes_on_where_it_was(tmp_path: Path) -> None:
    first = Roster(tmp_path, recipe("trials=5"), BLOCKS)
    found = [first.grow() for _ in range(3)]
    again = Roster(tmp_path, recipe("trials=5"), BLOCKS)
    assert list(again.candidates) == found
    assert again.candidates == first.candidates
    assert [again.grow() is None for _ in range(3)] == [False, False, True]
    assert len({c.arch for c in again.candidates.values()}) == 5


def test_a_roster_ends_when_no_schedule_is_new(tmp_path: Path) -> None:
    # Two spellings of one block: eight combinations, four schedules.
    doubled = loads(
        "name: x\npattern: a*m\ntasks: recall\ntrials: 7\nsearch: {a: [1, 2, 3, 4], m: [gdn, gdn()]}\n"
    )
    roster = Roster(tmp_path, doubled, BLOCKS)
    while roster.grow() is not None:
        pass
    assert len(roster.candidates) == roster.wanted == 4


def test_a_lost_journal_is_made_again_from_the_stored_runs(tmp_path: Path) -> None:
    asked = loads(
        "name: x\npattern: a*gdn\ntasks: ['memorization(vocab=16, length=16)']\ntrials: 3\n"
        "search: {a: [1, 2, 3, 4, 5, 6]}\nshape: {dim: 8, heads: 1}\n"
        "train: {steps: 2, batch: 4, eval_every: 2, eval_examples: 4}\nseeds: 1\n"
    )
    folder = tmp_path / "x"
    first = sweep(asked, folder, workers=1)
    before = results.read(folder).frame
    for lost in ("study.log", "status.json"):
        (folder / lost).unlink()
    again = sweep(asked, folder, workers=1)
    assert (first.trained, again.trained, again.stored) == (3, 0, 3), (
        "the same candidates, chosen anew by none"
    )
    columns = ["run", "label", "choices", "acc", "loss"]
    after = results.read(folder).frame
    assert after.select(columns).sort("run").equals(before.select(columns).sort("run"))
    # One that is broken in its middle is refused; what to do is said, and works.
    journal = folder / "study.log"
    journal.write_bytes(b"{}\n" + journal.read_bytes())
    with pytest.raises(JournalError, match=r"study.log.*move it away and run the sweep again"):
        sweep(asked, folder, workers=1)
    journal.unlink()
    assert sweep(asked, folder, workers=1).trained == 0
