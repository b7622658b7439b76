"""What a result was made from: the data's name, what they are and their sha256, in one form everywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lab.data.corpus import NAME, corpus_digest, corpus_source
from lab.data.manifest import read_manifest

__all__ = ["Origin", "origin_of", "origin_of_text", "origins_of"]


@dataclass(frozen=True)
class Origin:
    """name: as given. what: what it stands for, in words. sha256: of the corpus, a manifest or a file."""

    name: str
    what: str
    sha256: str

    @property
    def words(self) -> str:
        """For a page."""
        return f"{self.name}, {self.what}, sha256 {self.sha256}"


def origin_of(data: str) -> Origin:
    """Of prepared tokens: a folder, by its manifest, or the word ``corpus``, by the texts themselves.

    Nothing is prepared. Raises DataError.
    """
    if data == NAME:
        return Origin(data, corpus_source(), corpus_digest())
    manifest = read_manifest(Path(data))
    known = " and ".join(one.origin for one in manifest.inputs if one.origin is not None)
    return Origin(data, f"prepared tokens of {known}" if known else "prepared tokens", manifest.digest)


def origins_of(data: Iterable[str]) -> list[Origin]:
    """Of several, each once."""
    return [origin_of(one) for one in dict.fromkeys(data)]


def origin_of_text(name: str, text: bytes, what: str = "a file") -> Origin:
    """Of a text as it was read."""
    return Origin(name, what, hashlib.sha256(text).hexdigest())
