"""``lab genesis audit``: what a released file really contains, and which documented features that leaves."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.genesis.commands import ConfigOption, TokenizerOption, WeightsArgument, config_named
from lab.terminal import CommandError, JsonOption, emit, note, percent, plural, say, table

if TYPE_CHECKING:
    from torch import Tensor

    from lab.genesis.weights import Weights

__all__ = ["audit"]


def audit(
    weights: WeightsArgument,
    config: ConfigOption = None,
    ids: Annotated[
        Path | None,
        typer.Option("--ids", metavar="IDS.npy", help="Token ids [B, T] to compare on; drawn if absent."),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option("--text", metavar="FILE", help="Text to compare on instead; needs --tokenizer."),
    ] = None,
    tokenizer: TokenizerOption = None,
    json: JsonOption = False,
) -> None:
    """Say what a file really contains: what was trained, what that leaves, and what shipped code makes of it.

    Three answers: which tensors are still at their start, dead or copied; which documented features the file
    can exercise; and, documented against shipped, what each difference does to the logits of a given text.

    Examples:
      lab genesis audit genesis_152m_instruct.safetensors
      lab genesis audit genesis_152m_instruct.safetensors --ids text.npy --json
      lab genesis audit genesis_152m_instruct.safetensors --text page.txt --tokenizer tokenizer.json
    """
    named = config_named(config)
    from lab.genesis.weights import read

    if text is not None and ids is not None:
        raise CommandError("--ids and --text are both given; choose one")
    if text is None and tokenizer is not None:
        raise CommandError("--tokenizer is given without --text; there is nothing to read with it")
    held = read(weights, named)
    vocab = held.released.vocab_size
    ids_BT, source = _ids(ids, vocab) if text is None else _text(text, tokenizer, vocab)
    document = account(held, ids_BT)
    document = {"file": str(weights), **document, "ids": {"from": source, "shape": list(ids_BT.shape)}}
    if json:
        emit(document)
    else:
        say(_page(document))


def _ids(path: Path | None, vocab: int) -> tuple[Tensor, str]:
    """The ids and where they are from. Raises CommandError, OSError."""
    import torch

    from lab.genesis.effects import POSITIONS, drawn_ids
    from lab.genesis.ids import check_ids, read_ids

    if path is None:
        return drawn_ids(vocab), "drawn uniformly, seed 0"
    found_BT = read_ids(path)
    if found_BT.size > POSITIONS:
        raise CommandError(
            f"--ids {path} is {list(found_BT.shape)}, {found_BT.size:,} positions; the comparison takes at "
            f"most {POSITIONS:,}, so give fewer or shorter sequences"
        )
    check_ids(found_BT, vocab, f"--ids {path}")
    return torch.from_numpy(found_BT.astype("int64")), str(path)


def _text(path: Path, tokenizer: Path | None, vocab: int) -> tuple[Tensor, str]:
    """The ids of a text file, one sequence of as many as the comparison takes, and where they are from."""
    import torch

    from lab.genesis.effects import POSITIONS
    from lab.genesis.ids import check_plain
    from lab.genesis.tokenizer import Text, open_tokenizer

    reader = Text(open_tokenizer(tokenizer, "--text"), vocab, f"--tokenizer {tokenizer}")
    check_plain(path, "--text")
    found = reader.encode(path.read_text(encoding="utf-8"), f"--text {path}")
    if not found:
        raise CommandError(f"--text {path} is empty; at least one token is wanted")
    cut = f"the first {POSITIONS:,} of {len(found):,} tokens of " if len(found) > POSITIONS else ""
    return torch.tensor([found[:POSITIONS]]), f"{cut}{path}"


def account(held: Weights, ids_BT: Tensor) -> dict[str, Any]:
    """All that ``audit`` says but for the names of its files, as plain values."""
    import torch

    from lab.genesis.effects import effects
    from lab.genesis.findings import features, findings, parts
    from lab.genesis.starts import measure

    config, found = held.released.config(), measure(held)
    batch, length = ids_BT.shape
    note(f"running 9 functions of the weights on {batch} x {length} ids, in float64")
    return {
        "parameters": sum(one.size for one in found.values()),
        "stored": {
            str(kind).removeprefix("torch."): torch.finfo(kind).eps / 2
            for kind in sorted(set(held.stored.values()), key=str)
        },
        "chunk": config.chunk,
        "parts": [dataclasses.asdict(one) for one in parts(found)],
        "findings": [dataclasses.asdict(one) for one in findings(held, found)],
        "features": [dataclasses.asdict(one) for one in features(found, config.k_ratio)],
        "effects": [dataclasses.asdict(one) for one in effects(held, ids_BT)],
    }


def _page(found: dict[str, Any]) -> str:
    counts = {state: sum(part["states"][state] for part in found["parts"]) for state in STATES}
    types = " and ".join(found["stored"])
    return "\n".join(
        [
            f"file  {found['file']}: {plural(found['parameters'], 'parameter')} "
            f"in {plural(sum(counts.values()), 'tensor')}, stored in {types}",
            "",
            *_trained(found, counts),
            "",
            *_features(found["features"]),
            "",
            *_effects(found),
        ]
    )


WIDTH = 108
STATES = {
    "at start": "exactly at their start",
    "consistent": "drawn, and as if freshly so",
    "moved": "moved",
    "no claim": "of which nothing can be said",
}


def _trained(found: dict[str, Any], counts: dict[str, int]) -> list[str]:
    tensors = sum(counts.values())
    told = "; ".join(f"{count} {STATES[state]}" for state, count in counts.items() if count)
    never = ", ".join(part["name"] for part in found["parts"] if part["trained"] == "never")
    told += f". Never trained: {never}." if never else "."
    lines = [*_filled(f"TRAINED?  Of {plural(tensors, 'tensor')}: {told}"), ""]
    rows = [
        (
            part["name"],
            part["tensors"],
            f"{part['parameters']:,}",
            *(part["states"][state] for state in STATES),
            "-" if part["ratio"] is None else f"{part['ratio']:.4f} +- {part['error']:.4f}",
            part["trained"] or "-",
        )
        for part in found["parts"]
    ]
    header = ("part", "tensors", "parameters", *STATES, "std / start's", "trained")
    lines += [table(header, rows), ""]
    for name, rounding in found["stored"].items():
        if rounding > 1e-6:
            lines += [f"Stored in {name}, which hides a move of less than {100 * rounding:.2g} %.", ""]
    for one in found["findings"]:
        measured = ", ".join(f"{name} {_number(value)}" for name, value in one["measured"].items())
        lines.append(f"- {one['what']}")
        for word, text in (("in", _names(one["tensors"])), ("saw", measured), ("so", one["follows"])):
            lines += textwrap.wrap(text, WIDTH, initial_indent=f"  {word:<4}", subsequent_indent=" " * 6)
    titles = {one["what"] for one in found["findings"]}
    if not any("of 0" in title or "are 0" in title or "are equal" in title for title in titles):
        lines.append("- no tensor of zeros, no dead rows or columns, no two equal layers")
    return lines


def _features(found: Sequence[dict[str, Any]]) -> list[str]:
    told = f"{sum(one['exercised'] is True for one in found)} of {len(found)} documented features"
    for answer, words in ((False, "not"), (None, "not known of")):
        names = [one["name"] for one in found if one["exercised"] is answer]
        told += f"; {words} {', '.join(names)}" if names else ""
    header = ("feature", "documented", "shipped code runs it", "parameters", "trained", "exercised")
    rows = [
        (
            one["name"],
            one["documented"],
            one["shipped"],
            f"{one['parameters']:,}" if one["parameters"] else "-",
            one["trained"] or "-",
            {True: "yes", False: "no", None: "not known"}[one["exercised"]],
        )
        for one in found
    ]
    return [*_filled(f"FEATURES  This file can exercise {told}."), "", table(header, rows)]


def _effects(found: dict[str, Any]) -> list[str]:
    batch, length = found["ids"]["shape"]
    whole = found["effects"][-1]
    lines = _filled(
        f"DOCUMENTED AGAINST SHIPPED  Over all {batch * length:,} positions of {batch} x {length} ids "
        f"({found['ids']['from']}), the documented function differs from shipped-eval by "
        f"{_number(whole['rms'])} standard deviations of the logits; the most likely token changes at "
        f"{percent(whole['changed'])}."
    )
    if length <= found["chunk"]:
        lines.append(
            f"At {length} tokens the chunk rule cannot show: it acts from token {found['chunk'] + 1}."
        )
    header = ("between", "documented", "shipped", "rms / std", "argmax")
    rows = [
        (one["what"], one["documented"], one["shipped"], _number(one["rms"]), percent(one["changed"]))
        for one in found["effects"]
    ]
    return [*lines, "", table(header, rows)]


def _filled(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def _names(names: Iterable[str]) -> str:
    """Names with those of many layers folded: ``attn.b_proj.bias of blocks 0-2, 4-6``."""
    layers: dict[str, list[int]] = {}
    for name in names:
        first, _, rest = name.partition(".")
        if first == "blocks":
            number, _, tail = rest.partition(".")
            layers.setdefault(tail, []).append(int(number))
        else:
            layers[name] = []
    by_layers: dict[str, list[str]] = {}
    for name, numbers in layers.items():
        by_layers.setdefault(_ranges(numbers), []).append(name)
    return "; ".join(
        ", ".join(tails) + (f" of {'blocks' if set(where) & set('-,') else 'block'} {where}" if where else "")
        for where, tails in by_layers.items()
    )


def _ranges(numbers: Sequence[int]) -> str:
    """``0-2, 4``."""
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), lambda at: at[1] - at[0])]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
