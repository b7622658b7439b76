"""How Genesis-152M was trained, out of ``training.yaml``, checked whole.

What the model card says, what follows from it, and what nobody says are kept apart field by field, so that a
training of one's own can take the first two and has to choose the third.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

__all__ = ["Fact", "FineTuning", "PreTraining", "Training", "TrainingError", "training"]

HERE = Path(__file__).with_name("training.yaml")

T = TypeVar("T")
Count = Annotated[int, Field(ge=1)]


class TrainingError(ValueError):
    """The file is not a description of a training, or contradicts itself; one sentence."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Fact(_Strict, Generic[T]):
    """One field: its value, None if and only if it is unknown, and how it is known."""

    value: T | None
    status: Literal["documented", "inferred", "unknown"]
    unit: str = ""
    note: str = ""

    @model_validator(mode="after")
    def _unknown_has_no_value(self) -> Fact[T]:
        if (self.value is None) != (self.status == "unknown"):
            raise ValueError(f"the value is {self.value!r} and the status {self.status}; unknown means null")
        return self

    @property
    def known(self) -> T:
        """The value. Raises TrainingError where nobody says it."""
        if self.value is None:
            raise TrainingError("this is said nowhere; choose a value of your own")
        return self.value


class PreTraining(_Strict):
    """Learning the language. mixture and schedule are shares in percent."""

    tokens: Fact[Count]
    context: Fact[Count]
    batch: Fact[Count]
    tokens_per_step: Fact[Count]
    steps: Fact[Count]
    mixture: Fact[dict[str, int]]
    optimiser: Fact[str]
    betas: Fact[list[float]]
    eps: Fact[float]
    weight_decay: Fact[float]
    learning_rate: Fact[float]
    schedule: Fact[dict[str, int]]
    warm_up_steps: Fact[Count]
    min_learning_rate: Fact[float]
    mup_groups: Fact[str]
    gradient_clip: Fact[float]
    precision: Fact[str]
    packing: Fact[str]
    seed: Fact[int]
    delta_rule: Fact[str]
    hardware: Fact[str]

    @model_validator(mode="after")
    def _adds_up(self) -> PreTraining:
        step = self.batch.known * self.context.known
        warm_up = next(iter(self.schedule.known.values()), 0)
        for name, found, wanted in (
            ("mixture", sum(self.mixture.known.values()), 100),
            ("schedule", sum(self.schedule.known.values()), 100),
            ("tokens_per_step", self.tokens_per_step.known, step),
            ("steps", self.steps.known, self.tokens.known // step),
            ("warm_up_steps", self.warm_up_steps.known, warm_up * self.steps.known // 100),
        ):
            if found != wanted:
                raise ValueError(f"{name} comes to {found}; the other fields ask for {wanted}")
        return self


class FineTuning(_Strict):
    """Learning to converse."""

    data: Fact[str]
    conversations: Fact[Count]
    epochs: Fact[Count]
    batch: Fact[Count]
    effective_batch: Fact[Count]
    steps: Fact[Count]
    learning_rate: Fact[float]
    schedule: Fact[str]
    optimiser: Fact[str]
    betas: Fact[list[float]]
    weight_decay: Fact[float]
    context: Fact[Count]
    format: Fact[str]
    loss_mask: Fact[str]
    selective_activation: Fact[float]
    precision: Fact[str]
    seed: Fact[int]

    @model_validator(mode="after")
    def _adds_up(self) -> FineTuning:
        wanted = self.conversations.known * self.epochs.known // self.effective_batch.known
        if self.steps.known != wanted:
            raise ValueError(f"steps comes to {self.steps.known}; the other fields ask for {wanted}")
        return self


class Training(_Strict):
    """Both stages, in their order."""

    pre_training: PreTraining
    fine_tuning: FineTuning


def training(path: Path = HERE) -> Training:
    """The training that a file describes, checked whole. Raises TrainingError, one sentence, and OSError."""
    from sweeps.yamlmarks import YamlError, read

    try:
        return Training.model_validate(read(path.read_bytes()).value)
    except YamlError as exc:
        raise TrainingError(f"{path}: {exc.message}") from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        message = first["msg"].removeprefix("Value error, ")
        raise TrainingError(f"{path}: {field}: {message[:1].lower()}{message[1:]}") from exc
