"""Token ids from ``.npy`` files, checked before a model sees them, and arrays written whole or not at all.

B batch, T time.
"""

from __future__ import annotations

import os
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from lab.genesis.released import printable
from lab.terminal import CommandError, note

__all__ = ["allowed", "check_ids", "check_out", "check_plain", "note_length", "read_ids", "write_array"]

MAGIC = b"\x93NUMPY"


def check_plain(path: Path, option: str) -> None:
    """Raises CommandError for what has no end or no size, such as a pipe."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise CommandError(f"{option} {path} is a pipe or a device; a file is wanted")


def read_ids(path: Path) -> np.ndarray:
    """The ids [B, T] of a file, in its own integer type. Raises CommandError, one sentence, and OSError.

    Nothing in the file is run, and no memory is taken for what it only claims to hold.
    """
    check_plain(path, "--ids")
    with path.open("rb") as file:
        start = file.read(len(MAGIC))
    if start != MAGIC:
        raise CommandError(f"--ids {path} is no .npy file; write one with numpy.save, whole numbers [B, T]")
    try:
        # Mapped, not read: a header that promises more than the file holds is refused for it.
        found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OverflowError, SyntaxError, TypeError, TokenError) as exc:
        if "Python objects" in str(exc):
            raise CommandError(
                f"--ids {path} holds pickled Python objects, which are never opened; "
                "whole numbers [B, T] are wanted"
            ) from exc
        raise CommandError(f"--ids {path} is no whole .npy file ({printable(str(exc).rstrip('.'))})") from exc
    if found.dtype.kind not in "iu":
        raise CommandError(f"--ids {path} is of type {found.dtype}; an integer type is wanted, such as int64")
    if found.ndim != 2:
        raise CommandError(
            f"--ids {path} is {list(found.shape)}; two dimensions are wanted, [B, T], "
            "and one sequence is [1, T]"
        )
    if not found.size:
        raise CommandError(
            f"--ids {path} is {list(found.shape)}; at least one sequence of at least one id is wanted"
        )
    return np.array(found)


def allowed(vocab: int) -> str:
    """The end of every sentence about an id that a model has no embedding for."""
    return f"this model has ids 0 to {vocab - 1:,}"


def check_ids(ids_BT: np.ndarray, vocab: int, where: str) -> None:
    """Raises CommandError for the first id that a model of ``vocab`` ids has no embedding for."""
    outside = np.argwhere((ids_BT < 0) | (ids_BT >= vocab))
    if len(outside):
        at = tuple(outside[0].tolist())
        raise CommandError(
            f"{where}: id {ids_BT[at]} at {list(at)} is outside the vocabulary; {allowed(vocab)}"
        )


def check_out(path: Path) -> None:
    """Raises CommandError where ``path`` cannot become a .npy file; to be called before any work is done."""
    if path.is_dir() or not path.parent.is_dir():
        raise CommandError(
            f"--out {path} is a directory or lies in none; give a file in a folder that exists"
        )
    if path.suffix != ".npy":
        raise CommandError(f"--out {path} is written as .npy; give it that ending")


def write_array(path: Path, array: np.ndarray[Any, Any]) -> None:
    """Write ``array`` as .npy, whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("xb") as file:
            np.save(file, array)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def note_length(length: int, trained: int) -> None:
    """Say that ``length`` tokens are more than the model's header says it was trained on, if they are."""
    if length > trained:
        note(
            f"note: up to {length:,} tokens, and the model's header says {trained:,}: beyond any table of "
            "rotations. Here they are computed, so nothing breaks, but no such length was trained"
        )
