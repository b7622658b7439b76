"""``lab dashboard`` in a real browser beside a real sweep, and its server asked as no browser would ask."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest

from lab.site import HERE, Server, Site
from lab.watch import Watch
from sweeps.begin import locked
from sweeps.results import read, write_run
from sweeps.status import at_work
from tests.analysis.factory import make_folder, make_frame
from tests.browser import Tab, opened

LAB = [sys.executable, "-c", "from lab.cli import main; main()"]


@contextmanager
def served(folder: Path) -> Iterator[int]:
    """The port of a server in this process."""
    with Server((HERE, 0), Site(Watch(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def get(port: int, path: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(HERE, port, timeout=60)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "ratios", make_frame())


def test_another_name_for_this_machine_is_refused(folder: Path) -> None:
    with served(folder) as port:
        for host in (f"127.0.0.1:{port}", "localhost", "localhost:9"):  # another port: a tunnel
            assert get(port, "/state", Host=host)[0].status == 200
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "", "localhost:x"):
            for path in ("/", "/state", "/runs.parquet", "/report.html"):
                answer, content = get(port, path, Host=host)
                assert answer.status == 403 and b"ratios" not in content
        assert get(port, "/../../etc/passwd")[0].status == 404
        everywhere = socket.socket()
        with everywhere, pytest.raises(OSError, match="refused"):
            everywhere.connect(("127.0.0.2", port))  # bound to one address


def test_an_unchanged_folder_is_answered_without_a_body(folder: Path) -> None:
    with served(folder) as port:
        first, _ = get(port, "/state")
        tag = first.headers["ETag"]
        again, content = get(port, "/state", **{"If-None-Match": tag})
        assert (again.status, content) == (304, b"")
        write_run(folder, make_frame(labels=("r=9",), tasks=("recall",), seeds=(7,), settings=1))
        changed, content = get(port, "/state", **{"If-None-Match": tag})
        assert changed.status == 200 and changed.headers["ETag"] != tag
        assert "<b>37</b> runs" in json.loads(content)["progress"]


def test_what_is_kept_is_what_is_there(folder: Path) -> None:
    with served(folder) as port:
        answer, content = get(port, "/runs.parquet")
        assert answer.headers["Content-Disposition"] == 'attachment; filename="ratios.parquet"'
        assert pl.read_parquet(io.BytesIO(content)).equals(read(folder).frame)
        _, page = get(port, "/report.html")
        assert page.startswith(b"<!doctype html>") and b"Plotly.newPlot(" in page


def test_a_folder_read_in_steps_is_the_folder_read_at_once(tmp_path: Path) -> None:
    frame = make_frame()
    folder = make_folder(tmp_path / "ratios", frame.clear())
    watch = Watch(folder)
    runs = frame.partition_by("run")
    for place, run in enumerate(runs):
        path = write_run(folder, run)
        listing = watch.listing()
        if place % 5 == 2:
            path.unlink()  # between listing and reading
        assert watch.results(listing).frame.equals(read(folder).frame)
        assert not watch.broken
    for path in sorted((folder / "trials").iterdir())[:3]:
        path.rename(folder / "earlier" / path.name)
    assert watch.results(watch.listing()).frame.equals(read(folder).frame)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"\0" * 4000])
def test_half_a_file_is_named_and_left_out_until_it_is_whole(folder: Path, content: bytes) -> None:
    path = sorted((folder / "trials").iterdir())[0]
    whole = path.read_bytes()
    with served(folder) as port:
        path.write_bytes(content)
        told = json.loads(get(port, "/state")[1])
        assert path.name in told["problem"] and told["problem"].startswith("1 file left out")
        assert any(part["name"] == "learning" for part in told["parts"])
        path.write_bytes(whole)
        wait(lambda: json.loads(get(port, "/state")[1])["problem"] == "")


@pytest.mark.parametrize("name", ["env.json", "failures.jsonl", "pruned.json", "recipe.yaml"])
def test_a_folder_that_breaks_is_a_sentence_and_mends(folder: Path, name: str) -> None:
    with served(folder) as port:
        before = (folder / name).read_bytes() if (folder / name).exists() else None
        (folder / name).write_text("- [\n", encoding="utf-8")
        told = json.loads(get(port, "/state")[1])
        assert name in told["problem"] or "run folder" in told["problem"]
        (folder / name).unlink() if before is None else (folder / name).write_bytes(before)
        wait(lambda: json.loads(get(port, "/state")[1])["problem"] == "")


def wait(true, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_folder_that_has_settled_is_not_looked_through_and_every_change_is_seen(folder: Path) -> None:
    trials, old = folder / "trials", time.time() - 60
    watch = Watch(folder)
    seen = {watch.listing().version}
    for step in range(6):
        path = sorted(trials.iterdir())[0]
        path.rename(folder / "earlier" / path.name)
        if step % 2:
            os.utime(trials, (old + step, old + step))  # as if long ago
        watch.listing()
        assert (watch._settled is not None) == bool(step % 2)
        assert watch.listing() == Watch(folder).listing()
        seen.add(watch.listing().version)
    assert len(seen) == 7


def test_a_sweep_at_work_is_seen_by_its_lock_and_not_hindered(folder: Path) -> None:
    assert not at_work(folder)
    with locked(folder):
        assert at_work(folder)
        assert Watch(folder).pulse(Watch(folder).listing(), 0).state == "working"
    assert not at_work(folder)
    (folder / "status.json").write_text('{"state": "working", "total": 40, "eta": 5, "at_once": 2}')
    stopped = Watch(folder).pulse(Watch(folder).listing(), 0)
    assert (stopped.state, stopped.total, stopped.eta, stopped.running) == ("stopped", 40, None, None)


def test_a_port_that_is_taken_is_one_sentence(lab, folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind((HERE, 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = lab("dashboard", folder, "--port", port)
    assert done.code == 2 and done.out == "" and done.err.count("\n") == 1
    assert done.err.startswith("error: ") and str(port) in done.err and "--port" in done.err


FEW = ("--set", "train.steps=20", "--set", "train.eval_examples=8", "--set", "seeds=400", "--workers", "1")
BAR = "document.querySelector('#bar').innerText"
COUNT = "Number(document.querySelector('#bar b').innerText.replace(',', ''))"
CURVE = "document.querySelector('#fig-curve-0')"
LINES = f"{CURVE}.data.filter(line => line.visible !== false && line.name).map(line => line.name)"
ROWS = "[...document.querySelectorAll('[data-part=ranking] tr[data-schedule]')]"
SHOWN = f"{ROWS}.filter(row => row.offsetParent).map(row => row.dataset.schedule)"
HEAT = (
    "[...document.querySelectorAll('.heat tbody tr')]"
    ".filter(row => row.offsetParent).map(row => row.cells[0].innerText)"
)
SPOT = "({x, y, width, height}) => [x, y, width, height]"
POINT = """figure => {
  const {x, y} = figure.data.find(line => line.name), at = x.indexOf(10), {xaxis, yaxis} = figure._fullLayout;
  return [xaxis.l2p(x[at]), yaxis.l2p(y[at])];
}"""
BOX = f"({SPOT})({CURVE}.querySelector('.nsewdrag').getBoundingClientRect())"


@pytest.mark.slow
def test_a_sweep_is_watched_as_it_runs(workplace: Path, tmp_path: Path) -> None:
    with opened(tmp_path / "profile") as tab:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        sweep = subprocess.Popen([*LAB, "sweep", "window.yaml", *FEW], **quiet)
        server = None
        try:
            folder = Path("runs/window")
            wait(lambda: (folder / "recipe.yaml").exists() and at_work(folder))
            piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            server = subprocess.Popen([*LAB, "dashboard", "window"], **piped)
            address = re.findall(r"http://127\.0\.0\.1:\d+/", server.stdout.readline())[0]
            tab.width(1300)
            tab.open(address)
            tab.until(f"{CURVE} && {CURVE}.data && {ROWS}.length === 2")
            tab.run(f"window.here = {CURVE}; {CURVE}.scrollIntoView({{block: 'center'}})")
            the_mouse_shows_values(tab)
            a_run_arrives(tab)
            the_filter_hides(tab)
            files_are_kept(tab, tmp_path)
            a_phone_shows_it_whole(tab)
            sweep.send_signal(signal.SIGINT)
            sweep.wait(timeout=60)
            tab.until(f"/No sweep is at work|Stopped/.test({BAR})")
            server.send_signal(signal.SIGINT)
            _, said = server.communicate(timeout=60)
            assert server.returncode == 0 and said.count("\n") == 1 and "Traceback" not in said
            tab.until(f"{BAR}.includes('has not answered since')")
            asked = {event["request"]["url"] for event in tab.happened("Network.requestWillBeSent")}
            assert asked and all(url.startswith((address, "data:", "blob:")) for url in asked), asked
            assert [text for text in tab.complaints() if "ERR_CONNECTION_REFUSED" not in text] == []
        finally:
            for process in (sweep, server):
                if process is not None and process.poll() is None:
                    process.kill()
                    process.communicate()


def a_run_arrives(tab: Tab) -> None:
    """On the same page, in the same figure, which stays as it was zoomed."""
    x, y, width, height = tab.run(BOX)
    tab.drag((x + width / 4, y + height / 4), (x + width / 2, y + height / 2))
    whole, zoomed = [0, 20], tab.until(f"{CURVE}.layout.xaxis.range[0] > 0 && {CURVE}.layout.xaxis.range")
    before, drawn = tab.run(COUNT), tab.run(f"JSON.stringify({CURVE}.data)")
    tab.until(f"{COUNT} > {before} && JSON.stringify({CURVE}.data) !== {json.dumps(drawn)}")
    assert tab.run(f"window.here === {CURVE}") and tab.run(f"{CURVE}.layout.xaxis.range") == zoomed != whole
    assert "At work" in tab.run(BAR) and "last change" in tab.run(BAR)


def the_mouse_shows_values(tab: Tab) -> None:
    for _ in range(50):  # a run that arrives at this moment takes the label away
        x, y, *_ = tab.run(BOX)
        right, down = tab.run(f"({POINT})({CURVE})")
        tab.move(x + right - 2, y + down)
        tab.move(x + right, y + down)
        time.sleep(0.1)
        if text := tab.run(f"({CURVE}.querySelector('.hovertext') || {{}}).textContent"):
            assert "step 10: 0." in text
            return
    pytest.fail("hovering showed nothing")


def the_filter_hides(tab: Tab) -> None:
    """By words, in tables and figures, in what arrives later, too; Escape and the buttons take it back."""
    assert sorted(tab.run(SHOWN)) == sorted(tab.run(LINES)) == ["w=16", "w=4"]
    tab.key("/")
    tab.call("Input.insertText", text="W=16")
    tab.until(f"{SHOWN}.length === 1 && {LINES}.length === 1")
    assert tab.run(SHOWN) == tab.run(LINES) == ["w=16"]
    assert tab.run(HEAT) == ["ceiling", "w=16", "chance"]
    before = tab.run(COUNT)
    tab.until(f"{COUNT} > {before}")
    assert tab.run(SHOWN) == tab.run(LINES) == ["w=16"]
    tab.key("Escape")
    tab.until(f"{SHOWN}.length === 2 && {LINES}.length === 2 && {HEAT}.length === 4")
    for left in (1, 2):
        tab.run("document.querySelector('#schedules button').click()")
        tab.until(f"{SHOWN}.length === {left} && {LINES}.length === {left}")


def files_are_kept(tab: Tab, place: Path) -> None:
    """The links and the buttons of a figure leave files that are what they say."""
    tab.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(place))
    for link, name in (("runs.parquet", "window.parquet"), ("report.html", "window-report.html")):
        tab.run(f"document.querySelector('a[href=\"{link}\"]').click()")
        wait((place / name).exists)
    kept = pl.read_parquet(place / "window.parquet")
    stored = read(Path("runs/window")).frame
    assert kept.height and kept.equals(stored.filter(pl.col("run").is_in(kept["run"].unique().to_list())))
    assert "Plotly.newPlot(" in (place / "window-report.html").read_text(encoding="utf-8")
    for ending, head in (("svg", b"<svg"), ("png", b"\x89PNG")):
        tab.run(f"document.querySelector('#fig-front [data-title$={ending.upper()}]').click()")
        wait((place / f"fig-front.{ending}").exists)
        assert (place / f"fig-front.{ending}").read_bytes().startswith(head)


def a_phone_shows_it_whole(tab: Tab) -> None:
    tab.width(400)
    tab.until("innerWidth === 400")
    assert tab.run("document.documentElement.scrollWidth") <= 400
    tab.width(1300)
