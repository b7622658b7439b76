"""``lab blocks``, ``lab tasks``, ``lab sample``: what there is to put into a recipe."""

from __future__ import annotations

import dataclasses
import inspect
import os
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lab.terminal import BlocksOption, CommandError, JsonOption, emit, known_blocks, percent, plural, say

__all__ = ["blocks", "options", "sample", "tasks"]

Split = Literal["train", "valid", "test"]


def blocks(
    blocks: BlocksOption = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the page of the docs, with formulas and costs.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """List the blocks: what each is, how its memory grows, and its options with types and defaults.

    Examples:
      lab blocks
      lab blocks --blocks my_blocks.py
      lab blocks --markdown
      lab blocks --json
    """
    if markdown:
        from lab.registry import page

        say(page(known_blocks(blocks)).rstrip("\n"))
        return
    document = [
        {"name": name, "role": cls().role, "about": about(cls), "options": options(cls)}
        for name, cls in known_blocks(blocks).items()
    ]
    if json:
        emit(document)
        return
    for one in document:
        say(f"{one['name']}  ({one['role']})\n    {one['about']}")
        _say_options(one["options"])


def tasks(json: JsonOption = False) -> None:
    """List the tasks: options, difficulty ladder, and what chance, the data and a short window allow.

    Chance, ceiling and window share are measured on the defaults, over drawn instances.

    Examples:
      lab tasks
      lab tasks --json
    """
    from synthetics import TASKS
    from synthetics.difficulty import profile

    document = []
    for name, cls in TASKS.items():
        task = cls()
        level = profile(task)
        document.append(
            {
                "name": name,
                "about": about(cls),
                "tokens": task.tokens,
                "vocab": task.vocab,
                "chance": level.chance,
                "ceiling": level.ceiling,
                "window_share": level.window_share,
                "options": options(cls),
                "levels": cls.LEVEL,
                "ladder": {factor: list(values) for factor, values in cls.LADDER.items()},
            }
        )
    if json:
        emit(document)
        return
    for one in document:
        window = (
            "no lag" if one["window_share"] is None else f"32-token window {percent(one['window_share'])}"
        )
        say(f"{one['name']}\n    {one['about']}")
        say(
            f"    {one['tokens']} tokens of {one['vocab']} ids; chance {percent(one['chance'])}, "
            f"ceiling {percent(one['ceiling'])}, {window}"
        )
        _say_options(one["options"])
        say(f"    levels  {one['levels']}")
        for factor, values in one["ladder"].items():
            say(f"    ladder  {factor}: {', '.join(f'{value:g}' for value in values)}")
    _say_words()


def _say_words() -> None:
    """What else ``tasks:`` of a recipe takes."""
    from sweeps.protocols import PROTOCOLS
    from synthetics import TASKS
    from synthetics.protocol import SUITES, settings

    say("One word in a recipe stands for many settings:")
    for name in (name for name in SUITES if name not in TASKS):
        say(f"  {name}  {plural(len(settings(name)), 'setting')}")
    for name, parts in PROTOCOLS.items():
        say(f"  {name}  {plural(len(parts), 'setting')}, each with its budget:")
        for part in parts:
            say(
                f"    {part.task}: {part.steps} steps of {part.batch} rows, evaluated every {part.eval_every}"
            )


def sample(
    task: Annotated[str, typer.Argument(help='Such as "recall(vocab=32)"; see lab tasks.')],
    count: Annotated[int, typer.Option("-n", help="Instances.", min=1, max=1_000_000)] = 2,
    seed: Annotated[int, typer.Option(help="Seed of the draw.", min=0)] = 0,
    split: Annotated[Split, typer.Option(help="Training rows may ask more than test rows.")] = "test",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the arrays as .npz.")] = None,
    json: JsonOption = False,
) -> None:
    """Draw instances of a task, or write them as arrays.

    Under each input token stands the answer wanted there; a dot where none is scored.

    Examples:
      lab sample "recall(vocab=32)" -n 2
      lab sample "mqar(pairs=8)" -n 1 --split train --seed 7
      lab sample copying -n 1000 --out copying.npz
    """
    from synthetics.base import draw_text
    from synthetics.protocol import parse_task, show_task
    from synthetics.splits import draw

    setting = parse_task(task)
    batch = draw(setting, split, seed, count)
    text = show_task(setting)
    if out is not None:
        _write_npz(out, text, inputs=batch.inputs, targets=batch.targets)
        about_file = {"task": text, "split": split, "seed": seed, "instances": count, "file": str(out)}
        emit(about_file) if json else say(f"{plural(count, 'instance')} of {text}: {out}")
    elif json:
        arrays = {"inputs": batch.inputs.tolist(), "targets": batch.targets.tolist()}
        emit({"task": text, "split": split, "seed": seed, **arrays})
    else:
        say("\n\n".join(draw_text(batch, row) for row in range(count)))


def about(cls: type) -> str:
    """The first line of a class's docstring; empty if it has none of its own."""
    doc = inspect.getdoc(cls) or ""
    # A dataclass without a docstring is given its signature as one.
    return "" if doc.startswith(f"{cls.__name__}(") else doc.partition("\n")[0]


def options(cls: type) -> list[dict[str, Any]]:
    """The options of a block or task: name, type as written, default."""
    hints = typing.get_type_hints(cls)
    return [
        {"name": field.name, "type": _kind(hints[field.name]), "default": _plain(field.default)}
        for field in dataclasses.fields(cls)
        if field.init
    ]


def _kind(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return " | ".join(map(str, typing.get_args(hint)))
    if parts := typing.get_args(hint):
        return " | ".join(map(_kind, parts))
    return "None" if hint is type(None) else getattr(hint, "__name__", str(hint))


def _plain(default: object) -> object:
    return default if isinstance(default, int | float | str | bool | None) else repr(default)


def _say_options(found: list[dict[str, Any]]) -> None:
    if not found:
        say("    no options")
        return
    width = max(len(f"{one['name']}={one['default']}") for one in found)
    for one in found:
        pair = f"{one['name']}={one['default']}"
        say(f"    {pair:<{width}}  {one['type']}")


def _write_npz(path: Path, task: str, **arrays: Any) -> None:
    import numpy as np

    if path.is_dir() or not path.parent.is_dir():
        raise CommandError(
            f"--out {path} is a directory or lies in none; give a file in a folder that exists"
        )
    if path.suffix != ".npz":
        raise CommandError(f"--out {path} is written as .npz; give it that ending")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("xb") as file:
            np.savez_compressed(file, task=np.array(task), **arrays)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)  # a full disk leaves no half a file
