"""Many finished runs in one file: how the runs of a long sweep travel, and ship with the lab.

A sweep answers from the packs in ``known/`` as it does from its own folder: a run that is in one under the
same key (schedule, task, training, seed, code) is not trained again. No torch here.
"""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import polars as pl

from sweeps import results
from sweeps.results import ResultsError

__all__ = ["KNOWN", "known", "pack", "rows"]

KNOWN = Path(__file__).parent / "known"
"""Packs that ship with the lab."""


def pack(folder: Path, out: Path) -> int:
    """Put every finished run of ``folder`` into the parquet file ``out``, beside what it holds; their number.

    Runs that wait in ``earlier/`` come along. Raises ResultsError where the folder is none of ours, holds no
    finished run, or ``out`` is no pack.
    """
    results.check_folder(folder)
    found = results.stored(folder, "earlier") | results.stored(folder)
    frames = {key: results.read_run(path) for key, path in found.items()}
    if not frames:
        raise ResultsError(f"{folder}: there is no finished run to pack; let the sweep finish one")
    before = results.read_run(out) if out.exists() else results.SCHEMA.to_frame()
    before = before.filter(~pl.col("run").is_in(list(frames)))
    frame = pl.concat([before, *frames.values()]).sort("label", "setting", "seed", "lr", "run", "step")
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression_level=19)
    results.write_bytes(out, buffer.getvalue())
    _runs.cache_clear()
    return frame["run"].n_unique()


def known() -> dict[str, Path]:
    """Keys of the runs in the packs that ship with the lab -> the pack that holds each."""
    return {key: path for path in sorted(KNOWN.glob("*.parquet")) for key in _runs(path)}


def rows(path: Path, key: str) -> pl.DataFrame:
    """The rows of one run of a pack."""
    return _runs(path)[key]


@cache
def _runs(path: Path) -> dict[str, pl.DataFrame]:
    """The rows of each run of a pack, by its key: taken apart once, since each is asked for alone."""
    apart = results.read_run(path).partition_by("run", maintain_order=True)
    return {frame["run"][0]: frame for frame in apart}
