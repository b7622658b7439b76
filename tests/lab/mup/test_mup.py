"""``lab mup``: under muP no block's movement grows with the width, and the same check fails without."""

import json
import math
from pathlib import Path

import pytest
import torch

from blocks import BLOCKS
from blocks.schedule import parse
from lab.mup.coordinates import EXCEPTIONS, Growth, Setting, check, exponent
from lab.mup.figure import each
from lab.mup.rates import Curve, text, train


@pytest.mark.parametrize("widest", [256, pytest.param(512, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", BLOCKS)
def test_a_movement_grows_with_the_width_without_mup_and_not_with_it(name: str, widest: int) -> None:
    setting = Setting(widths=tuple(width for width in (64, 128, 256, 512) if width <= widest), seeds=1)
    plain, mup = (check(parse(name), [name], one, setting) for one in (False, True))
    for one in mup:
        assert abs(one.exponent) <= one.bound, f"{one.name}: {one.exponent:.2f} with muP"
    for one in plain:
        assert one.exponent > 2 * one.bound, f"{one.name}: {one.exponent:.2f} without muP"


def test_exceptions_name_blocks() -> None:
    assert set(EXCEPTIONS) <= {*BLOCKS, "logits"}


def test_both_are_the_same_at_the_base_width() -> None:
    setting = Setting(widths=(64, 128), steps=1, seeds=1)
    plain, mup = (check(parse("swiglu"), ["swiglu"], one, setting) for one in (False, True))
    assert [one.moved[0] for one in plain] == [one.moved[0] for one in mup]
    assert all(one.moved[0][0] == 0 for one in mup)


def test_the_exponent_is_a_slope_and_a_value_that_is_no_number_has_none() -> None:
    assert exponent((2, 4, 8), (3.0, 12.0, 48.0)) == pytest.approx(2)
    assert math.isnan(exponent((2, 4), (1.0, math.nan)))


def test_training_learns_and_a_diverged_run_counts_as_infinite() -> None:
    from blocks.base import Shape
    from blocks.model import LanguageModel

    def loss(lr: float) -> float:
        torch.manual_seed(0)
        net = LanguageModel(parse("swiglu"), Shape(dim=16, heads=1), 256)
        return train(net, text(), 40, lr, seed=0, batch=4, length=16)

    assert loss(1e-2) < math.log(256) - 1
    assert loss(1e30) == math.inf
    assert Curve(16, True, (1.0, 2.0), ((3.0, math.inf), (4.0, 4.5))).best == 2.0


def test_the_command_shows_both_and_draws_them(answer, workplace: Path) -> None:
    words = ("mup", "(average, swiglu)", "--blocks", "my_blocks.py", "--widths", "32,64", "--seeds", 1)
    said = answer(*words, "--steps", 1, "--base", 32, "--figure", "moved.html")
    assert "without muP" in said and "with muP, base 32" in said
    assert "1 average" in said and "2 swiglu" in said and "logits" in said
    assert "plotly" in Path("moved.html").read_text(encoding="utf-8")


def test_without_a_schedule_each_block_is_checked_alone_and_drawn(answer, lab, workplace: Path) -> None:
    words = ("mup", "--widths", "16,32", "--base", 16, "--seeds", 1, "--steps", 1)
    found = json.loads(answer(*words, "--json", "--figure", "each.html"))
    assert [(one["block"], one["mup"], one["name"]) for one in found] == [
        (block, mup, name) for block in BLOCKS for mup in (False, True) for name in (block, "logits")
    ]
    drawn = Path("each.html").read_text(encoding="utf-8")
    assert all(f'"name":"{name}"' in drawn for name in (*BLOCKS, "logits"))
    refused = lab(*words, "--rates", 10)
    assert refused.code == 2 and "lab mup gdn --rates" in refused.err and refused.err.count("\n") == 1


def test_a_block_that_does_not_move_is_drawn_without_points() -> None:
    still = {mup: [Growth("still", ((1.0, 1.0),) * 2, ((0.0, 0.0),) * 2, math.nan)] for mup in (False, True)}
    drawn = each({"still": still}, Setting(widths=(64, 128)))
    assert all(math.isnan(y) for trace in drawn.data for y in trace.y)


def test_rates_as_json_and_as_a_figure(answer, workplace: Path) -> None:
    words = ("mup", "swiglu", "--widths", "16,32", "--base", 16, "--seeds", 1, "--rates", 2)
    found = json.loads(answer(*words, "--json", "--figure", "rates.html"))
    assert [(one["width"], one["mup"]) for one in found] == [(16, False), (16, True), (32, False), (32, True)]
    # At the base width muP is no other training.
    assert found[0]["losses"] == found[1]["losses"]
