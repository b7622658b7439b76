"""Two run folders: the same architecture is one candidate, equal ones are not told apart."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from analysis.versus import VersusError, changes, versus
from analysis.versus_page import compared, page, sentence, write
from sweeps.results import Results

from .factory import flat, make_folder, make_frame

HOSTILE = "</script><img src=x onerror=document.title='owned'>"


def results(frame: pl.DataFrame, recipe: str = "name: x\n", env: dict[str, str] | None = None) -> Results:
    return Results(frame, recipe, env or {})


def lifted(by: float, seeds=(0, 1, 2), labels=("r=3", "r=4")) -> pl.DataFrame:
    """Values that share the noise of a seed over both sweeps."""
    noise = np.random.default_rng(7).normal(size=100) * 0.1
    return make_frame(labels, seeds=seeds, curve=lambda _l, _t, seed, _lr: flat(0.5 + by + noise[seed]))


def test_what_is_shared_cancels_where_seeds_are_and_does_not_where_they_are_not():
    one = results(lifted(0.0))
    found = versus(one, results(lifted(0.02)), ("A", "B"), "accuracy")
    for pair in found.pairs:
        assert pair.paired and pair.difference == pytest.approx(0.02) and pair.verdict == "better"
        assert pair.interval == pytest.approx((0.02, 0.02))
    apart = versus(one, results(lifted(0.02, seeds=(50, 51, 52))), ("A", "B"), "accuracy")
    for pair in apart.pairs:
        assert not pair.paired and pair.seeds == (3, 3) and pair.verdict == "open"
        assert pair.interval and pair.interval[1] - pair.interval[0] > 0.1


def test_the_other_way_round_is_the_other_sign():
    one = results(lifted(0.0))
    for other, paired, told in (
        (lifted(0.03, seeds=(1, 2, 9)), True, {"better", "worse"}),
        (lifted(0.03, seeds=(50, 51, 52)), False, {"open"}),
    ):
        there = versus(one, results(other), ("A", "B"), "auc")
        back = versus(results(other), one, ("B", "A"), "auc")
        for a, b in zip(there.pairs, back.pairs, strict=True):
            assert a.difference == pytest.approx(-b.difference) and a.p == b.p and a.paired == paired
            assert {a.verdict, b.verdict} == told


def test_a_sweep_against_itself_differs_in_nothing():
    found = versus(results(lifted(0.0)), results(lifted(0.0)), ("A", "B"), "accuracy")
    assert [pair.difference for pair in found.pairs] == [0, 0] and found.count("open") == 2
    assert found.same_runs == lifted(0.0)["run"].n_unique()
    assert not found.recipe and not found.environment and found.only == ((), ())
    assert "the very same in both" in sentence(found)


def test_it_goes_by_architecture_and_by_shared_settings():
    renamed = lifted(0.0).with_columns(label=pl.concat_str(pl.lit("my "), "label"))
    more = pl.concat([renamed, make_frame(("r=9",), seeds=(0, 1))])
    fewer = more.filter(pl.col("setting") != "copying(vocab=16)")
    found = versus(results(lifted(0.0)), results(fewer), ("A", "B"), "accuracy")
    assert [pair.labels for pair in found.pairs] == [("r=3", "my r=3"), ("r=4", "my r=4")]
    assert found.only == ((), ("r=9",)) and found.other_settings == (("copying(vocab=16)",), ())
    assert len(found.settings) == 3


def test_one_that_ran_on_some_tasks_only_is_named_and_not_compared():
    some = lifted(0.0).filter((pl.col("label") != "r=4") | (pl.col("task") == "recall"))
    found = versus(results(some), results(lifted(0.0)), ("A", "B"), "accuracy")
    assert found.lacking == ("r=4",) and [pair.labels[0] for pair in found.pairs] == ["r=3"]


def test_one_seed_gives_no_interval():
    found = versus(results(lifted(0.0, seeds=(0,))), results(lifted(0.1)), ("A", "B"), "accuracy")
    assert {(pair.interval, pair.p, pair.verdict) for pair in found.pairs} == {(None, None, "one seed")}


def test_p_is_corrected_over_the_candidates_that_were_looked_at():
    def shaken(seed: int, labels: tuple[str, ...]) -> Results:
        def curve(label: str, task: str, of: int, _lr: float):
            at = [seed, of, int(label[-1]), len(task)]
            return flat(0.5 + 0.02 * seed + 0.01 * np.random.default_rng(at).normal())

        return results(make_frame(labels, seeds=range(4), curve=curve))

    def p_of(labels: tuple[str, ...]) -> list[float]:
        found = versus(shaken(0, labels), shaken(1, labels), ("A", "B"), "accuracy")
        return [pair.p for pair in found.pairs if pair.p is not None]

    alone = sorted([*p_of(("r=3",)), *p_of(("r=4",))])
    assert 0 < alone[0] < 1 and sorted(p_of(("r=3", "r=4")))[0] == pytest.approx(min(1, 2 * alone[0]))


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (make_frame(("x",)), "A and B share no architecture, .*: the first has r=3, r=4, the second x"),
        (make_frame(("r=3",), tasks=("mqar",)), "A and B share no task setting"),
        (lifted(0.0).clear(), "B has no finished run"),
    ],
)
def test_two_that_share_nothing_are_one_sentence(other, says):
    with pytest.raises(VersusError, match=says) as caught:
        versus(results(lifted(0.0)), results(other), ("A", "B"), "accuracy")
    assert "\n" not in str(caught.value)


def test_what_differs_is_listed_and_words_of_users_are_words(tmp_path):
    labels = ("r=3", HOSTILE)
    first = make_folder(tmp_path / "a", lifted(0.0, labels=labels), "name: a\ntrain: {steps: 10}\nseeds: 3\n")
    other = lifted(0.0, labels=(*labels, f"{HOSTILE} alone")).with_columns(torch=pl.lit("9.9"))
    second = make_folder(tmp_path / "b", other, f"name: b\ntrain: {{steps: 20}}\n# {HOSTILE}\nmargin: 0.1\n")
    found = compared((first, second), ("a", HOSTILE))
    assert {one.what: (one.first, one.second) for one in found.recipe} == {
        "name": ("a", "b"),
        "train.steps": ("10", "20"),
        "seeds": ("3", None),
        "margin": (None, "0.1"),
    }
    assert [one.what for one in found.environment] == ["torch"]
    text = page(found)
    assert "<img" not in text.split('<script type="application/json"')[0] and "9.9" in text
    assert write(found, tmp_path / "v.html").read_text(encoding="utf-8") == text
    assert changes({"a": "1"}, {"a": "1"}) == ()
