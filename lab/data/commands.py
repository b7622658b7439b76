"""``lab data prepare``, ``lab data tokenizer`` and ``lab data show``."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analysis.counts import short
from lab.progress import EVERY, Progress, duration
from lab.terminal import CommandError, JsonOption, emit, note, plural, say, table

if TYPE_CHECKING:
    from lab.data.manifest import SplitName
    from lab.data.prepare import Sofar
    from lab.data.shards import Tokens
    from lab.data.sources import How, Position

__all__ = ["prepare", "show", "tokenizer"]

InputsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="Text, .jsonl or .parquet files (also .gz, .bz2, .xz), folders of them, corpus, or hf:NAME.",
    ),
]
FieldOption = Annotated[
    str | None,
    typer.Option(
        "--field", metavar="KEY", help="What holds a document; default: text, with --chat messages."
    ),
]
ChatOption = Annotated[
    bool, typer.Option("--chat", help="Documents are conversations: messages with role and content.")
]
BoundaryOption = Annotated[
    str | None,
    typer.Option(
        "--boundary",
        metavar="LINE",
        help="In a text file, the line that ends a document ('' for a blank one); without it a file is one.",
    ),
]
ValidOption = Annotated[
    float,
    typer.Option("--valid", metavar="SHARE", help="Documents that are held out, by a hash of their text."),
]
BadOption = Annotated[
    int,
    typer.Option(
        "--allow-bad", metavar="N", min=0, help="Leave out up to N that cannot be read; each is told."
    ),
]


def prepare(
    inputs: InputsArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="A folder that is new or empty.")],
    tokenizer: Annotated[
        str, typer.Option("--tokenizer", metavar="NAME", help="bytes, or the path of a tokenizer.json.")
    ] = "bytes",
    field: FieldOption = None,
    chat: ChatOption = False,
    boundary: BoundaryOption = None,
    valid: ValidOption = 0.05,
    allow_bad: BadOption = 0,
    json: JsonOption = False,
) -> None:
    """Turn text into token shards that training reads: each document followed by a separator.

    It reads its input once and holds little of it. Equal documents are never on both sides of --valid. With
    --chat each conversation becomes ChatML, and a mask beside the tokens says what counts: what the assistant
    says. The folder is whole once it has a manifest.json; what was cut short is begun again.

    Examples:
      lab data prepare corpus --out data/corpus
      lab data prepare web.jsonl books/ --out data/text --tokenizer tokenizer.json --valid 0.005
      lab data prepare stories.txt --boundary "<|endoftext|>" --out data/stories
      lab data prepare talks.jsonl --chat --tokenizer tokenizer.json --out data/talks
      lab data prepare hf:HuggingFaceFW/fineweb-edu:sample-10BT --out data/web --tokenizer tokenizer.json
    """
    _check_share(valid)
    from lab.data.prepare import prepare as write
    from lab.data.shards import open_tokens
    from lab.data.tokens import open_tokenizer

    how = _how(field, chat, boundary)
    opened = open_tokenizer(tokenizer)
    with _Told(inputs) as told:
        write(inputs, out, opened, how, valid=valid, allow_bad=allow_bad, tell=told.line, progress=told.step)
    tokens = open_tokens(f"{out}/")
    if not tokens.documents("valid") and valid:
        all_of_them = plural(tokens.documents("train"), "document")
        note(
            f"note: none of {all_of_them} is held out: the hash of their text decides, and so few may all be "
            "on one side; give more or smaller documents, or a larger --valid"
        )
    emit(_document(tokens)) if json else say(_page(tokens))


def tokenizer(
    inputs: InputsArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The tokenizer.json to write.")],
    vocab: Annotated[
        int, typer.Option("--vocab", metavar="N", help="Ids, 3 marks and 256 bytes included.")
    ] = 4096,
    field: FieldOption = None,
    chat: ChatOption = False,
    boundary: BoundaryOption = None,
    valid: ValidOption = 0.05,
    allow_bad: BadOption = 0,
    json: JsonOption = False,
) -> None:
    """Train a byte-level BPE on text and write it as a tokenizer.json.

    It sees what lab data prepare with the same --valid trains on, and nothing that is held out. Its first
    ids are the marks <|endoftext|>, <|im_start|> and <|im_end|>.

    Examples:
      lab data tokenizer corpus --vocab 4096 --out tokenizer.json
      lab data tokenizer web.jsonl books/ --vocab 32768 --out tokenizer.json --valid 0.005
    """
    _check_share(valid)
    from lab.data.bpe import train_bpe
    from lab.data.prepare import held_out, readable
    from lab.data.sources import Position, check_inputs
    from lab.data.tokens import JsonTokenizer
    from sweeps.files import write_text

    if out.is_dir() or out.exists():
        raise CommandError(f"--out {out} is there already; give a new file")
    if not out.parent.is_dir():
        raise CommandError(f"--out {out} lies in no folder that exists; make it, or give another")
    how, position = _how(field, chat, boundary), Position()
    check_inputs(inputs, how)
    with _Told(inputs) as told:
        read = readable(inputs, how, position, allow_bad, told.line)
        texts = (one.text for _, one in read if one.text and not held_out(one.text, valid))
        trained = train_bpe(told.texts(texts, position), vocab)
    write_text(out, trained)
    made = JsonTokenizer(str(out), trained.encode())
    if made.vocab < vocab:
        note(f"note: the text gives no more than {made.vocab:,} ids, fewer than --vocab {vocab:,}")
    about = {"file": str(out), "vocab": made.vocab, "sha256": made.digest, "documents": told.documents}
    if json:
        emit(about)
    else:
        say(f"{out}: {made.vocab:,} ids from {plural(told.documents, 'document')}, sha256 {made.digest[:16]}")


def show(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A folder of lab data prepare, or corpus.")],
    documents: Annotated[
        int, typer.Option("-n", min=0, help="Documents of which the beginning is shown.")
    ] = 2,
    split: Annotated[str, typer.Option("--split", help="Of which split: train or valid.")] = "train",
    check: Annotated[bool, typer.Option("--check", help="Read all of it and compare the hashes.")] = False,
    json: JsonOption = False,
) -> None:
    """Show what prepared tokens hold: counts, tokenizer, hashes, and how the first documents begin.

    Of a conversation, what counts for the loss stands between [[ and ]].

    Examples:
      lab data show corpus
      lab data show data/talks -n 5 --split valid
      lab data show data/text --check --json
    """
    chosen = _split(split)
    from lab.data.shards import open_tokens

    tokens = open_tokens(folder)
    if check:
        tokens.check()
    shown = [_beginning(tokens, chosen, *cut) for cut in _cuts(tokens, chosen, documents)]
    if json:
        emit({**_document(tokens), "checked": check, "beginnings": shown})
        return
    say(_page(tokens))
    if check:
        say("all shards are what was written")
    for number, text in enumerate(shown, start=1):
        say(f"\n{chosen} {number}: {text}")


class _Told:
    """Progress on stderr, and the lines about what is left out: a bar where sizes are known, else lines."""

    def __init__(self, inputs: list[str]) -> None:
        from lab.data.prepare import total_bytes

        self._total = total_bytes(inputs)
        self._began = self._said = time.monotonic()
        self._progress = Progress(unit="MB")
        self._waits = True
        self.documents = 0

    def __enter__(self) -> _Told:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.__exit__()

    def line(self, text: str) -> None:
        self._progress.line(text)

    def step(self, sofar: Sofar) -> None:
        """Nothing in the first two seconds, which most inputs take."""
        self.documents = sofar.documents
        now = time.monotonic()
        passed = now - self._began
        if passed < 2:
            return
        words = plural(sofar.documents, "document")
        words += f", {short(sofar.tokens)} tokens" if sofar.tokens else ""
        if self._total is None:
            if now - self._said >= EVERY:
                self._said = now
                note(f"{words}, {duration(passed)}")
            return
        if self._waits:
            self._waits = False
            self._progress.start(f"reading {self._total / 1e6:.1f} MB", 0, self._total // 10**6)
        left = passed * (self._total - sofar.read) / sofar.read if sofar.read else None
        rate = f"{sofar.read / passed / 1e6:.1f} MB/s"
        self._progress.step(f"{words}, {rate}", sofar.read // 10**6, self._total // 10**6, left)

    def texts(self, texts: Iterable[str], position: Position) -> Iterator[str]:
        """``texts`` as they are, counted as they pass."""
        from lab.data.prepare import Sofar

        for count, text in enumerate(texts, start=1):
            yield text
            self.step(Sofar(position.done, count, 0))


def _how(field: str | None, chat: bool, boundary: str | None) -> How:
    from lab.data.sources import How

    if boundary is not None and ("\n" in boundary or "\r" in boundary):
        raise CommandError(f"--boundary is {boundary!r}; one line is wanted, without its end")
    return How(field=field or ("messages" if chat else "text"), chat=chat, boundary=boundary)


def _split(name: str) -> SplitName:
    if name != "train" and name != "valid":
        raise CommandError(f"--split is {name!r}; train or valid is wanted")
    return name


def _check_share(valid: float) -> None:
    if not 0 <= valid < 1:
        raise CommandError(f"--valid is {valid:g}; it must be at least 0 and below 1, such as 0.05")


def _document(tokens: Tokens) -> dict[str, Any]:
    return {"folder": str(tokens.folder), **tokens.manifest.model_dump(mode="json")}


def _page(tokens: Tokens) -> str:
    manifest = tokens.manifest
    rows = []
    for name, split in (("train", manifest.train), ("valid", manifest.valid)):
        ratio = f"{split.bytes / split.tokens:.3f}" if split.tokens else "-"
        counts = (split.documents, split.tokens, split.bytes)
        row = (name, *(f"{count:,}" for count in counts), ratio, str(len(split.shards)))
        rows.append((*row, f"{split.learned:,}") if manifest.chat else row)
    header = (
        "",
        "documents",
        "tokens",
        "bytes",
        "bytes/token",
        "shards",
        *(["learned"] if manifest.chat else []),
    )
    kind = "conversations" if manifest.chat else "text"
    lines = [
        f"{tokens.folder}: {kind}, tokenizer {tokens.tokenizer_name}, {tokens.vocab:,} ids, "
        f"{manifest.valid_share:g} held out",
        table(header, rows),
        *(f"from {one.name}{f', {one.origin}' if one.origin else ''}" for one in manifest.inputs),
    ]
    if manifest.empty or manifest.left_out:
        lines.append(f"left out: {manifest.empty:,} empty, {manifest.left_out:,} that could not be read")
    return "\n".join([*lines, f"sha256 {tokens.digest}"])


LETTERS = 300
"""Tokens of a document that ``lab data show`` decodes."""


def _cuts(tokens: Tokens, split: SplitName, count: int) -> list[tuple[int, int]]:
    """Begin and end of the first documents, none longer than what is shown."""
    import numpy as np

    stream_T, at, found = tokens.tokens(split), 0, []
    for _ in range(min(count, tokens.documents(split))):
        # A document may be long: its end is looked for piece by piece.
        end = at
        while not len(ends := np.flatnonzero(stream_T[end : end + 65_536] == tokens.separator)):
            end += 65_536
        end += int(ends[0])
        found.append((at, min(end, at + LETTERS)))
        at = end + 1
    return found


def _beginning(tokens: Tokens, split: SplitName, begin: int, end: int) -> str:
    decode: Callable[[Any], str] = tokens.tokenizer.decode
    ids_T, mask = tokens.tokens(split)[begin:end].tolist(), tokens.mask(split)
    if mask is None:
        return decode(ids_T)
    runs = itertools.groupby(zip(ids_T, mask[begin:end].tolist(), strict=True), key=lambda pair: pair[1])
    texts = ((counts, decode([one for one, _ in run])) for counts, run in runs)
    return "".join(f"[[{text}]]" if counts else text for counts, text in texts)
