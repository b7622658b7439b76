"""How a result travels from its worker into the run folder: by a shared disk, a URL, or the storage."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps import results
from sweeps.queue import Queue, as_chunks, from_chunks
from sweeps.results import ResultsError
from sweeps.storages import StorageError, first_line

__all__ = ["BY_STORAGE", "Place", "choose", "collect", "token_of"]

BY_STORAGE = "storage"

TOKEN = "token"
"""A file of the run folder, by which a worker knows that the folder it sees is the sweep's own."""

RETRIES = 5
"""Of a write to a shared folder: a sweep that starts there clears temporary files, and may take ours."""


@dataclass(frozen=True)
class Place:
    """Where a worker's results go. kind: ``folder`` (``where``: the run folder), ``url`` or ``storage``."""

    kind: str
    where: str

    def __str__(self) -> str:
        return "through the storage" if self.kind == BY_STORAGE else f"to {self.where}"

    def put(self, queue: Queue, number: int, key: str, content: bytes) -> dict[str, Any] | None:
        """Bring the parquet of the run ``key`` on its way; what the sweep has to know to find it.

        None if the sweep has given the trial up. Raises OSError or StorageError.
        """
        if self.kind == "folder":
            _write(Path(self.where) / "trials" / f"{key}.parquet", content)
            return {"by": "folder"}
        if self.kind == "url":
            url = f"{self.where.rstrip('/')}/{key}.parquet"
            with _remote(url).open(url, "wb") as file:
                file.write(content)
            return {"by": "url", "url": url}
        chunks = as_chunks(content)
        if not all(queue.write(number, name, text) for name, text in chunks.items()):
            return None
        return {"by": BY_STORAGE, "chunks": len(chunks)}


def _write(path: Path, content: bytes) -> None:
    for left in reversed(range(RETRIES)):
        try:
            results.write_bytes(path, content)
            return
        except FileNotFoundError:
            if not left:
                raise


def token_of(folder: Path) -> str:
    """The token of a run folder; empty where there is none."""
    try:
        return (folder / TOKEN).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def choose(wanted: str | None, sweep: Mapping[str, Any]) -> Place:
    """Where the results of a worker go. Raises StorageError where that is no place for them.

    wanted: as ``--results`` says; None is the sweep's own folder where that is seen here, else the storage.
    sweep: what the sweep says of itself in the queue.
    """
    if wanted == BY_STORAGE:
        return Place(BY_STORAGE, "")
    if wanted is None:
        seen = token_of(Path(sweep["folder"])) == sweep["token"]
        return Place("folder", sweep["folder"]) if seen else Place(BY_STORAGE, "")
    if "://" in wanted:
        url = f"{wanted.rstrip('/')}/.lab"
        with _remote(url).open(url, "wb") as file:
            file.write(b"")
        return Place("url", wanted)
    if token_of(Path(wanted)) != sweep["token"]:
        raise StorageError(
            f"--results {wanted}: this is not the run folder of the sweep, which is {sweep['folder']} where "
            "it runs; give the same folder as it is seen here, a URL such as s3://bucket/path, or 'storage'"
        )
    return Place("folder", str(Path(wanted).absolute()))


def _remote(url: str) -> Any:
    """fsspec's file system of ``url``."""
    try:
        fsspec = importlib.import_module("fsspec")
    except ImportError as exc:
        raise StorageError(
            f"{url}: the Python package fsspec is missing; pip install 'hybrid-architecture-lab[remote]'"
        ) from exc
    try:
        return fsspec.url_to_fs(url)[0]
    except (ImportError, ValueError) as exc:
        raise StorageError(f"{url}: this URL cannot be used ({first_line(exc)})") from exc


def collect(folder: Path, key: str, notes: Mapping[str, Any]) -> None:
    """Make the delivered run ``key`` one of ``folder``: trials/<key>.parquet, whole and checked.

    notes: of its trial. Raises FileNotFoundError where it is not to be seen, and ResultsError or StorageError
    where what came is not that run.
    """
    path, found = folder / "trials" / f"{key}.parquet", notes["outcome"]["found"]
    if found["by"] == "folder":
        _check(path, key)
        return
    if found["by"] == "url":
        with _remote(found["url"]).open(found["url"], "rb") as file:
            content = file.read()
    else:
        content = from_chunks(notes, found["chunks"])
    arrived = folder / f".tmp-{key}.parquet"
    try:
        results.write_bytes(arrived, content)
        _check(arrived, key)
        results.write_bytes(path, content)
    finally:
        arrived.unlink(missing_ok=True)


def _check(path: Path, key: str) -> None:
    if not path.exists():
        raise FileNotFoundError(str(path))
    runs = results.read_run(path)["run"].unique().to_list()
    if runs != [key]:
        raise ResultsError(f"{path}: what was delivered as the run {key} is another")
