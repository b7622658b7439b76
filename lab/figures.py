"""Figures that a command draws to files: .svg, .png, or .html that needs no network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import plotly.graph_objects as go

from analysis import picture
from lab.terminal import CommandError
from sweeps.results import write_bytes

__all__ = ["check", "check_folder", "draw", "write"]


def check(path: Path) -> None:
    """Refuse, before anything is measured, a path that no figure can be written to."""
    if path.suffix in (".svg", ".png"):
        picture.check(path)
    elif path.suffix != ".html" or path.is_dir() or not path.parent.is_dir():
        raise CommandError(
            f"--figure is {path}; a file in a folder that exists is wanted, .svg, .png or .html"
        )


def write(figure: go.Figure, path: Path) -> None:
    """To ``path``, as ``check`` allows it."""
    if path.suffix == ".html":
        write_bytes(path, figure.to_html(include_plotlyjs=True).encode())
    else:
        picture.write(figure, path)


def check_folder(folder: Path, ending: str) -> None:
    """Refuse a folder, or a kind of file in it, that figures cannot be drawn to.

    Raises CommandError or PictureError.
    """
    if f".{ending}" not in picture.ENDINGS:
        raise CommandError(f"--format is {ending!r}; choose svg or png")
    if folder.exists() != folder.is_dir() or not folder.parent.is_dir():
        raise CommandError(f"--figures {folder}: a folder is wanted, or a new name in one that exists")
    picture.drawer()


def draw(figures: Mapping[str, go.Figure], folder: Path, ending: str) -> list[str]:
    """Draw every figure to a file of its name in ``folder``, as ``check_folder`` allows it; the paths."""
    folder.mkdir(exist_ok=True)
    wanted = {folder / f"{name}.{ending}": figure for name, figure in figures.items()}
    picture.write_all(wanted)
    return [str(path) for path in wanted]
