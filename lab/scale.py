"""``lab scale``: the winner of a sweep, or any pattern, as a full-size model with all of its training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from analysis.counts import short
from lab.sweep import RunsOption, run_folder
from lab.terminal import (
    BlocksOption,
    CommandError,
    JsonOption,
    emit,
    known_blocks,
    note,
    number_of,
    percent,
    plural,
    say,
    table,
)

if TYPE_CHECKING:
    from blocks.base import Block
    from blocks.schedule import Schedule
    from lab.model.form import Source, Spec
    from lab.model.scale import Mixer, Scaled, Size
    from sweeps.form import DesignPart
    from sweeps.match import Knob

__all__ = ["scale"]


def scale(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run folder, the name of one in --runs, or a schedule.")
    ],
    like: Annotated[
        str | None, typer.Option(metavar="NAME", help="Parameters, width, depth and heads of: genesis-152m.")
    ] = None,
    params: Annotated[
        str | None, typer.Option(metavar="N", help="Parameters of the whole model: 152M, 1.3B.")
    ] = None,
    width: Annotated[int | None, typer.Option(help="Model width.", min=1)] = None,
    depth: Annotated[int | None, typer.Option(help="Layers.", min=1, max=1024)] = None,
    heads: Annotated[int | None, typer.Option(help="Heads of every mixer; default: 64 wide.", min=1)] = None,
    candidate: Annotated[
        str | None, typer.Option(metavar="LABEL", help="Another candidate than the best: r=3:1.")
    ] = None,
    solve: Annotated[
        str | None,
        typer.Option(
            metavar="BLOCK.OPTION", help="What is solved; default: the expansion of the channel mixers."
        ),
    ] = None,
    tokenizer: Annotated[str, typer.Option(help="bytes, or the path of a tokenizer.json.")] = "bytes",
    vocab: Annotated[
        int | None, typer.Option(metavar="N", help="Ids of the embedding; default: the tokenizer's.", min=2)
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="DATA[=WEIGHT]", help="Prepared tokens; repeatable. Default: corpus."),
    ] = None,
    tokens: Annotated[str, typer.Option(metavar="N", help="Tokens to train on.")] = "2B",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.yaml", help="Where it is written; default: to stdout.")
    ] = None,
    runs: RunsOption = Path("runs"),
    blocks: BlocksOption = None,
    json: JsonOption = False,
) -> None:
    """Make the winner of a sweep a full-size model: its file says architecture, data and training.

    The pattern is tiled to the depth; one width is solved, so that the parameters of the whole model,
    embedding included, are those asked for within 0.5 %. The training is that of Genesis-152M.

    Examples:
      lab scale ratios --like genesis-152m --out winner.yaml
      lab scale runs/ratios --candidate r=4:1 --params 152M --width 576 --depth 30 --out fourth.yaml
      lab scale "3*(gdn, swiglu) + (fox, swiglu)" --like genesis-152m --tokenizer neox.json
    """
    _check_out(out)
    table_of_blocks = known_blocks(blocks)
    size, sources = _size(like, params, width, depth, heads), _sources(data)
    vocab, seen = _vocab(tokenizer, vocab), number_of(tokens, "--tokens")
    wanted = None if solve is None else _knob(solve, table_of_blocks)
    found = _origin(run, runs, candidate, table_of_blocks)

    from blocks.design import PLAIN, design_of
    from lab.model.commented import commented
    from lab.model.scale import mixers, recipe, unlike_practice
    from lab.model.scale import scale as scaled_to

    design = design_of(**found.around.model_dump()) if found.around else PLAIN
    done = scaled_to(
        found.pattern, size, vocab, norm=found.norm, solve=wanted, blocks=table_of_blocks, design=design
    )
    name = "model" if out is None else out.stem
    spec = recipe(done, name, vocab, tokenizer, sources, seen, table_of_blocks, found.around)
    kinds = mixers(done.schedule, done.shape, spec.data.length)
    text = commented(spec, [found.told, " ".join(_solved(done).split())])
    _check_spec(text, name, table_of_blocks)
    warnings = list(unlike_practice(kinds, table_of_blocks))
    page = "\n\n".join(_page(found, done, spec, kinds, table_of_blocks))
    if out is not None:
        from sweeps.results import write_text

        write_text(out, text)
    if json:
        emit(_document(found, done, spec, kinds, warnings, out, table_of_blocks))
    elif out is None:
        say(text.rstrip("\n"))
        note(page)
    else:
        say(f"{page}\n\n{out}: written; lab plan {out} says what it costs")
    for warning in warnings:
        note(f"warning: {warning}")


@dataclass(frozen=True)
class _Origin:
    """Where a pattern is from: told in one line, with the layers it was swept at, where it was swept."""

    pattern: Schedule
    norm: Literal["rms", "rms_zero"]
    told: str
    label: str | None = None
    swept: Schedule | None = None
    dim: int | None = None
    heads: int | None = None
    around: DesignPart | None = None


def _origin(run: str, runs: Path, candidate: str | None, blocks: dict[str, type[Block]]) -> _Origin:
    folder = run_folder(run, runs)
    if not folder.exists() and (run in blocks or any(mark in run for mark in "(*+[,")):
        from blocks.schedule import parse

        if candidate is not None:
            raise CommandError(f"--candidate is {candidate!r}, but {run!r} is a schedule; give a run folder")
        return _Origin(parse(run, blocks), "rms", f"the schedule {run}")
    return _winner(folder, candidate, blocks)


def _winner(folder: Path, candidate: str | None, blocks: dict[str, type[Block]]) -> _Origin:
    """The best candidate of a run folder, or the one that is named. Raises what reading it raises."""
    import json as json_text

    from analysis.words import sentence
    from blocks.notation import suggest
    from blocks.schedule import parse
    from lab.answer import ranking_of
    from sweeps.recipe import load
    from sweeps.results import read
    from sweeps.space import design_part, layers

    ranking = ranking_of(folder)
    if ranking is None:
        raise CommandError(f"{folder}: no round is complete yet, so nothing has won; go on with lab sweep")
    labels = [row.label for row in ranking.rows]
    label = ranking.best.label if candidate is None else candidate
    if label not in labels:
        raise CommandError(
            f"--candidate is {label!r}, which {folder} has no result of{suggest(label, labels)}"
        )
    frame = read(folder).frame
    row = frame.filter(frame["label"] == label).row(0, named=True)
    asked = load(folder / "recipe.yaml", blocks=blocks)
    choices = tuple(json_text.loads(row["choices"]).items())
    # As it was swept, widths that the recipe matched included; the recipe says how long its pattern is.
    swept = parse(row["schedule"], blocks)
    unit = swept[: len(layers(asked.model_copy(update={"depth": None}), choices, blocks))]
    why = sentence(ranking) if candidate is None else f"chosen by --candidate, not as the best of {folder}"
    told = f"{label} of {folder}: {why}"
    around = design_part(asked, choices)
    return _Origin(unit, asked.shape.norm, told, label, swept, row["dim"], row["heads"], around)


def _size(
    like: str | None, params: str | None, width: int | None, depth: int | None, heads: int | None
) -> Size:
    from lab.model.scale import LIKE, Size, heads_for

    if like is not None and like not in LIKE:
        raise CommandError(f"--like is {like!r}; known are {', '.join(LIKE)}")
    count = None if params is None else number_of(params, "--params")
    if like is not None:
        given = {"params": count, "dim": width, "depth": depth, "heads": heads}
        if width is not None and heads is None:
            given["heads"] = heads_for(width)
        return replace(LIKE[like], **{name: value for name, value in given.items() if value is not None})
    lacks = [n for n, v in (("--params", count), ("--width", width), ("--depth", depth)) if v is None]
    if count is None or width is None or depth is None:
        raise CommandError(
            f"{' and '.join(lacks)} {'is' if len(lacks) == 1 else 'are'} not given; "
            "give --like genesis-152m, or --params 152M --width 576 --depth 30"
        )
    return Size(params=count, dim=width, depth=depth, heads=heads or heads_for(width))


def _knob(solve: str, blocks: dict[str, type[Block]]) -> Knob:
    from sweeps.match import MatchError, knob

    try:
        found = knob(solve, blocks)
    except MatchError as exc:
        raise CommandError(f"--solve {exc}") from None
    if not found.block:
        raise CommandError(
            "--solve is dim, which --width says; name an option of a block, such as swiglu.expand"
        )
    return found


def _vocab(tokenizer: str, vocab: int | None) -> int:
    from lab.data.tokens import open_tokenizer

    needed = open_tokenizer(tokenizer).vocab
    if vocab is not None and vocab < needed:
        raise CommandError(f"--vocab is {vocab:,}; the tokenizer {tokenizer} has {needed:,} ids")
    return needed if vocab is None else vocab


def _sources(data: list[str] | None) -> list[Source]:
    from lab.model.form import Source

    found = []
    for text in data or ["corpus"]:
        where, equals, weight = text.rpartition("=")
        try:
            share = float(weight) if equals else 1.0
        except ValueError:
            share = 0.0
        if not 0 < share < float("inf"):
            raise CommandError(f"--data is {text!r}; write it as DATA, or DATA=WEIGHT with a weight above 0")
        found.append(Source(data=where if equals else text, weight=share))
    return found


def _check_out(out: Path | None) -> None:
    import re

    if out is None:
        return
    if out.suffix != ".yaml" or out.is_dir() or not out.parent.is_dir():
        raise CommandError(f"--out is {out}; give a name that ends in .yaml, in a folder that exists")
    if out.exists():
        raise CommandError(
            f"--out {out} exists already, and may have been edited; give another name, or remove it"
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", out.stem):
        raise CommandError(
            f"--out is {out}, and the model is called as the file; "
            "use letters, digits, '.', '_' or '-', at most 64"
        )


def _check_spec(text: str, name: str, blocks: dict[str, type[Block]]) -> None:
    """What is written must be read again: values too large for the form are told as ``lab plan`` would."""
    from lab.model.spec import loads

    loads(text, name, blocks=blocks)


def _page(
    found: _Origin, done: Scaled, spec: Spec, kinds: list[Mixer], blocks: dict[str, type[Block]]
) -> Iterator[str]:
    from blocks.schedule import show

    shape, train = done.shape, spec.train
    head = f"heads {shape.heads} of {shape.dim / shape.heads:g}"
    lines = [
        f"schedule  {show(done.unit, blocks)}",
        f"layers    {_counted(done.schedule)}",
        f"shape     dim {shape.dim}, {head}, vocab {spec.model.vocab:,}",
        _solved(done),
    ]
    if found.swept:
        lines.append(f"swept as  {_counted(found.swept)}; dim {found.dim}, heads {found.heads}")
    ends = done.parts["embedding"] + done.parts["head"]
    stack = f"{short(done.params - ends)} of {short(done.params)} parameters"
    lines.append(f"stack     {stack} ({percent(1 - ends / done.params)}); the rest is embedding and head")
    seen = short(train.steps * train.batch * spec.data.length)
    lines.append(
        f"training  {plural(train.steps, 'step')} of {train.batch} x {spec.data.length:,}, {seen} tokens"
    )
    yield found.told
    yield "\n".join(lines)
    yield table(
        ("parameters", "count", "share"),
        [(part, f"{size:,}", percent(size / done.params)) for part, size in done.parts.items() if size],
    )
    words = {cls: name for name, cls in blocks.items()}
    yield table(
        ("mixer", "layers", "role", f"scalars at {spec.data.length:,} tokens", "state of a layer, T tokens"),
        [
            (
                words[type(k.block)],
                k.layers,
                k.role,
                f"{k.scalars:,}",
                "; ".join(map(_sizes, k.tensors.items())),
            )
            for k in kinds
        ],
    )


def _sizes(tensor: tuple[str, tuple[int | None, ...]]) -> str:
    name, sizes = tensor
    return f"{name} {' x '.join('T' if n is None else f'{n}' for n in sizes)}"


def _solved(done: Scaled) -> str:
    near = f"{done.params:,} parameters for {done.target:,} ({100 * done.off:+.2f} %)"
    if done.solved is None:
        return f"solved    nothing: {near}"
    was = ", ".join(f"{value:g}" for value in done.values)
    several = ", the same in all layers" if len(done.values) > 1 else ""
    step = f", a multiple of {done.step}" if done.step and done.step > 1 else ""
    return f"solved    {done.solved} from {was} to a width of {done.width:,}{step}{several}: {near}"


def _counts(schedule: Schedule) -> tuple[int, int, int]:
    from blocks.cost import counts

    found = counts(schedule)
    return found.linear, found.window, found.full


def _counted(schedule: Schedule) -> str:
    """``23 linear, 7 full of 30 layers``."""
    named = zip(_counts(schedule), ("linear", "window", "full"), strict=True)
    return f"{', '.join(f'{n} {kind}' for n, kind in named if n) or '0'} of {plural(len(schedule), 'layer')}"


def _document(
    found: _Origin,
    done: Scaled,
    spec: Spec,
    kinds: list[Mixer],
    warnings: list[str],
    out: Path | None,
    blocks: dict[str, type[Block]],
) -> dict[str, Any]:
    words = {cls: name for name, cls in blocks.items()}
    return {
        "from": found.told,
        "candidate": found.label,
        "spec": spec.model_dump(mode="json"),
        "params": {"total": done.params, "target": done.target, "off": done.off, **done.parts},
        "solved": {
            "option": done.solved,
            "before": done.values,
            "width": done.width,
            "multiple_of": done.step,
        },
        "layers": dict(zip(("linear", "window", "full"), _counts(done.schedule), strict=True)),
        "mixers": [
            {
                "block": words[type(kind.block)],
                "layers": kind.layers,
                "role": kind.role,
                "scalars": kind.scalars,
                "state": kind.tensors,
                "heads": None if kind.head is None else kind.head[0],
                "key_width": None if kind.head is None else kind.head[1],
            }
            for kind in kinds
        ],
        "warnings": warnings,
        "file": None if out is None else str(out),
    }
