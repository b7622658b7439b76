"""Depth, width and layouts as variables: each combination is what it says, and one model is one candidate."""

import json
from pathlib import Path

import pytest

from blocks import BLOCKS
from blocks.schedule import parse
from sweeps import space
from sweeps.match import costs
from sweeps.recipe import Recipe, RecipeError, loads
from sweeps.roster import Roster, _completed

SIZES = """\
name: sizes
pattern: r*(gdn, swiglu) + (fox, swiglu)
depth: d
shape: {dim: w, heads: h}
tasks: ["recall(vocab=8, length=16)"]
search: {r: [1:1, 3:1], d: [4, 8], w: [16, 32], h: [1, 2]}
train: {steps: 4, eval_every: 2}
"""
LAYOUTS = """\
name: layouts
pattern: p
shape: {dim: 16, heads: 2}
tasks: ["recall(vocab=8, length=16)"]
search:
  p: [3*g + f, f + 3*g, "[g, f] + 2*g"]
  g: ["(gdn, m)"]
  f: ["(fox, m)"]
  m: [swiglu, sparse(k_ratio=k)]
  k: [0.1, 0.3]
train: {steps: 4, eval_every: 2}
"""


def recipe(text: str, *overrides: str) -> Recipe:
    return loads(text, "x.yaml", overrides)


def test_depth_width_and_heads_are_those_of_the_choices() -> None:
    found = space.candidates(recipe(SIZES))
    assert len({space.identity(one) for one in found}) == len(found) == 16
    for one in found:
        chosen = dict(one.choices)
        assert (len(parse(one.schedule)), one.dim, one.heads) == (chosen["d"], chosen["w"], chosen["h"])
        assert one.label == ", ".join(f"{name}={value}" for name, value in one.choices)


def test_costs_are_those_of_a_candidates_own_shape() -> None:
    asked = recipe(SIZES, "constraints={params: <= 100% of baseline}", "baseline=r=1:1, d=4, w=16, h=1")
    found = space.census(asked)
    assert {one.dim for one in found.left_out} == {16, 32}
    assert all(dict(one.choices)["d"] == 4 and one.dim == 16 for one in found.candidates)
    matched = recipe(SIZES, "match={params: 40000, by: swiglu.expand}", "search.d=[4]")
    for one in space.candidates(matched):
        assert costs(parse(one.schedule), one.shape, 16)["params"] == pytest.approx(40_000, rel=0.01)
        assert one.dim == dict(one.choices)["w"]


def test_listed_schedules_have_sizes_beside_them() -> None:
    listed = "search={w: [16, 32]}", "pattern=null", "schedules={a: gdn, b: fox}", "depth=2", "shape.heads=2"
    found = space.candidates(recipe(SIZES, *listed))
    assert [one.label for one in found] == ["a, w=16", "a, w=32", "b, w=16", "b, w=32"]
    assert [(one.schedule, one.dim) for one in found][1] == ("2*gdn", 32)


def test_layouts_are_put_in_whole() -> None:
    found = space.candidates(recipe(LAYOUTS))
    g, f = "(gdn, swiglu)", "(fox, swiglu)"
    plain = [parse(one.schedule) for one in found if "sparse" not in one.schedule]
    assert plain == [parse(text) for text in (f"3*{g} + {f}", f"{f} + 3*{g}", f"{g} + {f} + 2*{g}")]
    twice = space.candidates(recipe(LAYOUTS, "pattern=2*p"))[0]
    assert parse(twice.schedule) == parse(f"2*[3*{g} + {f}]")


def test_a_variable_of_one_value_is_told_only_beside_it() -> None:
    found = space.candidates(recipe(LAYOUTS))
    assert len(found) == 9
    for one in found:
        has = "sparse" in one.schedule
        assert ("k" in json.loads(one.choices_json)) == ("k=" in one.label.replace("k_ratio=", "")) == has
        assert one.also == () and one.label.startswith("p=") and "g=" not in one.label  # of one value
    assert {f"k_ratio={k}" in found[i].schedule for i, k in ((1, 0.1), (2, 0.3))} == {True}


def test_what_is_told_of_a_candidate_says_which_it_is() -> None:
    asked = recipe(LAYOUTS)
    for one in space.candidates(asked):
        whole = _completed(asked, json.loads(one.choices_json))
        assert whole is not None
        assert space.identity(space.candidate(asked, whole)) == space.identity(one)
    assert _completed(asked, {"p": "3*g + f"}) is None


def test_optuna_is_given_each_of_them_once(tmp_path: Path) -> None:
    roster = Roster(tmp_path, recipe(LAYOUTS, "trials=11"), BLOCKS)
    while roster.grow() is not None:
        pass
    assert len(roster.candidates) == 9


BAD: dict[tuple[str, ...], str] = {
    ("depth=q",): "depth: is 'q'; it must be a whole number, or the name of a variable of search",
    ("depth=[d]",): "depth: is ['d']; it must be a whole number, or the name of a variable of search",
    ("shape.heads=lr", "search.lr=[1e-3]"): "shape.heads: is 'lr'; it must be a whole number, or the name",
    ("search.d=[4, 8.0]",): "search.d.1: is 8.0; as depth it must be a whole number of 1 to 1,024",
    ("search.w=[true]",): "search.w.0: is True; as dim it must be a whole number of 1 to 16,384",
    ("search.w=[20000]",): "search.w.0: is 20000; as dim it must be",
    ("search.h=[3:1]",): "search.h.0: is '3:1'; as heads it must be a whole number of 1 to 1,024",
    ("search.h=[0]",): "search.h.0: is 0; as heads",
    ("search.d=[3]",): "depth: r=3:1, w=16, h=1 cannot be realised at depth 3",
    ("search.h=[1, 3]",): "shape: for r=1:1, d=4, w=16, h=3: ",
    ("depth=4",): "search.d: is never used in the pattern, for depth or in shape",
    ("match={params: 40000, by: dim}",): "match.by.0: is dim, which the variable 'w' gives",
    ("search.r=[p]", "search.p=[1]"): "search.p: is never used",
    ("pattern=p", "search.r=[p]", "search.p=[2*r + gdn]"): "the variable 'p' stands for itself: p -> r -> p",
    ("pattern=p", "search.r=[1]", "search.p=[r*q + gdn]"): "search.p.0: 'q' is no block, and as a variable",
    ("pattern=p", "search.r=[1]", "search.p=[r*gnd + fox]"): "search.p.0: 'gnd' is no block",
    ("pattern=(p, swiglu)", "search.r=[1]", "search.p=[r*gdn + fox]"): "inside a layer (a, b) stand single",
}


@pytest.mark.parametrize("overrides", BAD)
def test_what_is_wrong_is_said_where_it_stands(overrides: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(SIZES, *overrides)
    assert BAD[overrides] in str(caught.value)


def test_variables_that_grow_without_end_are_refused() -> None:
    grown = ["search={" + ", ".join(f"v{i}: [v{i + 1} + v{i + 1}]" for i in range(14)) + ", v14: [gdn]}"]
    with pytest.raises(RecipeError, match="has more than 10,000 letters"):
        recipe("name: x\npattern: v0\ntasks: [recall]\n", *grown)
    deep = ["search={" + ", ".join(f"v{i}: [v{i + 1} + gdn]" for i in range(40)) + ", v40: [gdn]}"]
    with pytest.raises(RecipeError, match="at most 16 deep within each other"):
        recipe("name: x\npattern: v0\ntasks: [recall]\n", *deep)
