"""Documents out of files: text, JSONL, parquet, Hugging Face datasets, the embedded corpus.

What is held at once is one document, or one batch of rows of a parquet file. What cannot be read comes as
``Bad``, with its place, and is left to the caller to judge.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lab.data.chatml import Turn, plain, turns_of
from lab.data.corpus import NAME, corpus_files, corpus_texts
from lab.data.tokens import DataError

__all__ = ["HUB", "Bad", "Document", "How", "Position", "check_inputs", "documents", "files_of"]

HUB = "hf:"
"""How the name of a Hugging Face dataset begins: hf:NAME, hf:NAME:CONFIG, hf:NAME:CONFIG:SPLIT."""

OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
LINES = {".jsonl", ".ndjson"}
BATCH = 2048
"""Rows of a parquet file read at once."""


@dataclass(frozen=True)
class How:
    """How documents lie in their files.

    field: the key or column that holds them. chat: it holds messages, not text. boundary: in a text file, the
    line that ends a document; without it a file is one.
    """

    field: str = "text"
    chat: bool = False
    boundary: str | None = None


@dataclass(frozen=True)
class Document:
    """Its text (of a conversation without marks), where it stands, and the turns of a conversation."""

    text: str
    place: str
    turns: tuple[Turn, ...] | None = None


@dataclass(frozen=True)
class Bad:
    """What is no document: where it stands, and why."""

    place: str
    why: str


@dataclass
class Position:
    """Bytes of the input files that are read; counted by ``documents``."""

    done: int = 0


def check_inputs(inputs: Sequence[str], how: How) -> None:
    """Raises DataError for inputs that cannot hold what is asked for; before anything is written."""
    for name in inputs:
        if name.startswith(HUB):
            if not 1 <= len(name[len(HUB) :].split(":")) <= 3 or not name[len(HUB) :].split(":")[0]:
                raise DataError(
                    f"{name} names no dataset; hf:NAME, hf:NAME:CONFIG or hf:NAME:CONFIG:SPLIT is wanted"
                )
            continue
        if name == NAME:
            if how.chat:
                raise DataError(f"{NAME} holds texts and no conversations; leave --chat out")
            continue
        for path in files_of(name):
            if how.chat and _kind(path) == "text":
                raise DataError(
                    f"{path} is read as text, which holds no conversations; --chat takes JSONL or parquet"
                )


def files_of(name: str) -> list[Path]:
    """The files that an input names: itself, or all below a folder but hidden ones, by name.

    Raises DataError.
    """
    if name == NAME:
        return [path for _, path in corpus_files()]
    path = Path(name)
    if path.is_dir():
        below = sorted(one for one in path.rglob("*") if one.is_file())
        found = [one for one in below if not any(x.startswith(".") for x in one.relative_to(path).parts)]
        if not found:
            raise DataError(f"{name} is a folder without files; give text, JSONL or parquet")
        return found
    if not path.exists():
        raise DataError(f"there is no file {name}; a file, a folder, {NAME} or hf:NAME is wanted")
    if not path.is_file():
        raise DataError(
            f"{name} is a pipe or a device; a file is wanted, since its size and end have to be known"
        )
    return [path]


def documents(name: str, how: How, position: Position) -> Iterator[Document | Bad]:
    """The documents of one input, in an order that depends on nothing but its files."""
    if name == NAME:
        for file, text in corpus_texts():
            position.done += len(text.encode())
            yield Document(text, f"{NAME}/{file}")
        return
    if name.startswith(HUB):
        for number, row in enumerate(_hub_rows(name), start=1):
            yield _document(row, f"{name}, row {number:,}", how)
        return
    for path in files_of(name):
        before = position.done
        readers = {"text": _text, "lines": _json_lines, "parquet": _parquet}
        yield from readers[_kind(path)](path, how, position)
        position.done = before + path.stat().st_size


def _kind(path: Path) -> str:
    suffixes = [one for one in path.suffixes if one not in OPENERS]
    last = suffixes[-1].lower() if suffixes else ""
    return "lines" if last in LINES else "parquet" if last == ".parquet" else "text"


def _lines(path: Path, position: Position) -> Iterator[bytes]:
    """The lines of a file, unpacked where its name says so. Raises DataError."""
    before = position.done
    with path.open("rb") as raw:
        unpack = OPENERS.get(path.suffix)
        file: IO[bytes] = raw if unpack is None else unpack(raw)  # pyright: ignore[reportAssignmentType]
        try:
            for line in file:
                yield line
                position.done = before + raw.tell()
        except (EOFError, gzip.BadGzipFile, lzma.LZMAError, OSError) as exc:
            if unpack is None:
                raise
            raise DataError(f"{path} cannot be unpacked ({exc}); its name says {path.suffix}") from exc


def _text(path: Path, how: How, position: Position) -> Iterator[Document | Bad]:
    """A whole file, or what lies between the lines that are the boundary."""
    end = None if how.boundary is None else how.boundary.encode()
    held: list[bytes] = []
    first = 1
    for number, line in enumerate(_lines(path, position), start=1):
        if line.rstrip(b"\r\n") != end:
            held.append(line)
            continue
        yield from _joined(held, f"{path}:{first}")
        held, first = [], number + 1
    yield from _joined(held, str(path) if end is None else f"{path}:{first}")


def _joined(held: list[bytes], place: str) -> Iterator[Document | Bad]:
    content = b"".join(held)
    if not content.strip():
        return  # two boundaries in a row hold no document
    try:
        yield Document(content.decode(), place)
    except UnicodeDecodeError as exc:
        yield Bad(place, f"is no text in UTF-8 ({exc.reason} at byte {exc.start:,})")


def _json_lines(path: Path, how: How, position: Position) -> Iterator[Document | Bad]:
    for number, line in enumerate(_lines(path, position), start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            row = json.loads(line)
        except UnicodeDecodeError as exc:
            yield Bad(place, f"is no text in UTF-8 ({exc.reason} at byte {exc.start:,})")
        except (ValueError, RecursionError) as exc:
            yield Bad(place, f"is no JSON ({exc})")
        else:
            yield _document(row, place, how)


def _parquet(path: Path, how: How, position: Position) -> Iterator[Document | Bad]:
    import polars as pl

    from sweeps.interrupt import keep_interrupts

    keep_interrupts()
    before, size = position.done, path.stat().st_size
    try:
        lazy = pl.scan_parquet(path)
        columns = lazy.collect_schema().names()
        if how.field not in columns:
            raise DataError(
                f"{path} has no column {how.field}; it has {', '.join(columns)}: choose by --field"
            )
        total = int(lazy.select(pl.len()).collect().item())
        number = 0
        for frame in lazy.select(how.field).collect_batches(chunk_size=BATCH, lazy=True):
            for value in frame[how.field].to_list():
                number += 1
                yield _document({how.field: value}, f"{path}, row {number:,}", how)
            position.done = before + size * number // max(total, 1)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as exc:
        told = (str(exc).splitlines() or [type(exc).__name__])[0]
        raise DataError(f"{path} cannot be read as parquet ({told:.200})") from exc


def _hub_rows(name: str) -> Iterator[Any]:
    try:
        from datasets import load_dataset  # pyright: ignore[reportMissingImports]
    except ImportError as exc:
        raise DataError(
            f'{name} needs the package datasets; install it with pip install "hybrid-architecture-lab[data]"'
        ) from exc
    path, config, split = (*name[len(HUB) :].split(":"), "", "")[:3]
    try:
        # Streamed: read once from front to back, nothing kept on disk. Resuming is left to the shards.
        yield from load_dataset(path, config or None, split=split or "train", streaming=True)
    except Exception as exc:  # the package and the two below it raise nothing common
        told = (str(exc).splitlines() or [type(exc).__name__])[0]
        raise DataError(f"{name} cannot be read as a dataset ({told:.300})") from exc


def _document(row: Any, place: str, how: How) -> Document | Bad:
    if not isinstance(row, dict):
        return Bad(place, f"is {type(row).__name__}, no object with the key {how.field}")
    if how.field not in row:
        return Bad(
            place, f"has no key {how.field}; it has {', '.join(map(str, row)) or 'none'}: choose by --field"
        )
    value = row[how.field]
    try:
        turns = turns_of(value) if how.chat else None
    except DataError as exc:
        return Bad(place, str(exc))
    if turns is None and not isinstance(value, str):
        return Bad(place, f"has {value!r:.60} as its {how.field}; text is wanted")
    text = value if turns is None else plain(turns)
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        return Bad(
            place, f"holds {text[exc.start]!a} at letter {exc.start:,}, half of a pair that is no text"
        )
    return Document(text, place, turns)
