"""The results store: one schema, whole files or none, and only folders that are ours."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from sweeps import results
from sweeps.results import SCHEMA, SCHEMA_VERSION, Failure, ResultsError

ROW: dict[str, Any] = {
    name: {pl.String: "x", pl.Boolean: True, pl.List: []}.get(kind.base_type(), 1)
    for name, kind in SCHEMA.items()
}


def rows(run: str = "k", **changes: Any) -> list[dict[str, Any]]:
    first = {**ROW, "run": run, "step": 1, "final": False, "auc": None, "acc_position": None}
    return [first, {**ROW, "run": run, "step": 2, "acc_position": [0.5, None], **changes}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "runs" / "x"
    path.mkdir(parents=True)
    results.open_folder(path, {"name": "x", "created": "now"}, "name: x\n")
    return path


def test_what_is_written_is_read_in_a_fixed_order(folder: Path) -> None:
    for run, trial in (("b", 1), ("a", 2), ("c", 0)):
        results.write_run(folder, [{**row, "trial": trial} for row in rows(run)])
    found = results.read(folder)
    assert found.frame.schema == SCHEMA
    assert found.frame["run"].to_list() == ["c", "c", "b", "b", "a", "a"]
    assert found.frame["acc_position"].to_list()[1] == [0.5, None]
    assert (found.recipe_text, found.env["schema_version"]) == ("name: x\n", SCHEMA_VERSION)
    assert not list(folder.rglob(".tmp-*"))


def test_rows_off_the_schema_are_refused(folder: Path) -> None:
    for bad in (
        [{**ROW, "extra": 1}],
        [{k: v for k, v in ROW.items() if k != "acc"}],
        [{**ROW, "dim": "wide"}],
        [ROW, {**ROW, "run": "other", "final": False}],
        [ROW, ROW],
    ):
        with pytest.raises(ResultsError):
            results.write_run(folder, bad)
    assert not results.stored(folder)


def test_a_full_disk_leaves_nothing_half_written(folder: Path) -> None:
    # A limit on file size fails in the middle of a write, as a full disk does.
    code = (
        "import resource, sys; from pathlib import Path; from sweeps import results\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (1000, {resource.RLIM_INFINITY}))\n"
        "try: results.write_text(Path(sys.argv[1]) / 'trials' / 'k.parquet', 'x' * 5000)\n"
        "except OSError as exc: sys.exit(f'refused {exc.strerror}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False
    )
    assert "refused File too large" in done.stderr
    assert not list((folder / "trials").iterdir())


def test_a_file_is_replaced_whole_or_kept(folder: Path) -> None:
    path = results.write_run(folder, rows())
    before = path.read_bytes()
    with pytest.raises(ResultsError):
        results.write_run(folder, [{**ROW, "dim": "wide"}])
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all", bytes(range(256)) * 20])
def test_a_broken_file_is_named(folder: Path, content: bytes) -> None:
    results.write_run(folder, rows("good"))
    (folder / "trials" / "bad.parquet").write_bytes(content)
    with pytest.raises(ResultsError, match="bad\\.parquet"):
        results.read(folder)


def test_a_truncated_file_is_named(folder: Path) -> None:
    path = results.write_run(folder, rows())
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ResultsError, match="k\\.parquet"):
        results.read(folder)


def test_files_of_schema_1_are_read_with_the_newer_columns_empty(folder: Path) -> None:
    newer = [
        "precision",
        "kernel",
        "level_of",
        "levels",
        "level_acc",
        "level_count",
        "stretch",
        "stretch_acc",
    ]
    old = results.to_frame(rows()).with_columns(schema_version=pl.lit(1, pl.Int16)).drop(newer)
    old.write_parquet(folder / "trials" / "k.parquet")
    frame = results.read(folder).frame
    assert frame.schema == SCHEMA
    assert frame.drop(newer).equals(old)
    assert all(frame[name].null_count() == 2 for name in newer)
    old.drop("loss").write_parquet(folder / "trials" / "k.parquet")
    with pytest.raises(ResultsError, match=f"not those of schema {SCHEMA_VERSION}"):
        results.read(folder)


def test_a_newer_schema_is_refused(folder: Path) -> None:
    newer = results.to_frame(rows()).with_columns(schema_version=pl.lit(SCHEMA_VERSION + 1, pl.Int16))
    newer.with_columns(new=pl.lit(1)).write_parquet(folder / "trials" / "k.parquet")
    with pytest.raises(ResultsError, match="a newer version of the lab"):
        results.read(folder)
    env = json.loads((folder / "env.json").read_text())
    (folder / "env.json").write_text(json.dumps({**env, "schema_version": SCHEMA_VERSION + 1}))
    for use in (results.read, results.check_place):
        with pytest.raises(ResultsError, match="a newer version of the lab"):
            use(folder)


@pytest.mark.parametrize("env", [None, "", "[]", "{}", '{"kind": "other", "schema_version": 1}', "\xff"])
def test_folders_of_others_are_refused_and_left_alone(tmp_path: Path, env: str | None) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    if env is not None:
        (tmp_path / "env.json").write_text(env, encoding="latin-1")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for use in (results.read, results.check_place):
        with pytest.raises(ResultsError, match=tmp_path.name):
            use(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_no_folder_or_a_file_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name, what in (("none", "no such folder"), ("file", "this is a file")):
        with pytest.raises(ResultsError, match=what):
            results.read(tmp_path / name)
    assert results.check_place(tmp_path / "none") == {}


def test_failures_are_those_without_a_result(folder: Path) -> None:
    for run, reason in (("a", "first"), ("b", "x"), ("a", "second")):
        results.record_failure(folder, Failure(run, "r=1", "recall", 0, reason, "now"))
    with (folder / "failures.jsonl").open("a") as file:
        file.write('{"run": "half a li')
    results.write_run(folder, rows("b"))
    assert [(f.run, f.reason) for f in results.read(folder).failures] == [("a", "second")]
    results.tidy(folder)
    results.record_failure(folder, Failure("c", "r=1", "recall", 0, "after", "now"))
    assert [f.run for f in results.failures(folder)] == ["a", "c"]


def test_going_on_keeps_the_date_and_clears_leftovers(folder: Path) -> None:
    (folder / "trials" / ".tmp-dead").write_text("half")
    results.open_folder(folder, {"name": "x", "created": "later"}, "name: y\n")
    found = results.read(folder)
    assert (found.env["created"], found.recipe_text) == ("now", "name: y\n")
    assert not list(folder.rglob(".tmp-*"))


def test_results_need_no_torch() -> None:
    code = "import sys, sweeps.results; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
