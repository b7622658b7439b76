"""A model's specification from its file, checked whole, and the model it says.

V vocabulary. A specification is data: opening one runs no code.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_model
from torch import Tensor

from blocks import BLOCKS
from blocks import design as designs
from blocks.base import Block, Kernel, OptionError, Shape
from blocks.design import Design
from blocks.model import LanguageModel
from blocks.mup import MupError, check_base
from blocks.notation import NotationError
from blocks.schedule import Schedule, parse, tile
from lab.data.origin import Origin
from lab.data.tokens import Tokenizer, open_tokenizer
from lab.model.form import ModelPart, Spec
from lab.model.packed import PackedError, is_packed, unpack
from sweeps import written, yamlmarks
from sweeps.candidate import unembedded

__all__ = [
    "Modelled",
    "SpecError",
    "build",
    "design_of",
    "dump",
    "header_of",
    "kind_of",
    "load",
    "loads",
    "problems_of",
    "read_model",
    "schedule_of",
    "shape_of",
    "tokenizer_of",
    "trained_on",
    "write_model",
]

Blocks = Mapping[str, type[Block]]
Problem = tuple[tuple[str, ...], str]

METADATA = "lab_spec"
"""Under which the header of a safetensors file holds the specification, as YAML, and the data's digests."""


class SpecError(ValueError):
    """A specification, or a model's file, cannot be read or used. One line per problem."""


def kind_of(path: Path) -> str | None:
    """The ``kind`` that a YAML file states; None where it states none, or is no such file."""
    try:
        value = yamlmarks.read(path.read_bytes()).value
    except (OSError, yamlmarks.YamlError):
        return None
    return value.get("kind") if isinstance(value, dict) and isinstance(value.get("kind"), str) else None


def load(path: Path, overrides: Iterable[str] = (), blocks: Blocks = BLOCKS) -> Spec:
    """The specification in ``path`` with ``key=value`` overrides. Raises SpecError with every problem."""
    try:
        text = path.read_bytes()
    except OSError as exc:
        raise SpecError(f"{path}: cannot be read ({exc.strerror})") from None
    return loads(text, str(path), overrides, blocks)


def loads(
    text: str | bytes, name: str = "<text>", overrides: Iterable[str] = (), blocks: Blocks = BLOCKS
) -> Spec:
    """``load`` for a text; ``name`` stands in its errors."""
    try:
        read = written.read(text, name, overrides, "a model's specification")
        if read.data.get("kind", "sweep") == "sweep" and read.data.get("tasks") is not None:
            raise SpecError(
                f"{name}: this is a recipe (kind: sweep), and a model's specification (kind: model) is "
                "wanted; lab sweep runs it, and lab scale makes a specification of its winner"
            )
        spec = written.fill(Spec, read)
    except written.WrittenError as exc:
        raise SpecError(str(exc)) from None
    if wrong := list(_problems(spec, blocks)):
        raise SpecError("\n".join(read.line(path, message) for path, message in wrong))
    return spec


def dump(spec: Spec) -> str:
    """YAML that loads as ``spec``, every value written out."""
    return yamlmarks.dump(spec.model_dump(mode="json"))


class Modelled(Protocol):
    """What says how a model is made: a specification, or a preset."""

    @property
    def model(self) -> ModelPart: ...


def problems_of(spec: Modelled, blocks: Blocks = BLOCKS) -> Iterator[Problem]:
    """What is wrong with the model alone."""
    layers: Schedule = ()
    try:
        layers = schedule_of(spec, blocks)
    except NotationError as exc:
        yield ("model", "schedule"), str(exc)
    else:
        try:
            for block in {block for layer in layers for block in layer}:
                block.params(shape_of(spec))
            check_base(spec.model.mup, shape_of(spec))
        except (OptionError, MupError) as exc:
            yield ("model",), str(exc)
    for name in ("inputs", "residual", "values"):
        try:
            designs.design_of(**{name: getattr(spec.model, name)})
        except (NotationError, OptionError) as exc:
            yield ("model", name), str(exc)
    if problem := unembedded(spec.model.values, layers):
        yield ("model", "values"), problem


def _problems(spec: Spec, blocks: Blocks) -> Iterator[Problem]:
    train = spec.train
    yield from problems_of(spec, blocks)
    if train.micro is not None and train.batch % train.micro:
        yield ("train", "micro"), f"is {train.micro}; it must divide the batch of {train.batch} rows"
    rate = train.rate
    if rate.shape in ("wsd", "warmdown") and rate.warmup + rate.decay > 1:
        yield (
            ("train", "rate"),
            f"warms up and decays over {rate.warmup + rate.decay:g} of the steps; at most 1",
        )
    average = train.average
    if average is not None and average.kind == "ema" and average.below is not None:
        yield ("train", "average", "below"), "belongs to kind: swa; an exponential mean takes every step"
    if spec.data.tokenizer == "bytes" and spec.model.vocab < 257:
        yield ("model", "vocab"), f"is {spec.model.vocab}; bytes and the end of a document need 257"


def schedule_of(spec: Modelled, blocks: Blocks = BLOCKS) -> Schedule:
    """The layers, cut at the depth where one is given. Raises NotationError."""
    layers = parse(spec.model.schedule, blocks)
    return layers if spec.model.depth is None else tile(layers, spec.model.depth)


def shape_of(spec: Modelled) -> Shape:
    """What the blocks share."""
    return Shape(**spec.model.shape.model_dump())


def design_of(spec: Modelled) -> Design:
    """What the model has beside its layers. Raises DesignError, OptionError."""
    part = spec.model
    return designs.design_of(
        part.inputs, part.residual, part.values, norms=part.norms, softcap=part.softcap, init=part.init
    )


def build(spec: Modelled, kernel: Kernel = "torch", blocks: Blocks = BLOCKS) -> LanguageModel:
    """The model, freshly initialised from torch's global generator, in float32 on the CPU."""
    part = spec.model
    return LanguageModel(
        schedule_of(spec, blocks),
        shape_of(spec),
        part.vocab,
        tied=part.tied,
        kernel=kernel,
        mup=part.mup,
        design=design_of(spec),
    )


def tokenizer_of(spec: Spec, named: str | None = None) -> Tokenizer:
    """The tokenizer that the model reads; ``named`` where that has moved. Raises SpecError, DataError."""
    found = open_tokenizer(named or spec.data.tokenizer)
    if found.vocab > spec.model.vocab:
        raise SpecError(
            f"the tokenizer {found.name} has {found.vocab:,} ids and the model {spec.model.vocab:,}; give "
            "the one that it was trained with"
        )
    return found


def header_of(spec: Spec, data: Sequence[Origin] = ()) -> dict[str, str]:
    """What a file of weights says of itself, for ``read_model`` and ``trained_on``. data: trained on that."""
    return {METADATA: json.dumps({"spec": dump(spec), "data": [asdict(one) for one in data]})}


def write_model(model: LanguageModel, spec: Spec, path: Path, data: Sequence[Origin] = ()) -> None:
    """The weights as safetensors, tied ones once, with the specification and ``data`` in the header."""
    save_model(model, str(path), header_of(spec, data))


def trained_on(path: Path) -> list[Origin]:
    """The data that a file of weights was trained on; none where it does not say. Raises SpecError."""
    try:
        return [Origin(**one) for one in _opened(path)[0].get("data", ())]
    except TypeError:
        raise SpecError(f"{path}: what its header says of the data is not as lab train writes it") from None


def _opened(path: Path) -> tuple[dict[str, Any], dict[str, Tensor] | None]:
    """What a file of weights says of itself, and its tensors where it is packed. Raises SpecError."""
    tensors: dict[str, Tensor] | None = None
    try:
        if is_packed(path):
            tensors, said = unpack(path)
        else:
            with safe_open(str(path), "pt") as file:
                said = file.metadata() or {}
    except PackedError as exc:
        raise SpecError(str(exc)) from None
    except (OSError, SafetensorError) as exc:
        raise SpecError(f"{path}: cannot be read as safetensors ({exc})") from None
    if METADATA not in said:
        raise SpecError(
            f"{path}: holds weights, but no specification; it was written neither by lab train nor by "
            "lab export, or for transformers (lab export --hf)"
        )
    try:
        header = json.loads(said[METADATA])
    except ValueError as exc:
        raise SpecError(f"{path}: its header is broken ({exc})") from None
    if not (isinstance(header, dict) and isinstance(header.get("spec"), str)):
        raise SpecError(f"{path}: its header holds no specification; it was not written by the lab")
    return header, tensors


def read_model(path: Path, kernel: Kernel = "torch", blocks: Blocks = BLOCKS) -> tuple[LanguageModel, Spec]:
    """A model and its specification out of a file of ``write_model`` or of ``lab export``. Raises SpecError.

    What was rounded comes back in float32, as it was rounded.
    """
    header, tensors = _opened(path)
    spec = loads(header["spec"], f"{path} (header)", blocks=blocks)
    try:
        model = build(spec, kernel, blocks)
        if tensors is None:
            load_model(model, str(path))
        else:
            # A tied head is the embedding, which the file has once.
            model.load_state_dict(
                tensors | ({"head.weight": model.embedding.weight} if spec.model.tied else {})
            )
    except (RuntimeError, ValueError, KeyError, OSError, SafetensorError) as exc:
        raise SpecError(f"{path}: its weights are not those of its specification ({exc})") from None
    return model, spec
