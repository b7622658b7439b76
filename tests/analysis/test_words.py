"""The sentence says what the ranking carries, names only what is in it, and stays a sentence."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
import pytest

from analysis.sections import ranking_table
from analysis.stats import rank
from analysis.tables import SCORES, board
from analysis.words import NO_ROUND, sentence, sizes
from lab.answer import page

from .factory import flat, make_frame


def say(frame, score="accuracy", margin=0.02):
    return sentence(rank(board(frame, score), margin))


def level(effects, noise=0.004):
    def curve(label, task, seed, _lr):
        rng = np.random.default_rng([*(label + task).encode(), seed])
        return flat(effects[label] + noise * rng.standard_normal())

    return curve


CASES = {
    "plain": make_frame(),
    "one seed": make_frame(seeds=(0,)),
    "two seeds": make_frame(seeds=(0, 1)),
    "one candidate": make_frame(labels=("r=3",)),
    "full": make_frame(curve=lambda *_: flat(1.0)),
    "chance": make_frame(curve=lambda *_: flat(0.1)),
    "diverged": make_frame(status=lambda label, *_: "diverged" if label == "r=4" else "budget"),
    "all diverged": make_frame(status=lambda *_: "diverged"),
    "waiting": make_frame().filter((pl.col("label") != "r=5") | (pl.col("task") == "recall")),
    "incomplete": make_frame().filter((pl.col("seed") < 2) | (pl.col("label") == "r=3")),
}


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("case", CASES)
def test_every_sentence_names_only_what_was_run_and_is_finished(case, score):
    text = say(CASES[case], score)
    labels = set(CASES[case]["label"].to_list())
    assert set(re.findall(r"r=\d+", text)) <= labels
    assert text[-1] == "." and "None" not in text and "nan" not in text and "  " not in text


def test_the_answer_in_full():
    effects = {"r=3": 0.600, "r=4": 0.605, "r=5": 0.602, "r=6": 0.4}
    frame = make_frame(labels=tuple(effects), curve=level(effects, 0.003))
    text = say(frame)
    assert re.fullmatch(
        r"r=4 is best on the mean of 2 tasks \(test accuracy 0\.6\d, 95 % interval 0\.\d\d to 0\.\d\d\), "
        r"but r=3 to r=5 cannot be told apart at 3 seeds; the cheapest that is not worse than the best by "
        r"more than 2 points is r=5, with 11 % less state\.",
        text,
    ), text


def test_one_seed_claims_nothing():
    text = say(CASES["one seed"])
    assert "one seed gives no interval" in text
    assert not re.search(r"is best|worse|cheapest|95 %", text)


def test_one_candidate_has_no_rival():
    assert "nothing to compare it with" in say(CASES["one candidate"])


@pytest.mark.parametrize(
    ("case", "end"), [("full", "ceiling"), ("chance", "chance"), ("all diverged", "chance")]
)
def test_tasks_that_cannot_separate_are_said_to_and_nobody_wins(case, end):
    text = say(CASES[case])
    assert "cannot separate the 3 schedules" in text and end in text and "best" not in text


def test_one_stuck_task_among_others_is_named():
    end = {"recall": 0.5, "copying": 1.0}
    text = say(make_frame(curve=lambda _l, task, *_: flat(end[task])))
    assert "copying is at its ceiling for every schedule, which separates nothing" in text
    assert "cannot separate" not in text


def test_what_diverged_is_counted_and_who_waits_is_named():
    assert "r=4 diverged in 12 of its 12 runs, counted as chance" in say(CASES["diverged"])
    assert "r=5 has no complete round" in say(CASES["waiting"])
    assert "1 round is not complete and left out" in say(CASES["incomplete"])


def test_without_a_cheaper_equal_nothing_is_offered():
    effects = {"r=3": 0.6, "r=4": 0.5, "r=5": 0.4}
    text = say(make_frame(curve=level(effects)))
    assert "each of the other 2 is shown to be worse" in text
    assert "no cheaper one is shown to be within 2 points of it" in text
    turned = say(make_frame(curve=level({"r=3": 0.4, "r=4": 0.5, "r=5": 0.6})))
    assert "it is also the cheapest" in turned


def test_labels_without_an_order_are_listed_by_name():
    effects = {"gdn": 0.6, "gla": 0.6, "fox": 0.6, "ttt": 0.3}
    text = say(make_frame(labels=tuple(effects), curve=level(effects)))
    group = re.search(r"but (.*) cannot be told apart from it", text)
    assert group and " to " not in group.group(1) and "ttt" not in group.group(1)


def test_no_complete_round_is_said():
    assert sentence(None) == NO_ROUND


def test_tables_show_what_of_the_shape_is_not_the_same_in_all():
    frame = make_frame(labels=("w=32", "w=64"), tasks=("recall",))
    for columns in ({}, {"width": "dim"}, {"depth": "depth", "width": "dim", "heads": "heads"}):
        made = frame.with_columns(
            pl.when(pl.col("label") == "w=64").then(2 * pl.col(name)).otherwise(pl.col(name)).alias(name)
            for name in columns.values()
        )
        ranked = board(made)
        ranking = rank(ranked)
        assert ranking is not None and sizes(ranking) == columns
        heads = re.findall(r'<th scope="col"[^>]*>([^<]*)</th>', ranking_table(ranking, ranked, 2).html)
        printed = page(ranking).splitlines()[2].split()
        for column in ("depth", "width", "heads"):
            assert (column in heads) == (column in printed) == (column in columns)
