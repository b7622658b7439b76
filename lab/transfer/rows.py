"""What a study has measured: one row per training, each in a file of its own, or many in one that ships.

No torch here.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from sweeps.files import ResultsError, frame_of, write_bytes

__all__ = ["KNOWN", "SCHEMA", "asked_for", "pack", "read", "write"]

KNOWN = Path(__file__).parent / "known"
"""Rows that ship with the lab, a file per study."""

SCHEMA = pl.Schema(
    {
        "key": pl.String(),  # of what was asked for: schedule, shape, data, training, scored text
        "made": pl.String(),  # by which sources, kernel and data
        "study": pl.String(),
        "label": pl.String(),
        "size": pl.String(),
        "seed": pl.Int64(),
        "tokens": pl.Int64(),
        "steps": pl.Int64(),
        "schedule": pl.String(),
        "dim": pl.Int64(),
        "heads": pl.Int64(),
        "depth": pl.Int64(),
        "n_linear": pl.Int64(),
        "n_window": pl.Int64(),
        "n_full": pl.Int64(),
        "params": pl.Int64(),  # of the stack, without embedding
        "state": pl.Int64(),  # scalars of one sequence after a row's length
        "flops": pl.Int64(),  # forward, per token, head included
        "train_flops": pl.Float64(),  # three times the forward pass over all tokens
        "status": pl.String(),  # finished, or diverged: then bits are those of a uniform guess
        "bits": pl.Float64(),  # per byte of held-out text
        "scored": pl.Int64(),  # its bytes
        "seconds": pl.Float64(),  # at work, the constant phase included
        "kernel": pl.String(),
        "torch": pl.String(),
        "machine": pl.String(),
    }
)


def write(folder: Path, row: dict[str, Any]) -> None:
    """Store a row in ``folder/rows``, whole or not at all."""
    (folder / "rows").mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "rows" / f"{row['key']}-{row['made']}.parquet", _bytes(pl.DataFrame([row], SCHEMA)))


def read(folder: Path, *packs: Path) -> pl.DataFrame:
    """The rows of a study's folder and of ``packs``, what is not there left out. Raises ResultsError."""
    files = sorted((folder / "rows").glob("*.parquet")) + [path for path in packs if path.exists()]
    frames = [_read(path) for path in files if not path.name.startswith(".")]
    return pl.concat([SCHEMA.to_frame(), *frames]).unique(["key", "made"], keep="first", maintain_order=True)


def _read(path: Path) -> pl.DataFrame:
    try:
        frame = frame_of(path)
    except ResultsError as exc:
        raise ResultsError(f"{path}: this is no parquet file ({exc}); delete it") from None
    if frame.schema != SCHEMA:
        raise ResultsError(f"{path}: these are no rows of a transfer study; move it away or delete it")
    return frame


def asked_for(frame: pl.DataFrame, keys: Iterable[str]) -> pl.DataFrame:
    """Of the rows with these keys those that were made alike: where there are several ways, the fullest."""
    found = frame.filter(pl.col("key").is_in(list(keys)))
    if found.is_empty():
        return found
    fullest = found.group_by("made").len().sort("len", "made", descending=True)["made"][0]
    return found.filter(pl.col("made") == fullest)


def pack(frame: pl.DataFrame, out: Path) -> None:
    """All rows in one file."""
    if frame.is_empty():
        raise ResultsError(f"there is no row to pack into {out}; let the study finish one")
    write_bytes(out, _bytes(frame.sort("seed", "dim", "label", "tokens"), 19))


def _bytes(frame: pl.DataFrame, level: int = 3) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression_level=level)
    return buffer.getvalue()
