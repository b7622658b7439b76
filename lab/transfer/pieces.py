"""A study from its file, checked whole, and its pieces: one schedule at one size with one seed.

A piece is trained through its constant phase once. Before each count of tokens its run branches off into a
decay of its own; every such branch is, bit for bit, what a training with that count alone would have been:
the warm-up is the same number of steps, and rows are a function of seed and step.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from blocks import BLOCKS
from blocks.base import Block, Shape
from blocks.mup import MupError, check_base
from blocks.notation import suggest
from lab.model.form import DataPart, ModelPart, OptimiserPart, RatePart, ShapePart, Source, Spec, TrainPart
from lab.train.folder import FREE
from lab.transfer.form import SizePart, Study
from sweeps import recipe as recipes
from sweeps import yamlmarks
from sweeps.candidate import Candidate
from sweeps.form import Recipe
from sweeps.form import ShapePart as RecipeShape
from sweeps.space import SpaceError, candidates, grid, label_of
from sweeps.written import WrittenError, fill, read
from sweeps.written import find as find_file

__all__ = [
    "Piece",
    "StudyError",
    "at_size",
    "branch_step",
    "dump",
    "find",
    "load",
    "pieces",
    "row_key",
    "shipped",
]

SHIPPED = Path(__file__).parent / "studies"
VOCAB = 257
"""Bytes, and the end of a document."""
FEWEST = 3
"""Schedules of a study."""
NEVER = 1_000_000_000
SAVE_EVERY = 50

Blocks = Mapping[str, type[Block]]
Problem = tuple[tuple[str, ...], str]


class StudyError(ValueError):
    """A study cannot be found, read or run. One line per problem."""


@dataclass(frozen=True)
class Piece:
    """One schedule at one size with one seed; ``candidate`` is the schedule as it is trained there."""

    study: Study
    label: str
    size: str
    candidate: Candidate
    seed: int

    def spec(self, tokens: int) -> Spec:
        """The training of ``tokens`` tokens, whole."""
        study, shape = self.study, self.candidate.shape
        steps = tokens // (study.batch * study.length)
        return Spec(
            kind="model",
            name=f"{study.name}-{self.size}-{tokens}",
            model=ModelPart(
                schedule=self.candidate.schedule,
                shape=ShapePart(dim=shape.dim, heads=shape.heads, norm=shape.norm),
                vocab=VOCAB,
                mup=study.mup,
            ),
            data=DataPart(train=(Source(data=study.data),), length=study.length),
            train=TrainPart(
                steps=steps,
                batch=study.batch,
                seed=self.seed,
                optimiser=OptimiserPart(lr=study.lr, weight_decay=study.weight_decay),
                # A share that rounds to the study's steps whatever the count of tokens.
                rate=RatePart(warmup=study.warmup / steps, decay=study.decay),
                save_every=SAVE_EVERY,
                eval_every=NEVER,
                eval_rows=1,
            ),
        )

    @property
    def key(self) -> str:
        """Of the longest training; branches lie in one folder with it."""
        return row_key(self.spec(self.study.tokens[-1]), self.study.scored)


def row_key(spec: Spec, scored: int) -> str:
    """Hash of all that a study asks for in one training.

    What only says how it is computed stays out, and so does what stands at its default: a key that the form
    of specifications gets one day does not make finished rows strangers.
    """
    plain = spec.model_dump(mode="json", exclude_defaults=True)
    for name in FREE:
        part, _, inner = name.partition(".")
        (plain[part] if inner else plain).pop(inner or part, None)
    text = json.dumps({"spec": plain, "scored": scored}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def branch_step(study: Study, tokens: int) -> int:
    """The last step of the constant phase of a training of ``tokens`` tokens."""
    steps = tokens // (study.batch * study.length)
    return steps - round(study.decay * steps)


def shipped() -> dict[str, Path]:
    """The studies that come with the lab, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def find(name: str) -> Path:
    """The file of a study: ``name`` as a path, else a shipped one. Raises StudyError."""
    try:
        return find_file(name, shipped(), "transfer study")
    except WrittenError as exc:
        raise StudyError(str(exc)) from None


def load(name: str, overrides: Iterable[str] = (), blocks: Blocks = BLOCKS) -> Study:
    """The study ``name`` (see ``find``) with ``key=value`` overrides, checked whole. Raises StudyError."""
    path = find(name)
    try:
        written = read(path.read_bytes(), str(path), overrides, "a transfer study")
        if written.data.get("kind") != "transfer":
            given = written.data.get("kind", "none")
            raise StudyError(f"{path}: kind is {given}; a transfer study says kind: transfer")
        study = fill(Study, written)
    except OSError as exc:
        raise StudyError(f"{path}: cannot be read ({exc.strerror})") from None
    except WrittenError as exc:
        raise StudyError(str(exc)) from None
    if wrong := list(_problems(study, blocks)):
        raise StudyError("\n".join(written.line(path, message) for path, message in wrong))
    return study


def dump(study: Study) -> str:
    """YAML that loads as ``study``, every value written out."""
    return yamlmarks.dump(study.model_dump(mode="json"))


def _problems(study: Study, blocks: Blocks) -> Iterator[Problem]:
    step = study.batch * study.length
    for tokens in study.tokens:
        if tokens % step:
            yield ("tokens",), f"holds {tokens:,}; it must be a multiple of a step, batch x length = {step:,}"
    if len(set(study.schedules)) < len(study.schedules):
        yield ("schedules",), "names one of them twice"
    if list(study.tokens) != sorted(set(study.tokens)):
        yield ("tokens",), "must rise from one to the next"
    if branch_step(study, study.tokens[0]) < study.warmup:
        yield ("warmup",), f"is {study.warmup} steps, more than the first count has before its decay"
    branches = [branch_step(study, tokens) for tokens in study.tokens]
    if len(set(branches)) < len(branches):
        yield ("tokens",), "are too near to each other: two of them branch off after the same step"
    try:
        recipe = recipes.load(study.recipe, blocks=blocks)
    except recipes.RecipeError as exc:
        yield ("recipe",), str(exc)
        return
    if len(set(study.schedules)) < FEWEST:
        yield ("schedules",), f"holds {len(set(study.schedules))}; a rank correlation takes {FEWEST} or more"
        return
    labels = list(recipe.schedules or (label_of(recipe, choices) for choices in grid(recipe)))
    if unknown := [label for label in study.schedules if label not in labels]:
        names = f"{unknown[0]!r}, and the recipe {study.recipe} has no schedule of that name"
        yield ("schedules",), f"holds {names}{suggest(unknown[0], labels)}"
        return
    if study.baseline not in study.schedules:
        yield ("baseline",), f"is {study.baseline!r}; it must be one of schedules"
        return
    for name, size in study.sizes.items():
        try:
            check_base(study.mup, Shape(dim=size.dim, heads=size.heads))
            at_size(study, recipe, size, blocks)
        except (StudyError, SpaceError, MupError, ValueError) as exc:
            yield ("sizes", name), str(exc)


def at_size(study: Study, recipe: Recipe, size: SizePart, blocks: Blocks = BLOCKS) -> dict[str, Candidate]:
    """The study's schedules at one size, made equal there, by label. Raises StudyError, SpaceError."""
    changed = {
        "depth": size.depth,
        "shape": RecipeShape(dim=size.dim, heads=size.heads, norm=recipe.shape.norm),
        "baseline": study.baseline,
        "match": study.match,
        "constraints": None,
    }
    if recipe.schedules is not None:
        changed["schedules"] = {k: v for k, v in recipe.schedules.items() if k in study.schedules}
    found = {one.label: one for one in candidates(recipe.model_copy(update=changed), blocks)}
    merged = {other: label for label, one in found.items() for other in one.also}
    for label in study.schedules:
        if label in merged:
            raise StudyError(
                f"{label} is the same model as {merged[label]} at depth {size.depth}; leave one out of "
                "schedules, or change the depth"
            )
    return {label: found[label] for label in study.schedules}


def pieces(study: Study, blocks: Blocks = BLOCKS) -> list[Piece]:
    """All of them, so ordered that what is done covers all schedules: seed by seed, small sizes first."""
    recipe = recipes.load(study.recipe, blocks=blocks)
    sizes = {name: at_size(study, recipe, size, blocks) for name, size in study.sizes.items()}
    return [
        Piece(study, label, name, candidate, seed)
        for seed in range(study.seeds)
        for name, found in sizes.items()
        for label, candidate in found.items()
    ]
