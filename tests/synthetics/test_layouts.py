"""Each task's layout and its partition of the ids, as its docstring states them."""

from __future__ import annotations

import numpy as np
import pytest

from synthetics import IGNORE, Split, base
from synthetics.base import distinct, distinct_columns, first_same
from synthetics.compression import Compression
from synthetics.copying import Copying
from synthetics.fuzzy import FuzzyRecall
from synthetics.memorization import Memorization
from synthetics.mqar import MQAR
from synthetics.recall import NoisyRecall, Recall
from synthetics.splits import draw

SEED = 3


@pytest.mark.parametrize("vocab", [4, 16, 33, 128])
def test_recall_alternates_keys_and_values_and_asks_for_known_keys(vocab: int) -> None:
    task = Recall(vocab=vocab, length=64)
    batch = draw(task, "test", SEED, 200)
    keys, values = batch.inputs[:, ::2], batch.inputs[:, 1::2]
    assert set(np.unique(keys)) == set(range(vocab // 2))
    assert set(np.unique(values)) == set(range(vocab // 2, vocab))
    is_known = first_same(keys) < np.arange(keys.shape[1])
    assert ((batch.targets[:, ::2] != IGNORE) == is_known).all()
    assert is_known[:, -1].all()
    assert (batch.targets[:, 1::2] == IGNORE).all()


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_noise_comes_in_pairs_and_spares_the_probe_and_one_pair(share: float) -> None:
    task = NoisyRecall(vocab=20, length=32, noise_vocab=7, frac_noise=share)
    batch = draw(task, "test", SEED, 400)
    noise = batch.inputs >= 13
    pairs = noise[:, :-1].reshape(400, -1, 2)
    assert (pairs[..., 0] == pairs[..., 1]).all()
    assert not noise[:, -1].any()
    assert (~pairs[..., 0]).any(axis=1).all()
    assert not noise[batch.targets != IGNORE].any()
    slots = pairs.shape[1]
    expected = share * (slots - 1) / slots
    error = np.sqrt(share * (1 - share) / (400 * slots))
    assert abs(pairs[..., 0].mean() - expected) <= 4 * error
    content = batch.inputs[:, ::2][batch.inputs[:, ::2] < 13]
    assert content.max() < 6


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("vocab", [9, 16, 64])
def test_fuzzy_rows_are_pads_then_motifs_of_distinct_ids(split: Split, vocab: int) -> None:
    task = FuzzyRecall(vocab=vocab, length=48, key_motif=3, value_motif=2)
    batch = draw(task, split, SEED, 300)
    keys = (vocab - 1) // 2
    for row, last in zip(batch.inputs, batch.targets[:, -1], strict=True):
        tokens = np.append(row, last)
        pads = int((tokens == vocab - 1).sum())
        assert 2 <= pads <= task.key_motif + task.value_motif + 1
        assert (tokens[:pads] == vocab - 1).all()
        starts = np.flatnonzero(np.diff((tokens[pads:] < keys).astype(int))) + 1
        runs = np.split(tokens[pads:], starts)
        assert len(runs) % 2 == 0
        pairs = [(tuple(key), tuple(value)) for key, value in zip(runs[::2], runs[1::2], strict=True)]
        for key, value in pairs:
            assert len(set(key)) == len(key) <= 3
            assert len(set(value)) == len(value) <= 2
            assert split == "train" or len(key) == 3
        assert pairs[-1] in pairs[:-1], "the probe has no answer"
        assert len(dict(pairs)) == len(set(pairs)), "a key has two values"


def test_a_fuzzy_row_drawn_alone_is_as_full_as_among_others() -> None:
    task = FuzzyRecall(vocab=16, length=48)
    for seed in range(300):
        (row,) = task.sample(np.random.default_rng(seed), 1, "train").inputs
        assert (row == 15).sum() <= task.key_motif + task.value_motif + 1


def test_fuzzy_training_draws_key_motifs_of_every_size() -> None:
    task = FuzzyRecall(vocab=16, length=64)
    batch = draw(task, "train", SEED, 200)
    is_key = batch.inputs < 7
    sizes = {len(run) for row in is_key for run in "".join("k" if k else "." for k in row[8:]).split(".")}
    assert sizes - {0} == {1, 2, 3}


@pytest.mark.parametrize(("length", "copy"), [(4, 1), (5, 1), (40, 8), (40, 19)])
def test_copying_ends_its_content_at_the_copy_token(length: int, copy: int) -> None:
    task = Copying(vocab=8, length=length, copy=copy)
    inputs = task.sample(np.random.default_rng(SEED), 300).inputs
    assert ((inputs < 6).sum(axis=1) == copy).all()
    assert (inputs[:, -copy:] == 6).all()
    assert (inputs[:, -copy - 1] == 7).all()
    assert (inputs[:, -copy - 2] < 6).all()
    assert ((inputs == 7).sum(axis=1) == 1).all()


def test_copying_drops_each_blank_into_a_uniform_gap() -> None:
    task = Copying(vocab=8, length=40, copy=4)
    inputs = task.sample(np.random.default_rng(SEED), 4000).inputs
    where = np.nonzero(inputs < 6)[1].reshape(4000, 4)
    gaps = np.diff(where, axis=1, prepend=-1) - 1
    blanks = 40 - 9
    error = np.sqrt(blanks * 0.25 * 0.75 / 4000)
    assert (np.abs(gaps.mean(axis=0) - blanks / 4) < 4 * error).all()
    assert (np.abs(gaps.var(axis=0) / (blanks * 0.25 * 0.75) - 1) < 4 * np.sqrt(2 / 4000)).all()


def test_compression_scores_all_but_the_constant_last_token() -> None:
    batch = draw(Compression(vocab=9, length=12), "test", SEED, 100)
    assert set(np.unique(batch.inputs[:, :-1])) == set(range(8))
    assert (batch.inputs[:, -1] == 8).all()
    assert (batch.targets[:, :-1] == batch.inputs[:, :-1]).all()
    assert (batch.targets[:, -1] == IGNORE).all()


@pytest.mark.parametrize("vocab", [5, 9, 10, 256])
def test_memorizations_map_is_one_to_one_and_the_same_in_all_splits(vocab: int) -> None:
    task = Memorization(vocab=vocab, length=16, train_examples=64)
    keys = (vocab - 1) // 2
    seen: dict[int, int] = {}
    for split in ("train", "valid", "test"):
        for seed in (0, 1):
            batch = draw(task, split, seed, 40)
            assert (batch.inputs[:, 1::2] == vocab - 1).all()
            assert (batch.targets[:, ::2] == IGNORE).all()
            pairs = zip(batch.inputs[:, ::2].ravel(), batch.targets[:, 1::2].ravel(), strict=True)
            for key, value in pairs:
                assert 0 <= key < keys <= value < vocab - 1
                assert seen.setdefault(int(key), int(value)) == value
    assert len(set(seen.values())) == len(seen)
    inputs = draw(task, "test", 0, 40).inputs
    other = Memorization(vocab=vocab, length=16, train_examples=64, map_seed=2)
    assert vocab < 20 or (other.solve(inputs) != task.solve(inputs)).any()


def test_mqar_pairs_come_first_and_each_key_is_asked_for_once() -> None:
    task = MQAR(vocab=20, length=40, pairs=5)
    batch = draw(task, "test", SEED, 200)
    keys, values = batch.inputs[:, :10:2], batch.inputs[:, 1:10:2]
    assert set(np.unique(keys)) == set(range(1, 10))
    assert set(np.unique(values)) == set(range(10, 20))
    row, where = np.nonzero(batch.targets != IGNORE)
    assert (np.bincount(row) == 5).all()
    assert (where >= 10).all()
    assert (where % 2 == 0).all()
    asked = batch.inputs[row, where].reshape(200, 5)
    answer = batch.targets[row, where].reshape(200, 5)
    for ids in (keys, values):
        assert (first_same(ids) == np.arange(5)).all()
    for i in range(200):
        assert dict(zip(keys[i], values[i], strict=True)) == dict(zip(asked[i], answer[i], strict=True))
    assert (task.solve(batch.inputs)[(batch.inputs < 1) | (batch.inputs >= 10)] == -1).all()
    filler = np.bincount(batch.inputs[:, 10:][batch.targets[:, 10:] == IGNORE], minlength=20)
    expected = 200 * 25 / 20
    assert (np.abs(filler - expected) < 4.5 * np.sqrt(expected)).all()
    plain = draw(MQAR(vocab=20, length=40, pairs=5, random_filler=False), "test", SEED, 50)
    assert ((plain.inputs != 0).sum(axis=1) == 15).all()


@pytest.mark.parametrize(("power", "first_slot"), [(1.0, 4 / 32), (0.01, None)])
def test_mqar_spreads_queries_by_its_power_law(power: float, first_slot: float | None) -> None:
    task = MQAR(vocab=64, length=72, pairs=4, power=power)
    targets = task.sample(np.random.default_rng(SEED), 4000).targets[:, 8::2]
    share = (targets != IGNORE).mean(axis=0)
    assert len(share) == 32
    if first_slot is not None:  # uniform: every slot alike
        assert (np.abs(share - first_slot) < 4.5 * np.sqrt(first_slot * (1 - first_slot) / 4000)).all()
        return
    # Drawn one after another in plain Python, as the law is written.
    rng, counts = np.random.default_rng(SEED + 1), np.zeros(32)
    weight = np.arange(1, 33) ** (power - 1.0)
    for _ in range(4000):
        counts[rng.choice(32, size=4, replace=False, p=weight / weight.sum())] += 1
    plain = counts / 4000
    assert (np.abs(share - plain) < 4.5 * np.sqrt(2 * plain * (1 - plain) / 4000) + 1e-3).all()


@pytest.mark.parametrize("few", [base.FEW, 0])
def test_distinct_is_uniform_over_all_ordered_tuples(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "FEW", few)  # 0: by shuffling
    drawn = distinct(np.random.default_rng(SEED), (60_000,), 3, 5)
    columns = np.stack(distinct_columns(np.random.default_rng(SEED), (60_000,), 3, 5), axis=-1)
    assert few == 0 or (columns == drawn).all()
    tuples, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(tuples) == 5 * 4 * 3
    assert all(len(set(row)) == 3 for row in tuples.tolist())
    statistic = ((counts - 1000) ** 2 / 1000).sum()
    assert abs(statistic - 59) < 4.5 * np.sqrt(2 * 59)


@pytest.mark.parametrize("table", [base.TABLE, 0])
def test_first_same_equals_a_search_in_plain_python(table: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "TABLE", table)  # 0: by sorting
    rng = np.random.default_rng(SEED)
    for low, high in ((0, 5), (0, 40), (-3, 3), (10**6, 10**6 + 4)):
        ids = rng.integers(low, high, size=(20, 17))
        assert first_same(ids).tolist() == [[row.index(v) for v in row] for row in ids.tolist()]
