"""A figure as a picture in a file: plotly's static export, which draws in a Chromium through kaleido.

The plotly.js is that of the installed plotly, MathJax is left out, and the browser is given a proxy that does
not answer: drawing needs no network and cannot use one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.results import write_bytes

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["ENDINGS", "PictureError", "browser", "check", "drawer", "write", "write_all"]

ENDINGS = (".svg", ".png")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATH_VARIABLE = "BROWSER_PATH"
"""What kaleido, too, calls the environment variable with the path of a browser."""
WIDTH = 700
INK = "#3d424b"
NOWHERE = "http://127.0.0.1:9"
"""The port of the discard protocol (RFC 863), on which nothing answers."""


class PictureError(ValueError):
    """A picture cannot be drawn, or not there; one sentence that says what to do."""


def browser() -> str | None:
    """The path of Chromium or Chrome: the one that BROWSER_PATH names, or else the first on PATH."""
    named = os.environ.get(PATH_VARIABLE)
    return next((found for name in ((named,) if named else BROWSERS) if (found := shutil.which(name))), None)


def check(path: Path) -> str:
    """The browser that will draw a picture to ``path``. Raises PictureError where none can."""
    if path.suffix not in ENDINGS:
        raise PictureError(f"{path}: the name of a picture ends in {' or '.join(ENDINGS)}")
    if path.is_dir() or not path.parent.is_dir():
        raise PictureError(f"{path}: a file name in a folder that exists is wanted")
    return drawer()


def drawer() -> str:
    """The browser that draws pictures here. Raises PictureError where none can."""
    try:
        import kaleido  # noqa: F401
    except ImportError as exc:
        raise PictureError(
            "a picture needs the package kaleido; pip install 'hybrid-architecture-lab[figures]'"
        ) from exc
    if found := browser():
        return found
    if named := os.environ.get(PATH_VARIABLE):
        raise PictureError(
            f"{PATH_VARIABLE} is {named!r}, which is no program; the path of a Chromium is wanted"
        )
    raise PictureError(
        "a picture is drawn by Chromium or Chrome, and neither is on PATH; on Debian or Ubuntu: apt-get "
        f"install chromium; elsewhere set {PATH_VARIABLE} to the path of one"
    )


def write(figure: go.Figure, path: Path) -> None:
    """Draw ``figure`` on white, 700 pixels wide (a PNG has two dots a pixel), to ``path``.

    Raises PictureError as ``check`` does, and if the browser fails.
    """
    write_all({path: figure})


def write_all(figures: Mapping[Path, go.Figure]) -> None:
    """Draw every figure to its path as ``write`` does, all in one browser. Raises PictureError likewise."""
    programs = {check(path) for path in figures}
    if not programs:
        return
    import kaleido
    import plotly
    from kaleido.errors import KaleidoError

    program = programs.pop()
    script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    # plotly's own write_image cannot switch MathJax off, which kaleido would load from its address.
    settings = {"path": program, "plotlyjs": script.as_uri(), "mathjax": False, "proxy_server": NOWHERE}
    # Of a browser that fails it warns, too; one sentence is enough.
    logging.getLogger("choreographer").setLevel(logging.ERROR)

    async def drawn() -> dict[Path, bytes]:
        async with kaleido.Kaleido(n=1, **settings) as one:
            return {path: await one.calc_fig(*_asked(figure, path)) for path, figure in figures.items()}

    try:
        pictures = asyncio.run(drawn())
    except (RuntimeError, KaleidoError, OSError) as exc:
        raise PictureError(
            f"{program} did not draw the picture ({type(exc).__name__}); does it start?"
        ) from exc
    for path, picture in pictures.items():
        write_bytes(path, picture)


def _asked(figure: go.Figure, path: Path) -> tuple[go.Figure, Any]:
    """What kaleido is given: a page colours the text for itself, a picture cannot."""
    import plotly.graph_objects as go

    on_white = go.Figure(figure).update_layout(paper_bgcolor="white", plot_bgcolor="white", font_color=INK)
    scale = 1 if path.suffix == ".svg" else 2
    return on_white, {"format": path.suffix[1:], "width": WIDTH, "scale": scale}
