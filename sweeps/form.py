"""The form a recipe has: keys, types and ranges. What several keys mean together is ``sweeps.space``'s."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
)
from pydantic_core import PydanticCustomError

from blocks.base import Shape
from blocks.design import Init, Norms
from sweeps.bounds import Bound, BoundError, parse_bound
from sweeps.match import Cost
from synthetics.fit import Training

__all__ = [
    "DEEPEST",
    "MOST_HEADS",
    "OPTIMISER",
    "WIDEST",
    "Choices",
    "ConstraintsPart",
    "DesignPart",
    "ListedPart",
    "MatchPart",
    "Objective",
    "Recipe",
    "ShapePart",
    "TaskPart",
    "TrainPart",
    "Value",
]

Value = int | float | str | bool | None
"""What a variable may stand for: a count, an option's value, a block, or a ratio such as ``3:1``."""

Choices = tuple[tuple[str, Value], ...]
"""(variable, value as the recipe spells it), in the recipe's order."""

OPTIMISER = ("lr", "weight_decay")
"""Settings of which the best is chosen per candidate on validation; they never multiply candidates."""

DEEPEST, WIDEST, MOST_HEADS = 1024, 16_384, 1024
"""The largest depth, width and number of heads."""

_TRAINING, _SHAPE = Training(), Shape()


def _plain(value: Any) -> Any:
    if isinstance(value, Value):
        return value
    raise PydanticCustomError("plain", "must be a number, a text, true, false or null")


def _kind(value: Any) -> str:
    return "map" if isinstance(value, dict) else "list" if isinstance(value, list | tuple) else "number"


def _word_kind(value: Any) -> str:
    return "word" if isinstance(value, str) else "number"


def _task_kind(value: Any) -> str:
    return "map" if isinstance(value, dict | TaskPart) else "text"


def _listed_kind(value: Any) -> str:
    return "map" if isinstance(value, dict | ListedPart) else "text"


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str | dict) else value


def _bound(cost: Cost) -> AfterValidator:
    def check(text: str) -> str:
        try:
            parse_bound(text, cost)
        except BoundError as exc:
            raise PydanticCustomError("bound", "{reason}", {"reason": str(exc)}) from None
        return text

    return AfterValidator(check)


Plain = Annotated[Any, AfterValidator(_plain)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Factor = Annotated[int, Field(ge=2, le=64)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Text = Annotated[str, Field(min_length=1, max_length=10_000)]
# A number for all; a list, of which the best is chosen; or, for one variable, a number per value of it.
Rate = Annotated[
    Annotated[Positive, Tag("number")]
    | Annotated[tuple[Positive, ...], Field(strict=False, min_length=1), Tag("list")]
    | Annotated[dict[str, dict[Plain, Positive]], Field(min_length=1, max_length=1), Tag("map")],
    Discriminator(_kind),
]
Decay = Annotated[
    Annotated[NotNegative, Tag("number")]
    | Annotated[tuple[NotNegative, ...], Field(strict=False, min_length=1), Tag("list")]
    | Annotated[dict[str, dict[Plain, NotNegative]], Field(min_length=1, max_length=1), Tag("map")],
    Discriminator(_kind),
]
# A whole number, or the name of a variable of search.
Depth = Annotated[
    Annotated[Text, Tag("word")] | Annotated[int, Field(ge=1, le=DEEPEST), Tag("number")],
    Discriminator(_word_kind),
]
Width = Annotated[
    Annotated[Text, Tag("word")] | Annotated[int, Field(ge=1, le=WIDEST), Tag("number")],
    Discriminator(_word_kind),
]
Heads = Annotated[
    Annotated[Text, Tag("word")] | Annotated[int, Field(ge=1, le=MOST_HEADS), Tag("number")],
    Discriminator(_word_kind),
]
Trials = Annotated[
    Annotated[Literal["all"], Tag("word")] | Annotated[Count, Tag("number")], Discriminator(_word_kind)
]
Objective = Literal["score", "params", "state", "flops"]
# What a cost is brought to: that of the baseline, or a number.
Aim = Annotated[
    Annotated[Literal["baseline"], Tag("word")] | Annotated[Positive, Tag("number")],
    Discriminator(_word_kind),
]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ShapePart(_Part):
    """What all candidates share, but for the variables of ``search`` that dim and heads may name."""

    dim: Width = _SHAPE.dim
    heads: Heads = _SHAPE.heads
    norm: Literal["rms", "rms_zero"] = _SHAPE.norm


class DesignPart(_Part):
    """What models have beside their layers (``blocks.design``); lists of parts as text, null for none."""

    inputs: Text | None = None
    residual: Text | None = None
    values: Text | None = None
    norms: Norms = "gain"
    softcap: Positive | None = None
    init: Init = "blocks"


class ListedPart(DesignPart):
    """A listed schedule with a design of its own; what it does not write is as under the recipe's."""

    schedule: Text


class TaskPart(_Part):
    """A task, or a suite, whose runs have a budget of their own; what is None is as under ``train``."""

    task: Text
    steps: Count | None = None
    batch: Count | None = None
    eval_every: Count | None = None

    @property
    def budget(self) -> dict[str, int]:
        """What is given, by the names of ``synthetics.fit.Training``."""
        return self.model_dump(exclude={"task"}, exclude_none=True)


Listed = Annotated[
    Annotated[Text, Tag("text")] | Annotated[ListedPart, Tag("map")], Discriminator(_listed_kind)
]
"""One of ``schedules``: its text alone, or with a design."""

Entry = Annotated[Annotated[Text, Tag("text")] | Annotated[TaskPart, Tag("map")], Discriminator(_task_kind)]
"""One of ``tasks``: the text of a task or suite alone, or with a budget."""


class TrainPart(_Part):
    """How every run is trained; see ``synthetics.fit.Training`` for the units.

    kernel: ``auto`` is ``c`` where a C compiler is at hand, else ``torch``; what was taken is in the results.
    """

    steps: Count = _TRAINING.steps
    batch: Count = _TRAINING.batch
    lr: Rate = _TRAINING.lr
    weight_decay: Decay = _TRAINING.weight_decay
    warmup: Share = _TRAINING.warmup
    clip: Positive = _TRAINING.clip
    precision: Literal["fp32", "bf16"] = _TRAINING.precision
    kernel: Literal["auto", "torch", "c"] = "auto"
    eval_every: Count = _TRAINING.eval_every
    eval_examples: Count = _TRAINING.eval_examples
    stop: Share = _TRAINING.stop
    threshold: Share = _TRAINING.threshold
    extrapolate: Annotated[tuple[Factor, ...], Field(strict=False)] = _TRAINING.extrapolate


class MatchPart(_Part):
    """Every candidate brought to the same params or state by one width (``sweeps.match``).

    params or state: ``baseline``, or a number of scalars. by: ``dim`` or ``block.option``; of several, the
    first with which a candidate comes within the tolerance. within: that tolerance, a share. length: tokens
    after which the state is meant; None for the longest task's.
    """

    params: Aim | None = None
    state: Aim | None = None
    by: Annotated[tuple[Text, ...], Field(strict=False, min_length=1), BeforeValidator(_listed)]
    within: Annotated[float, Field(ge=0, le=0.5)] = 0.01
    length: Count | None = None

    @property
    def aims(self) -> dict[Literal["params", "state"], float | str]:
        """What is given of params and state."""
        aims: dict[Literal["params", "state"], float | str | None] = {
            "params": self.params,
            "state": self.state,
        }
        return {name: aim for name, aim in aims.items() if aim is not None}


class ConstraintsPart(_Part):
    """What a candidate may cost (``sweeps.bounds``); else it is not trained. length: as in match.

    FLOPs are those of a token, forward; all costs are without embedding and head.
    """

    params: Annotated[Text, _bound("params")] | None = None
    state: Annotated[Text, _bound("state")] | None = None
    flops: Annotated[Text, _bound("flops")] | None = None
    length: Count | None = None

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The bounds that are given."""
        given: tuple[tuple[Cost, str | None], ...] = (
            ("params", self.params),
            ("state", self.state),
            ("flops", self.flops),
        )
        return tuple(parse_bound(text, cost) for cost, text in given if text is not None)


class Recipe(_Part):
    """A question to the lab, checked. ``sweeps.recipe.load`` makes it; ``text`` is the YAML it came from.

    kind: what tells a recipe from a model's specification; a file without it is a recipe, too.
    baseline: the label of the candidate that ``match`` and ``constraints`` hold others against, as it is
    written; None for the first. halving: of several optimiser settings, each round leaves out the worse half
    (``sweeps.halving``). objective: the score alone, or what it is weighed against (``sweeps.objectives``).
    """

    kind: Literal["sweep"] = "sweep"
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    pattern: Text | None = None
    schedules: Annotated[dict[Text, Listed], Field(min_length=1)] | None = None
    depth: Depth | None = None
    shape: ShapePart = ShapePart()
    design: DesignPart = DesignPart()
    tasks: Annotated[tuple[Entry, ...], Field(strict=False, min_length=1), BeforeValidator(_listed)]
    search: dict[Text, Annotated[tuple[Plain, ...], Field(strict=False, min_length=1)]] = {}
    baseline: Text | None = None
    match: MatchPart | None = None
    constraints: ConstraintsPart | None = None
    train: TrainPart = TrainPart()
    seeds: Annotated[int, Field(ge=1, le=10_000)] = 3
    first_seed: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    halving: bool = False
    trials: Trials = "all"
    objective: Annotated[tuple[Objective, ...], Field(strict=False), BeforeValidator(_listed)] = ("score",)
    score: Literal["accuracy", "auc", "steps"] = "accuracy"
    margin: Share = 0.02
    pruning: Annotated[float, Field(gt=0, le=0.5)] | None = None

    _text: str = PrivateAttr("")

    @property
    def text(self) -> str:
        """YAML that loads as this recipe, overrides included."""
        return self._text

    @property
    def entries(self) -> tuple[TaskPart, ...]:
        """``tasks``, each with its budget."""
        return tuple(TaskPart(task=entry) if isinstance(entry, str) else entry for entry in self.tasks)

    @property
    def listed(self) -> dict[str, str] | None:
        """``schedules``, each as its text."""
        if self.schedules is None:
            return None
        return {k: one if isinstance(one, str) else one.schedule for k, one in self.schedules.items()}

    def design_of(self, label: str | None) -> DesignPart:
        """The design of a listed schedule, or of all where there is no list."""
        one = None if self.schedules is None or label is None else self.schedules[label]
        if one is None or isinstance(one, str):
            return self.design
        own = {name: getattr(one, name) for name in one.model_fields_set - {"schedule"}}
        return self.design.model_copy(update=own)

    @property
    def numbers(self) -> dict[tuple[str, ...], str]:
        """Those of depth, width and heads that name a variable of ``search``: place -> name."""
        given = {
            ("depth",): self.depth,
            ("shape", "dim"): self.shape.dim,
            ("shape", "heads"): self.shape.heads,
        }
        return {path: value for path, value in given.items() if isinstance(value, str)}

    @property
    def rounds(self) -> range:
        """The seeds, one per round."""
        return range(self.first_seed, self.first_seed + self.seeds)
