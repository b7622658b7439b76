"""Weights in the released layout: one table of names, read strictly, written so that the package loads them.

A released file may hold the tied head under either name or both, any float type, and the buffers that the
package saves along (tables of rotations, a history of evaluations); these are left aside. Everything else has
to be there once, with its shape, and finite.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from blocks.base import OptionError
from blocks.genesis import GenesisGLA
from blocks.genesis_model import GenesisConfig, GenesisModel, Mode
from lab.genesis.released import GenesisFileError, Released, parse_released, printable

__all__ = [
    "Part",
    "Weights",
    "build",
    "copy_narrow",
    "layout",
    "load",
    "read",
    "save",
    "to_model",
    "to_released",
]

T = TypeVar("T")

HEAD = "lm_head.weight"
TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
"""The types of weights that are read, by their names in a safetensors header."""
BUFFERS = re.compile(
    r"blocks\.\d+\.attn\.rope\.(inv_freq|cos_cached|sin_cached)|metacognition\.evolution_(history|idx)"
)
"""Names that the package saves and that are no weights."""


@dataclass(frozen=True)
class Part:
    """One tensor of a released file: its name, its shape there, and its rows in one of our parameters.

    released: such as ``blocks.0.attn.q_proj.weight``; ours: ``stack.layers.0.0.block.project.weight``. start:
    first of its rows there, for several released tensors may make up one of ours.
    """

    released: str
    shape: tuple[int, ...]
    ours: str
    start: int


@dataclass(frozen=True)
class Weights:
    """A released file in memory: its header, its weights by released name, and what was left aside.

    stored: the type that each weight has in the file; in memory it is at least float32.
    """

    released: Released
    tensors: Mapping[str, Tensor]
    stored: Mapping[str, torch.dtype]
    buffers: tuple[str, ...]


def layout(config: GenesisConfig) -> list[Part]:
    """Every weight of a released file, in the order of our parameters.

    Raises OptionError where the widths do not split into heads.
    """
    parts: list[Part] = []

    def add(ours: str, *pieces: tuple[str, tuple[int, ...]]) -> None:
        start = 0
        for name, shape in pieces:
            parts.append(Part(name, shape, ours, start))
            start += shape[0]

    dim, rank, half = config.dim, config.ttt_rank, config.dim // 2
    add("embedding.weight", ("tok_emb.weight", (config.vocab, dim)))
    for i, layer in enumerate(config.schedule("shipped-train")):
        theirs, ours = f"blocks.{i}", f"stack.layers.{i}"
        add(f"{ours}.0.norm.weight", (f"{theirs}.attn_norm.omega", (dim,)))
        mixer = layer[0]
        for name, pieces in _gla(config, mixer) if isinstance(mixer, GenesisGLA) else _fox(config):
            add(f"{ours}.0.block.{name}", *((f"{theirs}.attn.{piece}", shape) for piece, shape in pieces))
        add(f"{ours}.1.norm.weight", (f"{theirs}.ffn_norm.omega", (dim,)))
        for name, piece in (("gate", "gate_proj"), ("up", "up_proj")):
            add(f"{ours}.1.block.{name}.weight", (f"{theirs}.ffn.{piece}.weight", (config.hidden, dim)))
        add(f"{ours}.1.block.out.weight", (f"{theirs}.ffn.down_proj.weight", (dim, config.hidden)))
    for ours, theirs, shape in (
        ("w0", "ttt.W0", (dim, dim)),
        ("a", "ttt.A_init", (dim, rank)),
        ("b", "ttt.B_init", (rank, dim)),
        ("log_lr", "ttt.log_lr", (dim,)),
        ("scale", "ttt.layer_scale.scale", (dim,)),
        ("norm.weight", "ttt.norm.weight", (dim,)),
        ("norm.bias", "ttt.norm.bias", (dim,)),
        *((f"{name}.weight", f"ttt.{name}_proj.weight", (dim, dim)) for name in ("q", "k", "v", "out")),
        ("gate.weight", "ttt.output_gate.weight", (dim, dim)),
        ("self_model.weight", "self_model.weight", (dim, dim)),
        ("confidence.0.weight", "confidence.0.weight", (half, 2 * dim)),
        ("confidence.0.bias", "confidence.0.bias", (half,)),
        ("confidence.2.weight", "confidence.2.weight", (1, half)),
        ("confidence.2.bias", "confidence.2.bias", (1,)),
        ("reflection.weight", "reflection.weight", (dim, 2 * dim)),
    ):
        add(f"metacognition.{ours}", (f"metacognition.{theirs}", shape))
    add("norm.weight", ("ln_f.omega", (dim,)))
    return parts


Pieces = Iterator[tuple[str, list[tuple[str, tuple[int, ...]]]]]


def _gla(config: GenesisConfig, mixer: GenesisGLA) -> Pieces:
    """Our parameters of a ``genesis_gla``, each with the released tensors it is made of."""
    dim, heads, taps = config.dim, config.heads, config.conv
    groups, k, v = mixer.widths(config.shape)
    rows = [("q", heads * k), ("k", groups * k), ("v", groups * v)]
    yield (
        "project.weight",
        [
            *((f"{name}_proj.weight", (n, dim)) for name, n in rows),
            ("gk_proj.weight", (heads, dim)),
            ("g_proj.weight", (heads * v, dim)),
        ],
    )
    yield "conv.weight", [(f"conv_{name}.conv.weight", (n, 1, taps)) for name, n in rows]
    yield "write.weight", [("b_proj.weight", (heads, dim))]
    yield "write.bias", [("b_proj.bias", (heads,))]
    yield "log_pace", [("A_log", (heads,))]
    yield "step_bias", [("dt_bias", (heads,))]
    yield "norm.weight", [("g_norm_swish_gate.weight", (v,))]
    yield "out.weight", [("o_proj.weight", (dim, heads * v))]


def _fox(config: GenesisConfig) -> Pieces:
    """Our parameters of a ``genesis_fox``, each with the released tensors it is made of."""
    dim, heads, width, taps = config.dim, config.heads, config.dim // config.heads, config.conv
    kept, inner = config.kv_heads * width, heads * width
    yield (
        "project.weight",
        [
            ("k_proj.weight", (kept, dim)),
            *((f"{name}_proj.weight", (inner, dim)) for name in ("v", "q", "ogate")),
        ],
    )
    yield "conv.weight", [("k_conv.conv.weight", (kept, 1, taps)), ("v_conv.conv.weight", (inner, 1, taps))]
    yield "forget.weight", [("fgate_proj.weight", (heads, dim))]
    yield "forget.bias", [("fgate_proj.bias", (heads,))]
    yield "q_norm.weight", [("q_norm.weight", (inner,))]
    yield "k_norm.weight", [("k_norm.weight", (kept,))]
    yield "norm.weight", [("output_norm.weight", (width,))]
    yield "out.weight", [("o_proj.weight", (dim, inner))]


def read(path: str | Path, config: GenesisConfig | None = None) -> Weights:
    """The file, checked against its own header; ``config`` stands in for a header that a file lacks, and
    is refused where the header says otherwise.

    Weights come back in float32, float64 ones as they are. Raises GenesisFileError with one sentence, OSError
    where the file cannot be read. Nothing in the file is run, and nothing beyond it is read.
    """
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise GenesisFileError(f"{path} is a pipe or a device; a file of weights is wanted")
    with path.open("rb"):  # a missing file or a directory says so in the words of every command
        pass
    with _header(path, lambda: safe_open(path, framework="pt")) as file:
        released = _released(path, file.metadata() or {}, config)
        try:
            wanted = {part.released: part for part in layout(released.config())}
        except OptionError as exc:
            raise GenesisFileError(f"{path}: its configuration fits no model: {exc}") from exc
        names = set(file.keys())
        buffers = tuple(sorted(name for name in names if BUFFERS.fullmatch(name)))
        if "tok_emb.weight" not in names and HEAD in names:
            names = names - {HEAD} | {"tok_emb.weight"}
            wanted_name = {"tok_emb.weight": HEAD}
        else:
            wanted_name = {}
        _same_names(path, wanted, names - set(buffers) - {HEAD})
        tensors, stored = {}, {}
        for name, part in wanted.items():
            tensors[name], stored[name] = _tensor(path, wanted_name.get(name, name), part.shape, file)
        head = _tensor(path, HEAD, wanted["tok_emb.weight"].shape, file)[0] if HEAD in names else None
    if head is not None and not torch.equal(head, tensors["tok_emb.weight"]):
        raise GenesisFileError(
            f"{path}: lm_head.weight differs from tok_emb.weight; its configuration says that they are one"
        )
    return Weights(released, tensors, stored, buffers)


def _header(path: Path, opened: Callable[[], T]) -> T:
    try:
        return opened()
    except SafetensorError as exc:
        raise GenesisFileError(
            f"{path}: is no whole safetensors file ({printable(str(exc).rstrip('.'))}); "
            "no other kind is opened"
        ) from exc


def _released(path: Path, metadata: Mapping[str, str], config: GenesisConfig | None) -> Released:
    text = metadata.get("genesis_config_json")
    if text is not None:
        released = parse_released(text, str(path))
        if config not in (None, released.config()):
            raise GenesisFileError(
                f"{path}: its header describes another model than --config; leave that out"
            )
        return released
    if config is not None:
        return Released.of(config)
    raise GenesisFileError(
        f"{path}: its header has no genesis_config_json; say which model it holds with --config, "
        "such as --config genesis-152m"
    )


def _same_names(path: Path, wanted: Mapping[str, Part], found: set[str]) -> None:
    for what, names in (("lacks", wanted.keys() - found), ("has beside its weights", found - wanted.keys())):
        if names:
            first = ", ".join(printable(name) for name in sorted(names)[:3])
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise GenesisFileError(f"{path}: {what} {first}{more}; its configuration asks for {len(wanted)}")


def _tensor(path: Path, name: str, shape: tuple[int, ...], file: Any) -> tuple[Tensor, torch.dtype]:
    """One weight in float32 or wider, and the type it is stored in."""
    view = file.get_slice(name)
    held, kind = tuple(view.get_shape()), view.get_dtype()
    if held != shape:
        raise GenesisFileError(
            f"{path}: {name} is {printable(str(list(held)))}; its configuration asks for {list(shape)}"
        )
    if kind not in TYPES:
        raise GenesisFileError(f"{path}: {name} is of type {kind}; known are {', '.join(TYPES)}")
    tensor: Tensor = file.get_tensor(name)
    if tensor.dtype != torch.float64:
        tensor = tensor.float()
    if not tensor.isfinite().all():
        bad = int((~tensor.isfinite()).sum())
        raise GenesisFileError(f"{path}: {name} has {bad} values that are NaN or infinite")
    return tensor, TYPES[kind]


def to_model(config: GenesisConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Released names -> ours. Works on anything laid out like the weights, gradients included."""
    joined: dict[str, list[Tensor]] = {}
    for part in layout(config):
        t = tensors[part.released]
        joined.setdefault(part.ours, []).append(t.flatten(1) if t.ndim == 3 else t)
    return {name: torch.cat(pieces) if len(pieces) > 1 else pieces[0] for name, pieces in joined.items()}


def to_released(config: GenesisConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names -> released ones, the inverse of ``to_model``."""
    return {
        part.released: tensors[part.ours][part.start : part.start + part.shape[0]].reshape(part.shape)
        for part in layout(config)
    }


def load(
    path: str | Path,
    mode: Mode = "documented",
    dtype: torch.dtype = torch.float32,
    config: GenesisConfig | None = None,
) -> GenesisModel:
    """The model that a released file holds, in one of the five modes, ready for evaluation.

    Raises GenesisFileError, ModeError, OSError.
    """
    weights = read(path, config)
    return build(weights, mode, dtype)


def build(weights: Weights, mode: Mode, dtype: torch.dtype = torch.float32) -> GenesisModel:
    """A model of ``weights`` in ``mode``."""
    config = weights.released.config()
    with torch.device("meta"):
        model = GenesisModel(config, mode)
    ours = {name: t.to(dtype) for name, t in to_model(config, weights.tensors).items()}
    model.load_state_dict(ours, assign=True)
    return model.eval()


def copy_narrow(weights: Weights, path: Path) -> None:
    """The same weights in float32, by their released names: our layout does not come between."""
    tensors = {name: t.float() for name, t in weights.tensors.items()}
    save_file(tensors, path, metadata=_metadata(weights.released))


def _metadata(released: Released) -> dict[str, str]:
    return {"format": "pt", "genesis_config_json": json.dumps(released.model_dump())}


def save(model: GenesisModel, path: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write ``model`` as genesis-llm's own loader reads it, whole or not at all; the head stands once."""
    path = Path(path)
    tensors = to_released(model.config, {name: t.detach() for name, t in model.named_parameters()})
    tensors = {name: t.to(dtype or t.dtype).contiguous().clone() for name, t in tensors.items()}
    header = _metadata(Released.of(model.config))
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file(tensors, part, metadata=header)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
