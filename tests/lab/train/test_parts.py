"""The parts of a training that are plain functions: rates, loss, average, rows, baselines."""

import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lab.model.form import AveragePart, RatePart
from lab.train.average import Average, AverageError
from lab.train.baselines import bigram_bits, xz_bits
from lab.train.loss import IGNORE, summed_loss, targets_of
from lab.train.parallel import Crew
from lab.train.rates import share_at
from lab.train.rows import HeldOut, share_of, windows

CPU = torch.device("cpu")


@pytest.mark.parametrize("shape", ["wsd", "warmdown", "cosine", "linear"])
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_a_rate_rises_holds_and_falls_and_every_step_learns(shape, steps: int) -> None:
    rate = RatePart(shape=shape, warmup=0.1, decay=0.3)
    shares = [share_at(rate, step, steps) for step in range(1, steps + 1)]
    top = shares.index(max(shares))
    assert max(shares) == 1 and min(shares) > 0
    assert shares[: top + 1] == sorted(shares[: top + 1])
    assert shares[top:] == sorted(shares[top:], reverse=True)


def test_the_rate_has_the_stated_corners() -> None:
    wsd = RatePart(shape="wsd", warmup=0.05, decay=0.10, final=0.2)
    assert [share_at(wsd, step, 100) for step in (1, 5, 6, 90, 91)] == pytest.approx([0.2, 1, 1, 1, 1])
    # Half way down the ten steps of the decay, half way between 1 and the last rate.
    assert share_at(wsd, 96, 100) == pytest.approx(0.6)
    down = RatePart(shape="warmdown", warmup=0, decay=0.4)
    assert [share_at(down, step, 10) for step in (1, 6, 7, 8, 9, 10)] == pytest.approx(
        [1, 1, 1, 0.75, 0.5, 0.25]
    )
    linear = RatePart(shape="linear", warmup=0.5, final=0.0)
    assert [share_at(linear, step, 4) for step in (1, 2, 3, 4)] == pytest.approx([0.5, 1, 1, 0.5])
    assert share_at(RatePart(shape="cosine", warmup=0), 1, 10) == 1


def test_only_targets_that_count_are_learned() -> None:
    tokens = np.array([[5, 6, 9, 7, 8]], np.uint16)
    segments = np.array([[0, 0, 0, 1, 1]])
    mask = np.array([[1, 1, 0, 1, 1]], np.uint8)
    assert targets_of(tokens, segments, mask, documents=False).tolist() == [[6, IGNORE, 7, 8]]
    # The first token of a document is not to be guessed from the end of another.
    assert targets_of(tokens, segments, mask, documents=True).tolist() == [[6, IGNORE, IGNORE, 8]]


def test_the_loss_is_a_sum_over_targets_and_the_z_loss_adds_their_squared_log_partition() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 7, generator=generator, dtype=torch.float64)
    targets = torch.tensor([[1, IGNORE, 2], [3, 4, IGNORE]])
    counted = targets != IGNORE
    plain, same = summed_loss(logits, targets)
    assert plain is same
    assert plain.item() == pytest.approx(4 * F.cross_entropy(logits[counted], targets[counted]).item())
    told, learned = summed_loss(logits, targets, z_loss=0.1)
    z = logits[counted].exp().sum(-1).log().square().sum()
    assert told.item() == plain.item()
    assert learned.item() == pytest.approx((plain + 0.1 * z).item())


DOWN = RatePart(shape="warmdown", warmup=0, decay=1)
"""From 1 straight to 0."""


def walk(part: AveragePart, steps: int) -> tuple[Average, list[float]]:
    """An average over a weight that takes the values of a seeded walk."""
    seed = random.randrange(2**32)
    print("seed", seed)
    values = np.random.default_rng(seed).normal(size=steps).tolist()
    weight = torch.nn.Parameter(torch.full((1,), 1e6, dtype=torch.float64))
    average = Average(part, DOWN, steps, {"w": weight})
    for step, value in enumerate(values, start=1):
        weight.data.fill_(value)
        average.update(step)
    return average, values


def test_an_exponential_mean_weighs_steps_by_their_age_and_the_start_not_at_all() -> None:
    average, values = walk(AveragePart(kind="ema", decay=0.9), 30)
    shares = [0.9 ** (30 - step) for step in range(1, 31)]
    wanted = sum(s * v for s, v in zip(shares, values, strict=True)) / sum(shares)
    assert average.values["w"].item() == pytest.approx(wanted, abs=1e-12)


def test_a_plain_mean_is_over_every_so_manieth_step_of_the_end() -> None:
    average, values = walk(AveragePart(kind="swa", share=0.5, every=4), 30)
    chosen = [values[step - 1] for step in (18, 22, 26, 30)]
    assert average.count == 4
    assert average.values["w"].item() == pytest.approx(sum(chosen) / 4, abs=1e-12)


def test_a_tight_mean_is_over_the_steps_at_low_rates_alone() -> None:
    average, values = walk(AveragePart(kind="swa", share=1, every=3, below=0.35), 30)
    # At step t the rate is (31 - t) / 30, so steps 21 to 30 are below 0.35; every third, back from the last.
    chosen = [values[step - 1] for step in (21, 24, 27, 30)]
    assert average.count == 4
    assert average.values["w"].item() == pytest.approx(sum(chosen) / 4, abs=1e-12)
    flat = RatePart(shape="wsd", decay=0)
    with pytest.raises(AverageError, match=r"below is 0\.2.*ends at 1 of its highest"):
        Average(AveragePart(kind="swa", below=0.2), flat, 30, {})


def test_the_mean_stands_in_place_of_the_weights_and_leaves_them_as_they_were() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    average = Average(AveragePart(kind="ema", decay=0.5), DOWN, 9, {"w": weight})
    with average.in_place():
        assert weight.item() == 1  # there is no mean yet
    average.update(1)
    weight.data.fill_(4.0)
    average.update(2)
    with pytest.raises(RuntimeError, match="in between"), average.in_place():
        assert weight.item() == pytest.approx((0.5 * 1 + 1 * 4) / 1.5)
        raise RuntimeError("in between")
    assert weight.item() == 4


def test_processes_and_passes_share_the_rows_of_a_step_without_rest() -> None:
    for world, micro in ((1, 12), (1, 3), (2, 6), (2, 2), (3, 1)):
        passes = [one for rank in range(world) for one in share_of(12, micro, Crew(rank, world, CPU))]
        assert {len(one) for one in passes} == {micro}
        assert [row for one in passes for row in one] == list(range(12))


def test_held_out_rows_make_every_token_but_the_first_a_target_once() -> None:
    stream = np.array([*range(1, 10), 0, 11, 12, 0, 14], np.uint16)
    held = HeldOut(stream, None, 0, 4, b"x" * 12)
    assert held.count == 3
    rows = held.rows([0, 1, 2])
    assert rows.tokens[:, 1:].flatten().tolist() == stream[1:13].tolist()
    assert rows.segments[2].tolist() == [0, 0, 1, 1, 1]
    assert rows.mask.all() and held.bytes_per_token == 12 / 14
    mask = np.array([0] * 7 + [1] * 7, np.uint8)
    masked = HeldOut(stream, mask, 0, 4, b"x" * 5)
    assert masked.rows([1]).mask.tolist() == [[False, False, False, True, True]]
    assert masked.bytes_per_token == 5 / 7


def test_windows_are_spread_over_all_rows() -> None:
    assert windows(3, 9) == [0, 1, 2]
    assert windows(100, 4) == [0, 25, 50, 75]


def test_a_bigram_knows_pairs_and_finds_nothing_impossible() -> None:
    assert bigram_bits(b"ab" * 5000, b"ab" * 500) < 0.02
    # Letters drawn evenly out of four: two bits each, whatever came before.
    seed = random.randrange(2**32)
    print("seed", seed)
    draws = np.random.default_rng(seed).integers(0, 4, 60_000).astype(np.uint8).tobytes()
    assert bigram_bits(draws[:50_000], draws[50_000:]) == pytest.approx(2, abs=0.03)
    assert 8 < bigram_bits(b"ab" * 5000, b"zz" * 100) < math.inf


def test_xz_is_that_of_the_command() -> None:
    text = b"to be or not to be, " * 200
    assert 0 < xz_bits(text) < 0.5
