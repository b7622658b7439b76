"""Specifications that come with the lab, found by name as shipped recipes are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from blocks import BLOCKS
from lab.model.form import Spec
from lab.model.spec import Blocks, SpecError
from lab.model.spec import load as load_file
from sweeps import written

__all__ = ["find", "load", "shipped"]

SHIPPED = Path(__file__).parent / "specs"


def shipped() -> dict[str, Path]:
    """By name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def find(name: str) -> Path:
    """The file of a specification: ``name`` as a path, else a shipped one. Raises SpecError."""
    try:
        return written.find(name, shipped(), "specification")
    except written.WrittenError as exc:
        raise SpecError(str(exc)) from None


def load(name: str, overrides: Iterable[str] = (), blocks: Blocks = BLOCKS) -> Spec:
    """The specification ``name`` (see ``find``) with ``key=value`` overrides. Raises SpecError."""
    return load_file(find(name), overrides, blocks)
