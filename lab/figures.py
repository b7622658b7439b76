"""Figures that a command draws to a file: .svg, .png, or .html that needs no network."""

from __future__ import annotations

from pathlib import Path

import plotly.graph_objects as go

from analysis import picture
from lab.terminal import CommandError
from sweeps.results import write_bytes

__all__ = ["check", "write"]


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
