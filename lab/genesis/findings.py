"""What the tensors of a released file tell of its training: pure functions from tensors to findings.

The rule behind all of it: AdamW moves every number that gets a gradient, and skips a tensor that gets none,
weight decay included. So a tensor that stands exactly at its start was never trained; ``starts`` says which
starts can be recognised exactly, and what may be said of the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from lab.genesis.starts import Measured, State, pooled
from lab.genesis.weights import Weights

__all__ = ["FEATURES", "Feature", "Finding", "Part", "Trained", "features", "findings", "parts", "verdict"]

Trained = Literal["yes", "in part", "no sign", "never"]
"""never: starts that can be recognised exactly are still there; no sign: drawn tensors look freshly drawn;
in part: drawn tensors have moved, and those beside them that start exactly have not."""

PARTS = {
    "embedding": r"^tok_emb",
    "projections": r"attn\.[qkvo]_proj",
    "write strength": r"attn\.b_proj",
    "decay": r"attn\.(A_log|dt_bias|gk_proj)",
    "forget gate": r"attn\.fgate_proj",
    "short convolutions": r"attn\..*conv\.weight",
    "output gates": r"attn\.o?g(ate)?_proj",
    "FFNs": r"ffn\.\w+_proj",
    "norm gains": r"^(?!metacognition).*(omega|norm.*weight)$",
    "TTT fast weight": r"ttt\.(?![qkv]_proj)",
    "TTT views": r"ttt\.[qkv]_proj",
    "confidence": r"^metacognition\.(confidence|self_model)",
    "reflection": r"^metacognition\.reflection",
}
"""Every tensor belongs to one part: its pattern."""


@dataclass(frozen=True)
class Part:
    """A part of the model: how many of its tensors are in which state, and how wide its drawn ones are."""

    name: str
    tensors: int
    parameters: int
    states: Mapping[State, int]
    ratio: float | None
    error: float | None
    trained: Trained | None


@dataclass(frozen=True)
class Finding:
    """One thing found: the tensors, what was measured on them, and what follows."""

    what: str
    tensors: Sequence[str]
    measured: Mapping[str, float]
    follows: str


@dataclass(frozen=True)
class Feature:
    """A documented feature: where the shipped code runs it, its weights here, and whether they were trained.

    trained: None where there is nothing to train. exercised: whether running this file shows the feature;
    None where its weights do not tell.
    """

    name: str
    documented: str
    shipped: str
    parameters: int
    trained: Trained | None
    exercised: bool | None


FEATURES = {
    "delta rule": ("in all linear layers", "in training on CPU, between chunks", "write strength"),
    "TTT fast weight": ("whenever the model runs", "in evaluation, never in training", "TTT fast weight"),
    "TTT views": ("three projections", "never", "TTT views"),
    "confidence": ("of each token", "one mean over batch and time", "confidence"),
    "reflection": ("part of the metacognition", "computed and dropped", "reflection"),
    "selective activation": ("soft, while training", "hard, never while training", None),
    "FoX forget gate": ("in all full layers", "always", "forget gate"),
    "short convolutions": ("before the mixers", "always", "short convolutions"),
    "output gates": ("after the mixers", "always", "output gates"),
}
"""Name -> what the model card says, what the shipped code does, and the part that carries its weights."""
EXERCISED: dict[Trained, bool | None] = {"yes": True, "in part": True, "no sign": None, "never": False}


def names_of(part: str, found: Iterable[str]) -> list[str]:
    """The tensors of a part."""
    return [name for name in found if re.search(PARTS[part], name)]


def verdict(found: Mapping[str, Measured], names: Sequence[str]) -> Trained | None:
    """Whether these tensors were trained, by the strongest evidence there is; None where there is none."""
    exact = [found[name].state for name in names if found[name].start.kind == "value"]
    pool = pooled(found, names)
    drawn = [found[name].state for name in names if found[name].start.kind != "value"]
    shifted = "moved" in drawn or (pool is not None and not pool.consistent)
    if "moved" in exact or (shifted and not exact):
        return "yes"
    if shifted:
        return "in part"
    if exact:
        return "never"
    return "no sign" if pool else None


def parts(found: Mapping[str, Measured]) -> list[Part]:
    """Every part with its counts; parts that the model lacks are left out."""
    listed = []
    for part in PARTS:
        names = names_of(part, found)
        if not names:
            continue
        states = [found[name].state for name in names]
        pool = pooled(found, names)
        listed.append(
            Part(
                part,
                len(names),
                sum(found[name].size for name in names),
                {state: states.count(state) for state in get_args(State)},
                pool.ratio if pool else None,
                pool.error if pool else None,
                verdict(found, names),
            )
        )
    return listed


def features(found: Mapping[str, Measured], k_ratio: float | None) -> list[Feature]:
    """The documented features against these weights. k_ratio: the configuration's, None for no selection."""
    listed = []
    for name, (documented, shipped, part) in FEATURES.items():
        names = names_of(part, found) if part else []
        trained = verdict(found, names) if names else None
        exercised = k_ratio is not None if part is None else EXERCISED[trained or "no sign"]
        size = sum(found[one].size for one in names)
        listed.append(Feature(name, documented, shipped, size, trained, exercised))
    return listed


def findings(weights: Weights, found: Mapping[str, Measured]) -> list[Finding]:
    """All that there is to say of these tensors, the most telling first."""
    return [
        *_write_strength(found),
        *_group(found, "TTT fast weight", TTT),
        *_group(found, "confidence", CONFIDENCE),
        *_group(found, "forget gate", FORGET),
        *_untrained_gains(found),
        *_dead(weights.tensors, found),
        *_twins(weights.tensors),
    ]


TTT = {
    "never": "no gradient reached it, or no optimiser held it; what it adds is what its start gives",
    "in part": "its matrices have moved, by weight decay or otherwise; a gradient moves the fast weight too",
    "yes": "it has learnt something; the shipped code never runs it in training, so another code did this",
}
CONFIDENCE = {
    "never": "no gradient reached it, or no optimiser held it; it says about 1/2 of everything",
    "in part": "its matrices have moved, by weight decay or otherwise; a gradient moves biases with them",
    "yes": "it has learnt something; the shipped code never runs it in training, so another code did this",
}
FORGET = {
    "never": "no gradient reached it: the full layers forget as at their start, about half at every step",
    "in part": "its weights have moved, by weight decay or otherwise; a gradient moves biases with them",
    "yes": "the full layers have learnt what to forget",
}
WRITE = {
    "never": "no gradient reached it: the training had no delta rule, or no sequence longer than one chunk; "
    "a mode that runs a delta rule on this file writes with strengths of about 1/2, as at the start",
    "in part": "weight decay alone can move the weights; a gradient moves the biases too, which are still "
    "at their start, so no delta rule was trained",
    "yes": "the training had a delta rule; whether the shipped chunk rule or the exact one, the weights do "
    "not say",
}
TITLES = {"never": "was never trained", "in part": "was trained in part at most", "yes": "was trained"}


def _write_strength(found: Mapping[str, Measured]) -> list[Finding]:
    names = names_of("write strength", found)
    told = verdict(found, names)
    if told is None:
        return []
    biases = [name for name in names if name.endswith(".bias")]
    zero = [name for name in biases if found[name].state == "at start"]
    where = f" in {len(biases) - len(zero)} of {len(biases)} linear layers" if told == "yes" else ""
    measured = {"biases": len(biases), "of them exactly 0": len(zero), **_width(found, names)}
    return [Finding(f"the write strength {TITLES[told]}{where}", names, measured, WRITE[told])]


def _group(found: Mapping[str, Measured], part: str, follows: Mapping[str, str]) -> list[Finding]:
    """A part that has both exact and drawn starts."""
    names = names_of(part, found)
    told = verdict(found, names)
    if told is None:
        return []
    exact = [name for name in names if found[name].start.kind == "value"]
    still = [name for name in exact if found[name].state == "at start"]
    measured = {
        "tensors with an exact start": len(exact),
        "of them still there": len(still),
        **_width(found, names),
    }
    return [Finding(f"the {part} {TITLES[told]}", names, measured, follows[told])]


def _width(found: Mapping[str, Measured], names: Sequence[str]) -> dict[str, float]:
    pool = pooled(found, names)
    return {"std of the weights over its start": pool.ratio, "standard error": pool.error} if pool else {}


def _untrained_gains(found: Mapping[str, Measured]) -> list[Finding]:
    """Layers whose gains all stand at their start; layers without moved matrices apart from the others."""
    whole: list[str] = []
    gains_alone: list[str] = []
    for layer in _layers(found):
        gains = names_of("norm gains", layer)
        if any(found[name].state == "moved" for name in gains):
            continue
        rest = [name for name in layer if name not in gains]
        (gains_alone if any(found[name].state == "moved" for name in rest) else whole).extend(gains)
    told = []
    for names, what, follows in (
        (whole, "never trained", "nothing in these layers shows a gradient: they are as they started"),
        (
            gains_alone,
            "with gains that were never trained",
            "their matrices have moved, their gains have not: the gains were left out of the training",
        ),
    ):
        if names:
            layers = len({name.split(".")[1] for name in names})
            measured = {"layers": layers, "norm gains exactly at their start": len(names)}
            told.append(Finding(f"{layers} layer{'s' * (layers > 1)} {what}", names, measured, follows))
    return told


def _dead(tensors: Mapping[str, Tensor], found: Mapping[str, Measured]) -> list[Finding]:
    """Tensors that are 0 throughout without having started so, and matrices with rows or columns of 0."""
    zero, rows, columns = [], {}, {}
    for name, t in tensors.items():
        if found[name].state == "at start":
            continue
        flat = t.flatten(1) if t.ndim > 1 else t[:, None]
        if not flat.any():
            zero.append(name)
        elif t.ndim > 1:
            live = flat != 0
            rows[name] = int((~live.any(1)).sum())
            columns[name] = int((~live.any(0)).sum())
    told = []
    if zero:
        follows = "they did not start so; whatever multiplies by them gives nothing"
        told.append(Finding("tensors that are 0 throughout", zero, {"tensors": len(zero)}, follows))
    for kind, counts, follows in (
        ("rows", rows, "these units put nothing out, whatever they read"),
        ("columns", columns, "nothing is read from these inputs"),
    ):
        names = [name for name, count in counts.items() if count]
        if names:
            measured = {kind: sum(counts.values()), "matrices": len(names)}
            told.append(Finding(f"matrices with {kind} of 0", names, measured, follows))
    return told


def _twins(tensors: Mapping[str, Tensor]) -> list[Finding]:
    """Pairs of layers that are one and the same, tensor by tensor."""
    layers = [{name.split(".", 2)[2]: name for name in layer} for layer in _layers(tensors)]
    pairs = [
        (a, b)
        for i, a in enumerate(layers)
        for b in layers[i + 1 :]
        if a.keys() == b.keys() and all(tensors[a[key]].equal(tensors[b[key]]) for key in a)
    ]
    if not pairs:
        return []
    names = [name for pair in pairs for layer in pair for name in layer.values()]
    follows = "one was copied from the other and has not been trained since"
    return [Finding("layers that are equal", list(dict.fromkeys(names)), {"pairs": len(pairs)}, follows)]


def _layers(names: Iterable[str]) -> list[list[str]]:
    """The tensors of each layer, in order."""
    layers: dict[str, list[str]] = {}
    for name in names:
        if name.startswith("blocks."):
            layers.setdefault(name.split(".")[1], []).append(name)
    return list(layers.values())
