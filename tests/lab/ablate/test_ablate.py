"""``lab ablate``: the variants are the preset's own parts, each left out and each alone; a run is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from blocks.design import PLAIN, design_of
from blocks.schedule import parse
from lab.ablate.form import AblationPart
from lab.ablate.plan import BARE, FULL, ablation_of, added, left_out, recipe_text, variants
from lab.model.preset import load, shipped
from lab.model.spec import SpecError, schedule_of
from lab.model.spec import design_of as design_of_spec
from sweeps.form import DesignPart
from sweeps.recipe import loads
from sweeps.space import candidates

WITH_PARTS = [name for name in shipped() if load(name).ablation is not None]
each = pytest.mark.parametrize("name", WITH_PARTS)


def kinds(schedule: Any) -> set[Any]:
    """The blocks there are; of shared heads, whose number goes with the size, only that they are shared."""
    return {
        replace(block, kv_heads=1) if getattr(block, "kv_heads", None) else block
        for layer in schedule
        for block in layer
    }


def full(ablation: AblationPart) -> Any:
    return next(one for one in variants(ablation) if one.label == FULL)


@each
def test_with_all_parts_it_is_made_of_the_blocks_and_parts_of_its_preset(name: str) -> None:
    preset = load(name)
    ablation = ablation_of(preset)
    small, large = full(ablation), design_of_spec(preset)
    built = parse(ablation.schedule, variables=small.variables)
    assert kinds(built) == kinds(schedule_of(preset))
    assert ablation.shape.norm == preset.model.shape.norm
    design = design_of(**small.design)
    assert [type(part) for part in design.inputs] == [type(part) for part in large.inputs]
    assert design.residual == large.residual
    assert type(design.values) is type(large.values)
    assert (design.norms, design.softcap, design.init) == (large.norms, large.softcap, large.init)


@each
def test_every_variant_is_an_architecture_of_its_own(name: str) -> None:
    """So that no part is one in name alone, in the whole or by itself."""
    found = candidates(loads(recipe_text(load(name))))
    assert len(found) == 2 * len(ablation_of(load(name)).parts) + 2
    assert not any(one.also for one in found)


@each
def test_what_is_left_without_any_part_has_none(name: str) -> None:
    ablation = ablation_of(load(name))
    bare = next(one for one in variants(ablation) if one.label == BARE)
    for part in ablation.parts.values():
        for key, value in part.without.items():
            if key in ("inputs", "residual"):
                assert str(value) not in bare.design.get(key, "")
            elif key in DesignPart.model_fields:
                assert bare.design.get(key) == value
            else:
                assert bare.variables[key] == value


@each
def test_one_part_is_one_change_and_changes_do_not_meet(name: str) -> None:
    """What parts change are different things, so that their order is no matter."""
    ablation = ablation_of(load(name))
    touched = [
        (key, value) if key in ("inputs", "residual") else key
        for part in ablation.parts.values()
        for key, value in part.without.items()
    ]
    assert len(touched) == len(set(touched))
    assert {key for key in touched if isinstance(key, str)} <= {*ablation.variables, *DesignPart.model_fields}


def test_a_term_that_is_not_there_is_one_sentence() -> None:
    preset = load("golf-518")
    found = ablation_of(preset)
    parts = {"smear": found.parts["smear"].model_copy(update={"without": {"inputs": "smeer"}})}
    wrong = preset.model_copy(update={"ablation": found.model_copy(update={"parts": parts})})
    with pytest.raises(SpecError, match=r"without 'smeer', which .* does not have; did you mean 'smear'"):
        recipe_text(wrong)


def test_a_preset_without_parts_says_which_have_some(lab) -> None:
    done = lab("ablate", "smollm2-135m")
    assert done.code == 2 and done.err.count("\n") == 1
    assert "smollm2-135m names no parts" in done.err and "golf-518" in done.err


def test_the_recipe_is_written_and_nothing_trained(lab, workplace: Path) -> None:
    done = lab("ablate", "golf-518", "--recipe", "parts.yaml", "--set", "seeds=7")
    assert done.code == 0, done.err
    written = yaml.safe_load(Path("parts.yaml").read_text(encoding="utf-8"))
    assert written["seeds"] == 7 and {FULL, BARE, added("smear"), left_out("smear")} <= set(
        written["schedules"]
    )
    assert not Path("runs").exists()
    assert design_of(**{k: v for k, v in written["schedules"][FULL].items() if k != "schedule"}) != PLAIN


QUICK = (
    "seeds=1",
    "train.steps=2",
    "train.eval_every=1",
    "train.eval_examples=4",
    "tasks=[recall(length=8)]",
)


@pytest.mark.slow
def test_a_run_is_told_and_told_again(lab, workplace: Path) -> None:
    words = ["ablate", "genesis-152m", "--workers", 1]
    for one in QUICK:
        words += ["--set", one]
    nothing = lab(*words, "--show")
    assert nothing.code == 2 and "runs/ablate-genesis-152m" in nothing.err
    done = lab(*words, "--figure", "parts.html")
    assert done.code == 0, done.err
    parts = ablation_of(load("genesis-152m")).parts
    for part, what in parts.items():
        row = next(line for line in done.out.splitlines() if line.startswith(part))
        assert row.endswith(what.claim)
    assert "1 seed;" in done.out and Path("runs/ablate-genesis-152m/report.html").exists()
    assert "plotly" in Path("parts.html").read_text(encoding="utf-8")
    shown = lab(*words, "--show")
    assert shown.out == done.out
    told = json.loads(lab(*words, "--show", "--json").out)
    assert [one["part"] for one in told["worth"]] == list(parts)
    sparse = told["worth"][-1]
    assert sparse["params"] == 0, "a mask has no parameters"
