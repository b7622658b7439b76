"""How a preset says what its parts are: the same architecture small, and what it is without each of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from sweeps.form import DesignPart, Plain, ShapePart, Text

__all__ = ["AblationPart", "Part"]


class Part(BaseModel):
    """One part. without: what the architecture has in its place, by variable of the schedule or key of the
    design; under inputs and residual it is the word of the term that goes. claim: what its source says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    without: Annotated[dict[Text, Plain], Field(min_length=1)]
    claim: Text


class AblationPart(BaseModel):
    """The architecture at a size at which it can be scored many times. schedule: with variables, whose values
    with all parts are ``variables``; design: what stands around it with all parts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    schedule: Text
    shape: ShapePart
    variables: dict[Text, Plain] = {}
    design: DesignPart = DesignPart()
    parts: Annotated[dict[Text, Part], Field(min_length=1)]
