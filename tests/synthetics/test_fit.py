"""Laws of the one training loop: a function of its arguments, honest about runs that break."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from blocks.base import Shape
from blocks.kernels import native
from blocks.schedule import parse
from synthetics import IGNORE, TASKS, Batch, TaskError
from synthetics.difficulty import chance
from synthetics.fit import Fit, Trainer, Training, TrainingError, build_model, fit
from synthetics.protocol import parse_task
from synthetics.score import accuracy, accuracy_by_position, area, madlab_accuracy, steps_to
from synthetics.splits import draw
from tests.blocks.conftest import NEEDS_COMPILER

SHAPE = Shape(dim=16, heads=2)
SHORT = Training(steps=6, batch=4, eval_every=4, eval_examples=32)
SMALL = {
    "recall": "recall(length=16)",
    "noisy_recall": "noisy_recall(length=16)",
    "fuzzy_recall": "fuzzy_recall(length=40)",
    "copying": "copying(length=24, copy=4)",
    "compression": "compression(length=8)",
    "memorization": "memorization(vocab=32, length=8)",
    "mqar": "mqar(vocab=32, length=32, pairs=4)",
    "multihop": "multihop(vocab=16, length=32, chains=2)",
    "overwrite": "overwrite(length=16)",
    "parity": "parity(length=16)",
    "permutation": "permutation(length=8)",
    "ngram": "ngram(vocab=4, length=16)",
    "needle": "needle(length=24, needles=1, distractors=3)",
    "dyck": "dyck(length=16, depth=4)",
    "majority": "majority(length=16)",
    "compositional_mqar": "compositional_mqar(length=24, pairs=3, side=2)",
}


def run(task: str, seed: int = 0, **changes: float | tuple[int, ...]) -> Fit:
    training = dataclasses.replace(SHORT, **changes)  # type: ignore[arg-type]
    return fit(parse("gdn + (fox, swiglu)"), SHAPE, parse_task(task), training, seed)


def without_seconds(result: Fit) -> Fit:
    curve = tuple(dataclasses.replace(p, seconds=0.0) for p in result.curve)
    return dataclasses.replace(result, curve=curve)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_same_arguments_same_bits_and_another_seed_another_run(name: str) -> None:
    torch.set_num_threads(1)
    first = run(SMALL[name])
    torch.manual_seed(99)  # the caller's generator must not matter
    assert without_seconds(run(SMALL[name])) == without_seconds(first)
    assert without_seconds(run(SMALL[name], seed=1)) != without_seconds(first)
    assert [p.step for p in first.curve] == [4, 6]
    assert first.status == "budget"
    task = parse_task(SMALL[name])
    assert len(first.acc_position) == task.tokens
    batch = draw(task, "test", 0, SHORT.eval_examples)
    assert sum(one.count for one in first.levels) == (batch.targets != IGNORE).sum()
    assert {one.level for one in first.levels} == {*task.levels(batch).ravel().tolist()} - {IGNORE}
    mean = sum(one.acc * one.count for one in first.levels) / sum(one.count for one in first.levels)
    assert mean == pytest.approx(first.acc)


@pytest.mark.parametrize("name", sorted(set(TASKS) - {"compression"}))
def test_extrapolation_adds_scores_on_longer_rows_and_changes_nothing_else(name: str) -> None:
    torch.set_num_threads(1)
    plain, stretched = run(SMALL[name]), run(SMALL[name], extrapolate=(2, 4))
    assert plain.acc_stretched == ()
    assert len(stretched.acc_stretched) == 2
    assert all(0 <= acc <= 1 for acc in stretched.acc_stretched)
    assert without_seconds(dataclasses.replace(stretched, acc_stretched=())) == without_seconds(plain)


def test_a_solved_rule_that_needs_no_position_holds_on_longer_rows() -> None:
    result = run(
        "memorization(vocab=9, length=8)", steps=400, batch=32, eval_every=20, lr=1e-2, extrapolate=(2, 4)
    )
    assert result.status == "solved"
    assert min(result.acc_stretched) > 0.9


def test_longer_rows_are_scored_by_the_rule_of_the_longer_task(monkeypatch: pytest.MonkeyPatch) -> None:
    import synthetics.fit as module

    def solved(_model: object, data: Batch, _training: Training, rows: int = 128) -> np.ndarray:
        length = data.inputs.shape[1]
        return parse_task(f"parity(length={length})").solve(data.inputs) ^ (length == 64)

    monkeypatch.setattr(module, "_predict", solved)
    assert run("parity(length=16)", extrapolate=(2, 4)).acc_stretched == (1.0, 0.0)
    monkeypatch.setattr(
        module, "_predict", lambda m, d, t, r=128: None if d.inputs.shape[1] > 16 else d.inputs
    )
    assert run("parity(length=16)", extrapolate=(3,)).acc_stretched == (
        chance(parse_task("parity(length=16)")),
    )


def test_a_task_that_cannot_be_stretched_is_refused_before_training() -> None:
    with pytest.raises(TaskError, match=r"compression.* cannot be stretched to 2 times its length"):
        run("compression(length=8)", extrapolate=(2,))


def test_an_easy_task_is_solved_and_training_stops_there() -> None:
    result = run("memorization(vocab=9, length=8)", steps=400, batch=32, eval_every=20, lr=1e-2)
    assert result.status == "solved"
    assert result.curve[-1].acc_valid >= 0.999
    assert result.curve[-1].step < 400
    assert result.curve[0].acc <= result.auc <= 1


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_run_that_breaks_counts_as_chance_and_says_where() -> None:
    result = run("recall(length=16)", steps=60, lr=1e30, warmup=0.0, extrapolate=(2, 4))
    assert result.status == "diverged"
    assert result.reason.startswith("step ")
    level = chance(parse_task("recall(length=16)"))
    assert result.acc == result.auc == level
    assert result.steps_to is None
    assert {one.acc for one in result.levels} == {*result.acc_stretched} == {level}
    assert len(result.acc_stretched) == 2
    assert [(one.level, one.count) for one in result.levels] == [
        (one.level, one.count) for one in run("recall(length=16)").levels
    ]


def test_a_run_that_breaks_at_its_last_step_counts_as_chance_too() -> None:
    result = run("recall(length=16)", steps=1, eval_every=1, lr=1e38)
    assert result.status == "diverged"
    assert result.reason.startswith("step 1: ")
    assert (result.curve, result.acc) == ((), chance(parse_task("recall(length=16)")))


def test_the_first_bad_layer_is_named() -> None:
    from synthetics.blame import where_it_broke

    task = parse_task("recall(length=16)")
    model = build_model(parse("gdn + 2*fox"), SHAPE, task, seed=0)
    with torch.no_grad():
        model.get_parameter("stack.layers.1.0.block.out.weight").fill_(float("nan"))
    ids = torch.zeros(1, 15, dtype=torch.long)
    assert "layer 2, block 1: out" in where_it_broke(model, ids, step=7, loss=float("nan"), norm=1.0)


def test_weights_are_a_function_of_the_seed() -> None:
    task = parse_task("recall")
    before = torch.random.get_rng_state()
    one, two, other = (build_model(parse("gdn"), SHAPE, task, seed=s).state_dict() for s in (0, 0, 1))
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not all(torch.equal(one[k], other[k]) for k in one)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_learning_rate_rises_then_falls_to_a_tenth() -> None:
    training = Training(steps=100, lr=1.0, warmup=0.1)
    rates = [training.lr_at(s) for s in range(100)]
    assert rates[9] == max(rates) == 1.0
    assert rates[:10] == sorted(rates[:10])
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(
    "field,value",
    [
        ("steps", 0),
        ("lr", 0.0),
        ("lr", float("inf")),
        ("weight_decay", -1.0),
        ("warmup", 2.0),
        ("eval_every", 999),
        ("extrapolate", (1,)),
        ("extrapolate", (2, 2)),
    ],
)
def test_an_impossible_setting_is_named(field: str, value: object) -> None:
    with pytest.raises(TrainingError, match=f"{field} is"):
        Training(**{field: value})  # pyright: ignore[reportArgumentType]


def test_scores_of_random_predictions_follow_their_definitions() -> None:
    seed = 5
    print("seed", seed)
    rng = np.random.default_rng(seed)
    targets = np.where(rng.random((40, 9)) < 0.5, rng.integers(0, 4, (40, 9)), IGNORE)
    guesses = rng.integers(0, 5, (40, 9))
    cells = [(g, t) for g, t in zip(guesses.ravel(), targets.ravel(), strict=True) if t != IGNORE]
    assert accuracy(guesses, targets) == pytest.approx(np.mean([g == t for g, t in cells]))
    recalls = [
        np.mean([g == c for g, t in cells if t == c]) if any(t == c for _, t in cells) else 0.0
        for c in range(5)
    ]
    assert madlab_accuracy(guesses, targets) == pytest.approx(np.mean(recalls))
    scored = (targets != IGNORE).sum(0)
    by_position = [0.0 if a is None else a for a in accuracy_by_position(guesses, targets)]
    assert np.dot(by_position, scored) / scored.sum() == pytest.approx(accuracy(guesses, targets))


def test_one_stray_class_costs_madlab_accuracy_a_class_and_token_accuracy_a_token() -> None:
    targets = np.tile(np.arange(8), (128, 7))
    guesses = targets.copy()
    guesses[0, 0] = 15
    assert accuracy(guesses, targets) == pytest.approx(7167 / 7168)
    assert madlab_accuracy(guesses, targets) == pytest.approx(0.889, abs=5e-4)


def test_area_keeps_a_solved_run_at_its_last_value() -> None:
    assert area([0.5, 1.0], 4) == pytest.approx((0.5 + 3 * 1.0) / 4)
    assert area([0.5, 1.0], 2) == pytest.approx(0.75)


def test_steps_to_is_the_first_evaluation_at_the_threshold() -> None:
    assert steps_to([10, 20, 30], [0.1, 0.5, 0.4], 0.5) == 20
    assert steps_to([10, 20, 30], [0.1, 0.2, 0.4], 0.5) is None


@pytest.mark.parametrize("mixer", ["attn", "fox", "gdn", "gla", "linear", "ttt", "mamba", "mamba2"])
@pytest.mark.parametrize("kernel", [pytest.param("c", marks=NEEDS_COMPILER), "torch"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_kernels_and_precisions_start_to_learn_alike(mixer: str, kernel: Any, precision: Any) -> None:
    """The mean loss of ten steps; later ones part, as rounding decides where a curve bends."""
    schedule, task = parse(f"2*({mixer}, swiglu)"), parse_task("recall(vocab=8, length=16)")
    usual = Training(steps=10, eval_every=10, eval_examples=32, batch=8)
    losses = [
        fit(schedule, SHAPE, task, training, seed=1).curve[0].loss
        for training in (usual, dataclasses.replace(usual, kernel=kernel, precision=precision))
    ]
    assert precision == "fp32" or losses[0] != losses[1], "the option changes nothing"
    assert losses[1] == pytest.approx(losses[0], rel=1e-4 if precision == "fp32" else 2e-2)


@pytest.mark.parametrize("task", ["recall(length=16)", "compression(length=8)"])
def test_the_model_is_built_with_the_kernel_of_the_run(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    native.library.cache_clear()
    native._function.cache_clear()
    with pytest.raises(native.KernelError, match="needs a C compiler"):
        fit(parse("2*(gdn, swiglu)"), SHAPE, parse_task(task), dataclasses.replace(SHORT, kernel="c"), 0)


def test_a_run_taken_step_by_step_is_the_whole_run() -> None:
    """Two runs side by side, with other work between their evaluations, are the runs alone."""
    schedule, task = parse("gdn + (fox, swiglu)"), parse_task("recall(length=16)")
    settings = [dataclasses.replace(SHORT, steps=10, lr=lr) for lr in (1e-3, 5e-3)]
    trainers = [Trainer(schedule, SHAPE, task, training, seed=3) for training in settings]
    while not all(trainer.done for trainer in trainers):
        torch.manual_seed(7)  # somebody else's draws must not matter
        for trainer in trainers:
            point = trainer.advance()
            assert point is not None and point == trainer.curve[-1]
    for trainer, training in zip(trainers, settings, strict=True):
        alone = fit(schedule, SHAPE, task, training, seed=3)
        assert without_seconds(trainer.finish("never used")) == without_seconds(alone)
        spent = [0.0, *(point.seconds for point in trainer.curve)]
        assert spent == sorted(set(spent)), "seconds add up from evaluation to evaluation"


def test_a_run_ended_early_is_the_start_of_the_whole_run() -> None:
    schedule, task = parse("gdn + (fox, swiglu)"), parse_task("recall(length=16)")
    training = dataclasses.replace(SHORT, steps=12)
    trainer = Trainer(schedule, SHAPE, task, training, seed=3)
    trainer.advance()
    ended, whole = trainer.finish("another was ahead"), fit(schedule, SHAPE, task, training, seed=3)
    assert (ended.status, ended.reason, whole.status) == ("stopped", "another was ahead", "budget")
    assert without_seconds(ended).curve == without_seconds(whole).curve[:1]
    assert ended.acc == whole.curve[0].acc == pytest.approx(ended.auc), "it stays at its last value"
