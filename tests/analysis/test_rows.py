"""The rows of a page: the text in it and the parquet beside it hold every number of the store."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import re

import polars as pl

from analysis import rows
from analysis.report import write
from sweeps.results import read
from tests.browser import opened

from .factory import make_folder, make_frame


def packed(text: str) -> list[dict[str, str]]:
    found = re.search(r'<script type="text/plain" id="rows">(.*?)</script>', text, re.S)
    assert found
    return list(csv.DictReader(io.StringIO(gzip.decompress(base64.b64decode(found[1])).decode())))


def test_the_page_and_the_parquet_have_every_row_and_number(tmp_path):
    folder = make_folder(tmp_path / "run", make_frame(labels=('r=3, "wide"\n', "<b>")))
    page = write(folder)
    frame = read(folder).frame
    assert pl.read_parquet(tmp_path / "run" / "report.rows.parquet").equals(frame)
    found = packed(page.read_text(encoding="utf-8"))
    for row, wanted in zip(found, frame.iter_rows(named=True), strict=True):
        assert row["label"] == wanted["label"] and row["strip"] == ";".join(wanted["strip"])
        for name in ("loss", "acc", "auc", "seconds"):
            assert (float(row[name]) if row[name] else None) == wanted[name]
        assert row["state_sizes"] == " ".join(map(str, wanted["state_sizes"]))


def test_of_very_many_rows_the_page_has_the_last_of_each_run(tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "run", make_frame(seeds=(0,)))
    frame = read(folder).frame
    monkeypatch.setattr(rows, "MOST", frame.height - 1)
    text = write(folder, tmp_path / "x.html").read_text(encoding="utf-8")
    assert len(packed(text)) == frame["final"].sum() < frame.height
    assert pl.read_parquet(tmp_path / "x.rows.parquet").height == frame.height
    assert "x.rows.parquet" in text and "the last of each run" in text


def test_the_button_saves_what_is_packed_and_the_axis_can_be_chosen(tmp_path):
    folder = make_folder(tmp_path / "run", make_frame(seeds=(0, 1)))
    page, place = write(folder), tmp_path / "kept"
    with opened(tmp_path / "profile") as tab:
        tab.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(place))
        tab.open(page.as_uri())
        tab.run("document.querySelector('#keep-rows').click()")
        tab.until("!document.querySelector('script[data-figure]') || waiting.size == 0")
        shown = "document.querySelector('#fig-front').layout.xaxis.title.text"
        assert tab.run(shown).startswith("state at the tasks")
        choose = "document.querySelector('select')"
        change = "dispatchEvent(new Event('change', {bubbles: true}))"
        tab.run(f"{choose}.value = 'flops'; {choose}.{change}")
        assert tab.until(shown) == "forward FLOPs per token"
        assert "FLOPs" in tab.run("document.querySelector('[data-caption-of]').textContent")
        tab.until("true")
        while not (place / "ratios.csv").exists():
            tab.run("new Promise((done) => setTimeout(done, 50))")
        assert tab.complaints() == []
    assert (place / "ratios.csv").read_text(encoding="utf-8") == rows.csv(read(folder).frame)
