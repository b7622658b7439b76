"""A file of a run folder that is no longer what the lab wrote is refused by name, and by what is wrong."""

import os
from pathlib import Path

import polars as pl
import pytest

from sweeps import packs, results
from sweeps.files import ResultsError, entry, json_of, text_of
from sweeps.results import SCHEMA, SCHEMA_VERSION, Pruned
from sweeps.sound import version_of

WHOLE = results.read_run(packs.KNOWN / "reference.parquet")
RUN = WHOLE.filter(pl.col("run") == WHOLE["run"][0]).with_columns(
    pl.lit(SCHEMA_VERSION, pl.Int16).alias("schema_version")
)
MAY_BE_NULL = {"window_share", "reason", "steps_to", "loss", "acc_valid", "acc", "acc_madlab"} | {
    *("precision", "kernel", "level_of", "trainings", "design")  # not in files of an older schema
}


def refusal(frame: pl.DataFrame, path: Path) -> str:
    """What is said of a file of these rows; empty if they are taken."""
    frame.write_parquet(path)
    try:
        results.read_run(path)
    except ResultsError as exc:
        return str(exc)
    return ""


def test_what_ships_is_sound() -> None:
    for path in packs.KNOWN.glob("*.parquet"):
        results.check_finished(results.read_run(path))


@pytest.mark.parametrize("name", list(SCHEMA))
def test_what_a_column_lacks_or_holds_instead_is_told(name: str, tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"
    said = refusal(RUN.with_columns(pl.lit(None, SCHEMA[name]).alias(name)), path)
    assert bool(said) == (name not in MAY_BE_NULL)
    if said:
        assert str(path) in said and "sweep again" in said
    other = pl.Int8() if SCHEMA[name] != pl.Int8() else pl.String()
    assert str(path) in refusal(RUN.with_columns(pl.lit(None, other).alias(name)), path)
    assert str(path) in refusal(RUN.drop(name), path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step", -(2**31)),
        ("seed", -1),
        ("acc", 1.5),
        ("lr", float("inf")),
        ("chance", float("nan")),
        ("depth", 0),
    ],
)
def test_numbers_that_no_run_reaches_are_told(name: str, value: float, tmp_path: Path) -> None:
    said = refusal(RUN.with_columns(pl.lit(value, SCHEMA[name]).alias(name)), tmp_path / "run.parquet")
    assert f"{name} is not between" in said


def test_every_run_has_one_end_and_its_lists_belong_together(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"
    ends = RUN.filter("final")
    for frame in (
        RUN.filter(~pl.col("final")),
        pl.concat([RUN, ends]),
        RUN.with_columns(final=pl.lit(False)),
    ):
        assert "exactly one final row" in refusal(frame, path)
    assert "no rows" in refusal(RUN.clear(), path)
    short = RUN.with_columns(pl.col("state_sizes").list.head(1))
    assert "equally long" in refusal(short, path)
    assert "equally long" in refusal(RUN.with_columns(roles=pl.lit([], pl.List(pl.String()))), path)


def test_a_schema_version_that_is_no_number_is_none() -> None:
    assert version_of(RUN) == RUN["schema_version"][0]
    for odd in (RUN.drop("schema_version"), RUN.with_columns(schema_version=pl.lit([1]))):
        assert version_of(odd) is None


def test_only_ordinary_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "latin").write_bytes(b"\xe9")
    for name in ("pipe", "loop", ".", "latin"):
        with pytest.raises(ResultsError, match=r"no ordinary file|no text"):
            text_of(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        text_of(tmp_path / "nothing")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "9" * 5_000])
def test_what_is_no_json_says_where(text: str) -> None:
    with pytest.raises(ResultsError, match=r"here: this is no JSON .*; delete it"):
        json_of(text, "here", "delete it")


def test_an_entry_has_the_keys_and_types_of_its_kind() -> None:
    right = vars(Pruned("a", "b", 1, 2, "c", 3, 4, 0.5))
    assert entry(Pruned, right, "here", "") == Pruned(**right)
    for wrong in (None, [], "x", {}, right | {"more": 1}, *(right | {name: None} for name in right)):
        with pytest.raises(ResultsError, match="here: "):
            entry(Pruned, wrong, "here", "delete it")
