"""Files of a run folder: written whole or not at all, read only where they are what they should be.

Disks, editors and other programs change files. What cannot be read is told in one sentence that names the
file and says what to do. No torch here.
"""

from __future__ import annotations

import io
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import polars as pl

__all__ = [
    "TEMPORARY",
    "ResultsError",
    "append",
    "cut",
    "entries",
    "entry",
    "frame_of",
    "json_of",
    "not_written",
    "ordinary",
    "text_of",
    "write_bytes",
    "write_text",
]

TEMPORARY = ".tmp-"
"""How the names of files begin that are not yet whole."""

Entry = TypeVar("Entry")


class ResultsError(ValueError):
    """A run folder cannot be read or written as one of ours."""


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all, also across a crash of the machine."""
    temporary = path.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write_text(path: Path, text: str) -> None:
    """A whole text file or none, also across a crash of the machine."""
    write_bytes(path, text.encode())


def not_written(exc: OSError, folder: Path) -> str:
    """A clause: which file of ``folder`` could not be written, why, and what to do about it."""
    name = exc.filename2 or exc.filename  # files are written under another name and then renamed
    where = Path(name) if isinstance(name, str) else folder  # a full disk names none
    if where.name.startswith(TEMPORARY):
        where = where.parent
    in_the_way = isinstance(exc, IsADirectoryError | NotADirectoryError | FileExistsError)
    advice = "; move it away or delete it" if in_the_way else ""
    return f"{where}: cannot be written ({exc.strerror or exc}){advice}"


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


def append(path: Path, value: Mapping[str, Any]) -> None:
    """One more line of a file with one JSON object per line.

    Where a full disk leaves half of it, ``cut`` takes that away.
    """
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")
        file.flush()
        os.fsync(file.fileno())


def cut(path: Path) -> None:
    """Cut the half line that a killed process left at the end of such a file. No writer may be at work."""
    if path.exists():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(path, whole)


def frame_of(path: Path) -> pl.DataFrame:
    """The rows of a parquet file. Raises ResultsError, as a clause without advice, where it is none.

    Read as bytes: on some broken files polars panics when it maps them.
    """
    ordinary(path)
    try:
        return pl.read_parquet(io.BytesIO(path.read_bytes()))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, MemoryError) as exc:
        raise ResultsError((str(exc).splitlines() or [type(exc).__name__])[0][:200]) from exc
