"""The only source of data: seeded draws, and splits that cannot share an input row.

A row belongs to one split by a hash of its tokens alone, so no test row is ever a training row, whatever the
seeds. Of all rows half belong to ``train`` and a quarter each to ``valid`` and ``test``.
"""

from __future__ import annotations

import hashlib

import numpy as np

from synthetics.base import Batch, Split, Task, TaskError
from synthetics.protocol import show_task

__all__ = ["draw", "split_of"]

CHUNK = 512
"""Rows drawn at a time. Fixed, so that the first n rows of a longer draw are the draw of n."""

PATIENCE = 16
"""Rows drawn per row wanted before a split counts as one that cannot be filled (4 is what chance needs)."""

_SPLITS: tuple[Split, ...] = ("train", "valid", "test")


def draw(task: Task, split: Split, seed: int, n: int) -> Batch:
    """``n`` instances of ``split``, a function of (canonical task text, split, seed) alone.

    The first m rows are ``draw(task, split, seed, m)``. Raises TaskError if hardly any row of the task falls
    into the split, as happens where only a few rows exist.
    """
    if split not in _SPLITS:
        raise TaskError(f"{split!r} is no split; known are train, valid and test")
    rng, wanted = _generator(show_task(task), split, seed), _SPLITS.index(split)
    inputs_NT = np.empty((n, task.tokens), dtype=np.int64)
    targets_NT = np.empty_like(inputs_NT)
    have = chunk = 0
    while have < n:
        if chunk * CHUNK >= PATIENCE * (n + CHUNK):
            raise TaskError(
                f"{show_task(task)}: only {have} of {n} rows of the {split} split in {chunk * CHUNK:,} draws;"
                " the task has too few different rows, give it more vocab or length"
            )
        batch = task.sample(rng, CHUNK, split)
        kept = np.flatnonzero(split_of(batch.inputs) == wanted)[: n - have]
        inputs_NT[have : have + len(kept)] = batch.inputs[kept]
        targets_NT[have : have + len(kept)] = batch.targets[kept]
        have += len(kept)
        chunk += 1
    return Batch(inputs_NT, targets_NT)


def split_of(inputs_NT: np.ndarray) -> np.ndarray:
    """The split each row belongs to: 0 train, 1 valid, 2 test; [N]. Two of four buckets are train's."""
    weight_T = _mix(np.arange(1, inputs_NT.shape[1] + 1, dtype=np.uint64)) | np.uint64(1)
    hash_N = _mix(np.einsum("nt,t->n", inputs_NT.astype(np.uint64, copy=False), weight_T))
    bucket_N = (hash_N >> np.uint64(62)).astype(np.int64)
    return np.maximum(bucket_N - 1, 0)


def _mix(x: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser (Steele et al. 2014), uint64 -> uint64: each output bit hangs on all of x."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _generator(text: str, split: Split, seed: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{text}\n{split}\n{seed}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))
