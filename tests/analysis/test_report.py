"""The report stands alone: it opens in a browser, draws its figures, calls nobody, runs nothing of users."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs

from analysis import plots
from analysis.report import asked, figures, plotly_js, write
from sweeps.results import Failure, ResultsError, read
from tests.browser import opened

from .factory import make_folder, make_frame

HOSTILE = "</script><img src=x onerror=document.title='owned'><b>&amp;\"'`"
RECIPE = f"# Which ratio? {HOSTILE}\n# See https://example.org/x\n#\n# Not this.\nname: ratios\n"
VOID = {"meta", "link", "br", "img", "input", "line", "rect", "circle", "wbr"}


class Page(HTMLParser):
    """Tags, attributes and visible text of a page; complains about tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.words += data


def hostile_folder(folder: Path) -> Path:
    def lost(label, _task, seed, _lr):
        return "diverged" if (label, seed) == ("r=4", 1) else "budget"

    frame = make_frame(labels=("r=3", "r=4", HOSTILE), tasks=("recall", "noisy_recall"), status=lost)
    failure = Failure("x", HOSTILE, HOSTILE, 3, HOSTILE, "2026-01-01")
    return make_folder(folder, frame, RECIPE, [failure])


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    return write(hostile_folder(tmp_path_factory.mktemp("run") / "ratios"))


@pytest.fixture(scope="module")
def text(report) -> str:
    return report.read_text(encoding="utf-8")


def test_no_address_is_in_the_page_but_names_of_xml_and_the_users_own_words(text):
    found = set(re.findall(r"https?://[^\s\"'`<>)\\,;]+", text.replace("https://example.org/x", "")))
    assert all(address.startswith("http://www.w3.org/") for address in found), found
    assert "cloud.plotly.com/newchart" not in text.replace("about:invalid#cloud.plotly.com/newchart", "")


def test_nothing_is_loaded_and_no_connection_is_allowed(text):
    page = Page(text)
    for tag, attributes in page.tags:
        assert not {"src", "href", "srcset", "action", "data"} & set(attributes), (tag, attributes)
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in str(policy)


def test_plotly_is_embedded_once_and_every_figure_is_told_to_keep_to_itself(text):
    assert text.count("plotly.js v") == 1
    figures = re.findall(r'json" data-figure="[^"]+"[^>]*>(.*?)</script>', text, re.S)
    assert len(figures) == 2 + 2 * 2
    for figure in map(json.loads, figures):
        wanted = {"showSendToCloud": False, "plotlyServerURL": "", "displaylogo": False}
        assert wanted.items() <= figure["config"].items()


def test_words_of_users_are_words(text):
    page = Page(text)
    assert not [tag for tag, _ in page.tags if tag in ("img", "b") and tag != "b"]
    assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]
    assert page.words.count(HOSTILE) >= 5  # question, ranking, failures, recipe
    assert RECIPE in page.words


def test_the_page_has_its_parts_and_a_text_for_every_figure(text):
    page = Page(text)
    for part in (
        "Ranking",
        "Schedule by task",
        "How they learn",
        "What failed",
        "How to read this",
        "Recipe",
    ):
        assert part in page.words
    assert "first bad layer 2 (gdn)" in page.words and "Not this." not in page.words.split("Ranking")[0]
    for tag, attributes in page.tags:
        if attributes.get("role") == "img":
            assert attributes.get("aria-label"), tag
    assert next(a["aria-label"] for _, a in page.tags if a.get("class") == "strip") == (
        "6 layers: 3 linear, 3 full; full in layer 1, 3, 5"
    )


def test_the_summary_is_json_and_agrees_with_the_page(text):
    block = re.search(r'<script type="application/json" id="summary">(.*?)</script>', text, re.S)
    assert block
    summary = json.loads(block.group(1))
    assert {row["label"] for row in summary["ranking"]["rows"]} == {"r=3", "r=4", HOSTILE}
    assert summary["sentence"].split(" Note: ")[0] in Page(text).words


@pytest.mark.parametrize("seeds", [(), (0,), (0, 1)])
def test_a_sweep_that_just_began_has_a_report_too(tmp_path, seeds):
    frame = make_frame(seeds=seeds) if seeds else make_frame().clear()
    page = Page(write(make_folder(tmp_path / "run", frame)).read_text(encoding="utf-8"))
    assert ("No round is complete" in page.words) == (not seeds)


def test_a_long_ranking_is_listed_in_part_and_its_summary_has_it_whole(tmp_path):
    labels = [f"k={place}" for place in range(plots.LISTED + 20)]
    folder = make_folder(
        tmp_path / "run",
        make_frame(
            labels=labels, tasks=("recall",), seeds=(0,), settings=1, state=lambda rank: 10_000 - 100 * rank
        ),
    )
    text = write(folder).read_text(encoding="utf-8")
    summary = json.loads(re.findall(r'id="summary">(.*?)</script>', text, re.S)[0])
    ranked = [row["label"] for row in summary["ranking"]["rows"]]
    assert len(ranked) == len(labels)
    listed = re.findall(r'<tr[^>]*data-schedule="([^"]+)"', text)
    assert listed == 2 * ranked[: plots.LISTED]
    assert f"{plots.LISTED} of {len(labels)} schedules are listed" in text
    figure = figures(read(folder), asked(read(folder), folder))["front-state"]
    points = [trace for trace in figure.data if "markers" in trace.mode]
    assert sum(len(trace.x) for trace in points) == len(labels)
    assert len(figure.data) < plots.LISTED


@pytest.mark.parametrize("score", ["accuracy", "auc", "steps"])
def test_the_score_of_the_recipe_is_the_score_of_the_report(tmp_path, score):
    folder = make_folder(tmp_path / "run", make_frame(), f"name: x\nscore: {score}\nmargin: 3e-2\n")
    summary = re.search(r'id="summary">(.*?)</script>', write(folder).read_text(encoding="utf-8"), re.S)
    assert summary and json.loads(summary.group(1))["ranking"]["score"] == score
    assert json.loads(summary.group(1))["ranking"]["margin"] == pytest.approx(
        3.0 if score == "steps" else 0.03
    )


@pytest.mark.parametrize(
    "recipe", ["a: [", "just text", "score: speed", "margin: wide", "margin: [1]", "[" * 1500]
)
def test_a_broken_recipe_is_one_sentence(tmp_path, recipe):
    folder = make_folder(tmp_path / "run", make_frame(seeds=(0,)), recipe)
    with pytest.raises(ResultsError, match=r"recipe\.yaml: .*run the sweep again") as caught:
        write(folder)
    assert "\n" not in str(caught.value) and not (folder / "report.html").exists()


def test_the_page_goes_where_it_is_told_or_says_why_not(tmp_path):
    folder = make_folder(tmp_path / "run", make_frame(seeds=(0,)))
    assert write(folder, tmp_path / "page.html") == tmp_path / "page.html"
    for bad in (tmp_path, tmp_path / "nowhere" / "page.html"):
        with pytest.raises(ResultsError, match="folder that exists"):
            write(folder, bad)
    with pytest.raises(ResultsError):
        write(tmp_path / "no such run")


def test_a_browser_draws_every_figure_and_asks_nobody(report, text, tmp_path):
    log = tmp_path / "net.json"
    options = ("--host-resolver-rules=MAP * ~NOTFOUND", f"--log-net-log={log}")
    with opened(tmp_path / "profile", *options) as tab:
        tab.open(report.as_uri())
        tab.until("waiting.size == 0")  # they are drawn when nothing else is to do
        for name in re.findall(r'<div id="(fig-[a-z0-9-]+)"', text):
            assert tab.run(f"document.querySelectorAll('#{name} svg.main-svg').length"), name
        assert tab.run("document.title").startswith("ratios")  # the hostile label did not run
        assert tab.complaints() == []
    asked = set(re.findall(r'"url":"https?://([^/"]+)', log.read_text(encoding="utf-8")))
    known = set(
        re.findall(r"https?://([a-z0-9.-]+)", get_plotlyjs() + text)
    )  # the browser has errands of its own
    assert "cloud.plotly.com" in known and not asked & known


def test_plotly_is_parsed_once():
    script = plotly_js()
    assert ": this, (() => {" in script and script.rstrip().endswith("})));")
    assert len(script) > 4_000_000
