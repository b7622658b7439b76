"""A figure as a picture in a file: plotly's static export, which draws in a Chromium through kaleido.

The plotly.js is that of the installed plotly, MathJax is left out, and the browser is given a proxy that does
not answer: drawing needs no network and cannot use one.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.results import write_bytes

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["ENDINGS", "PictureError", "browser", "check", "write"]

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
    program = check(path)
    import kaleido
    import plotly
    import plotly.graph_objects as go
    from kaleido.errors import KaleidoError

    # A page colours the text for itself, a picture cannot.
    on_white = go.Figure(figure).update_layout(paper_bgcolor="white", plot_bgcolor="white", font_color=INK)
    script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    options = {"format": path.suffix[1:], "width": WIDTH, "scale": 1 if path.suffix == ".svg" else 2}
    # plotly's own write_image cannot switch MathJax off, which kaleido would load from its address.
    settings = {"path": program, "plotlyjs": script.as_uri(), "mathjax": False, "proxy_server": NOWHERE}
    # Of a browser that fails it warns, too; one sentence is enough.
    logging.getLogger("choreographer").setLevel(logging.ERROR)
    try:
        drawn: bytes = kaleido.calc_fig_sync(on_white, opts=options, kopts=settings)
    except (RuntimeError, KaleidoError, OSError) as exc:
        raise PictureError(
            f"{program} did not draw the picture ({type(exc).__name__}); does it start?"
        ) from exc
    write_bytes(path, drawn)
