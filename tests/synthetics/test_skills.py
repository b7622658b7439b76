"""The tasks of single skills, each against its rule in plain Python."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from synthetics import IGNORE
from synthetics.compositional import CompositionalMQAR
from synthetics.dyck import Dyck
from synthetics.needle import Needle
from synthetics.ngram import NGram
from synthetics.splits import draw
from synthetics.tracking import Majority

SEED = 4
ROWS = 200


@pytest.mark.parametrize(("pairs", "side", "length"), [(6, 3, 41), (4, 2, 20), (9, 3, 64)])
def test_a_compositional_key_is_two_tokens_that_others_share(pairs: int, side: int, length: int) -> None:
    task = CompositionalMQAR(vocab=40, length=length, pairs=pairs, side=side)
    batch = draw(task, "test", SEED, ROWS)
    levels = task.levels(batch)
    for row, targets, level in zip(batch.inputs.tolist(), batch.targets.tolist(), levels, strict=True):
        held = {(row[i], row[i + 1]): row[i + 2] for i in range(0, 3 * pairs, 3)}
        assert len(held) == len(set(held.values())) == pairs
        for half, ids in ((0, range(1, 10)), (1, range(10, 20))):
            seen = {key[half] for key in held}
            assert len(seen) <= side
            assert seen <= set(ids)
        assert set(held.values()) <= set(range(20, 40))
        asked = []
        for t in (t for t in range(length) if targets[t] != IGNORE):
            key = (row[t - 1], row[t])
            assert t > 3 * pairs
            assert (t - 1 - 3 * pairs) % 2 == 0
            assert targets[t] == held[key]
            others = [other for other in held if other != key]
            assert level[t] == sum(a == key[0] or b == key[1] for a, b in others)
            asked.append(key)
        assert sorted(asked) == sorted(held)
    if pairs == side**2:  # the grid is full: every key shares its halves with the same number of others
        assert set(levels[levels != IGNORE].tolist()) == {2 * (side - 1)}


def test_half_a_compositional_key_leaves_several_values() -> None:
    task = CompositionalMQAR(pairs=12, side=4)
    inputs = draw(task, "test", SEED, ROWS).inputs
    for half in (0, 1):
        alike = [max(Counter(row[half:36:3].tolist()).values()) for row in inputs]
        assert min(alike) >= 3


def test_compositional_keys_and_their_places_are_uniform() -> None:
    task = CompositionalMQAR(vocab=16, length=40, pairs=2, side=2)
    batch = task.sample(np.random.default_rng(SEED), 6000)
    cells = np.bincount((batch.inputs[:, 0] - 1) * 4 + batch.inputs[:, 1] - 4, minlength=12)
    assert (np.abs(cells - 500) < 4.5 * np.sqrt(500)).all()
    same = batch.inputs[:, :2] == batch.inputs[:, 3:5]  # of four cells, one other shares this half
    assert (np.abs(same.mean(axis=0) - 1 / 3) < 4.5 * np.sqrt(2 / 9 / 6000)).all()
    places = (batch.targets[:, 7::2] != IGNORE).sum(axis=0)
    assert places.sum() == 12_000
    assert (np.abs(places - 12_000 / 17) < 4.5 * np.sqrt(12_000 / 17)).all()


def test_majority_is_the_more_frequent_bit_and_a_tie_is_not_scored() -> None:
    batch = draw(Majority(length=20), "test", SEED, ROWS)
    for row, target in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        counts = [Counter(row[: t + 1]) for t in range(20)]
        assert target == [IGNORE if c[0] == c[1] else c.most_common(1)[0][0] for c in counts]
    assert (batch.targets == IGNORE).any()


@pytest.mark.parametrize(("kinds", "depth", "length"), [(8, 8, 64), (2, 2, 13), (3, 5, 6)])
def test_a_bracket_closes_the_last_one_open(kinds: int, depth: int, length: int) -> None:
    task = Dyck(kinds=kinds, depth=depth, length=length)
    batch = draw(task, "test", SEED, ROWS)
    levels, deepest = task.levels(batch), 0
    for i, row in enumerate(batch.inputs.tolist()):
        stack: list[int] = []
        for t, token in enumerate(row):
            if token < kinds:
                stack.append(token)
                deepest = max(deepest, len(stack))
                assert batch.targets[i, t] == IGNORE
            else:
                assert stack.pop() == token - kinds
                assert batch.targets[i, t] == kinds + stack[-1]
                assert levels[i, t] == len(stack)
            assert 1 <= len(stack) <= depth
    assert deepest == depth


def test_brackets_open_and_close_as_a_walk_between_two_walls() -> None:
    task = Dyck(kinds=2, depth=3, length=40)
    inputs = task.sample(np.random.default_rng(SEED), 4000).inputs
    is_opening = inputs < 2
    depth = (2 * is_opening - 1).cumsum(axis=1)
    after, free = is_opening[:, 1:], depth[:, :-1] == 2
    assert after[depth[:, :-1] == 1].all()
    assert not after[depth[:, :-1] == 3].any()
    assert abs(after[free].mean() - 0.5) < 4.5 * np.sqrt(0.25 / free.sum())
    assert abs(inputs[is_opening].mean() - 0.5) < 4.5 * np.sqrt(0.25 / is_opening.sum())


def test_what_was_opened_before_a_window_is_not_known_in_it() -> None:
    task = Dyck(kinds=2, depth=4, length=8)
    row = np.array([[0, 1, 0, 2, 3, 1, 1, 3]])
    assert task.solve(row).tolist() == [[-1, -1, -1, 3, 2, -1, -1, 3]]
    assert task.solve(row[:, 2:]).tolist() == [[-1, -1, -1, -1, -1, 3]]
    assert task.solve(row[:, 4:]).tolist() == [[-1, -1, -1, 3]]


@pytest.mark.parametrize(
    ("needles", "distractors", "length"), [(2, 3, 41), (1, 0, 8), (6, 0, 30), (3, 20, 90)]
)
def test_a_needle_is_what_has_the_mark(needles: int, distractors: int, length: int) -> None:
    task = Needle(vocab=52, length=length, needles=needles, distractors=distractors)
    batch = draw(task, "test", SEED, ROWS)
    levels, hay = task.levels(batch), length - 2 * needles
    for row, targets, level in zip(batch.inputs.tolist(), batch.targets.tolist(), levels, strict=True):
        marks = [t for t in range(hay) if row[t] == 50]
        held = {row[t + 1]: (row[t + 2], t + 1) for t in marks}
        assert len(held) == len(marks) == needles + distractors
        assert all(key < 25 <= value < 50 for key, (value, _) in held.items())
        assert max(row[:hay]) <= 50
        assert row[hay::2] == [51] * needles
        assert len(set(row[hay + 1 :: 2])) == needles
        assert [t for t in range(length) if targets[t] != IGNORE] == list(range(hay + 1, length, 2))
        for t in range(hay + 1, length, 2):
            value, at = held[row[t]]
            assert targets[t] == value
            assert level[t] == int(np.log2(t - at))


def test_needles_lie_anywhere_and_any_of_them_is_asked_for() -> None:
    task = Needle(vocab=22, length=15, needles=1, distractors=1)
    batch = task.sample(np.random.default_rng(SEED), 9000)
    first, second = np.nonzero(batch.inputs == 20)[1].reshape(-1, 2).T
    assert (second - first >= 3).all()
    ways = Counter(zip(first.tolist(), second.tolist(), strict=True))
    assert len(ways) == 36  # of nine places, two
    assert (np.abs(np.array([*ways.values()]) - 250) < 4.5 * np.sqrt(250)).all()
    asked_first = batch.inputs[:, -1] == batch.inputs[np.arange(9000), first + 1]
    assert abs(asked_first.mean() - 0.5) < 4.5 * np.sqrt(0.25 / 9000)
    strewn = batch.inputs[:, :13][(batch.inputs[:, :13] != 20)]
    assert set(np.unique(strewn)) == set(range(20))


def test_a_key_without_a_mark_is_no_needle() -> None:
    task = Needle(vocab=12, length=12, needles=1, distractors=0)
    row = np.array([[3, 7, 3, 6, 10, 3, 8, 3, 9, 5, 11, 3]])
    assert task.solve(row).tolist() == [[-1] * 11 + [8]]
    assert task.solve(row[:, 5:]).tolist() == [[-1] * 7]
    assert task.solve(row[:, 4:]).tolist() == [[-1] * 7 + [8]]


@pytest.mark.parametrize(("vocab", "order", "length"), [(8, 2, 60), (4, 3, 60), (4, 4, 80), (5, 2, 7)])
def test_an_ngram_answer_is_the_one_favourite_so_far(vocab: int, order: int, length: int) -> None:
    task = NGram(vocab=vocab, order=order, length=length, alpha=0.6)
    batch = draw(task, "test", SEED, ROWS)
    levels, ties = task.levels(batch), 0
    for i, row in enumerate(batch.inputs.tolist()):
        followers: dict[tuple[int, ...], Counter[int]] = {}
        for t in range(length):
            context = tuple(row[max(t - order + 2, 0) : t + 1])
            counts = followers.get(context, Counter())
            best = [letter for letter in counts if counts[letter] == max(counts.values())]
            assert batch.targets[i, t] == (best[0] if len(best) == 1 else IGNORE)
            if len(best) == 1:
                assert levels[i, t] == int(np.log2(counts.total()))
            ties += len(best) > 1
            if t + 1 < length and len(context) == order - 1:
                followers.setdefault(context, Counter())[row[t + 1]] += 1
    assert ties or length < 10


@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_ngram_transitions_are_drawn_from_a_dirichlet_prior(alpha: float) -> None:
    # Two letters in a row after the same context are the same with probability (1 + alpha) / (1 + V alpha).
    task = NGram(vocab=4, length=8, alpha=alpha)
    inputs = task.sample(np.random.default_rng(SEED), 40_000).inputs
    again = inputs[(inputs[:, 0] == inputs[:, 2]) & (inputs[:, 0] != inputs[:, 1])]
    rows = inputs[inputs[:, 0] == inputs[:, 1]]  # a letter followed by itself: what follows it now?
    expected = (1 + alpha) / (1 + 4 * alpha)
    for same, n in (((again[:, 1] == again[:, 3]), len(again)), ((rows[:, 1] == rows[:, 2]), len(rows))):
        assert abs(same.mean() - expected) < 4.5 * np.sqrt(expected * (1 - expected) / n)
    share = np.bincount(inputs[:, 1], minlength=4) / 40_000
    assert (np.abs(share - 1 / 4) < 4.5 * np.sqrt(3 / 16 / 40_000)).all()


def test_ngram_training_supervises_the_next_token() -> None:
    batch = draw(NGram(vocab=4, length=12), "train", SEED, ROWS)
    assert (batch.targets[:, :-1] == batch.inputs[:, 1:]).all()
    assert set(np.unique(batch.targets)) == set(range(4))
