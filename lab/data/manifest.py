"""What a folder of prepared tokens says of itself: ``manifest.json``; where it is, all is whole."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lab.data.tokens import DataError
from sweeps.files import ResultsError, text_of, write_text

__all__ = [
    "MANIFEST",
    "SPLITS",
    "TOKENIZER",
    "Input",
    "Manifest",
    "Shard",
    "Split",
    "SplitName",
    "TokenizerPart",
    "digest_of",
    "read_manifest",
    "write_manifest",
]

MANIFEST, TOKENIZER = "manifest.json", "tokenizer.json"
SPLITS: tuple[SplitName, ...] = ("train", "valid")
SplitName = Literal["train", "valid"]

Count = Annotated[int, Field(ge=0)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Shard(_Part):
    """A file, its tokens and the sha256 of its bytes."""

    file: Annotated[str, Field(pattern=r"^(train|valid)(-mask)?-\d{5}\.bin$")]
    tokens: Count
    sha256: Digest


class Split(_Part):
    """One stream of tokens, over all its shards.

    bytes: UTF-8 bytes of the text. learned: tokens that count for the loss. masks: beside the shards,
    uint8, one where a token counts; empty where all do.
    """

    documents: Count
    tokens: Count
    bytes: Count
    learned: Count
    sha256: Digest
    shards: Annotated[tuple[Shard, ...], Field(strict=False)]
    masks: Annotated[tuple[Shard, ...], Field(strict=False)] = ()


class TokenizerPart(_Part):
    """The tokenizer; a tokenizer.json is kept beside the shards."""

    name: str
    digest: Digest
    vocab: Annotated[int, Field(ge=2, le=2**32)]
    separator: Count


class Input(_Part):
    """What was read: its name as it was given, its documents, and for the corpus what it was taken from."""

    name: str
    documents: Count
    bytes: Count
    origin: str | None = None


class Manifest(_Part):
    """valid_share: a document is held out where its sha256, as a fraction of 2^256, is below this."""

    kind: Literal["prepared tokens of the hybrid-architecture lab"] = (
        "prepared tokens of the hybrid-architecture lab"
    )
    version: Literal[1] = 1
    tokenizer: TokenizerPart
    dtype: Literal["<u2", "<u4"]
    chat: bool
    valid_share: Annotated[float, Field(ge=0, lt=1)]
    train: Split
    valid: Split
    inputs: Annotated[tuple[Input, ...], Field(strict=False)]
    empty: Count
    left_out: Count
    digest: Digest

    def split(self, name: SplitName) -> Split:
        return self.train if name == "train" else self.valid

    def written(self) -> list[str]:
        """The names of all files beside the manifest."""
        shards = [
            shard.file for name in SPLITS for shard in (*self.split(name).shards, *self.split(name).masks)
        ]
        return shards if self.tokenizer.name == "bytes" else [*shards, TOKENIZER]


def digest_of(tokenizer: TokenizerPart, splits: list[str]) -> str:
    """sha256 of all content: the tokenizer, and of each split the sha256 of its tokens and mask.

    It hangs on no name of a file and not on how large the shards are.
    """
    return hashlib.sha256("\n".join([tokenizer.digest, *splits]).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Raises DataError, one sentence, where there is none or it is not one of ours."""
    path = folder / MANIFEST
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder} of prepared tokens; lab data prepare makes one")
    if not path.exists():
        raise DataError(
            f"{folder} has no {MANIFEST}, so it holds no prepared tokens or is not finished; "
            "run lab data prepare again with the same --out"
        )
    try:
        return Manifest.model_validate_json(text_of(path))
    except ResultsError as exc:
        raise DataError(str(exc)) from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{path}: {where or 'it'} is not as lab data prepare writes it ({first['msg']}); "
            "prepare the folder again"
        ) from exc


def write_manifest(folder: Path, manifest: Manifest) -> None:
    write_text(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
