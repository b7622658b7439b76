"""Specifications that come with the lab, found by name as shipped recipes are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from blocks import BLOCKS
from blocks.notation import suggest
from lab.model.form import Spec
from lab.model.spec import Blocks, SpecError
from lab.model.spec import load as load_file

__all__ = ["find", "load", "shipped"]

SHIPPED = Path(__file__).parent / "specs"


def shipped() -> dict[str, Path]:
    """By name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def find(name: str) -> Path:
    """The file of a specification: ``name`` as a path, else a shipped one. Raises SpecError."""
    path, known = Path(name), shipped()
    if path.is_file():
        return path
    if name.removesuffix(".yaml") in known:
        return known[name.removesuffix(".yaml")]
    if path.is_dir():
        raise SpecError(f"{name}: this is a directory; a specification is a YAML file")
    if path.exists():
        raise SpecError(f"{name}: this is no ordinary file; a specification is a YAML file")
    raise SpecError(
        f"{name}: no such file, and no shipped specification of that name{suggest(path.stem, known)}"
    )


def load(name: str, overrides: Iterable[str] = (), blocks: Blocks = BLOCKS) -> Spec:
    """The specification ``name`` (see ``find``) with ``key=value`` overrides. Raises SpecError."""
    return load_file(find(name), overrides, blocks)
