"""``lab calibrate``: what it prints, and how it refuses."""

from __future__ import annotations

import json
import re
import sys
from xml.etree import ElementTree

import pytest

from sweeps.results import SCHEMA
from tests.analysis.test_calibration import reference
from tests.browser import chromium

OPTIONS = ("--halves", "2", "--budget", "2")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    path = tmp_path_factory.mktemp("reference") / "reference.parquet"
    reference().write_parquet(path)
    return path


def test_the_page_has_every_part(answer, stored, tmp_path):
    html = tmp_path / "trust.html"
    text = answer("calibrate", stored, *OPTIONS, "--close", "r=3:1, r=4:1,r=6:1", "--html", html)
    for words in (
        "Reference: 6 schedules, 4 seeds, 2 cells, 2.67 CPU-minutes per schedule",
        "halves of its seeds",
        "CPU-min",
        "Chosen protocol:",
        "tell close neighbours apart",
        "of 10,000 resamples",
        "real pairs",
        "agrees       Transformer above GLA on compression",
        f"page: {html}",
    ):
        assert words in text, words
    assert html.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_figure_is_a_picture_that_says_what_it_shows(answer, stored, tmp_path):
    chromium()
    path = tmp_path / "frontier.svg"
    assert answer("calibrate", stored, *OPTIONS, "--figure", path).endswith(f"\n\nfigure: {path}\n")
    root = ElementTree.parse(path).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and root.get("width") == "700"
    words = {"".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {
        "CPU-minutes per architecture (log scale)",
        "Kendall's tau-b with the reference",
        "Agreement with the reference against cost",
        "6 schedules, 4 seeds, 2 cells, score auc",
        "target: tau 0.9 within 2 CPU-minutes",
    } <= words


def test_json_is_one_document_of_the_same(answer, stored):
    told = json.loads(answer("calibrate", stored, *OPTIONS, "--protocol", stored, "--json"))
    assert told["real"]["agreement"]["tau"] == 1 and told["real"]["shared"] == 96
    assert len(told["ranking"]) == 6 and told["frontier"] and told["published"]
    assert told["honesty"]["resampled"]["trials"] == 10_000
    assert {"split_half", "repeat"} == set(told["ceiling"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("none.parquet",), "there is no such file"),
        (("REFERENCE", "--close", "r=9,gdn"), "there is no schedule 'r=9'"),
        (("REFERENCE", "--score", "steps"), "choose one of auc, accuracy"),
        (("REFERENCE", "--ties", "some"), "choose one of paired, overlap, none"),
        (("REFERENCE", "--budget", "0"), "must be above 0"),
        (("REFERENCE", "--html", "no/such/place.html"), "a folder that exists"),
        (("none.parquet", "--figure", "f.pdf"), r"f\.pdf: .* \.svg or \.png"),
        (("none.parquet", "--figure", "no/such/place.svg"), "a folder that exists"),
        (("none.parquet", "--figure", "FOLDER.png"), "a file name"),
        (("REFERENCE", "--protocol", "none.parquet"), "there is no such file"),
        (("EMPTY",), "it has no rows"),
        (("ONE_SEED",), "at least 2 seeds"),
        (("FOLDER",), "no run folder"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(lab, stored, tmp_path, options, words):
    SCHEMA.to_frame().write_parquet(tmp_path / "EMPTY")
    reference(1).write_parquet(tmp_path / "ONE_SEED")
    for folder in ("FOLDER", "FOLDER.png"):
        (tmp_path / folder).mkdir()
    names = ("EMPTY", "ONE_SEED", "FOLDER", "FOLDER.png")
    where = {"REFERENCE": stored, **{name: tmp_path / name for name in names}}
    done = lab("calibrate", *(where.get(word, word) for word in options))
    assert done.code == 2 and done.out == ""
    assert done.err.startswith("error: ") and len(done.err.splitlines()) == 1
    assert re.search(words, done.err), done.err


@pytest.mark.parametrize(
    ("lack", "words"),
    [
        ("kaleido", r"pip install 'hybrid-architecture-lab\[figures\]'"),
        ("browser", "on Debian or Ubuntu: apt-get install chromium; elsewhere set BROWSER_PATH"),
        ("named browser", "BROWSER_PATH is '/none/chromium', which is no program"),
    ],
)
def test_what_a_figure_lacks_is_told_before_anything_is_computed(lab, tmp_path, monkeypatch, lack, words):
    monkeypatch.delenv("BROWSER_PATH", raising=False)
    if lack == "kaleido":
        monkeypatch.setitem(sys.modules, "kaleido", None)
    if lack == "browser":
        monkeypatch.setenv("PATH", str(tmp_path))
    if lack == "named browser":
        monkeypatch.setenv("BROWSER_PATH", "/none/chromium")
    done = lab("calibrate", "none.parquet", "--figure", tmp_path / "frontier.svg")
    assert done.code == 2 and done.out == "" and len(done.err.splitlines()) == 1
    assert re.search(words, done.err), done.err
