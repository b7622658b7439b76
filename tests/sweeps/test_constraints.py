"""What a recipe makes equal and what it bounds: nothing that breaks a bound is ever trained."""

import random
from fractions import Fraction
from pathlib import Path

import optuna
import pytest

from blocks import BLOCKS
from blocks.base import Shape
from blocks.schedule import parse
from sweeps import space
from sweeps.bounds import BoundError, parse_bound
from sweeps.candidate import Candidate
from sweeps.match import costs
from sweeps.plan import left_out, plan
from sweeps.recipe import Recipe, loads
from sweeps.roster import Roster
from sweeps.trials import Trials

TEXT = """\
name: x
pattern: r*(m, swiglu(expand=e)) + (fox, swiglu(expand=e))
shape: {dim: 32, heads: 2}
tasks: ["recall(vocab=8, length=16)", "recall(vocab=8, length=64)"]
search: {r: [1, 2, 3], m: [gdn, gla, linear], e: [1.0, 2.0, 3.0]}
"""


def recipe(*overrides: str) -> Recipe:
    return loads(TEXT, "x.yaml", overrides)


def params(one: Candidate) -> int:
    return costs(parse(one.schedule), one.shape, 64)["params"]


def test_matched_candidates_are_equal_and_their_text_says_all() -> None:
    matched = recipe(
        "match={params: baseline, by: swiglu.expand, within: 0.02}", "baseline=r=2, m=gdn, e=2.0"
    )
    every = {one.label: one for one in space.candidates(matched)}
    plain = {one.label: one for one in space.candidates(recipe())}
    target = params(plain["r=2, m=gdn, e=2.0"])
    for one in every.values():
        assert abs(params(one) - target) <= 0.02 * target
        assert one.solved is not None and one.solved.now == params(one)
    # What expand was is gone, so that three values of it are one architecture, under one of their names.
    assert len(every) < 27
    assert sum(1 + len(one.also) for one in every.values()) == 27
    assert len({one.arch for one in every.values()}) == len(every)
    # The baseline is what it is without match.
    assert plain["r=2, m=gdn, e=2.0"].schedule in {one.schedule for one in every.values()}


def test_the_order_of_candidates_does_not_matter() -> None:
    matched = (
        "match={state: baseline, by: [gdn.expand_v, gla.expand_v, dim], within: 0.2}",
        "search.m=[gdn, gla]",
    )
    seed = random.randrange(2**32)
    print("seed", seed)
    rng, orders = random.Random(seed), []
    for _ in range(3):
        values = {name: rng.sample(v, len(v)) for name, v in {"r": [1, 2, 3], "e": [1.0, 2.0, 3.0]}.items()}
        shuffled = [f"search.{name}={list(v)}" for name, v in values.items()]
        found = space.candidates(recipe(*matched, "baseline=r=1, m=gdn, e=1.0", *shuffled))
        orders.append({(one.schedule, one.dim) for one in found})
    assert orders[0] == orders[1] == orders[2]


def test_dim_is_part_of_the_candidate() -> None:
    found = space.candidates(recipe("match={params: 60000, by: dim, within: 0.05}", "search.m=[linear]"))
    assert len({one.dim for one in found}) > 1
    assert all(abs(params(one) - 60_000) <= 3_000 for one in found)


@pytest.mark.parametrize(
    ("text", "cost", "feasible", "not_feasible"),
    [
        ("<= 64 KiB", "state", 16_384, 16_385),
        ("<= 2e3", "flops", 2000, 2001),
        (">= 10", "params", 10, 9),
        ("within 1% of baseline", "params", 1010, 1011),
        ("within 1 % of 100", "params", 99, 98),
        ("<= 90% of baseline", "state", 900, 901),
        ("<=baseline", "state", 1000, 1001),
    ],
)
def test_a_bound_holds_up_to_its_last_scalar(text: str, cost, feasible: int, not_feasible: int) -> None:
    bound = parse_bound(text, cost)
    assert bound.hold(feasible, 1000).holds and not bound.hold(not_feasible, 1000).holds
    assert text in bound.hold(not_feasible, 1000).sentence


@pytest.mark.parametrize("text", ["", "64", "= 3", "<= x", "<= -3", "within 1% of r", "<= 1 2", "<= 5%"])
def test_what_is_no_bound_is_refused(text: str) -> None:
    with pytest.raises(BoundError, match="it must be a bound"):
        parse_bound(text, "params")


def test_violations_grow_with_what_is_beyond() -> None:
    bound = parse_bound("<= 100", "state")
    found = [bound.hold(cost, 0).violation for cost in (50, 100, 150, 300)]
    assert found == [-0.5, 0.0, 0.5, 2.0]
    assert parse_bound("<= 64 KiB", "state").number == Fraction(2**14)


def test_an_enumerated_recipe_trains_what_its_constraints_allow_and_names_the_rest() -> None:
    bounded = recipe(
        "constraints={state: <= 7e3, params: within 40% of baseline}", "baseline=r=2, m=gdn, e=2.0"
    )
    every = {one.label: one for one in space.candidates(recipe())}
    whole = space.census(bounded)
    target = params(every["r=2, m=gdn, e=2.0"])

    def allowed(one: Candidate) -> bool:
        found = costs(parse(one.schedule), Shape(dim=32, heads=2), 64)
        return found["state"] <= 7000 and abs(found["params"] - target) <= Fraction(4, 10) * target

    assert {one.label for one in whole.candidates} == {label for label, one in every.items() if allowed(one)}
    assert {one.label for one in whole.left_out} == {
        label for label, one in every.items() if not allowed(one)
    }
    assert whole.candidates and whole.left_out
    shown = plan(bounded, gflops=1.0)
    assert shown.candidates == len(whole.candidates) == len(shown.rows)
    assert [one.label for one in left_out(bounded)] == [one.label for one in whole.left_out]
    assert all("not <= 7e3" in one.reason or "not within 40%" in one.reason for one in shown.left_out)


def test_the_sampler_is_told_what_broke_a_constraint_and_it_never_comes_back(tmp_path: Path) -> None:
    bounded = recipe("constraints={state: <= 5e3}", "trials=6")
    allowed = {one.label for one in space.candidates(recipe("constraints={state: <= 5e3}"))}
    roster = Roster(tmp_path, bounded, BLOCKS)
    for i in range(3):
        number = roster.grow()
        assert number is not None
        roster.tell(number, 0.1 * i)
    again = Roster(tmp_path, bounded, BLOCKS)
    assert again.candidates == roster.candidates
    while (number := again.grow()) is not None:
        again.tell(number, 0.5)
    assert len(again.candidates) == 6
    assert {one.label for one in again.candidates.values()} <= allowed
    assert set(Trials(tmp_path, bounded).known.values()) == set(again.candidates)
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.log"))
    (study,) = optuna.study.get_all_study_summaries(optuna.storages.JournalStorage(backend))
    trials = optuna.load_study(
        study_name=study.study_name, storage=optuna.storages.JournalStorage(backend)
    ).get_trials()
    new = [trial for trial in trials if trial.constraints]
    assert {trial.number for trial in new if trial.constraints["state"] <= 0} == set(again.candidates)
    for trial in new:
        broken = trial.constraints["state"] > 0
        assert trial.state == (optuna.trial.TrialState.PRUNED if broken else optuna.trial.TrialState.COMPLETE)


def test_what_cannot_be_matched_is_refused_in_a_grid_and_left_out_by_a_sampler(tmp_path: Path) -> None:
    # Without swiglu in the narrow ones there is nothing to turn.
    words = ("match={params: baseline, by: gdn.expand_v, within: 0.05}", "search.e=[1.0]")
    with pytest.raises(ValueError, match=r"match: for r=1, m=gla: its params .* it has no gdn"):
        recipe(*words)
    roster = Roster(tmp_path, recipe(*words, "trials=8"), BLOCKS)
    while roster.grow() is not None:
        pass
    assert roster.wanted == len(roster.candidates) < 8
    assert all(one.solved is not None for one in roster.candidates.values())


def test_a_killed_sampler_finds_its_open_trial_and_decides_it_again(tmp_path: Path) -> None:
    free, bounded = recipe("trials=8"), recipe("constraints={state: <= 5e3}", "trials=8")
    roster = Roster(tmp_path, bounded, BLOCKS)
    assert roster.grow() is not None
    trials = roster._trials  # asked for, and killed before it was looked at
    suggestion = trials.suggest()
    assert suggestion is not None
    again = Roster(tmp_path, bounded, BLOCKS)
    allowed = {one.choices for one in space.candidates(recipe("constraints={state: <= 5e3}"))}
    assert (suggestion[0] in again.candidates) == (suggestion[1] in allowed)
    # Without the constraint it is another study, in which nothing is ruled out.
    assert Roster(tmp_path, free, BLOCKS).candidates == {}


def test_a_baseline_is_a_label() -> None:
    with pytest.raises(ValueError, match=r"baseline: no candidate is called 'r=9'"):
        recipe("constraints={params: <= baseline}", "baseline=r=9")
    listed = "name: x\nschedules: {a: '2*(gdn, swiglu)', b: '3*(fox, swiglu)'}\ntasks: recall\n"
    found = space.candidates(loads(listed + "baseline: b\nmatch: {params: baseline, by: swiglu.expand}\n"))
    assert [one.solved.by for one in found if one.solved] == ["swiglu.expand", ""]
    line = "constraints: {state: 3 KiB}\n"
    with pytest.raises(ValueError, match=r"^x.yaml:4:22: constraints.state: is '3 KiB'; it must be a bound"):
        loads(listed + line, "x.yaml")
