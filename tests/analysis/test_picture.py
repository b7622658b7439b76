"""A picture is drawn by a real browser, on white, and nobody is asked for anything."""

from __future__ import annotations

import re
import shlex
import stat
from pathlib import Path

import plotly.graph_objects as go
import pytest

from analysis.picture import PictureError, write, write_all
from analysis.report import Asked, figures
from sweeps.results import Results
from tests.browser import chromium

from .factory import make_frame


def program(path: Path, line: str) -> str:
    """A shell script of one line that stands for a browser."""
    path.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def figure() -> go.Figure:
    drawn = go.Figure(go.Scatter(x=[1, 2], y=[3, 4]), {"height": 300, "paper_bgcolor": "rgba(0,0,0,0)"})
    return drawn.update_xaxes(title="an axis of $x^2$")


def test_a_png_has_two_dots_a_pixel(tmp_path):
    chromium()
    write(figure(), tmp_path / "f.png")
    content = (tmp_path / "f.png").read_bytes()
    assert content.startswith(b"\x89PNG") and content[12:16] == b"IHDR"
    assert [int.from_bytes(content[at : at + 4]) for at in (16, 20)] == [1400, 600]


def test_drawing_asks_nobody(tmp_path, monkeypatch):
    log = tmp_path / "net.json"
    line = f'exec {shlex.quote(chromium())} "$@" --log-net-log={shlex.quote(str(log))}'
    monkeypatch.setenv("BROWSER_PATH", program(tmp_path / "browser", line))
    mine = figure()
    write(mine, tmp_path / "f.svg")
    text = (tmp_path / "f.svg").read_text(encoding="utf-8")
    assert "an axis of $x^2$" in text
    assert re.match(r"<svg[^>]*><rect[^>]*fill: rgb\(255, 255, 255\); fill-opacity: 1;", text)
    assert mine == figure()  # white is for the picture alone
    assert all(name.startswith("www.w3.org/") for name in re.findall(r"https?://([^\"]+)", text))
    # The browser has errands of its own, which the proxy that does not answer keeps at home.
    logged = log.read_text(encoding="utf-8")
    asked = set(re.findall(r'"url":"https?://([^/"]+)', logged))
    assert "127.0.0.1:9" in logged and not asked & {"cdn.plot.ly", "cdnjs.cloudflare.com"}


def test_every_figure_of_a_report_is_a_file_with_the_name_of_its_task(tmp_path):
    chromium()
    frame = make_frame(tasks=("recall", "../a b<i>"), seeds=(0, 1))
    found = figures(Results(frame, "", {}), Asked("x", "", "accuracy", 0.02))
    tasks = {f"{kind}-{task}" for kind in ("curve", "position") for task in ("recall", "a-b-i")}
    assert {re.sub("-lt-|-gt", "-", name).strip("-") for name in found} == {
        "heatmap",
        "ratio",
        *(f"front-{key}" for key in ("state", *(f"state-{4**n}" for n in range(3, 9)), "flops", "params")),
        *tasks,
    }
    assert all(Path(name).name == name and not name.startswith(".") for name in found)
    few = {tmp_path / f"{name}.svg": found[name] for name in ("heatmap", "front-state")}
    write_all(few)
    assert {path.name for path in tmp_path.iterdir()} == {"heatmap.svg", "front-state.svg"}
    assert all("r=3" in path.read_text(encoding="utf-8") for path in few)


def test_a_browser_that_fails_is_one_sentence(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("BROWSER_PATH", program(tmp_path / "browser", "exit 1"))
    with pytest.raises(PictureError, match="browser did not draw the picture") as caught:
        write(figure(), tmp_path / "f.svg")
    assert "\n" not in str(caught.value) and not (tmp_path / "f.svg").exists()
    assert caplog.records == []
