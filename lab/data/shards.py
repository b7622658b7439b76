"""Prepared tokens, opened: each split one long array over all shards, mapped and not read. T tokens."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from lab.data.corpus import NAME, corpus_digest
from lab.data.manifest import TOKENIZER, Manifest, Shard, SplitName, read_manifest
from lab.data.mapped import map_files
from lab.data.prepare import prepare
from lab.data.tokens import Bytes, DataError, Tokenizer, open_tokenizer

__all__ = ["Tokens", "open_tokens"]


@dataclass(frozen=True)
class Tokens:
    """A folder of prepared tokens; ``open_tokens`` makes it."""

    folder: Path
    manifest: Manifest

    @property
    def tokenizer_name(self) -> str:
        """As it was named when the folder was prepared."""
        return self.manifest.tokenizer.name

    @property
    def tokenizer_digest(self) -> str:
        return self.manifest.tokenizer.digest

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer itself: ``bytes``, or the tokenizer.json that is kept in the folder."""
        name = self.tokenizer_name
        return open_tokenizer(name if name == Bytes.name else str(self.folder / TOKENIZER))

    @property
    def vocab(self) -> int:
        return self.manifest.tokenizer.vocab

    @property
    def separator(self) -> int:
        """The id after each document, and nowhere else."""
        return self.manifest.tokenizer.separator

    @property
    def digest(self) -> str:
        """sha256 of all content: tokenizer, tokens and masks of both splits."""
        return self.manifest.digest

    def tokens(self, split: SplitName) -> np.ndarray:
        """[T] uint16 or uint32, read-only: all documents, each followed by the separator."""
        return self._arrays[split]

    def mask(self, split: SplitName) -> np.ndarray | None:
        """[T] uint8, 1 where a token counts as a target; None where all do, as in plain text."""
        return self._masks[split] if self.manifest.chat else None

    def bytes(self, split: SplitName) -> int:
        """UTF-8 bytes of the text, conversations without their marks."""
        return self.manifest.split(split).bytes

    def documents(self, split: SplitName) -> int:
        """How many there are."""
        return self.manifest.split(split).documents

    def check(self) -> None:
        """Read all shards and compare them with the manifest. Raises DataError for the first that differs."""
        for split in (self.manifest.train, self.manifest.valid):
            for shard in (*split.shards, *split.masks):
                with (self.folder / shard.file).open("rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
                if found != shard.sha256:
                    raise DataError(
                        f"{self.folder / shard.file} is not what was written (sha256 {found[:16]}..., "
                        f"{shard.sha256[:16]}... in the manifest); prepare the folder again"
                    )

    @cached_property
    def _arrays(self) -> dict[SplitName, np.ndarray]:
        dtype = np.dtype(self.manifest.dtype)
        return {
            "train": self._map(self.manifest.train.shards, dtype),
            "valid": self._map(self.manifest.valid.shards, dtype),
        }

    @cached_property
    def _masks(self) -> dict[SplitName, np.ndarray]:
        dtype = np.dtype(np.uint8)
        return {
            "train": self._map(self.manifest.train.masks, dtype),
            "valid": self._map(self.manifest.valid.masks, dtype),
        }

    def _map(self, shards: tuple[Shard, ...], dtype: np.dtype) -> np.ndarray:
        return map_files([self.folder / shard.file for shard in shards], dtype)


def open_tokens(data: str) -> Tokens:
    """Prepared tokens of a folder, or of the word ``corpus``, which are prepared on first use.

    A folder of that name is ./corpus. Raises DataError where files are missing or of another size.
    """
    folder = _corpus() if data == NAME else Path(data)
    tokens = Tokens(folder, read_manifest(folder))
    manifest = tokens.manifest
    size = np.dtype(manifest.dtype).itemsize
    wanted = {
        shard.file: shard.tokens * size for one in (manifest.train, manifest.valid) for shard in one.shards
    }
    wanted |= {shard.file: shard.tokens for one in (manifest.train, manifest.valid) for shard in one.masks}
    for name in manifest.written():
        path = folder / name
        if not path.is_file():
            raise DataError(f"{path} is missing; prepare the folder again")
        if name in wanted and path.stat().st_size != wanted[name]:
            raise DataError(
                f"{path} has {path.stat().st_size:,} bytes and not the {wanted[name]:,} of the manifest; "
                "prepare the folder again"
            )
    return tokens


def _corpus() -> Path:
    """The folder of the corpus in the user's cache; several processes may ask at once."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "hybrid-architecture-lab")
    folder = base / f"{NAME}-{platform.python_version()}-{corpus_digest()[:16]}"
    if folder.exists():
        return folder
    base.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f"{NAME}-", dir=base))
    try:
        prepare([NAME], made, Bytes())
        made.rename(folder)
    except OSError:
        if not folder.exists():  # else another process was first; both have the same
            raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder
