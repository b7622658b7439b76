"""Every preset has the parameters that were published: counted from its sizes alone, by formula, as built."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch

from blocks.cost import params_by_part
from lab.model.preset import load, shipped
from lab.model.spec import SpecError, build, design_of, schedule_of, shape_of
from lab.train.shipped import load as load_spec


def golf_518() -> int:
    vocab, layers, dim, heads, groups, head, hidden = 1024, 11, 512, 8, 4, 64, 1536
    attention = (
        dim * heads * head + 2 * dim * groups * head + heads * head * dim + heads
    )  # and a gain per head
    layer = attention + 2 * dim * hidden + 4 * dim  # two mixes and two scales per channel
    bigram = 2048 * 128 + 128 * dim + 1
    values = vocab * 128 + 128 * groups * head + 1 + 2  # and a share in each of two layers
    return vocab * dim + bigram + dim + (layers // 2) * dim + layers * layer + values


def smollm2_135m() -> int:
    vocab, layers, dim, heads, groups, hidden = 49152, 30, 576, 9, 3, 1536
    head = dim // heads
    layer = 2 * dim * dim + 2 * dim * groups * head + 3 * dim * hidden + 2 * dim
    return vocab * dim + layers * layer + dim


BY_CONFIGURATION: dict[str, Callable[[], int]] = {"golf-518": golf_518, "smollm2-135m": smollm2_135m}
"""Counted from the published sizes without any code of the lab."""

each = pytest.mark.parametrize("name", sorted(shipped()))


@each
def test_counts_are_those_of_the_published_configuration(name: str) -> None:
    preset = load(name)
    assert preset.name == name
    assert BY_CONFIGURATION[name]() == preset.params
    design = design_of(preset)
    part, schedule, shape = preset.model, schedule_of(preset), shape_of(preset)
    assert (
        sum(params_by_part(schedule, shape, part.vocab, part.tied, design=design).values()) == preset.params
    )


@each
def test_the_model_that_is_built_has_as_many(name: str) -> None:
    with torch.device("meta"):
        model = build(load(name))
    assert sum(parameter.numel() for parameter in model.parameters()) == load(name).params


@each
def test_it_is_described_with_its_source(name: str, answer) -> None:
    preset, told = load(name), json.loads(answer("describe", name, "--json"))
    assert told["preset"]["params"] == told["params"]["total"] == preset.params
    page = answer("describe", name)
    assert f"{name}: {preset.params:,} parameters" in page and preset.source in page
    around = (preset.model.inputs, preset.model.residual, preset.model.values)
    assert all(text in page for text in around if text)


def test_the_recipe_of_golf_trains_its_preset() -> None:
    assert load_spec("golf").model == load("golf-518").model


@pytest.mark.parametrize("option", ["--dim", "--heads", "--vocab", "--depth"])
def test_a_preset_has_its_own_sizes(option: str, lab) -> None:
    done = lab("describe", "smollm2-135m", option, 4)
    assert done.code == 2 and done.err.count("\n") == 1
    assert option in done.err and "smollm2-135m" in done.err


def test_an_unknown_preset_is_one_sentence() -> None:
    with pytest.raises(SpecError, match="did you mean 'golf-518'"):
        load("golf-51")
