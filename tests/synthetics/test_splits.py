"""Draws are functions of (task, split, seed), and splits take their stated share of all rows."""

from __future__ import annotations

import numpy as np
import pytest

from synthetics import TASKS, Task, TaskError
from synthetics.copying import Copying
from synthetics.recall import Recall
from synthetics.splits import draw, split_of

every_task = pytest.mark.parametrize("task", [task() for task in TASKS.values()], ids=list(TASKS))


@every_task
def test_a_shorter_draw_is_the_start_of_a_longer_one(task: Task) -> None:
    long = draw(task, "valid", 5, 700)
    for n in (0, 1, 100, 699):
        short = draw(task, "valid", 5, n)
        assert len(short) == n
        assert (short.inputs == long.inputs[:n]).all()
        assert (short.targets == long.targets[:n]).all()


@every_task
def test_half_of_all_rows_train_and_a_quarter_each_are_valid_and_test(task: Task) -> None:
    inputs = task.sample(np.random.default_rng(0), 8000).inputs
    shares = np.bincount(split_of(inputs), minlength=3) / 8000
    assert (np.abs(shares - [0.5, 0.25, 0.25]) < 4.5 * np.sqrt([0.25 / 8000] * 3)).all()


def test_the_split_of_a_row_depends_on_each_of_its_tokens() -> None:
    row = np.arange(40)[None] % 7
    changed = np.repeat(row, 40, axis=0)
    changed[np.arange(40), np.arange(40)] += 1
    assert 0.3 < (split_of(changed) != split_of(row)).mean() < 0.9
    assert len({int(split_of(np.roll(row, shift))[0]) for shift in range(40)}) == 3


def test_the_split_of_a_row_is_the_same_in_every_version() -> None:
    # Stored results rest on it: a change here must be a decision.
    rows = np.arange(192).reshape(16, 12) % 11
    assert split_of(rows).tolist() == [0, 0, 0, 2, 0, 0, 0, 2, 0, 1, 0, 0, 0, 0, 2, 0]


def test_seed_split_and_options_each_give_other_rows() -> None:
    base = draw(Recall(), "test", 0, 20).inputs
    others = [
        draw(Recall(), "test", 1, 20).inputs,
        draw(Recall(), "valid", 0, 20).inputs,
        draw(Recall(train_examples=800), "test", 0, 20).inputs,
    ]
    assert all((base != other).any() for other in others)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(TaskError, match="'dev' is no split; known are train, valid and test"):
        draw(Recall(), "dev", 0, 1)  # type: ignore[arg-type]


def test_a_task_with_fewer_rows_than_splits_is_refused_not_awaited() -> None:
    task = Copying(vocab=4, length=4, copy=1)  # two contents, one place: two rows
    with pytest.raises(TaskError, match="too few different rows, give it more vocab or length"):
        for split in ("train", "valid", "test"):
            draw(task, split, 0, 10)
