"""Laws of protocols: each is a word that a recipe takes, with budgets that a run can have."""

import pytest

from sweeps import space
from sweeps.protocols import PROTOCOLS
from sweeps.recipe import RecipeError, loads
from sweeps.run import runs_of
from synthetics.protocol import parse_task, show_task

TEXT = """\
name: asked
pattern: gdn
shape: {dim: 32, heads: 2}
tasks: lite
"""


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_is_its_parts_with_their_budgets(name: str) -> None:
    recipe = loads(TEXT, "asked", [f"tasks={name}"])
    (candidate,) = space.candidates(recipe)
    runs = list(runs_of(recipe, candidate, space.task_texts(recipe), 0))
    assert len(runs) == len(PROTOCOLS[name]) > 0
    for run, part in zip(runs, PROTOCOLS[name], strict=True):
        assert run.task == show_task(parse_task(part.task))
        assert {key: getattr(run.training, key) for key in part.budget} == part.budget
        assert set(part.budget) == {"steps", "batch", "eval_every"}
        assert part.steps and part.eval_every and part.steps % part.eval_every == 0


@pytest.mark.parametrize("name", PROTOCOLS)
def test_what_the_recipe_says_of_it_goes_before_the_protocol(name: str) -> None:
    recipe = loads(TEXT, "asked", [f"tasks=[{{task: {name}, steps: 900}}, memorization]"])
    assert [budget.get("steps") for budget in space.budgets(recipe).values()] == [
        *[900] * len(PROTOCOLS[name]),
        None,
    ]
    with pytest.raises(RecipeError, match="leaves 7 steps with an evaluation every"):
        loads(TEXT, "asked", [f"tasks=[{{task: {name}, steps: 7}}]"])
    with pytest.raises(RecipeError, match="given twice"):
        loads(TEXT, "asked", [f"tasks=[{name}, {name}]"])
