"""The contract of a task, over every task and every setting of the shipped ladders."""

from __future__ import annotations

import dataclasses
import inspect
import re
from functools import lru_cache

import numpy as np
import pytest

from synthetics import IGNORE, TASKS, Batch, Split, Task, TaskError
from synthetics.base import draw_text
from synthetics.difficulty import chance, window_share
from synthetics.protocol import SUITES, parse_task, settings, show_task, stretch
from synthetics.score import accuracy_by_level
from synthetics.splits import draw

SETTINGS = [show_task(task) for suite in SUITES for task in settings(suite)]
CHEAP = [text for text in SETTINGS if parse_task(text).length <= 256]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
SEED = 20
ROWS = 48

every_setting = pytest.mark.parametrize("text", SETTINGS)
cheap_setting = pytest.mark.parametrize("text", CHEAP)
every_task = pytest.mark.parametrize("task", [task() for task in TASKS.values()], ids=list(TASKS))


@lru_cache(maxsize=512)
def drawn(text: str, split: Split = "test", seed: int = SEED) -> Batch:
    return draw(parse_task(text), split, seed, ROWS)


def rows(batch: Batch) -> set[bytes]:
    return {row.tobytes() for row in batch.inputs}


@every_setting
@pytest.mark.parametrize("split", ["valid", "test"])
def test_the_rule_solves_every_scored_position(text: str, split: Split) -> None:
    batch = drawn(text, split)
    scored = batch.targets != IGNORE
    answers = parse_task(text).solve(batch.inputs)
    assert answers.shape == batch.inputs.shape
    assert scored.any(axis=1).all()
    assert (answers[scored] == batch.targets[scored]).all()


@every_setting
def test_the_rule_answers_from_the_tokens_so_far(text: str) -> None:
    task, inputs = parse_task(text), drawn(text).inputs
    whole = task.solve(inputs)
    for length in (1, 2, task.tokens // 2, task.tokens - 1):
        assert (task.solve(inputs[:, :length]) == whole[:, :length]).all()


@every_setting
def test_ids_lie_in_the_vocabulary_and_rows_have_the_stated_length(text: str) -> None:
    task = parse_task(text)
    for split in SPLITS:
        batch = drawn(text, split)
        targets = batch.targets[batch.targets != IGNORE]
        for array in (batch.inputs, batch.targets):
            assert array.shape == (ROWS, task.tokens)
            assert array.dtype == np.int64
        for ids in (batch.inputs, targets):
            assert ids.min() >= 0
            assert ids.max() < task.vocab


@every_setting
def test_splits_share_no_row_whatever_the_seed(text: str) -> None:
    train, valid, test = (
        rows(drawn(text, split)) | rows(drawn(text, split, seed=SEED + 1)) for split in SPLITS
    )
    assert not train & valid
    assert not train & test
    assert not valid & test


@cheap_setting
def test_a_constant_answer_is_no_solution(text: str) -> None:
    task = parse_task(text)
    if task.vocab == 2:  # half of the answers are right whatever one says, and no more
        # Parities of one row are independent of each other, majorities are not.
        answers = 512 * (task.tokens if task.name == "parity" else 1)
        assert abs(chance(task) - 0.5) < 4.5 * np.sqrt(0.25 / answers)
        return
    assert 0 < chance(task) < 0.5 if task.vocab <= 16 else chance(task) < 0.2


@cheap_setting
def test_a_longer_window_solves_no_less_and_the_whole_row_solves_all(text: str) -> None:
    task = parse_task(text)
    shares = [window_share(task, w) for w in (1, 2, 8, 32, task.tokens // 2, task.tokens)]
    if not task.lagged:
        assert shares == [None] * len(shares)
        return
    known = [share for share in shares if share is not None]
    assert known == sorted(known)
    assert len(known) == len(shares)
    assert known[-1] == 1.0
    assert known[0] < 0.5


@every_setting
@pytest.mark.parametrize("split", ["valid", "test"])
def test_every_scored_position_has_a_level_and_the_rule_solves_them_all(text: str, split: Split) -> None:
    task, batch = parse_task(text), drawn(text, split)
    levels = task.levels(batch)
    scored = batch.targets != IGNORE
    assert levels.shape == batch.targets.shape
    assert levels.dtype == np.int64
    assert ((levels != IGNORE) == scored).all()
    assert levels[scored].min() >= 0
    found = accuracy_by_level(task.solve(batch.inputs), batch.targets, levels)
    assert {one.acc for one in found} == {1.0}
    assert sum(one.count for one in found) == scored.sum()
    assert [one.level for one in found] == sorted(set(levels[scored].tolist()))


@every_task
def test_one_draw_holds_several_levels(task: Task) -> None:
    levels = task.levels(draw(task, "test", SEED, ROWS))
    found = set(levels[levels != IGNORE].tolist())
    assert len(found) > 1 if task.name != "memorization" else found == {0}


@every_task
@pytest.mark.parametrize("factor", [2, 4])
def test_a_stretched_task_is_the_same_but_for_its_length(task: Task, factor: int) -> None:
    if task.head == "autoencoder":
        with pytest.raises(TaskError, match="its decoder knows the positions of one length alone"):
            stretch(task, factor)
        return
    longer = stretch(task, factor)
    assert longer.length == factor * task.length
    assert dataclasses.replace(longer, length=task.length) == task  # type: ignore[type-var]
    assert (longer.vocab, longer.head) == (task.vocab, task.head)
    batch = draw(longer, "test", SEED, ROWS)
    scored = batch.targets != IGNORE
    assert batch.inputs.shape == (ROWS, longer.tokens)
    assert max(batch.inputs.max(), batch.targets.max()) < task.vocab
    assert (longer.solve(batch.inputs)[scored] == batch.targets[scored]).all()


@every_task
def test_the_seed_decides_every_byte_and_nothing_else_does(task: Task) -> None:
    before = np.random.get_state()
    for split in SPLITS:
        once, again = (draw(task, split, SEED, ROWS) for _ in range(2))
        other = draw(task, split, SEED + 1, ROWS)
        assert once.inputs.tobytes() == again.inputs.tobytes()
        assert once.targets.tobytes() == again.targets.tobytes()
        assert once.inputs.tobytes() != other.inputs.tobytes()
        first = task.sample(np.random.default_rng(SEED), ROWS, split)
        second = task.sample(np.random.default_rng(SEED), ROWS, split)
        assert first.inputs.tobytes() == second.inputs.tobytes()
    after = np.random.get_state()
    assert str(before) == str(after), "numpy's global generator was used"


@every_task
def test_training_supervises_what_is_scored_or_every_next_token(task: Task) -> None:
    train = draw(task, "train", SEED, ROWS)
    is_next_token = (train.targets[:, :-1] == train.inputs[:, 1:]).all()
    if not is_next_token or (train.targets == IGNORE).any():
        scored = train.targets != IGNORE
        answers = task.solve(train.inputs)
        assert (answers[scored] == train.targets[scored]).all()


@every_task
def test_the_drawing_in_the_docstring_is_the_tasks_own_output(task: Task) -> None:
    doc = inspect.getdoc(type(task)) or ""
    found = re.search(rf"^ +({task.name}\(.*\))\n +(input .*)\n +(target .*)$", doc, re.MULTILINE)
    assert found, "the docstring draws no instance"
    small = parse_task(found[1])
    assert f"{found[2]}\n{found[3]}" == draw_text(draw(small, "test", 0, 1))


@every_task
def test_a_task_is_a_value(task: Task) -> None:
    same = dataclasses.replace(task)  # type: ignore[type-var]
    assert same == task
    assert hash(same) == hash(task)
    assert isinstance(task, Task)
    assert TASKS[task.name] is type(task)
    with pytest.raises(dataclasses.FrozenInstanceError):
        task.vocab = 3  # type: ignore[misc]
