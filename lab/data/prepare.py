"""Documents -> token shards and a manifest, in one pass, in memory that does not grow with the input."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lab.data.chatml import encode_batch
from lab.data.corpus import NAME, corpus_origin
from lab.data.manifest import (
    MANIFEST,
    TOKENIZER,
    Input,
    Manifest,
    TokenizerPart,
    digest_of,
    write_manifest,
)
from lab.data.mapped import GRAIN
from lab.data.sources import HUB, Document, How, Position, check_inputs, documents, files_of
from lab.data.tokens import DataError, JsonTokenizer, Tokenizer
from lab.data.writer import SHARD, SplitWriter
from sweeps.files import TEMPORARY, write_bytes

__all__ = ["VALID", "Sofar", "held_out", "prepare", "readable", "total_bytes"]

VALID = 0.05
"""Share of the documents that is held out, unless another is given; of the embedded corpus 0.4 of 10 MB."""

PLAIN = How()

BATCH_BYTES, BATCH_DOCUMENTS = 1 << 22, 1024
"""What is encoded at once: at most this, but at least one document."""

OURS = re.compile(rf"(train|valid)(-mask)?-\d{{5}}\.bin|{re.escape(TEMPORARY)}.*|{re.escape(TOKENIZER)}")


@dataclass(frozen=True)
class Sofar:
    """How far a preparation is: bytes of the input that are read, documents and tokens that are written."""

    read: int
    documents: int
    tokens: int


Tell = Callable[[str], None]
Progress = Callable[[Sofar], None]


def held_out(text: str, share: float) -> bool:
    """Whether a document belongs to ``valid``: by its text alone, so that equal ones are never on both sides.

    What a smaller share holds out, a larger one does as well.
    """
    return int.from_bytes(hashlib.sha256(text.encode()).digest()) < share * 2.0**256


def total_bytes(inputs: Sequence[str]) -> int | None:
    """Bytes of all input files; None where an input is a dataset, whose size is not known."""
    if any(name.startswith(HUB) for name in inputs):
        return None
    return sum(path.stat().st_size for name in inputs for path in files_of(name))


def readable(
    inputs: Sequence[str], how: How, position: Position, allow_bad: int = 0, tell: Tell = lambda _: None
) -> Iterator[tuple[int, Document]]:
    """Number of the input, and document, over all inputs.

    What is no document is told and left out ``allow_bad`` times; the next raises DataError with its place.
    """
    bad = 0
    for number, name in enumerate(inputs):
        for found in documents(name, how, position):
            if isinstance(found, Document):
                yield number, found
                continue
            bad += 1
            if bad > allow_bad:
                left = f", the {bad:,}th of {allow_bad:,} that may be left out" if allow_bad else ""
                raise DataError(
                    f"{found.place}: {found.why}{left}; mend it, or leave out up to N such by --allow-bad N"
                )
            tell(f"{found.place}: {found.why}; left out")


def prepare(
    inputs: Sequence[str],
    out: Path,
    tokenizer: Tokenizer,
    how: How = PLAIN,
    *,
    valid: float = VALID,
    allow_bad: int = 0,
    shard: int = SHARD,
    tell: Tell = lambda _: None,
    progress: Progress = lambda _: None,
) -> Manifest:
    """Write the tokens of ``inputs`` into the folder ``out``: shards, then the manifest.

    inputs: files, folders, ``corpus``, hf:NAME. shard: tokens of one file, a multiple of GRAIN. tell: hears
    of what is left out. What was begun and not finished in ``out`` is begun again; on an error nothing is
    left. Raises DataError, OSError.
    """
    if shard < 1 or shard % GRAIN:
        raise ValueError(f"a shard of {shard} tokens is asked for; a multiple of {GRAIN} is wanted")
    if tokenizer.separator is None:
        raise DataError(f"the tokenizer {tokenizer.name} has no id that ends a document; use another")
    check_inputs(inputs, how)
    part = TokenizerPart(
        name=tokenizer.name, digest=tokenizer.digest, vocab=tokenizer.vocab, separator=tokenizer.separator
    )
    dtype = np.dtype("<u2" if tokenizer.vocab <= 1 << 16 else "<u4")
    with _folder(out):
        if isinstance(tokenizer, JsonTokenizer):
            write_bytes(out / TOKENIZER, tokenizer.content)
        train, held = (
            SplitWriter(out, name, dtype, part.separator, how.chat, shard) for name in ("train", "valid")
        )
        tally = _Tally(list(inputs))
        position = Position()
        try:
            read = readable(inputs, how, position, allow_bad, tally.bad(tell))
            for batch in _batches(tally.filled(read)):
                for document, ids_T, mask_T in _encoded(tokenizer, batch):
                    side = held if held_out(document.text, valid) else train
                    side.add(ids_T, mask_T, len(document.text.encode()))
                progress(Sofar(position.done, train.documents + held.documents, train.tokens + held.tokens))
            if not train.documents:
                raise DataError(
                    f"{_some(inputs)}: nothing to train on; {_counts(held.documents, tally.empty)}"
                )
            splits = [train.end(), held.end()]
        finally:
            train.abandon()
            held.abandon()
        manifest = Manifest(
            tokenizer=part,
            dtype="<u2" if dtype.itemsize == 2 else "<u4",
            chat=how.chat,
            valid_share=valid,
            train=splits[0],
            valid=splits[1],
            inputs=tally.inputs(),
            empty=tally.empty,
            left_out=tally.left_out,
            digest=digest_of(part, [one.sha256 for one in splits]),
        )
        write_manifest(out, manifest)
    return manifest


class _Tally:
    """What is counted of the inputs."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._documents, self._bytes = [0] * len(names), [0] * len(names)
        self.empty = self.left_out = 0

    def bad(self, tell: Tell) -> Tell:
        def told(text: str) -> None:
            self.left_out += 1
            tell(text)

        return told

    def filled(self, read: Iterable[tuple[int, Document]]) -> Iterator[Document]:
        """The documents with text, counted; those without are counted and left out."""
        for number, document in read:
            if not document.text:
                self.empty += 1
                continue
            self._documents[number] += 1
            self._bytes[number] += len(document.text.encode())
            yield document

    def inputs(self) -> tuple[Input, ...]:
        counted = zip(self._names, self._documents, self._bytes, strict=True)
        return tuple(
            Input(name=name, documents=count, bytes=size, origin=corpus_origin() if name == NAME else None)
            for name, count, size in counted
        )


def _batches(found: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in found:
        batch.append(document)
        size += len(document.text)
        if size >= BATCH_BYTES or len(batch) >= BATCH_DOCUMENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _encoded(
    tokenizer: Tokenizer, batch: list[Document]
) -> Iterator[tuple[Document, np.ndarray, np.ndarray | None]]:
    if batch[0].turns is not None:
        talks = [document.turns or () for document in batch]
        for document, (ids_T, mask_T) in zip(batch, encode_batch(tokenizer, talks), strict=True):
            yield document, ids_T, mask_T
    else:
        texts = [document.text for document in batch]
        for document, ids_T in zip(batch, tokenizer.encode_batch(texts), strict=True):
            yield document, ids_T, None


@contextmanager
def _folder(out: Path) -> Iterator[None]:
    """The folder, held against a second preparation, rid of an unfinished one; emptied again on an error."""
    made = not out.exists()
    if out.exists() and not out.is_dir():
        raise DataError(f"--out {out} is a file; give a folder")
    out.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(
                f"--out {out} is being prepared by another process; wait for it, or give another"
            ) from None
        if (out / MANIFEST).exists():
            raise DataError(
                f"--out {out} holds prepared tokens already; give another folder, or delete this one"
            )
        if foreign := sorted(one.name for one in out.iterdir() if not OURS.fullmatch(one.name)):
            raise DataError(
                f"--out {out} holds other files, such as {foreign[0]}; give a new or an empty folder"
            )
        _clear(out)
        try:
            yield
        except BaseException:
            _clear(out)
            if made:
                out.rmdir()
            raise
    finally:
        os.close(descriptor)


def _clear(out: Path) -> None:
    for one in out.iterdir():
        if OURS.fullmatch(one.name):
            one.unlink()


def _some(inputs: Sequence[str]) -> str:
    return inputs[0] if len(inputs) == 1 else f"{inputs[0]} and {len(inputs) - 1:,} more"


def _counts(held: int, empty: int) -> str:
    if held:
        return (
            f"all {held:,} documents are held out by the hash of their text; give more, or a smaller --valid"
        )
    return f"there is no document with text ({empty:,} are empty)"
