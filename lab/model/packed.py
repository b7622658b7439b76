"""A model in few bits, as a file: safetensors with its specification, in one zstd frame.

Which tensors get how many bits (OpenAI's parameter golf has the same classes):

- hidden matrices, where nearly all numbers are, get what was asked for;
- the embedding and the head get 8: in 6 they cost thirty times as much quality (0.048 bits per byte against
  0.0015 in that competition);
- all else stays in float16: norms, gates, decays, taps and inner models steer many numbers each and weigh
  next to nothing; so do matrices of at most a quarter of D^2 numbers, 65,536 at the width of 512.

A rounded tensor NAME is int8 steps and, as NAME:step, the float16 length of each row's step. Steps of 6 bits
lie in bytes: the entropy coder takes out what is left over, and more, as large steps are rare (see LOG.md).

D model width.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor, nn

from blocks.model import LanguageModel
from blocks.mup import groups
from lab.model.rounding import RoundingError, round_rows
from lab.model.zstd import MAGIC, ZstdError, compress, decompress

__all__ = ["LEVEL", "Kept", "PackedError", "Part", "is_packed", "pack", "unpack"]

LEVEL = 22
"""Of zstd: the highest. It takes seconds, once."""

STEP = ":step"
"""What a rounded tensor's steps are called, after its name; no module can have a colon in its own."""

Kind = Literal["matrix", "table", "rest"]
KINDS: Mapping[Kind, str] = {
    "matrix": "hidden matrices",
    "table": "embedding and head",
    "rest": "the rest",
}


class PackedError(ValueError):
    """A packed file, or weights to be packed, cannot be used; one sentence."""


@dataclass(frozen=True)
class Part:
    """How a model's tensors are kept: the bits of its hidden matrices, and their rows' shortest step."""

    bits: Literal[6, 8]
    finest: float = 0.0


@dataclass(frozen=True)
class Kept:
    """What became of the tensors of one kind. error: RMS of the change over RMS of the weights."""

    kind: str
    bits: int
    tensors: int
    numbers: int
    error: float


def _kinds(model: LanguageModel) -> dict[str, tuple[Kind, Tensor]]:
    """Every parameter once, by name, and persistent buffers, if a block has any."""
    matrices = {name for group in groups(model) if group.matrix for name in group.names}
    shared = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    own = dict(model.named_parameters())
    buffers = {name: t for name, t in model.state_dict().items() if name not in shared}
    layers = dict(model.named_modules())
    tables = {f"{path}.weight" for path, layer in layers.items() if isinstance(layer, nn.Embedding)}
    found: dict[str, tuple[Kind, Tensor]] = {}
    for name, tensor in (own | buffers).items():
        kind: Kind = "rest"
        if name in tables or name == "head.weight":
            kind = "table"
        elif name in matrices and 4 * tensor.numel() > model.stack.shape.dim**2:
            kind = "matrix"
        found[name] = (kind, tensor.detach().cpu())
    return found


def pack(model: LanguageModel, header: Mapping[str, str], part: Part) -> tuple[bytes, list[Kept]]:
    """The file's bytes, and what was done to which tensors. Raises PackedError, ZstdError, MupError.

    header: what the file says of itself, as ``lab.model.spec`` writes it.
    """
    bits: Mapping[Kind, int] = {"matrix": part.bits, "table": 8, "rest": 16}
    kinds, kept = _kinds(model), dict[str, Tensor]()
    changes: dict[Kind, list[tuple[Tensor, Tensor]]] = {}
    for name, (kind, tensor) in kinds.items():
        try:
            kept |= _stored(name, tensor, bits[kind], part.finest if kind == "matrix" else 0.0)
        except RoundingError as exc:
            raise PackedError(f"{name}: {exc}") from None
        changes.setdefault(kind, []).append((tensor, _read(name, kept)))
    raw = safetensors.save(kept, dict(header))
    told = [
        Kept(
            KINDS[kind],
            bits[kind],
            len(changes[kind]),
            sum(before.numel() for before, _ in changes[kind]),
            _error(changes[kind]),
        )
        for kind in KINDS
        if kind in changes
    ]
    return compress(raw, LEVEL), told


def _stored(name: str, tensor: Tensor, bits: int, finest: float) -> dict[str, Tensor]:
    """The tensors that stand for one in the file."""
    if bits == 16:
        narrow = tensor.half() if tensor.is_floating_point() else tensor
        if tensor.is_floating_point() and not narrow.isfinite().all():
            raise RoundingError("a number is not finite, or too large for float16")
        return {name: narrow.contiguous()}
    rounded = round_rows(tensor, bits, finest)
    return {name: rounded.steps_RC.contiguous(), f"{name}{STEP}": rounded.size_R}


def _read(name: str, kept: Mapping[str, Tensor]) -> Tensor:
    """One tensor as it comes out of the file, numbers in float32."""
    tensor, step_R = kept[name], kept.get(f"{name}{STEP}")
    if step_R is not None:
        return tensor.float() * step_R.float()[:, None]
    return tensor.float() if tensor.is_floating_point() else tensor


def _error(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """RMS of the change over RMS of the weights, over all tensors together; 0 where all weights are 0."""
    change = weight = 0.0
    for before, after in pairs:
        change += float((after.double() - before.double()).square().sum())
        weight += float(before.double().square().sum())
    return (change / weight) ** 0.5 if weight else 0.0


def is_packed(path: Path) -> bool:
    """Whether ``path`` begins as a zstd frame does. Raises OSError."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def unpack(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors in float32 by name, a tied head left out, and what the file says of itself.

    Raises PackedError.
    """
    try:
        raw = decompress(path.read_bytes())
        kept = safetensors.load(raw)
        size = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + size]).get("__metadata__", {})
        return {name: _read(name, kept) for name in kept if not name.endswith(STEP)}, header
    except ZstdError as exc:
        raise PackedError(f"{path}: {exc}") from None
    except (SafetensorError, ValueError, RuntimeError) as exc:
        raise PackedError(f"{path}: what is packed in it are no weights of the lab ({exc})") from None
