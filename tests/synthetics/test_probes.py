"""The tasks that separate hybrids, each against its rule in plain Python."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from synthetics import IGNORE, Batch
from synthetics.mqar import MQAR
from synthetics.multihop import MultiHop
from synthetics.overwrite import Overwrite
from synthetics.splits import draw
from synthetics.tracking import Parity, Permutation

SEED = 4
ROWS = 200


def cells(batch: Batch) -> list[tuple[list[int], int, int]]:
    """(row, position, target) of every scored position."""
    where = np.argwhere(batch.targets != IGNORE).tolist()
    return [(batch.inputs[i].tolist(), t, int(batch.targets[i, t])) for i, t in where]


def octave(count: int) -> int:
    return int(math.log2(count))


@pytest.mark.parametrize(
    ("pairs", "length", "gap", "power"),
    [(4, 64, 48, 0.01), (4, 64, 16, 1.0), (16, 128, 30, 0.01), (1, 40, 36, 1)],
)
def test_mqars_gap_holds_between_every_query_and_its_pair(
    pairs: int, length: int, gap: int, power: float
) -> None:
    task = MQAR(vocab=64, length=length, pairs=pairs, gap=gap, power=power)
    batch = draw(task, "test", SEED, ROWS)
    lags, scored = [], cells(batch)
    for row, t, value in scored:
        at = row[: 2 * pairs : 2].index(row[t]) * 2
        assert row[at + 1] == value
        lags.append(t - at)
    assert len(scored) == ROWS * pairs
    assert min(lags) >= gap + 2  # as the last pair's query in the first slot has
    assert max(lags) <= length - 2
    starts = {t for _, t, _ in scored}
    assert min(starts) == 2 * pairs + gap
    assert max(starts) <= length - 2


def test_multihop_leads_from_key_to_key_to_the_value() -> None:
    task = MultiHop(vocab=30, length=60, hops=3, chains=4)
    batch = draw(task, "test", SEED, ROWS)
    levels = task.levels(batch)
    assert (levels == np.where(batch.targets == IGNORE, IGNORE, levels)).all()
    counted = np.zeros(4, dtype=int)
    for i, (row, targets) in enumerate(zip(batch.inputs.tolist(), batch.targets, strict=True)):
        assert row[:36:3] == [28] * 12
        links = dict(zip(row[1:36:3], row[2:36:3], strict=True))
        assert len(links) == 12
        assert all(key < 14 for key in links)
        assert row[36::2] == [29] * 12
        assert np.flatnonzero(targets != IGNORE).tolist() == list(range(37, 60, 2))
        for t in range(37, 60, 2):
            here, hops = row[t], 0
            while here in links:
                here, hops = links[here], hops + 1
            assert 14 <= here < 28
            assert targets[t] == here
            assert levels[i, t] == hops
            counted[hops] += 1
    total = ROWS * 12
    assert counted[0] == 0
    assert (np.abs(counted[1:] - total / 3) < 4.5 * np.sqrt(total * 2 / 9)).all()


def test_multihops_links_stand_in_any_order() -> None:
    task = MultiHop(vocab=30, length=60, hops=2, chains=2)
    inputs = task.sample(np.random.default_rng(SEED), 4000).inputs
    first, then = inputs[:, 1:12:3], inputs[:, 2:12:3]
    # The link that follows another in its chain stands behind it in half of the rows.
    is_next = then[:, :, None] == first[:, None, :]
    assert (is_next.sum(axis=(1, 2)) == 2).all()
    behind = np.triu(np.ones((4, 4), dtype=bool), k=1)
    share = (is_next & behind).sum() / 8000
    assert abs(share - 0.5) < 4.5 * np.sqrt(0.25 / 4000)


@pytest.mark.parametrize("reads", [0.0, 0.25, 1.0])
def test_the_last_value_of_an_overwritten_key_wins(reads: float) -> None:
    task = Overwrite(vocab=12, length=40, reads=reads)
    batch = draw(task, "test", SEED, ROWS)
    levels, overwritten = task.levels(batch), 0
    for i, row in enumerate(batch.inputs.tolist()):
        held: dict[int, list[int]] = {}
        for t in range(0, 40, 2):
            left, right = row[t], row[t + 1]
            assert batch.targets[i, t] == IGNORE
            if left == 11:
                values = held[right]
                assert batch.targets[i, t + 1] == values[-1]
                assert levels[i, t + 1] == octave(len(values))
                overwritten += values[-1] != values[0]
            else:
                assert left < 5 <= right < 11
                assert batch.targets[i, t + 1] == IGNORE
                held.setdefault(left, []).append(right)
        assert row[-2] == 11
        asked = row[::2].count(11)
        assert asked == 1 if reads == 0 else asked >= 1
        if reads == 1:
            assert all(len(values) == 1 for values in held.values())
    assert reads == 1 or overwritten > ROWS / 4


def test_overwrites_solver_uses_the_last_value_that_a_window_shows() -> None:
    task = Overwrite(vocab=12, length=40)
    row = np.array([[0, 5, 0, 6, 1, 7, 11, 0, 0, 8, 11, 0, 11, 1]])
    assert task.solve(row).tolist() == [[-1] * 7 + [6, -1, -1, -1, 8, -1, 7]]
    assert task.solve(row[:, 5:]).tolist() == [[-1] * 6 + [8, -1, -1]]
    assert task.solve(row[:, 1:8]).tolist() == [[-1] * 6 + [6]]


def test_parity_counts_ones() -> None:
    batch = draw(Parity(length=20), "test", SEED, ROWS)
    for row, target in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        assert target == [sum(row[: t + 1]) % 2 for t in range(20)]
    assert set(np.unique(batch.inputs)) == {0, 1}


@pytest.mark.parametrize("swaps", [False, True])
@pytest.mark.parametrize("group", [3, 4, 5])
def test_permutation_composes_in_order(group: int, swaps: bool) -> None:
    task = Permutation(length=12, group=group, swaps=swaps)
    batch = draw(task, "test", SEED, ROWS)
    places = list(itertools.permutations(range(group)))
    for row, target in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        things = tuple(range(group))
        for token, answer in zip(row, target, strict=True):
            things = tuple(places[token][i] for i in things)  # the token moves what stands where things are
            assert places[answer] == things
    seen = {places[token] for token in np.unique(batch.inputs)}
    moved = {sum(a != i for i, a in enumerate(p)) for p in seen}
    assert moved == ({0, 2} if swaps else {0, *range(2, group + 1)})
    assert len(seen) == (1 + math.comb(group, 2) if swaps else len(places))


def test_the_order_of_permutations_matters() -> None:
    answers = Permutation(length=4).solve(np.array([[1, 2], [2, 1]]))[:, -1]
    assert answers[0] != answers[1]
