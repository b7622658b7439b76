"""A preset's parts -> one recipe: everything, everything but one, nothing, nothing but one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from blocks import BLOCKS
from blocks.base import Block
from blocks.design import design_of
from blocks.notation import suggest
from blocks.schedule import parse, show
from lab.ablate.form import AblationPart, Part
from lab.model.preset import Preset
from lab.model.spec import SpecError
from sweeps.form import DesignPart, Value

__all__ = ["BARE", "FULL", "Variant", "ablation_of", "added", "left_out", "recipe_text", "variants"]

FULL, BARE = "all parts", "no part"
SUMS = ("inputs", "residual")
"""Keys of a design that are sums of terms; a part is one of them."""

SCORED: Mapping[str, Any] = {
    "tasks": [
        "recall(vocab=16, length=64)",
        "mqar(vocab=16, length=32, pairs=2)",
        "copying(vocab=16, length=48, copy=8)",
    ],
    "train": {
        "steps": 150,
        "batch": 16,
        "lr": 5e-3,
        "weight_decay": 0.1,
        "eval_every": 15,
        "eval_examples": 64,
    },
    "score": "auc",
    "seeds": 4,
}
"""How variants are scored unless ``--set`` says so: three tasks of ``lite``, at half its budget."""


@dataclass(frozen=True)
class Variant:
    """One architecture of an ablation. label: as in the results."""

    label: str
    variables: Mapping[str, Value]
    design: Mapping[str, Any]


def left_out(part: str) -> str:
    """The label of everything but ``part``."""
    return f"without {part}"


def added(part: str) -> str:
    """The label of nothing but ``part``."""
    return f"only {part}"


def ablation_of(preset: Preset) -> AblationPart:
    """Its parts. Raises SpecError where the preset names none."""
    if preset.ablation is None:
        from lab.model.preset import load, shipped

        known = ", ".join(name for name in shipped() if load(name).ablation is not None)
        raise SpecError(f"the preset {preset.name} names no parts to leave out; those that do are {known}")
    return preset.ablation


def variants(ablation: AblationPart) -> list[Variant]:
    """Everything, everything but each part, nothing, nothing but each part: 2 N + 2 of them."""
    parts = ablation.parts
    found = [_variant(ablation, FULL, ())]
    found += [_variant(ablation, left_out(name), (part,)) for name, part in parts.items()]
    found.append(_variant(ablation, BARE, parts.values()))
    for name in parts:
        others = [part for other, part in parts.items() if other != name]
        found.append(_variant(ablation, added(name), others))
    return found


def _variant(ablation: AblationPart, label: str, without: Iterable[Part]) -> Variant:
    variables: dict[str, Value] = dict(ablation.variables)
    design = ablation.design.model_dump(exclude_unset=True)
    for part in without:
        for key, value in part.without.items():
            if key in SUMS:
                design[key] = _less(design[key], str(value), key)
            elif key in DesignPart.model_fields:
                design[key] = value
            else:
                variables[key] = value
    return Variant(label, variables, {key: value for key, value in design.items() if value is not None})


def _less(terms: str | None, word: str, key: str) -> str | None:
    """A sum of terms without the one called ``word``."""
    kept = [term.strip() for term in (terms or "").split(" + ")]
    rest = [term for term in kept if term.split("(")[0] != word]
    if len(rest) == len(kept):
        known = [term.split("(")[0] for term in kept]
        raise SpecError(
            f"ablation: {key} is without {word!r}, which {terms!r} does not have{suggest(word, known)}"
        )
    return " + ".join(rest) or None


def recipe_text(preset: Preset, blocks: Mapping[str, type[Block]] = BLOCKS) -> str:
    """The recipe of a preset's ablation as YAML. Raises SpecError, NotationError, OptionError."""
    ablation = ablation_of(preset)
    schedules: dict[str, Any] = {}
    for one in variants(ablation):
        design_of(**one.design)
        text = show(parse(ablation.schedule, blocks, one.variables), blocks)
        schedules[one.label] = {"schedule": text, **one.design} if one.design else text
    recipe = {
        "kind": "sweep",
        "name": f"ablate-{preset.name}",
        "schedules": schedules,
        "shape": ablation.shape.model_dump(exclude_unset=True),
        **SCORED,
    }
    asked = f"# What is each part of {preset.name} worth? Everything, all but one, nothing, nothing but one."
    return f"{asked}\n{yaml.safe_dump(recipe, sort_keys=False, width=1000)}"
