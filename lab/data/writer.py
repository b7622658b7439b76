"""Tokens to files of bounded size, each there whole or not at all. T tokens."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import IO

import numpy as np

from lab.data.manifest import Shard, Split, SplitName
from sweeps.files import TEMPORARY

__all__ = ["SHARD", "SplitWriter"]

SHARD = 1 << 27
"""Tokens of a shard: 256 MiB of uint16."""


class _Shards:
    """An endless array cut into files of ``size`` items, which are hashed as they are written."""

    def __init__(self, folder: Path, stem: str, dtype: np.dtype, size: int) -> None:
        self._folder, self._stem, self._dtype, self._size = folder, stem, dtype, size
        self._file: IO[bytes] | None = None
        self._items, self._one = 0, hashlib.sha256()
        self._all = hashlib.sha256()
        self.done: list[Shard] = []

    @property
    def sha256(self) -> str:
        """Of everything so far."""
        return self._all.hexdigest()

    @property
    def _temporary(self) -> Path:
        return self._folder / f"{TEMPORARY}{self._stem}"

    def add(self, items: np.ndarray) -> None:
        while len(items):
            if self._file is None:
                self._file, self._items, self._one = self._temporary.open("xb"), 0, hashlib.sha256()
            part, items = np.split(items, [self._size - self._items])
            content = part.astype(self._dtype).tobytes()
            self._file.write(content)
            self._one.update(content)
            self._all.update(content)
            self._items += len(part)
            if self._items == self._size:
                self.end()

    def end(self) -> None:
        """Give the shard at work its name."""
        if self._file is None:
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None
        name = f"{self._stem}-{len(self.done):05d}.bin"
        self._temporary.replace(self._folder / name)
        self.done.append(Shard(file=name, tokens=self._items, sha256=self._one.hexdigest()))

    def abandon(self) -> None:
        if self._file is not None:
            self._file.close()
            self._temporary.unlink()


class SplitWriter:
    """The stream of one split, its mask beside it where one is kept, and what is counted of it."""

    def __init__(
        self, folder: Path, name: SplitName, dtype: np.dtype, separator: int, masked: bool, size: int
    ) -> None:
        self._tokens = _Shards(folder, name, dtype, size)
        self._masks = _Shards(folder, f"{name}-mask", np.dtype(np.uint8), size) if masked else None
        self._separator = separator
        self.documents = self.tokens = self.bytes = self.learned = 0

    def add(self, ids_T: np.ndarray, mask_T: np.ndarray | None, size: int) -> None:
        """A document of ``size`` bytes of text, and the separator after it, which never counts in a mask."""
        self._tokens.add(np.append(ids_T, self._separator))
        self.documents += 1
        self.tokens += len(ids_T) + 1
        self.bytes += size
        if self._masks is None or mask_T is None:
            self.learned += len(ids_T) + 1
        else:
            self._masks.add(np.append(mask_T, False))
            self.learned += int(mask_T.sum())

    def end(self) -> Split:
        """Finish the last shard, and say what there is."""
        self._tokens.end()
        if self._masks is not None:
            self._masks.end()
        return Split(
            documents=self.documents,
            tokens=self.tokens,
            bytes=self.bytes,
            learned=self.learned,
            sha256=self.sha256,
            shards=tuple(self._tokens.done),
            masks=tuple(self._masks.done) if self._masks else (),
        )

    @property
    def sha256(self) -> str:
        """Of the tokens, and of the mask where there is one."""
        if self._masks is None:
            return self._tokens.sha256
        return hashlib.sha256(f"{self._tokens.sha256}\n{self._masks.sha256}".encode()).hexdigest()

    def abandon(self) -> None:
        """Close and delete what is not finished."""
        self._tokens.abandon()
        if self._masks is not None:
            self._masks.abandon()
