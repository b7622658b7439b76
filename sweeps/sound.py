"""Whether rows are such as a run has, before anything is made of them. No torch here.

A parquet file keeps no checksum of its pages, and anybody can write one: a null, a number that no run reaches
or a second final row would come out much later, as a wrong ranking or far from its file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import polars as pl

from sweeps.files import ResultsError

__all__ = ["check_rows", "version_of"]

Range = tuple[float, float]

_COUNT: Range = (0, 2**62)
_SOME: Range = (1, 2**31 - 1)
_SHARE: Range = (0, 1)
_RANGES: dict[str, Range] = {
    **dict.fromkeys(("trial", "n_linear", "n_window", "n_full", "params", "flops", "state", "seed"), _COUNT),
    **dict.fromkeys(("depth", "dim", "heads", "length", "vocab", "batch", "trainings"), _SOME),
    **dict.fromkeys(("chance", "ceiling", "window_share", "threshold", "auc", "auc_valid"), _SHARE),
    **dict.fromkeys(("acc", "acc_valid", "acc_madlab"), _SHARE),
    "steps": (1, 10_000_000),
    "step": (0, 10_000_000),
    "steps_to": (0, 10_000_000),
    "tokens": _COUNT,
    "seconds": (0, 1e12),
    "lr": (0, 1e12),
    "weight_decay": (0, 1e12),
}
"""Numbers that occur in a run, from and to; what no model reached may be NaN, see ``_MAY_BE_NAN``."""

_MAY_BE_NAN = ("acc", "acc_valid", "acc_madlab", "auc", "auc_valid", "loss")
_MAY_LACK = ("window_share", "reason", "steps_to", "loss", "acc_valid", "acc", "acc_madlab")
_ON_THE_FINAL_ROW = ("auc_valid", "auc", "acc_position")
_TOGETHER = (
    ("strip", "roles"),
    ("state_lengths", "state_sizes"),
    ("levels", "level_acc", "level_count"),
    ("stretch", "stretch_acc"),
)
"""Lists of one row that say different things of the same entries."""


def version_of(frame: pl.DataFrame) -> int | None:
    """The newest schema that rows are of; None where they do not say so with a whole number."""
    kind = frame.schema.get("schema_version")
    found = None if kind is None or not kind.is_integer() else frame["schema_version"].max()
    return found if isinstance(found, int) else None


def check_rows(frame: pl.DataFrame, schema: Mapping[str, Any], later: Collection[str]) -> None:
    """Raise ResultsError, as a clause, where rows are none that a run has; columns may be missing.

    schema: the type of every column. later: columns that files of an older schema have as null.
    """
    types = dict(frame.schema)
    for name in [name for name in schema if name in types]:
        if types[name] != schema[name]:
            raise ResultsError(f"column {name} holds {types[name]}, not {schema[name]}")
    if frame.is_empty():
        raise ResultsError("it has no rows")
    for name in [name for name in schema if name in types]:
        optional = name in later or name in _MAY_LACK or name in _ON_THE_FINAL_ROW
        if not optional and frame[name].null_count():
            raise ResultsError(f"{name} is missing")
        if name in _RANGES:
            _in_range(frame[name], *_RANGES[name])
    if "final" in types:
        _ends(frame, set(types))


def _in_range(values: pl.Series, low: float, high: float) -> None:
    least, most = values.min(), values.max()  # of what is neither null nor NaN
    outside = (
        isinstance(least, int | float) and isinstance(most, int | float) and (least < low or most > high)
    )
    if outside or (values.dtype.is_float() and values.name not in _MAY_BE_NAN and values.is_nan().any()):
        raise ResultsError(f"{values.name} is not between {low:g} and {high:g}")


def _ends(frame: pl.DataFrame, columns: set[str]) -> None:
    """The final rows: one per run, with lists that belong together."""
    ends = frame.filter("final")
    if "run" in columns and not ends.height == ends["run"].n_unique() == frame["run"].n_unique():
        raise ResultsError("a run must have exactly one final row")
    for name in [name for name in _ON_THE_FINAL_ROW if name in columns]:
        if ends[name].null_count():
            raise ResultsError(f"{name} is missing on the final row")
    for first, *others in _TOGETHER:
        for name in [name for name in others if {first, name} <= columns]:
            if not ends[first].list.len().equals(ends[name].list.len()):
                raise ResultsError(f"{first} and {name} are not equally long")
        for name in [name for name in (first, *others) if name in columns]:
            if ends[name].explode(empty_as_null=False, keep_nulls=False).null_count():
                raise ResultsError(f"{name} has an empty entry")
