"""The rows behind a report: packed into the page, where a button gives them as CSV, and a parquet beside it.

In the page they are a compressed text that nothing reads until it is asked for, so that they cost its opening
next to nothing.
"""

from __future__ import annotations

import base64
import gzip
import io
from pathlib import Path

import polars as pl

from analysis.fragments import Part, e
from sweeps.results import Results, write_bytes

__all__ = ["MOST", "beside", "csv", "section_of", "write_parquet"]

MOST = 50_000
"""Rows in a page; of more, those that end a run are in it, and the parquet has all."""

SUFFIX = ".rows.parquet"


def beside(page: Path) -> Path:
    """Where the parquet of a page is: ``report.rows.parquet`` for ``report.html``."""
    return page.with_suffix(SUFFIX)


def write_parquet(results: Results, page: Path) -> Path:
    """Write every row, with the columns of ``sweeps.results.SCHEMA``, beside ``page``. Atomic."""
    buffer = io.BytesIO()
    results.frame.write_parquet(buffer)
    write_bytes(beside(page), buffer.getvalue())
    return beside(page)


def csv(frame: pl.DataFrame) -> str:
    """The rows as text: a list is its values with spaces between them, of layers with semicolons."""
    between = {
        name: ";" if name == "strip" else " " for name, kind in frame.schema.items() if kind == pl.List
    }
    return frame.with_columns(
        # All of a value, so that reading the text gives the same number.
        pl.col(name).cast(pl.List(pl.String)).list.join(mark)
        for name, mark in between.items()
    ).write_csv()


def section_of(results: Results, name: str, page: str | None) -> Part:
    """The section with the button, and the rows that it takes. page: the name of its file, if it has one."""
    frame, what = results.frame, "all"
    if frame.height > MOST:
        frame, what = frame.filter("final"), "the last of each run"
    parquet = f" All of them are in {beside(Path(page)).name}, which was written beside it." if page else ""
    packed = base64.b64encode(gzip.compress(csv(frame).encode(), mtime=0)).decode()
    said = (
        f"{frame.height:,} rows of {results.frame['run'].n_unique():,} runs are in this page ({what}), one "
        f"per evaluation, with every column of the store.{parquet}"
    )
    button = f'<button type="button" id="keep-rows" data-name="{e(name)}">Save the rows as CSV</button>'
    rows = f'<script type="text/plain" id="rows">{packed}</script>'
    return Part("rows", f'<section><h2>Data</h2><p class="note">{e(said)}</p>{button}{rows}</section>')
