"""Several files as one array: mapped one behind another into one stretch of addresses, nothing copied."""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np

__all__ = ["GRAIN", "map_files"]

GRAIN = 1 << 16
"""Bytes that every file but the last has to be a multiple of: whole pages on every machine in use."""

_FIXED = 0x10
"""MAP_FIXED, which Python's mmap module does not name: put the file exactly here."""

_FAILED = ctypes.c_void_p(-1).value


def map_files(paths: Sequence[Path], dtype: np.dtype) -> np.ndarray:
    """The contents of ``paths`` in a row, read-only, as one array [T] of ``dtype``.

    numpy's memmap takes one file. Here addresses for all are reserved first, and each file is put over its
    part. Raises OSError, and ValueError where a file but the last is no multiple of GRAIN.
    """
    sizes = [path.stat().st_size for path in paths]
    total = sum(sizes)
    if any(size % GRAIN for size in sizes[:-1]):
        raise ValueError(f"files to be mapped in a row must be multiples of {GRAIN} bytes; they are {sizes}")
    if not total:
        return np.empty(0, dtype)
    start = _map(None, total, mmap.PROT_READ, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1)
    # ctypes knows no owner for these addresses: they are given back with the buffer that stands for them.
    buffer = (ctypes.c_char * total).from_address(start)
    weakref.finalize(buffer, _LIBC.munmap, start, total)
    at = start
    for path, size in zip(paths, sizes, strict=True):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            _map(at, size, mmap.PROT_READ, mmap.MAP_SHARED | _FIXED, descriptor)
        finally:
            os.close(descriptor)
        at += size
    array = np.frombuffer(memoryview(buffer), dtype)
    array.flags.writeable = False
    return array


def _map(at: int | None, size: int, protection: int, flags: int, descriptor: int) -> int:
    found = _LIBC.mmap(at, size, protection, flags, descriptor, 0)
    if found == _FAILED:
        code = ctypes.get_errno()
        raise OSError(code, f"{os.strerror(code)}, mapping {size:,} bytes")
    return found


_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
