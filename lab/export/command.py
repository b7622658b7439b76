"""``lab export``: a trained model as one file, whole or in few bits, or as a folder for transformers."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.evaluate.options import (
    DataOption,
    KernelOption,
    LimitOption,
    StrideOption,
    TextOption,
    TokenizerOption,
    WindowOption,
)
from lab.generate import ModelArgument, model_file
from lab.terminal import BlocksOption, CommandError, JsonOption, emit, known_blocks, say, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blocks.model import LanguageModel
    from lab.data.origin import Origin
    from lab.evaluate.bits import Windows
    from lab.evaluate.sources import Source
    from lab.export.budget import Budget
    from lab.model.form import Spec
    from lab.model.packed import Kept, Part

__all__ = ["export"]


def export(
    model: ModelArgument,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file to write; default: beside the model.")
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Hidden matrices, too, in 8 bits, and zstd.")] = False,
    int6: Annotated[bool, typer.Option("--int6", help="Hidden matrices in 6 bits, and zstd.")] = False,
    finest: Annotated[
        float,
        typer.Option(
            metavar="STEP", help="No row of a hidden matrix in shorter steps than this: smaller and coarser."
        ),
    ] = 0.0,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="BYTES", help="What weights and code may weigh together: 16MB; refused if more."
        ),
    ] = None,
    hf: Annotated[
        Path | None,
        typer.Option("--hf", metavar="FOLDER", help="A folder that transformers loads, in place of a file."),
    ] = None,
    text: TextOption = None,
    data: DataOption = None,
    tokenizer: TokenizerOption = None,
    limit: LimitOption = None,
    window: WindowOption = None,
    stride: StrideOption = None,
    score: Annotated[
        bool, typer.Option("--score/--no-score", help="Bits per byte before and after rounding.")
    ] = True,
    kernel: KernelOption = "auto",
    blocks: BlocksOption = None,
    json: JsonOption = False,
) -> None:
    """Write a trained model as one file that lab eval, generate and chat read, its specification inside.

    Rounded, it is read back from the file and scored beside the original, on what the specification held out
    unless --text or --data is given. The embedding stays in 8 bits, small tensors in 16.

    Examples:
      lab export models/winner
      lab export models/winner --int6 --budget 16MB --stride 64
      lab export models/winner --int8 --text book.txt --limit 100000 --json
      lab export models/winner --hf exports/winner
    """
    path, part = model_file(model), _part(int8, int6, finest)
    _check(part, out, budget, hf, (text, data, limit, window, stride), score)

    from lab.model.spec import read_model, tokenizer_of, trained_on
    from sweeps.run import chosen_kernel

    known = known_blocks(blocks)
    made, spec = read_model(path, chosen_kernel(kernel), known)  # pyright: ignore[reportArgumentType]
    if hf is not None:
        from lab.export.huggingface import write_folder

        talks, learnt = _talks(spec), trained_on(path)
        files = write_folder(made, spec, tokenizer_of(spec, tokenizer), hf, learnt, talks is True)
        document = {"folder": str(hf), "files": files, "learnt_talks": talks}
        document["trained_on"] = [asdict(one) for one in learnt]
        emit(document) if json else say(_folder(hf, files, talks))
        return
    target = out or path.parent / f"{spec.name}.{_ending(part)}"
    if target.exists() or not target.parent.is_dir():
        what = "is there already" if target.exists() else "lies in no folder that exists"
        raise CommandError(f"{target} {what}; give another --out FILE")
    sources: list[Source] = []
    if part is not None and score:
        from lab.evaluate.sources import source_of

        sources = source_of(spec, tokenizer_of(spec, tokenizer), text, data)
    learnt = trained_on(path)
    kept, counted = _write((made, spec, learnt), part, target, budget)
    document: dict[str, Any] = {"file": str(target), "bytes": target.stat().st_size, "name": spec.name}
    document["trained_on"] = [asdict(one) for one in learnt]
    document["tensors"] = [asdict(one) for one in kept]
    document["budget"] = None if counted is None else {**asdict(counted), "left": counted.left}
    if sources:
        back, _ = read_model(target, chosen_kernel(kernel), known)  # pyright: ignore[reportArgumentType]
        how = _windows(spec, window, stride)
        document["texts"] = [_scored((made, back), source, how, limit) for source in sources]
    emit(document) if json else say(_page(document))


def _talks(spec: Spec) -> bool | None:
    """Whether the model learnt from conversations; None where its data, which say so, are gone."""
    from lab.chat import learnt_talks
    from lab.data.tokens import DataError

    try:
        return learnt_talks(spec)
    except DataError:
        return None


def _part(int8: bool, int6: bool, finest: float) -> Part | None:
    """How the tensors are kept; None for whole."""
    from lab.model.packed import Part

    if int8 and int6:
        raise CommandError("--int8 and --int6 are both given; hidden matrices have one kind of bits")
    if not 0 <= finest <= 1:
        raise CommandError(f"--finest is {finest:g}; a step lies between 0, each row's own, and 1")
    if finest and not (int8 or int6):
        raise CommandError("--finest belongs to --int8 or --int6; a whole file has no steps")
    return Part(6 if int6 else 8, finest) if int8 or int6 else None


def _check(
    part: Part | None,
    out: Path | None,
    budget: str | None,
    hf: Path | None,
    scoring: tuple[object, ...],
    score: bool,
) -> None:
    """Refuse options that do not go together. Raises CommandError."""
    if hf is not None and (part is not None or out is not None or budget is not None):
        raise CommandError(
            "--hf writes a folder with whole weights; --out, --int8, --int6 and --budget belong to a file"
        )
    given = any(one is not None for one in scoring)
    if given and (part is None or not score):
        raise CommandError(
            "--text, --data, --limit, --window and --stride say what is scored before and after rounding, "
            "and nothing is; add --int8 or --int6, without --no-score"
        )


def _ending(part: Part | None) -> str:
    return "safetensors" if part is None else f"int{part.bits}.safetensors.zst"


def _write(
    made: tuple[LanguageModel, Spec, Sequence[Origin]], part: Part | None, target: Path, budget: str | None
) -> tuple[list[Kept], Budget | None]:
    """The file, whole or not at all, and within its budget or not at all.

    made: the model, its specification, and the data that it was trained on.
    """
    from lab.export.budget import Budget, bytes_of, code_of
    from lab.model.packed import pack
    from lab.model.spec import header_of, write_model
    from sweeps.files import TEMPORARY

    model, spec, data = made
    allowed = None if budget is None else bytes_of(budget)
    partial = target.with_name(f"{TEMPORARY}{target.name}")
    try:
        if part is None:
            kept = []
            write_model(model, spec, partial, data)
        else:
            packed, kept = pack(model, header_of(spec, data), part)
            partial.write_bytes(packed)
        counted = None
        if allowed is not None:
            counted = Budget(allowed, partial.stat().st_size, sum(code_of().values()))
            counted.check()
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return kept, counted


def _windows(spec: Spec, window: int | None, stride: int | None) -> Windows:
    from lab.evaluate.bits import Windows

    size = window or spec.data.length
    return Windows(size, max(1, size // 2) if stride is None else stride)


def _scored(
    models: tuple[LanguageModel, LanguageModel], source: Source, how: Windows, limit: int | None
) -> dict[str, Any]:
    """Bits per byte of one text by the model as it was, and as it is read from the file."""
    from lab.evaluate.measure import plain

    before, after = (plain(one, source, how, limit) for one in models)
    both = {"before": before["bits_per_byte"], "after": after["bits_per_byte"]}
    return {key: before[key] for key in ("text", "data", "bytes", "tokens", "how")} | both


def _folder(folder: Path, files: Sequence[str], talks: bool | None) -> str:
    lines = [
        f"{folder}: {', '.join(files)}",
        "Where the lab is importable: "
        f'AutoModelForCausalLM.from_pretrained("{folder}", trust_remote_code=True)',
    ]
    if "tokenizer.json" not in files:
        lines.append("No tokenizer: ids are the bytes of UTF-8, and 256 begins and ends a document.")
    if talks is None:
        lines.append(
            "Whether it learnt from conversations stands with its data, which are gone: no chat template is "
            "written, and the end of a turn ends no text."
        )
    return "\n".join(lines)


def _page(found: dict[str, Any]) -> str:
    lines = [f"{found['file']}: {found['bytes']:,} bytes"]
    if found["tensors"]:
        rows = [
            (one["kind"], one["tensors"], f"{one['numbers']:,}", one["bits"], f"{100 * one['error']:.2f} %")
            for one in found["tensors"]
        ]
        lines.append(table(("", "tensors", "numbers", "bits", "RMS error"), rows))
    if (one := found["budget"]) is not None:
        lines.append(
            f"Of {one['allowed']:,} bytes the weights take {one['weights']:,} and the code that trains and "
            f"evaluates {one['code']:,}: {one['left']:,} left."
        )
    if found.get("texts"):
        header = ("bits per byte", "before", "after", "change", "windows", "stride")
        rows = [
            (
                one["text"],
                f"{one['before']:.4f}",
                f"{one['after']:.4f}",
                f"{one['after'] - one['before']:+.4f}",
                f"{one['how']['window']:,}",
                f"{one['how']['stride']:,}",
            )
            for one in found["texts"]
        ]
        lines.append(table(header, rows))
        from lab.data.origin import Origin

        lines.append("\n".join(f"data: {Origin(**one['data']).words}" for one in found["texts"]))
    return "\n\n".join(lines)
