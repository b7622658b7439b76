"""Several objectives: Optuna weighs them where it chooses, nothing else changes, nonsense is refused."""

import random
from pathlib import Path

import optuna
import pytest

from blocks import BLOCKS
from blocks.schedule import parse
from sweeps import space
from sweeps.journal import open_journal
from sweeps.match import costs
from sweeps.recipe import Recipe, RecipeError, loads
from sweeps.roster import Roster
from sweeps.study import sweep

TEXT = """\
name: x
pattern: r*(m, swiglu(expand=e)) + (fox, swiglu(expand=e))
shape: {dim: 32, heads: 2}
tasks: ["recall(vocab=8, length=16)", "recall(vocab=8, length=64)"]
search: {r: [1, 2, 3], m: [gdn, gla, linear], e: [1.0, 2.0, 3.0]}
"""


def recipe(*overrides: str) -> Recipe:
    return loads(TEXT, "x.yaml", overrides)


def study_of(folder: Path) -> optuna.Study:
    storage = open_journal(folder / "study.log")
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage)


def test_absent_is_the_score_alone_and_a_word_is_a_list_of_one() -> None:
    assert recipe().objective == recipe("objective=score").objective == ("score",)
    assert recipe("objective=[score, flops]").objective == ("score", "flops")


WRONG = {
    "objective=speed": "objective: is 'speed'; it must be 'score', 'params', 'state' or 'flops'",
    "objective=[]": "objective: is empty",
    "objective=[score, state, state]": r"objective.2: state is given twice",
    "objective=state": r"objective: lacks score, and state alone need no training; .*: \[score, state\]",
}


@pytest.mark.parametrize("given", WRONG)
def test_nonsense_is_refused_in_a_sentence(given: str) -> None:
    with pytest.raises(RecipeError, match=WRONG[given]) as caught:
        recipe(given)
    assert "\n" not in str(caught.value)


def test_pruning_and_what_match_makes_equal_are_refused() -> None:
    with pytest.raises(
        RecipeError, match=r"pruning: ends schedules that score less, which objective \[score"
    ):
        recipe("objective=[score, state]", "pruning=0.01")
    assert recipe("objective=score", "pruning=0.01").pruning == 0.01
    matched = "match={params: baseline, by: swiglu.expand, within: 0.05}"
    base = "baseline=r=2, m=gdn, e=2.0"
    with pytest.raises(RecipeError, match=r"objective.1: is params, which match brings to one value"):
        recipe("objective=[score, params]", matched, base)
    assert recipe("objective=[score, state]", matched, base).match


def test_optuna_is_told_the_score_and_the_costs_of_every_candidate_it_chose(tmp_path: Path) -> None:
    asked = recipe(
        "objective=[score, state, flops]",
        "trials=9",
        "constraints={state: <= 110% of baseline}",
        "baseline=r=2, m=gdn, e=2.0",
    )
    roster, seed = Roster(tmp_path, asked, BLOCKS), random.randrange(2**32)
    print("seed", seed)
    rng, scores = random.Random(seed), {}
    while (number := roster.grow()) is not None:
        scores[number] = rng.random()
        roster.tell(number, scores[number])
        if len(scores) == 5:  # a new coordinator, as after a kill
            roster = Roster(tmp_path, asked, BLOCKS)
            assert set(scores) == set(roster.candidates)
    study = study_of(tmp_path)
    ways = optuna.study.StudyDirection
    assert study.directions == [ways.MAXIMIZE, ways.MINIMIZE, ways.MINIMIZE]
    told = {one.number: one.values for one in study.trials if one.values}
    assert set(told) == set(scores) == set(roster.candidates)
    for number, one in roster.candidates.items():
        spent = costs(parse(one.schedule), one.shape, space.longest(asked))
        assert told[number] == [scores[number], spent["state"], spent["flops"]]


def test_other_objectives_are_another_study_and_one_alone_keeps_its_name(tmp_path: Path) -> None:
    for given in ("objective=score", "objective=[score, state]", "trials=5"):
        Roster(tmp_path, recipe(given), BLOCKS)
    assert len(optuna.get_all_study_names(open_journal(tmp_path / "study.log"))) == 2


def test_where_the_recipe_is_enumerated_the_runs_are_the_same() -> None:
    plain, several = recipe(), recipe("objective=[score, state]")
    assert space.candidates(plain) == space.candidates(several)


def test_a_sampled_sweep_of_several_objectives_runs_and_goes_on(tmp_path: Path) -> None:
    small = loads(
        "name: x\npattern: a*gdn + attn\ntasks: ['memorization(vocab=16, length=16)']\ntrials: 3\n"
        "search: {a: [1, 2, 3, 4, 5, 6]}\nshape: {dim: 8, heads: 1}\nobjective: [score, state]\n"
        "train: {steps: 2, batch: 4, eval_every: 2, eval_examples: 4}\nseeds: 1\n"
    )
    assert sweep(small, tmp_path / "x", workers=1).trained == 3
    assert sweep(small, tmp_path / "x", workers=1).trained == 0
    told = [one.values for one in study_of(tmp_path / "x").trials if one.values]  # a repeat has none
    assert [len(values) for values in told] == [2, 2, 2]
