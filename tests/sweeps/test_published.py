"""Small published facts that shipped recipes ask for, at toy size: the direction is there.

What came out at the recipes' own size stands in LOG.md.
"""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
import torch

from sweeps import space
from sweeps.packs import KNOWN
from sweeps.recipe import load
from sweeps.run import execute, runs_of


def finals(name: str, labels: tuple[str, ...], *overrides: str) -> dict[str, dict[str, Any]]:
    """The last row of one run of each schedule; ``overrides`` leave one task and make it small."""
    torch.set_num_threads(1)
    recipe = load(name, ["train.kernel=torch", *overrides])
    (task,) = space.task_texts(recipe)
    by_label = {candidate.label: candidate for candidate in space.candidates(recipe)}
    found = {}
    for label in labels:
        (run,) = runs_of(recipe, by_label[label], [task], seed=0)
        found[label] = execute(run, 0, "toy")[-1]
    return found


@pytest.mark.slow
def test_negative_eigenvalues_solve_parity_and_positive_ones_do_not() -> None:
    labels = ("deltanet to 2", "deltanet to 1")
    small = ("tasks=['parity(length=24)']", "train.steps=120", "train.batch=16", "train.eval_every=20")
    found = finals("parity", labels, *small)
    flips, stays = (found[label] for label in labels)
    assert flips["acc"] > 0.95
    assert stays["acc"] < 0.75
    # The rule holds on rows four times as long; what the other has found says nothing there.
    assert flips["stretch_acc"][0] > 0.75
    assert abs(stays["stretch_acc"][0] - 0.5) < 0.1


@pytest.mark.slow
def test_recall_grows_with_the_state_and_attention_is_above() -> None:
    labels = ("attention", "gdn 512", "gdn 128")
    small = ("tasks=['mqar(vocab=32, length=24, pairs=6)']", "train.steps=400", "train.lr=1e-2")
    found = finals("mqar", labels, *small)
    attention, large, small_one = (found[label]["acc"] for label in labels)
    assert found["attention"]["state"] > found["gdn 512"]["state"] > found["gdn 128"]["state"]
    assert attention > 0.95
    assert large > small_one + 0.2


@pytest.mark.slow
def test_attention_copies_what_a_small_state_does_not_hold() -> None:
    labels = ("attention", "deltanet 4x4")
    small = ("tasks=['copying(vocab=16, length=34, copy=16)']", "train.steps=100", "train.batch=16")
    found = finals("copying", labels, *small)
    assert found["attention"]["state"] > found["deltanet 4x4"]["state"]
    assert found["attention"]["acc"] > found["deltanet 4x4"]["acc"] + 0.3


@pytest.mark.slow
def test_forgetting_loses_less_on_longer_rows_than_rotary_positions() -> None:
    small = (
        "tasks=['mqar(vocab=16, length=16, pairs=2)']",
        "train.batch=16",
        "train.steps=300",
        "train.lr=8e-3",
    )
    found = finals("length", ("forgetting", "rotary"), *small)
    lost = {label: row["acc"] - row["stretch_acc"][-1] for label, row in found.items()}
    assert min(row["acc"] for row in found.values()) > 0.9
    assert lost["rotary"] > lost["forgetting"] + 0.03


def test_in_the_shipped_runs_two_full_layers_of_twenty_recall_what_twenty_do() -> None:
    rows = pl.read_parquet(KNOWN / "reference.parquet").filter(
        pl.col("final") & (pl.col("setting") == "mqar(vocab=16, length=32)")
    )
    rate = rows.group_by("label", "lr").agg(
        pl.col("acc").mean(), pl.col("acc_valid").mean(), pl.len().alias("seeds")
    )
    best = (
        rate.filter(pl.col("seeds") == 4).sort("acc_valid").unique("label", keep="last", maintain_order=True)
    )
    acc = dict(best.select("label", "acc").iter_rows())
    assert all(acc[f"gdn+fox {ratio}"] > acc["fox"] - 0.01 for ratio in ("1:1", "3:1", "4:1", "5:1", "6:1"))
    assert acc["gdn"] < 0.5
