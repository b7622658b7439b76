"""A recipe from its file: read, overridden, checked whole, before anything runs. A recipe is data only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path as File

from blocks import BLOCKS
from blocks.base import Block
from sweeps.bounds import FORM
from sweeps.check import problems
from sweeps.form import Recipe
from sweeps.written import Path, WrittenError, fill, read
from sweeps.written import find as find_file

__all__ = ["Recipe", "RecipeError", "find", "load", "shipped"]

SHIPPED = File(__file__).parent / "recipes"


class RecipeError(ValueError):
    """A recipe cannot be found, read or run. One line per problem: ``file:line:col: key: what``."""


def shipped() -> dict[str, File]:
    """The recipes that come with the lab, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def find(name: str | File) -> File:
    """The file of a recipe: ``name`` as a path, else the shipped recipe of that name (``.yaml`` or not)."""
    try:
        return find_file(name, shipped(), "recipe")
    except WrittenError as exc:
        raise RecipeError(str(exc)) from None


def load(
    name: str | File, overrides: Iterable[str] = (), blocks: Mapping[str, type[Block]] = BLOCKS
) -> Recipe:
    """The recipe ``name`` (see ``find``) with ``key=value`` overrides put in, checked whole.

    A key is dotted (``train.steps=20``), a value is YAML (``search.r=[3:1, 4:1]``). Raises RecipeError that
    lists everything wrong with it.
    """
    path = find(name)
    try:
        text = path.read_bytes()
    except OSError as exc:
        raise RecipeError(f"{path}: cannot be read ({exc.strerror})") from None
    return loads(text, str(path), overrides, blocks)


def loads(
    text: str | bytes,
    name: str = "<text>",
    overrides: Iterable[str] = (),
    blocks: Mapping[str, type[Block]] = BLOCKS,
) -> Recipe:
    """``load`` for a text; ``name`` stands in its errors."""
    try:
        written = read(text, name, overrides)
        if written.data.get("kind") == "model":
            raise RecipeError(
                f"{name}: this is a model's specification (kind: model), and a recipe (kind: sweep) is "
                "wanted; lab plan says what such a model costs, and lab train trains it"
            )
        recipe = fill(Recipe, written, _special)
    except WrittenError as exc:
        raise RecipeError(str(exc)) from None
    if wrong := problems(recipe, blocks):
        raise RecipeError("\n".join(written.line(path, message) for path, message in wrong))
    recipe._text = written.whole
    return recipe


def _special(path: Path, kind: str, shown: str) -> str | None:
    """What a key of a recipe must be, where its form alone would say too little."""
    if path == ("trials",):
        return f"is {shown}; it must be all, or a whole number of at least 1"
    if path in (("depth",), ("shape", "dim"), ("shape", "heads")) and kind == "int_type":
        return f"is {shown}; it must be a whole number, or the name of a variable of search"
    if path == ("pruning",):
        return f"is {shown}; it must be a p-value above 0 and at most 0.5, or null for none"
    if path in (("match", "params"), ("match", "state")):
        return f"is {shown}; it must be baseline, or a number above 0"
    if path[0] == "constraints" and kind == "string_type":
        return f"is {shown}; it must be a bound: {FORM}"
    return None
