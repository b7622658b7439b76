"""Orders that are computed: permutations, and turns of several sources that are counted."""

import numpy as np
import pytest

from lab.data.order import PERIOD, Turns, permuted
from lab.data.tokens import DataError
from lab.genesis.training import training

SIZES = [*range(1, 40), 63, 64, 65, 1000, 4095, 4096, 4097]


@pytest.mark.parametrize("size", SIZES)
def test_a_permutation_has_each_place_once(size: int) -> None:
    places = permuted(np.arange(size), size, (3, 1, 4))
    assert sorted(places.tolist()) == list(range(size))
    one_by_one = [int(permuted(np.array([place]), size, (3, 1, 4))[0]) for place in range(min(size, 40))]
    assert places[:40].tolist() == one_by_one


def test_permutations_of_different_keys_are_different_and_fair() -> None:
    size, keys = 12, 3000
    first = np.array([permuted(np.array([0, 5]), size, (key, 0, 1)) for key in range(keys)])
    for column in first.T:
        counts = np.bincount(column, minlength=size)
        spread = np.sqrt(keys / size * (1 - 1 / size))
        assert abs(counts - keys / size).max() < 4.5 * spread, counts
    # Neighbours are not put side by side more often than in a drawn order.
    order = permuted(np.arange(10_000), 10_000, (7, 0, 0))
    assert (abs(np.diff(order)) == 1).sum() < 12
    assert (permuted(np.arange(10_000), 10_000, (7, 0, 1)) == order).sum() < 12


@pytest.mark.parametrize(
    "weights", [[1.0], [0.5, 0.5], [51, 22, 12, 8, 5, 2], [1, 1, 1], [0.9998, 0.0002], [1e6, 700]]
)
def test_sources_give_their_share_at_any_time(weights: list[float]) -> None:
    turns = Turns(weights)
    source, earlier = turns(np.arange(2 * PERIOD + 5))
    taken = np.cumsum(source[:, None] == np.arange(len(weights)), axis=0)
    rows = np.arange(1, len(source) + 1)[:, None]
    assert abs(taken - rows * np.array(turns.shares)).max() <= (len(weights) + 1) / 2
    assert abs(np.array(turns.shares) - np.array(weights) / sum(weights)).max() < 1 / PERIOD
    # What a source has given before is counted right, so that it gives its own rows in a row.
    for number in range(len(weights)):
        mine = earlier[source == number]
        assert mine.tolist() == list(range(len(mine)))


def test_the_mixture_of_genesis_is_realised_exactly() -> None:
    mixture = training().pre_training.mixture.value
    assert mixture
    assert Turns(list(mixture.values())).shares == tuple(share / 100 for share in mixture.values())


@pytest.mark.parametrize("weights", [[], [1, 0], [1, -1], [float("nan")], [float("inf"), 1], [1, 1e-5]])
def test_weights_that_are_none(weights: list[float]) -> None:
    with pytest.raises(DataError, match="weight"):
        Turns(weights)
