"""The front: nobody on it is beaten, nobody off it is unbeaten, and every axis of the page tells the same."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from analysis import front
from analysis.report import asked, figures, judged, write
from analysis.stats import Ranking, rank
from analysis.tables import Board, board
from sweeps.results import Pruned, ResultsError, read

from .factory import STEPS, flat, make_folder, make_frame

LABELS = ("r=3", "r=4", "r=5", "r=6")
ENDS = {"r=3": 0.8, "r=4": 0.9, "r=5": 0.5, "r=6": 0.6}  # by the factory, the later the cheaper


def ranked_by(score: str = "accuracy", pruned: tuple[Pruned, ...] = ()) -> tuple[Board, Ranking]:
    frame = make_frame(LABELS, curve=lambda label, _task, seed, _lr: flat(ENDS[label] + 0.001 * seed))
    ranked = board(frame, score, pruned)  # pyright: ignore[reportArgumentType]
    ranking = rank(ranked)
    assert ranking is not None
    return ranked, ranking


def test_nondominated_is_what_its_words_say():
    seed = int(np.random.default_rng().integers(2**32))
    print("seed", seed)
    rng = np.random.default_rng(seed)
    for columns, values in itertools.product((1, 2, 3), (2, 5, 1000)):
        rows = rng.integers(values, size=(40, columns)).astype(float)  # few values: many ties
        beaten = [any((other >= row).all() and (other > row).any() for other in rows) for row in rows]
        assert front.nondominated(rows).tolist() == [not one for one in beaten]


def test_the_front_is_of_score_and_cost_and_who_left_the_race_is_on_it_too():
    left = Pruned("arch-r=6", "r=6", 2, 3, "r=4", 4, 4, 0.01)
    for ranked, ranking in (ranked_by(), ranked_by(pruned=(left,))):
        for axis in front.axes(ranked, ranking):
            on = [row.label for row in front.front(ranking, [axis.cost])]
            # The factory's parameters grow by one where state and FLOPs fall.
            assert on == (["r=3", "r=4"] if axis.key == "params" else ["r=6", "r=4"]), axis.key


def test_the_axes_are_state_at_every_length_flops_and_parameters():
    ranked, ranking = ranked_by()
    found = {axis.key: axis for axis in front.axes(ranked, ranking)}
    lengths = ranked.candidates["state_lengths"][0].to_list()
    assert list(found) == ["state", *(f"state-{n}" for n in lengths), "flops", "params"]
    assert found["state-1024"].cost["arch-r=3"] == 8000
    assert found["flops"].cost == {row.arch: row.flops for row in ranking.rows}


def test_every_choice_of_the_page_is_the_figure_of_its_axis():
    ranked, ranking = ranked_by()
    (drawn,) = front.section_of(ranked, ranking, ("score", "flops")).figures.values()
    page = json.loads(drawn.to_json() or "")
    alone = {name: json.loads(f.to_json() or "") for name, f in front.figures(ranked, ranking).items()}
    assert page["layout"]["xaxis"]["title"]["text"] == "forward FLOPs per token", "the first cost it weighs"
    for choice in page["layout"]["meta"]["axes"]:
        wanted = alone[f"front-{choice['key']}"]
        for trace, changed, of in zip(page["data"], choice["traces"], wanted["data"], strict=True):
            assert {**trace, **changed} == of
        assert choice["xaxis"]["title"] == wanted["layout"]["xaxis"]["title"]
        for row in front.front(ranking, [{r.arch: r.state for r in ranking.rows}]):
            assert choice["key"] != "state" or row.label in choice["caption"]


def test_points_off_the_front_are_paler_and_all_have_intervals():
    ranked, ranking = ranked_by()
    drawn = front.figures(ranked, ranking)["front-state"]
    shown = {trace.name: trace for trace in drawn.data if trace.name}
    assert {label: trace.opacity for label, trace in shown.items()} == {
        "r=3": front.PALE, "r=4": 1.0, "r=5": front.PALE, "r=6": 1.0
    }  # fmt: skip
    assert all(trace.error_y.array[0] > 0 for trace in shown.values())
    line = drawn.data[0]
    assert (list(line.x), line.line.shape) == ([700, 900], "hv")


def test_the_ring_is_on_the_cheapest_within_the_margin():
    ranked = board(make_frame(curve=lambda *_: [0.1, 0.2, 0.3, 0.4, 0.5]))
    ranking = rank(ranked)
    assert ranking is not None and ranking.cheapest == "r=5" and len(STEPS) == 5
    drawn = front.figures(ranked, ranking)["front-state"]
    assert [trace.name for trace in drawn.data if trace.marker.symbol == "circle-dot"] == ["r=5"]


def test_fewer_steps_are_better():
    _, ranking = ranked_by("steps")
    assert [row.label for row in front.front(ranking, [{row.arch: row.state for row in ranking.rows}])] == [
        "r=6"
    ]  # all get there at the same step, so that the cheapest beats all


def test_a_recipe_that_weighs_costs_has_its_front_in_words_and_one_that_does_not_has_none(tmp_path):
    frame = make_frame(LABELS, curve=lambda label, _task, seed, _lr: flat(ENDS[label] + 0.001 * seed))
    folder = make_folder(tmp_path / "run", frame, "name: x\nobjective: [score, state, flops]\n")
    said = "On the front of score, state and FLOPs, of 4 schedules, the cheapest first: r=6, r=4."
    assert said in write(folder).read_text(encoding="utf-8")
    found = judged(read(folder), asked(read(folder), folder))
    assert front.sentence(found.ranking, ("score",)) == front.sentence(None, ("score", "state")) == ""
    assert {"front-state", "front-state-64", "front-flops", "front-params"} <= set(
        figures(found.results, found.about)
    )
    for broken in ("speed", "[score, speed]", "{score: state}"):
        (folder / "recipe.yaml").write_text(f"name: x\nobjective: {broken}\n")
        with pytest.raises(ResultsError, match=r"objective .* is unknown; run the sweep again"):
            asked(read(folder), folder)


def test_names_of_points_that_stand_close_do_not_cover_each_other():
    close = {"gdn+fox 3:1": 0.53, "gdn+fox 4:1": 0.525, "gdn+fox 5:1": 0.8}
    frame = make_frame(tuple(close), curve=lambda label, *_: flat(close[label]), state=lambda rank: 5000)
    ranked = board(frame)
    ranking = rank(ranked)
    assert ranking is not None
    (axis,) = (one for one in front.axes(ranked, ranking) if one.key == "state")
    drawn = front.figures(ranked, ranking)["front-state"]
    where = {trace.name: trace.textposition for trace in drawn.data if trace.name in close}
    assert where["gdn+fox 3:1"] != where["gdn+fox 4:1"]
    choice = front._choice(ranking, axis, {axis.key: front.front(ranking, [axis.cost])})
    assert {trace["textposition"] for trace in choice["traces"][1:]} <= set(where.values())


def test_of_very_many_the_names_are_those_on_the_front():
    labels = tuple(f"r={place}" for place in range(front.CROWD + 1))
    frame = make_frame(labels, curve=lambda label, *_: flat(0.9 if label in ("r=3", "r=5") else 0.5))
    ranked = board(frame)
    ranking = rank(ranked)
    assert ranking is not None
    (axis,) = (one for one in front.axes(ranked, ranking) if one.key == "state")
    on = {row.label for row in front.front(ranking, [axis.cost])} | {ranking.best.label, ranking.cheapest}
    drawn = front.figures(ranked, ranking)["front-state"]
    assert {trace.name for trace in drawn.data if trace.mode == "markers+text"} == on < set(labels)
