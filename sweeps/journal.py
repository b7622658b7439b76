"""Optuna's journal file, made to survive what files go through: a writer killed in a line, a full disk.

Optuna's own reader passes over a last line that is torn, but the next writer appends to it, and the line that
comes of that can never be read again. So every append here first cuts what a dead writer left, under the
journal's lock, and keeps a copy beside it; and an append that fails takes back what it wrote.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

__all__ = ["JournalError", "mend", "open_journal"]

TORN = ".torn"
"""Beside the journal: the half lines that were cut off it."""

GRACE = 10
"""Seconds without an append after which the lock of a writer that was killed is taken from it."""


class JournalError(ValueError):
    """A journal cannot be read: which line, why, and what to do."""


class _Backend(JournalFileBackend):
    """The file, and a second one beside it that is its lock, made with O_EXCL, which NFS has since version 3.

    Not Optuna's symbolic link: one that a killed writer left is waited for without end wherever its target is
    not to be seen, such as on a machine that mounts the disk elsewhere.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._own = JournalFileOpenLock(str(path), grace_period=GRACE)
        super().__init__(str(path), self._own)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        content = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        self._own.acquire()
        try:
            mend(self._path)
            _append(self._path, content)
        finally:
            # Whoever stood still for too long has lost the lock; its lines are whole all the same.
            with contextlib.suppress(RuntimeError):
                self._own.release()


def _append(path: Path, content: bytes) -> None:
    """All of ``content`` at the end of the file or, where the disk is full, nothing."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        before = os.fstat(file).st_size
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(file, rest) :]
            os.fsync(file)
        except OSError:
            os.ftruncate(file, before)
            raise
    finally:
        os.close(file)


def mend(path: Path) -> None:
    """Cut what a killed writer, or a power cut, left at the end of ``path``; a copy goes to ``path.torn``.

    That is half a line, or a whole one that nobody can read, such as one of zeros: the last line alone is
    passed over by Optuna's reader, and no longer once another follows. The caller holds the lock.
    """
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        while size:
            line = _last_line(file, size)
            if line.endswith(b"\n") and _is_readable(line):
                return
            with path.with_name(path.name + TORN).open("ab") as copy:
                copy.write(line.rstrip(b"\n") + b"\n")
            size -= len(line)
            file.truncate(size)


def _last_line(file: BinaryIO, size: int) -> bytes:
    """The last line of the first ``size`` bytes, with its end if it has one."""
    start, tail = size, b""
    while start and b"\n" not in tail[:-1]:
        start = max(0, start - (1 << 16))
        file.seek(start)
        tail = file.read(size - start)
    return tail[tail[:-1].rfind(b"\n") + 1 :]


def _is_readable(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def open_journal(path: Path) -> JournalStorage:
    """The storage in ``path``, made if need be. Raises JournalError, or OSError where it cannot be read."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return JournalStorage(_Backend(path.absolute()))
    except OSError:
        raise
    except Exception as exc:  # what lines that are none of Optuna's make it raise is anything at all
        raise JournalError(
            f"{path}{_broken_line(path)}: this journal cannot be read ({type(exc).__name__}); move it away "
            "and run the sweep again: finished runs are in the run folder and are kept"
        ) from exc


def _broken_line(path: Path) -> str:
    """``:17`` where line 17 is no JSON object, nothing where each one is."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not _is_readable(line):
                return f":{number}"
    return ""
