"""What a plan measures is bounded, and what it makes of it is that rate, whatever a recipe asks for."""

import pytest

from sweeps import plan
from sweeps.clock import Clock
from sweeps.form import Recipe
from sweeps.recipe import loads
from sweeps.run import Run, runs_of
from sweeps.space import candidates, task_texts
from synthetics.fit import Fit, Training, fit

TEXT = """\
name: x
pattern: gdn
shape: {dim: 16, heads: 2}
tasks: ["recall(vocab=8, length=16)"]
train: {steps: 40, batch: 4, eval_every: 10, eval_examples: 20}
"""


def only_run(*overrides: str) -> Run:
    recipe: Recipe = loads(TEXT, "x", overrides)
    ((candidate,), tasks) = candidates(recipe), task_texts(recipe)
    (run,) = runs_of(recipe, candidate, tasks, 0)
    return run


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Training]:
    """The trainings that are really gone through."""
    seen: list[Training] = []

    def watched(schedule, shape, task, training: Training, seed: int) -> Fit:
        seen.append(training)
        assert task.train_examples <= 4 * training.batch
        return fit(schedule, shape, task, training, seed)

    monkeypatch.setattr(plan, "fit", watched)
    return seen


@pytest.mark.parametrize(
    "asked",
    [
        ("train.batch=10000000",),
        ("train.eval_examples=10000000",),
        ("train.batch=10000000", "train.eval_examples=10000000", "train.extrapolate=[2, 4]"),
        ("train.batch=1", "train.eval_examples=10000000", "train.eval_every=1"),
    ],
)
def test_however_many_rows_are_asked_for_few_are_measured(
    asked: tuple[str, ...], trained: list[Training], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "CALIBRATION_FLOPS", 1e8)
    monkeypatch.setattr(plan, "CALIBRATION_SECONDS", 0.0)
    run = only_run(*asked)
    assert plan.measure(run) > 0
    (training,) = trained
    a_row = Clock().work(run) / run.training.steps / run.training.batch
    rows = 2 * training.batch + (2 + sum(training.extrapolate)) * training.eval_examples / 3
    assert rows * a_row <= 1.1e8
    assert rows * a_row >= 0.5e8


def test_what_a_recipe_asks_for_is_measured_as_it_is_where_it_is_short(
    trained: list[Training], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "CALIBRATION_SECONDS", 0.0)
    plan.measure(only_run())
    assert [(one.steps, one.batch, one.eval_examples) for one in trained] == [(2, 4, 4)]


def test_evaluations_that_are_cut_down_count_for_the_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that counts rows: the run's predicted time is its own rows, however few were measured."""
    now, run = [0.0], only_run("train.eval_examples=1000000", "train.batch=1")

    def timed(schedule, shape, task, training: Training, seed: int) -> None:
        evaluations = training.steps // training.eval_every
        now[0] += training.steps * training.batch + evaluations * 2 * training.eval_examples / 3

    monkeypatch.setattr(plan, "fit", timed)
    monkeypatch.setattr(plan.time, "perf_counter", lambda: now[0])
    seconds = Clock().work(run) / (plan.measure(run) * 1e9)
    assert seconds == pytest.approx(40 + 4 * 2 * 1_000_000 / 3)
