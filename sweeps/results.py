"""The results store: one small parquet file per finished run, one schema, one row per evaluation.

    runs/<name>/recipe.yaml      the recipe as it was run
                env.json         what makes the folder ours: schema version, versions, machine
                study.log        Optuna's journal
                trials/<run>.parquet
                earlier/<run>.parquet   finished runs that the present recipe or code no longer asks for
                failures.jsonl   runs that raised or whose process died, and are set aside
                tries.jsonl      tries of runs that came to nothing before the last one (sweeps.tries)
                runs.jsonl       a line per run trained, in the order in which they ended (sweeps.trackers)
                pruned.json      candidates that left the race, if any did; worked out anew by every sweep

``trials/`` holds runs of the present recipe under the present code and nothing else. Files are written under
a temporary name, synced and renamed, so a reader never meets half a file and writers never meet each other.
No torch here: analysis stands on this module alone.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from sweeps.files import (
    TEMPORARY,
    ResultsError,
    append,
    cut,
    entries,
    entry,
    frame_of,
    json_of,
    ordinary,
    text_of,
    write_bytes,
    write_text,
)
from sweeps.sound import check_rows, version_of

__all__ = [
    "SCHEMA",
    "SCHEMA_VERSION",
    "Failure",
    "Pruned",
    "Results",
    "ResultsError",
    "check_finished",
    "check_folder",
    "check_place",
    "failures",
    "frame_of",
    "in_order",
    "open_folder",
    "pruned",
    "read",
    "read_run",
    "read_runs",
    "record_failure",
    "stored",
    "tidy",
    "up_to_date",
    "write_bytes",
    "write_pruned",
    "write_run",
    "write_text",
]

SCHEMA_VERSION = 4

SCHEMA = pl.Schema(
    {
        "schema_version": pl.Int16(),
        "run": pl.String(),  # key of the run: schedule, shape, task, training, seed, code
        "trial": pl.Int32(),  # number of the candidate in the Optuna study
        "label": pl.String(),  # the candidate for people: "r=3:1"
        "choices": pl.String(),  # JSON: variable -> value as the recipe spells it
        "schedule": pl.String(),  # canonical text
        "design": pl.String(),  # what the model has beside its layers: "residual: unet"; empty where plain
        "arch": pl.String(),  # hash of schedule and shape
        "strip": pl.List(pl.String()),  # one "gdn swiglu" per layer
        "roles": pl.List(pl.String()),  # per layer: linear, window, full or none
        "depth": pl.Int32(),
        "dim": pl.Int32(),
        "heads": pl.Int32(),
        "n_linear": pl.Int32(),
        "n_window": pl.Int32(),
        "n_full": pl.Int32(),
        "params": pl.Int64(),
        "flops": pl.Int64(),  # forward, per token, at the task's length
        "state": pl.Int64(),  # scalars per sequence at the task's length
        "state_lengths": pl.List(pl.Int64()),
        "state_sizes": pl.List(pl.Int64()),
        "task": pl.String(),  # family
        "setting": pl.String(),  # canonical text
        "length": pl.Int32(),  # tokens of an input row
        "vocab": pl.Int32(),
        "chance": pl.Float64(),
        "ceiling": pl.Float64(),
        "window_share": pl.Float64(),  # solved within 32 tokens; null where the task has no lag
        "level_of": pl.String(),  # what the levels of difficulty count
        "lr": pl.Float64(),
        "weight_decay": pl.Float64(),
        "batch": pl.Int32(),
        "precision": pl.String(),  # of the matrix products: fp32 or bf16
        "kernel": pl.String(),  # what computed the blocks: torch or c
        "steps": pl.Int32(),  # the budget
        "threshold": pl.Float64(),
        "trainings": pl.Int32(),  # optimiser settings that this round gave this candidate on this task
        "seed": pl.Int32(),
        "status": pl.String(),  # solved, budget, diverged or stopped
        "reason": pl.String(),  # of a divergence
        "step": pl.Int32(),
        "tokens": pl.Int64(),
        "seconds": pl.Float64(),  # of training, since its start; the only column that a repeat changes
        "loss": pl.Float64(),
        "acc_valid": pl.Float64(),
        "acc": pl.Float64(),
        "acc_madlab": pl.Float64(),
        "final": pl.Boolean(),
        "auc_valid": pl.Float64(),  # from here to stretch_acc: on the final row only
        "auc": pl.Float64(),
        "steps_to": pl.Int32(),
        "acc_position": pl.List(pl.Float64()),
        "levels": pl.List(pl.Int32()),  # difficulties that occur among the scored test tokens
        "level_acc": pl.List(pl.Float64()),
        "level_count": pl.List(pl.Int64()),
        "stretch": pl.List(pl.Int32()),  # test rows so many times as long as the training rows
        "stretch_acc": pl.List(pl.Float64()),
        "code": pl.String(),
        "torch": pl.String(),
        "python": pl.String(),
        "lab": pl.String(),
        "machine": pl.String(),
    }
)

_SINCE = {
    2: ("precision", "kernel", "level_of", "levels", "level_acc", "level_count", "stretch", "stretch_acc"),
    3: ("trainings",),
    4: ("design",),
}
"""Columns that files of an older schema lack; they are read as null."""

_KIND = "run folder of the hybrid-architecture lab"
_ORDER = ["trial", "task", "setting", "lr", "weight_decay", "seed", "step", "final"]


@dataclass(frozen=True)
class Failure:
    """A run without a result: it raised, or its process died twice."""

    run: str
    label: str
    setting: str
    seed: int
    reason: str
    when: str


@dataclass(frozen=True)
class Pruned:
    """A candidate (``arch``) that takes part in no round after ``round`` (from 1) of ``rounds`` asked for.

    It was worse than ``leader`` (a label) in ``behind`` of ``comparisons`` (task setting, seed) instances,
    which Wilcoxon's signed-rank test puts below ``p``.
    """

    arch: str
    label: str
    round: int
    rounds: int
    leader: str
    behind: int
    comparisons: int
    p: float


@dataclass(frozen=True)
class Results:
    """All stored runs of a folder: ``frame`` has the columns of SCHEMA, in a fixed order of rows."""

    frame: pl.DataFrame
    recipe_text: str
    env: dict[str, Any]
    failures: tuple[Failure, ...] = ()
    pruned: tuple[Pruned, ...] = ()


def to_frame(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Rows as a frame of SCHEMA. Raises ResultsError for missing, unknown or mistyped columns."""
    for row in rows:
        if odd := set(row) ^ set(SCHEMA):
            raise ResultsError(f"a result row lacks or adds the columns {', '.join(sorted(odd))}")
    try:
        return pl.DataFrame(list(rows), schema=SCHEMA, strict=True)
    except (pl.exceptions.PolarsError, TypeError) as exc:
        raise ResultsError(f"a result row does not fit the schema: {exc}") from exc


def write_run(folder: Path, rows: Sequence[Mapping[str, Any]] | pl.DataFrame) -> Path:
    """Store one finished run as ``trials/<run>.parquet`` and return the path. Atomic."""
    frame = rows if isinstance(rows, pl.DataFrame) else to_frame(rows)
    keys = frame["run"].unique().to_list()
    if len(keys) != 1 or frame["final"].sum() != 1:
        raise ResultsError(f"a file holds one run with one final row; given were the runs {keys}")
    path = folder / "trials" / f"{keys[0]}.parquet"
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    write_bytes(path, buffer.getvalue())
    return path


def read_run(path: Path) -> pl.DataFrame:
    """The rows of a stored run, or of many. Raises ResultsError if the file is not one of ours."""
    frame = _columns(path)
    try:
        check_finished(frame)
    except ResultsError as exc:
        raise ResultsError(f"{path}: no run has such rows ({exc}); delete it and sweep again") from exc
    return frame


def read_runs(files: Iterable[Path]) -> pl.DataFrame:
    """The rows of stored runs, file by file. Raises ResultsError, naming the file that is wrong."""
    files = list(files)
    frame = pl.concat([SCHEMA.to_frame(), *map(_columns, files)])
    try:
        if files:
            check_finished(frame)  # all at once: one by one takes as long as reading them
    except ResultsError:
        for path in files:
            if read_run(path)["run"][0] != path.stem:
                raise ResultsError(f"{path}: this holds another run than its name says; delete it") from None
        raise
    return frame


def _columns(path: Path) -> pl.DataFrame:
    """The rows of a file with the columns of SCHEMA, whatever is in them."""
    try:
        frame = frame_of(path)
    except ResultsError as exc:
        raise ResultsError(f"{path}: this is no result file ({exc}); delete it and sweep again") from exc
    version = version_of(frame)
    if version is not None and version > SCHEMA_VERSION:
        raise ResultsError(f"{path}: {_newer(version)}")
    frame = up_to_date(frame)
    if frame.schema != SCHEMA:
        raise ResultsError(
            f"{path}: its columns are not those of schema {SCHEMA_VERSION}; delete it and sweep again"
        )
    return frame


def check_finished(frame: pl.DataFrame) -> None:
    """Raise ResultsError, as a clause, where rows are none of finished runs; columns may be missing."""
    check_rows(frame, SCHEMA, {name for names in _SINCE.values() for name in names})


def up_to_date(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows of an older schema with the columns that they lack, as null; other frames as they are."""
    version = version_of(frame)
    if version is None:
        return frame
    new = [name for since, names in _SINCE.items() if since > version for name in names]
    lacking = [name for name in new if name not in frame.columns]
    frame = frame.with_columns(pl.lit(None, SCHEMA[name]).alias(name) for name in lacking)
    return frame.select(sorted(frame.columns, key=lambda name: [*SCHEMA, name].index(name)))


def stored(folder: Path, part: str = "trials") -> dict[str, Path]:
    """Keys of the finished runs below ``folder`` -> their files."""
    return {path.stem: path for path in sorted((folder / part).glob("*.parquet"))}


def check_folder(folder: Path) -> dict[str, Any]:
    """The folder's env.json. Raises ResultsError unless it is a run folder that this version can read."""
    if not folder.exists():
        raise ResultsError(f"{folder}: there is no such folder; a sweep makes one")
    if not folder.is_dir():
        raise ResultsError(f"{folder}: this is a file; a run folder is wanted, such as runs/ratios")
    where = folder / "env.json"
    if not where.is_file():
        raise ResultsError(f"{folder}: this is no run folder of the lab (it has no env.json)")
    env = json_of(text_of(where), where, "delete the folder, or put an env.json of another run folder there")
    version = env.get("schema_version") if isinstance(env, dict) and env.get("kind") == _KIND else None
    if not isinstance(version, int):
        raise ResultsError(f"{folder}: this is no run folder of the lab (its env.json is something else)")
    if version > SCHEMA_VERSION:
        raise ResultsError(f"{folder}: {_newer(version)}")
    return env


def _newer(version: int) -> str:
    return f"a newer version of the lab wrote this (schema {version}, here {SCHEMA_VERSION}); update the lab"


def check_place(folder: Path) -> dict[str, Any]:
    """The env.json of a run folder to go on with; {} where one can be made.

    Raises ResultsError if ``folder`` holds anything else's files or comes from a newer version.
    """
    if (folder / "env.json").exists() or (folder.exists() and not folder.is_dir()):
        for name in ("study.log", "failures.jsonl", "tries.jsonl", "lock"):
            ordinary(folder / name)
        return check_folder(folder)
    known = {"trials", "earlier", "lock"}
    entries = [path.name for path in folder.iterdir()] if folder.exists() else []
    if others := sorted(n for n in entries if n not in known and not n.startswith(TEMPORARY)):
        raise ResultsError(
            f"{folder}: this is no run folder of the lab and it is not empty ({others[0]} is in it); "
            "choose another place with --runs, or another name"
        )
    return {}


def open_folder(folder: Path, env: Mapping[str, Any], recipe_text: str) -> None:
    """Make ``folder`` a run folder or go on with it; env.json and recipe.yaml are renewed.

    Also clears what a killed sweep left half done, so the caller must hold the folder's lock. Raises
    ResultsError as ``check_place``.
    """
    before = check_place(folder)
    for part in ("trials", "earlier"):
        (folder / part).mkdir(exist_ok=True)
    tidy(folder)
    created = before.get("created", env.get("created"))
    record = {"kind": _KIND, "schema_version": SCHEMA_VERSION, **env, "created": created}
    write_text(folder / "env.json", json.dumps(record, indent=1) + "\n")
    write_text(folder / "recipe.yaml", recipe_text)


def tidy(folder: Path) -> None:
    """Remove temporary files and cut half lines that killed processes left. No writer may be at work."""
    for directory in (folder, folder / "trials", folder / "earlier", folder / "checkpoints"):
        for leftover in directory.glob(f"{TEMPORARY}*"):
            leftover.unlink()
    for name in ("failures.jsonl", "tries.jsonl"):
        cut(folder / name)


def record_failure(folder: Path, failure: Failure) -> None:
    """Append one line to failures.jsonl."""
    append(folder / "failures.jsonl", vars(failure))


def failures(folder: Path) -> tuple[Failure, ...]:
    """Runs that failed and have no result since: the last reason of each, in the order they failed."""
    last: dict[str, Failure] = {}
    for failure in entries(Failure, folder / "failures.jsonl"):
        last.pop(failure.run, None)
        last[failure.run] = failure
    done = stored(folder)
    return tuple(failure for run, failure in last.items() if run not in done)


def write_pruned(folder: Path, left: Sequence[Pruned]) -> None:
    """Say who has left the race; there is no file where nobody has. Atomic."""
    path = folder / "pruned.json"
    if not left:
        path.unlink(missing_ok=True)
        return
    write_text(path, json.dumps([vars(one) for one in left], indent=1) + "\n")


def pruned(folder: Path) -> tuple[Pruned, ...]:
    """Who has left the race, in the order of leaving. Raises ResultsError if the file is none of ours."""
    path = folder / "pruned.json"
    advice = "run the sweep again to renew it"
    try:
        found = json_of(text_of(path), path, advice)
    except FileNotFoundError:
        return ()
    if not isinstance(found, list):
        raise ResultsError(f"{path}: this is no list of candidates; {advice}")
    return tuple(entry(Pruned, one, path, advice) for one in found)


def in_order(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows in the order that ``read`` gives them."""
    return frame.sort(_ORDER)


def read(folder: Path) -> Results:
    """All stored runs below ``folder``, sorted. Raises ResultsError, naming the file that is wrong."""
    folder = Path(folder)
    env = check_folder(folder)
    frame = in_order(read_runs(stored(folder).values()))
    recipe = folder / "recipe.yaml"
    text = text_of(recipe) if recipe.exists() else ""
    return Results(frame, text, env, failures(folder), pruned(folder))
