"""The parts of a live page: the report's own once there is a ranking, before it what there is."""

from __future__ import annotations

import re

import polars as pl
import pytest

from analysis import report
from analysis.dashboard import POLICY, Pulse, page, parts, progress, script, state, version
from analysis.report import Asked, body, judged
from analysis.tables import board, so_far
from sweeps.results import Results

from .factory import make_frame
from .test_report import HOSTILE, Page

ABOUT = Asked("ratios", f"Which? {HOSTILE}", "accuracy", 0.02)


def found(frame: pl.DataFrame) -> Results:
    return Results(frame, "name: ratios\n", {"python": "3.11"})


def begun() -> pl.DataFrame:
    """Two schedules, of which each lacks a setting that the other has, and one that lacks a task whole."""
    frame = make_frame(labels=("r=3", HOSTILE, "r=9"), tasks=("recall", "copying"), seeds=(0,))
    frame = frame.filter((pl.col("label") != "r=9") | (pl.col("task") == "recall"))
    lacks = (
        pl.when(pl.col("label") == "r=3")
        .then(pl.lit("copying(vocab=16)"))
        .otherwise(pl.lit("recall(vocab=16)"))
    )
    return frame.filter(pl.col("setting") != lacks)


def test_a_live_page_shows_the_figures_of_the_report():
    results = found(make_frame())
    live = {part.name: part for part in parts(judged(results, ABOUT))}
    still = {part.name: part for part in body(judged(results, ABOUT))}
    assert set(live) - set(still) == {"head"}
    for name, part in still.items():
        assert live[name].html == part.html
        assert {k: f.to_json() for k, f in live[name].figures.items()} == {
            k: f.to_json() for k, f in part.figures.items()
        }


def test_every_figure_has_its_place_in_the_html_of_its_part():
    for frame in (make_frame(), begun()):
        for part in parts(judged(found(frame), ABOUT)):
            assert set(part.figures) == set(re.findall(r'id="(fig-[\w-]+)"', part.html))
            assert "<script" not in part.html


def test_before_the_first_round_it_shows_the_runs_that_have_ended_and_how_they_learn():
    frame = begun()
    judgement = judged(found(frame), ABOUT)
    assert judgement.ranking is None and board(frame).labels == ()
    assert set(so_far(frame, "accuracy").runs["run"]) == set(frame["run"])
    shown = {part.name: part for part in parts(judgement)}
    assert len(shown["learning"].figures) == 2 and "ranking" not in shown
    counts = re.findall(r'class="num">(\d+)</td>', shown["ended"].html)
    assert sum(map(int, counts)) == frame["run"].n_unique()
    assert "no round is complete" in shown["learning"].html
    assert [part.name for part in parts(judged(found(frame.clear()), ABOUT))][:2] == ["head", "answer"]


def test_a_sweep_that_says_its_first_round_is_under_way_is_not_ranked_by_what_looks_complete():
    for round_, state_, early in (
        (1, "working", True),
        (1, "stopped", True),
        (2, "working", False),
        (1, "complete", False),
    ):
        assert Pulse(state_, 1, round=round_).early == early
    names = {one["name"] for one in state(found(make_frame()), ABOUT, early=True)["parts"]}
    assert "ended" in names and "ranking" not in names


def test_words_of_users_are_words_on_a_live_page():
    for frame in (make_frame(labels=("r=3", HOSTILE)), begun()):
        for part in parts(judged(found(frame), ABOUT)):
            tags = Page(part.html).tags
            assert not [tag for tag, given in tags if tag == "img" or any(n.startswith("on") for n in given)]
    assert not [tag for tag, _ in Page(page(HOSTILE, HOSTILE)).tags if tag == "img"]


def test_the_filter_knows_every_schedule_that_a_figure_names():
    for frame in (make_frame(labels=("r=3", HOSTILE)), begun()):
        told = state(found(frame), ABOUT)
        keys = {one["key"] for one in told["schedules"]}
        for part in parts(judged(found(frame), ABOUT)):
            for figure in part.figures.values():
                named = {trace.meta["schedule"] for trace in figure.data if trace.meta}
                assert named <= keys
                assert {note.name for note in figure.layout.annotations if note.name} <= keys


def test_a_version_is_the_same_for_the_same_and_another_for_anything_else():
    seen = [{"a.parquet": (1, 2)}, {"a.parquet": (1, 3)}, {"b.parquet": (1, 2)}, {}]
    assert len({version(one) for one in seen}) == len(seen)
    assert version(dict(seen[0])) == version(seen[0])


@pytest.mark.parametrize("at", ["working", "idle", "complete", "decided", "time", "stopped"])
def test_the_bar_tells_what_the_folder_tells_and_no_more(at):
    bare = progress(Pulse(at, finished=3)).html
    assert "3</b> runs" in bare and "progressbar" not in bare and "about" not in bare and "<time" not in bare
    full = progress(Pulse(at, 3, 1, 1e9, total=8, running=2, round=1, rounds=2, eta=61.0)).html
    for words in ("3</b> of 8 runs", "2 under way", "1 failed", "round 1 of 2", "about 61 s left"):
        assert words in full
    assert [float(share) for share in re.findall(r"width:([\d.]+)%", full)] == [37.5, 12.5, 25.0]
    assert 'data-at="1000000000"' in full
    more = progress(Pulse(at, 9, total=8)).html  # the folder may be ahead of what the sweep last said
    assert "of 9 runs" in more and "width:100.00%" in more


def test_the_page_runs_no_script_of_its_own_and_asks_its_server_alone():
    text = page("ratios", "ratios")
    for tag, given in Page(text).tags:
        for name in ("src", "href"):
            assert re.fullmatch(
                r"(plotly|dashboard)\.js|report\.html|runs\.parquet|data:,", given.get(name) or "data:,"
            )
        assert tag != "script" or given.get("src")
    assert (
        "script-src 'self';" in POLICY and "connect-src 'self'" in POLICY and "default-src 'none'" in POLICY
    )
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", script() + report.beside("dashboard.css"))
