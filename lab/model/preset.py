"""Presets: published architectures as this lab writes them, each with the parameters that it must have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from blocks import BLOCKS
from lab.ablate.form import AblationPart
from lab.model.form import Count, ModelPart, Text
from lab.model.spec import Blocks, SpecError, problems_of
from sweeps import written

__all__ = ["Preset", "load", "shipped"]

PUBLISHED = Path(__file__).parent / "published"


class Preset(BaseModel):
    """An architecture, without data and training.

    params: learned scalars of the whole model, as published or, where ``ours`` is true, as this lab made it.
    published: those of the source's whole model, where a part of it is left out here.
    source: where the architecture stands. note: what differs from there. ablation: its parts, where ``lab
    ablate`` can leave them out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    kind: Literal["preset"]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9+.-]{0,63}$")]
    source: Text
    params: Count
    published: Count | None = None
    ours: bool = False
    note: Text | None = None
    model: ModelPart
    ablation: AblationPart | None = None


def shipped() -> dict[str, Path]:
    """The presets, by name."""
    return {path.stem: path for path in sorted(PUBLISHED.glob("*.yaml"))}


def load(name: str, blocks: Blocks = BLOCKS) -> Preset:
    """The preset called ``name``, checked whole. Raises SpecError."""
    try:
        path = written.find(name, shipped(), "preset")
        read = written.read(path.read_bytes(), str(path), (), "a preset")
        preset = written.fill(Preset, read)
    except written.WrittenError as exc:
        raise SpecError(str(exc)) from None
    if wrong := list(problems_of(preset, blocks)):
        raise SpecError("\n".join(read.line(path, message) for path, message in wrong))
    return preset
