"""Recipes: every problem is found before anything runs, and says where it stands."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import blocks
from blocks import BLOCKS
from sweeps import same, space
from sweeps.recipe import Recipe, RecipeError, find, load, loads, shipped
from sweeps.run import code_hash, runs_of, source_hash

GOOD = """\
name: ratios
pattern: r*(gdn, swiglu) + (fox, swiglu)
depth: 8
shape: {dim: 32, heads: 2}
tasks: ["recall(vocab=8, length=16)"]
search: {r: [3:1, 4:1]}
train: {steps: 20, eval_every: 10}
"""


def problems(*overrides: str, text: str = GOOD) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        loads(text, "x.yaml", overrides)
    return [line for line in str(caught.value).splitlines() if not line.startswith("  ")]


def test_a_good_recipe_says_what_it_means() -> None:
    recipe = loads(GOOD)
    assert [c.label for c in space.candidates(recipe)] == ["r=3:1", "r=4:1"]
    assert [c.choices_json for c in space.candidates(recipe)] == ['{"r": "3:1"}', '{"r": "4:1"}']
    assert space.candidates(recipe)[0].schedule == "2*[3*(gdn, swiglu) + (fox, swiglu)]"
    assert recipe.text == GOOD


@pytest.mark.parametrize(("given", "value"), [("0.01", 0.01), ("5e-1", 0.5), ("null", None)])
def test_pruning_is_a_p_value_or_off(given: str, value: float | None) -> None:
    assert loads(GOOD).pruning is None
    assert loads(GOOD, "x.yaml", (f"pruning={given}",)).pruning == value


# What is set -> what the sentence must say. All are refused; each starts with the flag that was given.
BAD_SETS = {
    "train.stepz=3": "train.stepz: is no key here; did you mean 'steps'",
    "trails=all": "trails: is no key here; did you mean 'trials'",
    "seeds=-1": "seeds: is -1; it must be at least 1",
    "seeds=1.5": "seeds: is 1.5; it must be a whole number",
    "seeds=true": "seeds: is True; it must be a whole number",
    "seeds=three": "seeds: is 'three'; it must be a whole number",
    "train.lr=fast": "train.lr: is 'fast'; it must be a number",
    "train.lr=0": "train.lr: is 0; it must be above 0",
    "train.lr=.nan": "train.lr: is nan; it must be a finite number",
    "train.lr=[1e-3, -1]": "train.lr.1: is -1; it must be above 0",
    "train.lr=[]": "train.lr: is empty",
    "train.lr={q: {1: 1e-3}}": "train.lr.q: is no variable of this recipe",
    "train.lr={r: {3:1: 1e-3}}": "train.lr.r: gives no numbers for r=4:1",
    "train.lr={r: {3:1: 1e-3, 4:1: 1e-3, 5:1: 1e-3}}": "train.lr.r.5:1: is no value of r",
    "train.lr={r: {3:1: 1e-3, 3: 2e-3, 4: 1e-3}}": "gives 2 numbers for r=3:1",
    "train.lr={r: {3:1: [1e-3], 4:1: 1e-3}}": "train.lr.r.3:1: is [1e-3]; it must be a number".replace(
        "[1e-3]", "[0.001]"
    ),
    "train.extrapolate=[1]": "train.extrapolate.0: is 1; it must be at least 2",
    "train.extrapolate=[2, 4, 2]": "train.extrapolate.2: 2 is given twice",
    "train.extrapolate=[2, 65]": "train.extrapolate.1: is 65; it must be at most 64",
    "train.extrapolate=[2.5]": "train.extrapolate.0: is 2.5; it must be a whole number",
    "train.extrapolate=2": "train.extrapolate: is 2; it must be a list",
    "train.eval_every=30": "train.eval_every: is 30, more than the 20 steps",
    "tasks=[{task: recall, stepz: 3}]": "tasks.0.stepz: is no key here; did you mean 'steps'",
    "tasks=[{steps: 30}]": "tasks.0.task: is missing",
    "tasks=[{task: recal}]": "tasks.0.task: no task is called 'recal'",
    "tasks=[{task: recall, steps: 0}]": "tasks.0.steps: is 0; it must be at least 1",
    "tasks=[{task: recall, steps: 5}]": "tasks.0.steps: leaves 5 steps with an evaluation every 10",
    "tasks=[{task: recall, eval_every: 21}]": "tasks.0.eval_every: leaves 20 steps with an evaluation",
    "tasks=[recall, {task: recall, steps: 30}]": "tasks.1.task: recall is given twice",
    "tasks=[3]": "tasks.0: is 3; it must be a text",
    "search.lr=[0.1, 0]": "search.lr.1: is 0; it must be a number above 0",
    "search.lr=[x]": "search.lr.0: is 'x'; it must be a number above 0",
    "search.weight_decay=[-1]": "search.weight_decay.0: is -1",
    "search.r=3": "search.r: is 3; it must be a list",
    "search.r=[]": "search.r: is empty",
    "search.r=[[3]]": "search.r.0: is [3]; it must be a number, a text",
    "search.r=[3:2]": "search.r.0: '3:2' is a ratio that cannot be realised",
    "search.r=[1:3]": "a ratio that cannot be realised",
    "search.r=[3.5:1]": "a ratio that cannot be realised",
    "search.r=[3, 3:1]": "search.r.1: '3:1' is given twice",
    "search.r=[8:1]": "r=8:1 cannot be realised at depth 8",
    "search.q=[1]": "search.q: is never used in the pattern",
    "search.gdn=[1]": "search.gdn: is a variable named like a block",
    "search.r=[gdn]": "pattern: for r=gdn: a count must be a whole number",
    "search.r=[99999]": "a count must be between 0 and 1024",
    "pattern=q*gdn": "'q' is no block, and as a variable it has no values",
    "pattern=r*(gnd, swiglu)": "did you mean 'gdn'",
    "pattern=r*(gdn": "does not parse",
    "pattern=r*gdn(convv=2)": "gdn has no option 'convv'; did you mean 'conv'",
    "pattern=": "give exactly one of pattern",
    "pattern=[1]": "pattern: is [1]; it must be a text",
    "pattern=__import__('os').system('touch x')*gdn": "pattern",
    "schedules={a: gdn}": "give exactly one of pattern",
    "depth=0": "depth: is 0; it must be at least 1",
    "shape.heads=3": "shape: for r=3:1: ",
    "shape.dim=big": "shape.dim: is 'big'; it must be a whole number",
    "shape=3": "shape: is 3; it must be a mapping",
    "shape.norm=layer": "shape.norm: is 'layer'; it must be 'rms' or 'rms_zero'",
    "tasks=[recal]": "tasks.0: no task is called 'recal'; did you mean 'recall'",
    "tasks=[]": "tasks: is empty",
    "tasks=3": "tasks: is 3; it must be a list",
    "tasks=[recall, 'recall()']": "tasks.1: recall is given twice",
    "tasks=['recall(vocab=x)']": "tasks.0: recall: vocab must be a number",
    "tasks=['recall(vocab=4, length=4)']": "too few different rows",
    "score=acuracy": "it must be 'accuracy', 'auc' or 'steps'; did you mean 'accuracy'?",
    "trials=0": "trials: is 0; it must be all, or a whole number of at least 1",
    "trials=some": "trials: is 'some'; it must be all, or a whole number of at least 1",
    "margin=2": "margin: is 2; it must be at most 1",
    "pruning=0": "pruning: is 0; it must be a p-value above 0 and at most 0.5, or null for none",
    "pruning=0.6": "pruning: is 0.6; it must be a p-value above 0 and at most 0.5, or null for none",
    "pruning=yes": "pruning: is 'yes'; it must be a p-value above 0 and at most 0.5, or null for none",
    "pruning=.nan": "pruning: is nan; it must be a p-value above 0",
    "pruning=[0.01]": "pruning: is [0.01]; it must be a p-value above 0",
    "match={params: baseline, by: swiglu.expnd}": "match.by.0: is 'swiglu.expnd', and swiglu has no option",
    "match={params: baseline, by: width}": "match.by.0: is 'width'; it must be dim, or an option of a block",
    "match={params: baseline}": "match.by: is missing",
    "match={by: dim}": "match: give exactly one of params and state",
    "match={params: 1, state: 1, by: dim}": "match: give exactly one of params and state",
    "match={params: big, by: dim}": "match.params: is 'big'; it must be baseline, or a number above 0",
    "match={state: 0, by: dim}": "match.state: is 0; it must be baseline, or a number above 0",
    "match={params: true, by: dim}": "match.params: is True; it must be baseline, or a number above 0",
    "match={params: baseline, by: dim, within: 2}": "match.within: is 2; it must be at most 0.5",
    "match={params: baseline, by: dim, lenght: 2}": "match.lenght: is no key here; did you mean 'length'",
    "match={params: baseline, by: dim, length: 2}": "match.length: is of use to a state only",
    "match={params: 10, by: swiglu.expand}": "match: for r=3:1: its params are 114,252 and cannot be brought",
    "match={params: baseline, by: mlp.expand}": "(that of r=3:1), within 1 %: it has no mlp",
    "constraints={}": "constraints: bound nothing; give at least one of params, state and flops",
    "constraints={params: 3}": "constraints.params: is 3; it must be a bound: '<= NUMBER'",
    "constraints={params: '< 3'}": "constraints.params: is '< 3'; it must be a bound: '<= NUMBER'",
    "constraints={params: <= 3 KiB}": "with the unit 'KiB'; params is given as a plain number",
    "constraints={state: <= 3 KB}": "with the unit 'KB'; state is given as scalars, or B, KiB, MiB, GiB",
    "constraints={state: <= 1e99}": "constraints.state: is '<= 1e99'; a number has at most",
    "constraints={flops: within 1% of 0}": "nothing can be within a share of 0",
    "constraints={params: <= 3, length: 2}": "constraints.length: is of use to state and flops only",
    "constraints={params: <= 3}": "constraints: leave no candidate to train; for r=3:1: its params are",
    "constraints={latency: <= 3}": "constraints.latency: is no key here; known: flops, length",
    "baseline=r=3:1": "baseline: is used by neither match nor constraints",
    "name=../x": "name: is '../x'; it must be letters, digits",
    "name=null": "name: is None; it must be a text",
    "name.x=3": "name is no mapping",
    "seeds": "an override is written key=value",
    "=3": "an override is written key=value",
    "search.r=[3:1": "not YAML",
    "search.r=*a": "anchors and aliases",
}


@pytest.mark.parametrize("override", BAD_SETS)
def test_a_bad_override_is_named(override: str) -> None:
    first = problems(override)[0]
    assert BAD_SETS[override] in first
    # What only comes out once values meet the pattern stands there, and names the values.
    assert first.startswith((f"--set {override}", "x.yaml:3:8: depth: r=", "x.yaml:2:10: pattern: for r="))


def test_problems_of_the_file_are_placed_and_all_named() -> None:
    lines = problems(text=GOOD.replace("steps", "stepz").replace("dim: 32", "dim: 0") + "seed: 1\n")
    assert [line.partition(": ")[0] for line in lines] == ["x.yaml:4:14", "x.yaml:7:9", "x.yaml:8:1"]
    lines = problems(text=GOOD.replace("4:1", "3:2").replace("recall(", "recal(").replace("gdn", "gdm"))
    assert [line.partition(": ")[0] for line in lines] == ["x.yaml:2:10", "x.yaml:6:19", "x.yaml:5:9"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "this is empty"),
        ("- 1", "this is a list"),
        ("3", "this is a int"),
        ("name: x", "tasks: is missing"),
        ("name: [", "x.yaml:1:8: not YAML"),
        ("a: 1\na: 2", "x.yaml:2:1: duplicate key 'a'"),
    ],
)
def test_what_is_no_recipe(text: str, what: str) -> None:
    assert any(what in line for line in problems(text=text))


def test_grids_of_none_or_too_many_candidates_are_refused() -> None:
    wide = [f"search.{name}=[{', '.join(map(str, range(1, 151)))}]" for name in "abc"]
    pattern = "pattern=a*gdn + b*gdn + c*gdn"
    said = problems(
        pattern, *wide, "search.r=null", "depth=null", text=GOOD.replace("search: {r: [3:1, 4:1]}\n", "")
    )
    assert "is None; it must be a list" in said[0]
    text = GOOD.replace("search: {r: [3:1, 4:1]}\n", "").replace("depth: 8\n", "")
    assert "makes 3,375,000 candidates" in problems(pattern, *wide, text=text)[0]
    assert "makes 20,000 candidates" in problems(pattern, *wide, "trials=20000", text=text)[0]
    sampled = loads(text, "x", (pattern, *wide, "trials=20"))
    assert space.is_sampled(sampled)
    assert "runs" in problems("seeds=10000", "tasks=mad", "train.lr=[1, 2, 3]", text=GOOD)[0]


def test_overrides_go_through_the_same_checks_and_into_the_text() -> None:
    recipe = loads(GOOD, "x.yaml", ("search.r=[3:1, 5:1]", "train.lr=1e-4", "name=other"))
    assert recipe.search == {"r": ("3:1", "5:1")}
    assert recipe.train.lr == 1e-4
    again = loads(recipe.text)
    assert again.model_dump() == recipe.model_dump()
    assert "--set name=other" in recipe.text


@pytest.mark.parametrize("where", ["train", "search"])
def test_rates_never_multiply_candidates(where: str) -> None:
    recipe = loads(GOOD, "x", (f"{where}.lr=[1e-3, 3e-3]", "train.weight_decay=[0, 0.1]"))
    assert len(space.candidates(recipe)) == 2
    assert space.optimiser_count(recipe) == 4
    for candidate in space.candidates(recipe):
        assert candidate.optimisers == ((1e-3, 0.0), (1e-3, 0.1), (3e-3, 0.0), (3e-3, 0.1))
    assert "is also given under train" in problems("search.lr=[1]", "train.lr=1")[0]


def test_a_rate_may_hang_on_one_variable() -> None:
    recipe = loads(GOOD, "x", ("train.lr={r: {3: 1e-3, 4:1: 2e-3}}",))
    assert [c.optimisers for c in space.candidates(recipe)] == [((1e-3, 0.1),), ((2e-3, 0.1),)]
    listed = (
        "name: x\nschedules: {a: gdn, b: fox}\ntasks: recall\ntrain: {lr: {schedule: {a: 1e-3, b: 2e-3}}}\n"
    )
    assert [c.optimisers[0][0] for c in space.candidates(loads(listed))] == [1e-3, 2e-3]


def test_a_task_that_cannot_be_stretched_is_named_where_the_factor_stands() -> None:
    good = loads(GOOD, overrides=["train.extrapolate=[2, 4]"])
    assert good.train.extrapolate == (2, 4)
    (candidate, *_) = space.candidates(good)
    (run, plain) = (
        next(iter(runs_of(recipe, candidate, space.task_texts(recipe), 0))) for recipe in (good, loads(GOOD))
    )
    assert (run.training.extrapolate, plain.training.extrapolate) == ((2, 4), ())
    assert run.key("code") != plain.key("code")
    found = problems("train.extrapolate=[2, 4]", "tasks=[recall, compression]")
    assert [line.partition(" cannot be")[0] for line in found] == [
        f"--set train.extrapolate=[2, 4]: train.extrapolate.{i}: compression" for i in (0, 1)
    ]
    assert all("its decoder knows the positions of one length alone" in line for line in found)


def test_schedules_by_label() -> None:
    recipe = loads("name: x\nschedules: {plain: 2*fox, mixed: gdn + fox}\ndepth: 4\ntasks: mad\n")
    assert [(c.label, c.schedule) for c in space.candidates(recipe)] == [
        ("plain", "4*fox"),
        ("mixed", "2*[gdn + fox]"),
    ]
    assert len(space.task_texts(recipe)) == 66
    bad = "name: x\nschedules:\n  a: 2*fox\n  b: r*gdn\ntasks: mad\nsearch: {r: [1]}\n"
    lines = problems(text=bad)
    assert lines[0].startswith("x.yaml:4:6: schedules.b: unknown block 'r'")
    assert lines[1].startswith("x.yaml:6:13: search.r: is a variable, and schedules take none")


def test_equal_architectures_are_one_candidate() -> None:
    # Cut at depth 4, one and two of m's layers to no other come out alike; so do two spellings of m.
    recipe = loads(
        GOOD, "x", ("pattern=r*(m, swiglu)", "search.m=[gdn, 'gdn()', fox]", "search.r=[1, 2]", "depth=4")
    )
    found = space.candidates(recipe)
    assert [c.label for c in found] == ["r=1, m=gdn", "r=1, m=fox"]
    assert found[0].also == ("r=1, m=gdn()", "r=2, m=gdn", "r=2, m=gdn()")


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    (tmp_path / "mine.yaml").write_text(GOOD)
    assert load("mine.yaml").name == "ratios"
    assert find("smoke") == find("smoke.yaml") == shipped()["smoke"]
    for name, what in {
        "nothing.yaml": "no such file, and no shipped recipe of that name",
        "smok": "did you mean 'smoke'",
        ".": "this is a directory",
        "/dev/null": "no ordinary file",
        "binary.yaml": "not a text",
        "x" * 5000: "no path of a recipe",
        "a\0b": "no such file",
    }.items():
        with pytest.raises(RecipeError, match=what):
            load(name)


@pytest.mark.parametrize("name", sorted(shipped()))
def test_shipped_recipes_are_right_and_explained(name: str) -> None:
    recipe = load(name)
    assert recipe.name == name
    assert recipe.text.count("#") >= 5
    assert space.candidates(recipe)


def test_blocks_recipe_has_every_mixer() -> None:
    mixers = {name for name, cls in BLOCKS.items() if cls().role != "channel"}
    assert set(load("blocks").search["m"]) == mixers


def test_recipes_are_frozen() -> None:
    recipe: Any = loads(GOOD)
    with pytest.raises(ValueError, match="frozen"):
        recipe.seeds = 4
    assert isinstance(recipe, Recipe)


def test_a_kernel_is_what_the_machine_has_and_part_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def kernels(*overrides: str) -> set[tuple[str, str]]:
        recipe = loads(GOOD, "x.yaml", overrides)
        (first, *_), (task,) = space.candidates(recipe), space.task_texts(recipe)
        return {(run.training.kernel, run.key("code")) for run in runs_of(recipe, first, [task], 0)}

    monkeypatch.setenv("CC", "no-such-compiler")
    ((without, slow),) = kernels()
    assert without == "torch"
    assert kernels("train.kernel=torch") == {("torch", slow)}
    refused = problems("train.kernel=c")
    assert len(refused) == 1 and "train.kernel: is 'c', which needs a C compiler" in refused[0]
    assert refused[0].endswith("or choose auto or torch")
    monkeypatch.setenv("CC", "true")  # any program that is there
    ((with_one, fast),) = kernels()
    assert with_one == "c" and fast != slow
    ((_, rounded),) = kernels("train.precision=bf16")
    assert rounded != fast


def test_the_sources_of_the_kernels_are_part_of_the_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A changed kernel gives other bits, so that finished runs are trained again."""
    before = code_hash()
    copy = tmp_path / "blocks"
    shutil.copytree(Path(str(blocks.__file__)).parent, copy)
    monkeypatch.setattr(blocks, "__file__", str(copy / "__init__.py"))
    assert code_hash() == before
    for name in ("kernels/rows.h", "kernels/kernels.c", "gdn.py"):
        was = (copy / name).read_text()
        (copy / name).write_text(was + "\n")
        assert code_hash() != before, name
        # Shown to train the same, they share the key; under the user's own blocks, too.
        mine = tmp_path / "mine.py"
        mine.write_text("")
        known = {source_hash(): before}
        monkeypatch.setattr(same, "earlier", lambda known=known: known)
        assert code_hash() == before, name
        users = code_hash(mine)
        monkeypatch.undo()
        monkeypatch.setattr(blocks, "__file__", str(copy / "__init__.py"))
        (copy / name).write_text(was)
        assert code_hash(mine) == users != before


@pytest.mark.parametrize("label", ["3:1", "a:b", "1", "r=3:1, wide"])
def test_a_label_of_a_schedule_is_a_name_whatever_it_looks_like(label: str) -> None:
    text = f"name: x\nschedules: {{'{label}': '2*(gdn, swiglu)'}}\ntasks: [recall]\n"
    (only,) = space.candidates(loads(text))
    assert (only.label, only.schedule) == (label, "2*(gdn, swiglu)")


def test_a_task_may_have_a_budget_of_its_own() -> None:
    mixed = ["tasks=[recall, {task: mqar, steps: 40, batch: 4, eval_every: 5}, {task: mad, steps: 60}]"]
    with pytest.raises(RecipeError, match="recall is given twice"):
        loads(GOOD, "x.yaml", mixed)
    recipe = loads(GOOD, "x.yaml", ["tasks=[recall, {task: mqar, steps: 40, batch: 4, eval_every: 5}]"])
    (first, *_), texts = space.candidates(recipe), space.task_texts(recipe)
    assert texts == ["recall", "mqar"]
    plain, own = (run.training for run in runs_of(recipe, first, texts, 0))
    assert (plain.steps, plain.batch, plain.eval_every) == (20, 32, 10)
    assert (own.steps, own.batch, own.eval_every) == (40, 4, 5)
    assert replace(own, steps=20, batch=32, eval_every=10) == plain, "all else is as under train"
    assert loads(recipe.text).model_dump() == recipe.model_dump()
