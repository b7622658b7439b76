"""Synthetic results frames with the columns of the store, so that laws need no training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from analysis.panel import Cell, CutScore, Panel
from sweeps.results import SCHEMA, SCHEMA_VERSION, Failure, open_folder, record_failure, write_run

STEPS = (0, 25, 50, 75, 100)
CHANCE = 0.1

Curve = Callable[[str, str, int, float], Sequence[float]]
"""(label, task, seed, lr) -> test accuracy at each of STEPS."""


def make_frame(
    labels: Sequence[str] = ("r=3", "r=4", "r=5"),
    tasks: Sequence[str] = ("recall", "copying"),
    seeds: Sequence[int] = (0, 1, 2),
    lrs: Sequence[float] = (2e-3,),
    settings: int = 2,
    curve: Curve | None = None,
    status: Callable[[str, str, int, float], str] = lambda *_: "budget",
    state: Callable[[int], int] = lambda rank: 1000 - 100 * rank,
) -> pl.DataFrame:
    """One run per label x task x setting x seed x lr; a label's place sets its costs (later is cheaper)."""
    rows: list[dict[str, object]] = []
    for rank, label in enumerate(labels):
        for task in tasks:
            for level in range(settings):
                for seed in seeds:
                    for lr in lrs:
                        accs = list((curve or default_curve)(label, task, seed, lr))
                        end = status(label, task, seed, lr)
                        rows += _run(rank, label, task, level, seed, lr, accs, end, state)
    return pl.DataFrame(rows, schema=SCHEMA)


def default_curve(label: str, task: str, seed: int, lr: float) -> Sequence[float]:
    """A rising curve with seed noise that depends on nothing but its arguments."""
    rng = np.random.default_rng([*(label + task).encode(), seed])
    end = 0.5 + 0.05 * rng.standard_normal()
    return [CHANCE + (end - CHANCE) * step / STEPS[-1] for step in STEPS]


def halved(frame: pl.DataFrame) -> pl.DataFrame:
    """After its first seed every schedule keeps the rate that was better there, as halving leaves it."""
    first = frame.filter(pl.col("final") & (pl.col("seed") == 0))
    mean = first.group_by("label", "task", "lr").agg(pl.col("auc_valid").mean())
    best = mean.sort("auc_valid", descending=True).unique(["label", "task"], keep="first")
    kept = frame.join(best, on=["label", "task", "lr"], how="semi").filter(pl.col("seed") > 0)
    noted = [part.with_columns(trainings=pl.lit(many, pl.Int32)) for part, many in ((frame, 2), (kept, 1))]
    return pl.concat([noted[0].filter(pl.col("seed") == 0), noted[1]])


def make_folder(
    folder: Path, frame: pl.DataFrame, recipe: str = "name: ratios\n", failed: Sequence[Failure] = ()
) -> Path:
    """A run folder as a sweep leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    env = {"created": "2026-01-01T00:00:00", "python": "3.11", "torch": "2.13.0", "machine": "test"}
    open_folder(folder, env, recipe)
    for run in frame.partition_by("run"):
        write_run(folder, run)
    for failure in failed:
        record_failure(folder, failure)
    return folder


def flat(value: float) -> list[float]:
    """An accuracy curve that ends at ``value``."""
    return [CHANCE, *[value] * (len(STEPS) - 1)]


def make_panel(
    effects: Sequence[Sequence[float]],
    noise: Sequence[float],
    seeds: int,
    rng: np.random.Generator,
    seconds: Sequence[float] | None = None,
    tasks: Sequence[str] | None = None,
    cuts: int = 2,
    rates: int = 1,
    shared: float = 0.0,
    score: CutScore = "auc",
) -> Panel:
    """A panel with known truth: cell c gives schedule a ``effects[c][a]`` at full length, and noise by seed.

    At cut k of K a schedule has shown the share (k / K) of its effect and spent that share of ``seconds``;
    learning rate l takes 0.1 l off. ``shared``: noise of a seed that all schedules have in common.
    """
    many = len(effects[0])
    share = np.arange(1, cuts + 1) / cuts
    cells = []
    for at, (effect, sd) in enumerate(zip(effects, noise, strict=True)):
        shape = (many, rates, seeds, cuts)
        level = 0.5 + np.asarray(effect)[:, None, None, None] * share - 0.1 * np.arange(rates)[:, None, None]
        own, common = rng.normal(size=(many, rates, seeds, 1)), rng.normal(size=(1, 1, seeds, 1))
        value = np.broadcast_to(level + sd * own + shared * common, shape)
        spent = np.broadcast_to((seconds[at] if seconds else 1.0) * share, shape)
        steps = tuple(100 * (k + 1) for k in range(cuts))
        task = tasks[at] if tasks else f"task{at}"
        cells.append(Cell(task, f"{task}(cell={at})", steps, tuple(range(seeds)), value, value, spent))
    labels = tuple(f"s{a:02d}" for a in range(many))
    kinds = {label: (frozenset({"gdn"}), frozenset({"linear"})) for label in labels}
    trainings = tuple((1e-3 * (place + 1), 0.1, 32) for place in range(rates))
    return Panel(score, labels, trainings, tuple(cells), kinds, ())


def _run(
    rank: int,
    label: str,
    task: str,
    level: int,
    seed: int,
    lr: float,
    accs: list[float],
    status: str,
    state: Callable[[int], int],
) -> list[dict[str, object]]:
    depth, full = 6, max(1, 3 - rank)
    roles = ["linear" if layer % (depth // full) else "full" for layer in range(depth)]
    strip = [("gdn" if role == "linear" else "fox") + " swiglu" for role in roles]
    setting = f"{task}(vocab={16 * (level + 1)})"
    passed = [step for step, acc in zip(STEPS, accs, strict=True) if acc >= 0.5]
    rows = []
    for step, acc in zip(STEPS, accs, strict=True):
        last = step == STEPS[-1]
        rows.append(
            {
                "schema_version": SCHEMA_VERSION,
                "run": hashlib.sha256(repr((label, setting, seed, lr)).encode()).hexdigest()[:16],
                "trial": rank,
                "label": label,
                "choices": json.dumps({"r": label}),
                "schedule": f"{rank + 3}*(gdn, swiglu) + (fox, swiglu)",
                "arch": f"arch-{label}",
                "strip": strip,
                "roles": roles,
                "depth": depth,
                "dim": 32,
                "heads": 2,
                "n_linear": roles.count("linear"),
                "n_window": 0,
                "n_full": roles.count("full"),
                "params": 100_000 + rank,
                "flops": 200_000 - 1000 * rank,
                "state": state(rank),
                "state_lengths": [64, 256, 1024, 4096, 16384, 65536],
                "state_sizes": [state(rank) * n for n in (1, 2, 8, 32, 128, 512)],
                "task": task,
                "setting": setting,
                "length": 32 * (level + 1),
                "vocab": 16 * (level + 1),
                "chance": CHANCE,
                "ceiling": 1.0,
                "window_share": 0.25,
                "level_of": "octave of the lag",
                "lr": lr,
                "weight_decay": 0.1,
                "batch": 32,
                "precision": "fp32",
                "kernel": "torch",
                "steps": STEPS[-1],
                "threshold": 0.5,
                "trainings": None,
                "seed": seed,
                "status": status,
                "reason": "loss is NaN at step 75; first bad layer 2 (gdn)" if status == "diverged" else "",
                "step": step,
                "tokens": step * 1024,
                "seconds": step / 10,
                "loss": 3.0 - 2 * acc,
                "acc_valid": acc,
                "acc": acc,
                "acc_madlab": acc,
                "final": last,
                "auc_valid": float(np.mean(accs)) if last else None,
                "auc": float(np.mean(accs)) if last else None,
                "steps_to": passed[0] if last and passed else None,
                "acc_position": [float("nan"), acc, acc / 2] if last else None,
                "levels": [0, 3] if last else None,
                "level_acc": [acc, acc / 2] if last else None,
                "level_count": [20, 10] if last else None,
                "stretch": [2] if last else None,
                "stretch_acc": [acc / 2] if last else None,
                "code": "c0de",
                "torch": "2.13.0",
                "python": "3.11",
                "lab": "0.1.0",
                "machine": "test",
            }
        )
    return rows
