"""What a file of a run folder must be before anything is made of it: ordinary, readable, with rows a run has.

Disks, editors and other programs change files. What is no longer what the lab wrote is refused here in one
sentence that names the file and says what to do, before a wrong number is ranked. No torch here.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import polars as pl

__all__ = ["ResultsError", "check_rows", "entries", "entry", "frame_of", "json_of", "ordinary", "text_of"]

Entry = TypeVar("Entry")

Range = tuple[float, float]

_COUNT: Range = (0, 2**62)
_SOME: Range = (1, 2**31 - 1)
_SHARE: Range = (0, 1)
RANGES: dict[str, Range] = {
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

STATUS = ("solved", "budget", "diverged", "stopped")


class ResultsError(ValueError):
    """A run folder cannot be read or written as one of ours."""


def ordinary(path: Path) -> None:
    """Raise ResultsError where ``path`` is there and no ordinary file: reading a pipe would never end."""
    if (path.exists() or path.is_symlink()) and not path.is_file():
        raise ResultsError(f"{path}: this is no ordinary file; move it away or delete it")


def text_of(path: Path) -> str:
    """The text of an ordinary file in UTF-8. Raises ResultsError; OSError where there is none."""
    ordinary(path)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise ResultsError(f"{path}: this is no text in UTF-8 (byte {exc.start}); delete it") from exc


def json_of(text: str, where: object, advice: str) -> Any:
    """The JSON value of ``text``. Raises ResultsError with ``where`` and what to do about it."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ResultsError(f"{where}: this is no JSON ({exc}); {advice}") from exc


def entry(kind: type[Entry], value: Any, where: object, advice: str) -> Entry:
    """A JSON object as the dataclass ``kind``. Raises ResultsError unless keys and types are its own."""
    types = get_type_hints(kind)
    if not isinstance(value, dict) or set(value) != set(types):
        raise ResultsError(f"{where}: an object with the keys {', '.join(types)} is wanted; {advice}")
    for name, wanted in types.items():
        allowed = (int, float) if wanted is float else (wanted,)
        if type(value[name]) not in allowed:
            raise ResultsError(f"{where}: {name} is {value[name]!r:.60}, no {wanted.__name__}; {advice}")
    return kind(**value)


def entries(kind: type[Entry], path: Path) -> Iterator[Entry]:
    """The objects of a file with one per line; none where there is no file. Raises ResultsError."""
    try:
        lines = text_of(path).splitlines(keepends=True)
    except FileNotFoundError:
        return
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n"):
            return  # a process died while it wrote this line
        where, advice = f"{path}:{number}", "delete this line"
        yield entry(kind, json_of(line, where, advice), where, advice)


def frame_of(path: Path) -> pl.DataFrame:
    """The rows of a parquet file. Raises ResultsError, as a clause without advice, where it is none.

    Read as bytes: on some broken files polars panics when it maps them.
    """
    ordinary(path)
    try:
        return pl.read_parquet(io.BytesIO(path.read_bytes()))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, MemoryError) as exc:
        raise ResultsError((str(exc).splitlines() or [type(exc).__name__])[0][:200]) from exc


def check_rows(frame: pl.DataFrame, schema: Mapping[str, Any], later: Collection[str]) -> None:
    """Raise ResultsError, as a clause, where rows are none that a run has; columns may be missing.

    schema: the type of every column. later: columns that files of an older schema have as null.
    """
    for name in schema:
        if name in frame.columns and frame.schema[name] != schema[name]:
            raise ResultsError(f"column {name} holds {frame.schema[name]}, not {schema[name]}")
    if frame.is_empty():
        raise ResultsError("it has no rows")
    if {"run", "final"} <= set(frame.columns):
        finals = frame.group_by("run").agg(pl.col("final").sum())["final"]
        if finals.n_unique() != 1 or finals[0] != 1:
            raise ResultsError("a run must have exactly one final row")
    wrong = [test.any().alias(said) for said, test in _tests(frame, set(later))]
    broken = frame.select(wrong).row(0, named=True) if wrong else {}
    for said, is_so in broken.items():
        if is_so:
            raise ResultsError(said)


def _tests(frame: pl.DataFrame, later: set[str]) -> Iterator[tuple[str, pl.Expr]]:
    """What may be wrong -> where it is."""
    columns = frame.columns
    final = pl.col("final") if "final" in columns else pl.lit(False)
    for name in columns:
        if name in _ON_THE_FINAL_ROW:
            yield f"{name} is missing on the final row", final & pl.col(name).is_null()
        elif name not in later and name not in _MAY_LACK:
            yield f"{name} is missing", pl.col(name).is_null()
        if isinstance(frame.schema[name], pl.List):
            yield f"{name} has an empty entry", pl.col(name).list.eval(pl.element().is_null()).list.any()
    for name in [name for name in RANGES if name in columns]:
        low, high = RANGES[name]
        outside = ~pl.col(name).is_between(low, high)
        if name in _MAY_BE_NAN:
            outside &= ~pl.col(name).is_nan()
        yield f"{name} is not between {low:g} and {high:g}", outside
    for first, *others in _TOGETHER:
        for other in others:
            if first in columns and other in columns:
                lengths = pl.col(first).list.len().ne_missing(pl.col(other).list.len())
                yield f"{first} and {other} are not equally long", lengths
    if "status" in columns:
        yield f"status is none of {', '.join(STATUS)}", ~pl.col("status").is_in(STATUS)
    if {"step", "steps"} <= set(columns):
        yield "a step lies beyond the budget", pl.col("step") > pl.col("steps")
