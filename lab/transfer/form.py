"""The form of a transfer study, ``kind: transfer``. What keys mean together is checked in ``pieces``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from sweeps.form import MatchPart

__all__ = ["SizePart", "Study"]

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Text = Annotated[str, Field(min_length=1, max_length=10_000)]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class SizePart(_Part):
    """A size of all schedules: width, heads and layers."""

    dim: Annotated[int, Field(ge=1, le=16_384)]
    heads: Annotated[int, Field(ge=1, le=1024)] = 1
    depth: Annotated[int, Field(ge=1, le=1024)]


class Study(_Part):
    """Schedules of a recipe, trained on text; ``lab.transfer.pieces.load`` makes it.

    recipe: the question whose answer is tested; its schedules are named by their labels. baseline: the label
    that ``match`` makes the others equal to, at every size. mup: base width of maximal update
    parametrisation, null without. data: prepared tokens of bytes (a folder, or ``corpus``); length: tokens of
    a row, batch: rows of a step. tokens: how many are learned from, rising; one constant phase serves them
    all, and each count has its own decay at its end, within the count. warmup: steps, the same for all;
    decay: share of each count. scored: bytes of held-out text that a model is scored on, from its start.
    """

    kind: Literal["transfer"]
    name: Word
    recipe: Text
    schedules: Annotated[tuple[Text, ...], Field(strict=False, min_length=1)]
    baseline: Text
    match: MatchPart
    sizes: Annotated[dict[Word, SizePart], Field(min_length=1)]
    mup: Annotated[int, Field(ge=1, le=16_384)] | None = None
    data: Text = "corpus"
    length: Annotated[int, Field(ge=2, le=1_048_576)]
    batch: Count
    tokens: Annotated[tuple[Count, ...], Field(strict=False, min_length=1)]
    warmup: Count
    decay: Annotated[float, Field(gt=0, lt=1)]
    lr: Positive
    weight_decay: NotNegative = 0.1
    seeds: Annotated[int, Field(ge=1, le=1000)] = 2
    scored: Count = 131_072

    @property
    def steps(self) -> tuple[int, ...]:
        """Optimiser steps of each count of tokens."""
        return tuple(tokens // (self.batch * self.length) for tokens in self.tokens)
