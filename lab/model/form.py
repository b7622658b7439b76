"""The form of a model's specification: ``kind: model``, everything about one training, explicit.

A recipe asks a question to many schedules; a specification is one answer, to be trained at full size. What
several keys mean together is checked in ``lab.model.spec``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from blocks.design import Init, Norms

__all__ = [
    "AveragePart",
    "DataPart",
    "ModelPart",
    "OptimiserPart",
    "RatePart",
    "ShapePart",
    "Source",
    "Spec",
    "TrainPart",
]

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Text = Annotated[str, Field(min_length=1, max_length=10_000)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ShapePart(_Part):
    """What all blocks share; see ``blocks.base.Shape``."""

    dim: Annotated[int, Field(ge=1, le=16_384)]
    heads: Annotated[int, Field(ge=1, le=1024)]
    norm: Literal["rms", "rms_zero"] = "rms"


class ModelPart(_Part):
    """The architecture.

    schedule: layers as text; with ``depth`` it is repeated and cut there. vocab: ids that the embedding has,
    at least as many as the tokenizer. mup: the base width of maximal update parametrisation, null without.

    inputs, residual, values: what stands before the layers, between and beside them, as text; norms, softcap,
    init: see ``blocks.design``.
    """

    schedule: Text
    depth: Annotated[int, Field(ge=1, le=1024)] | None = None
    shape: ShapePart
    vocab: Annotated[int, Field(ge=2, le=4_294_967_295)]
    tied: bool = True
    mup: Annotated[int, Field(ge=1, le=16_384)] | None = None
    inputs: Text | None = None
    residual: Text | None = None
    values: Text | None = None
    norms: Norms = "gain"
    softcap: Positive | None = None
    init: Init = "blocks"


class Source(_Part):
    """Prepared tokens (a folder of ``lab data prepare``, or ``corpus``) and their share of the mixture."""

    data: Text
    weight: Positive = 1.0


class DataPart(_Part):
    """What is learned from.

    tokenizer: ``bytes``, or the path of a tokenizer.json. train: the mixture. valid: held-out tokens; None
    for those that every source sets aside. length: tokens of a row. documents: what a row packs is kept
    apart, state reset and attention masked at each boundary; without it rows are cut from one long stream.
    """

    tokenizer: Text = "bytes"
    train: Annotated[tuple[Source, ...], Field(strict=False, min_length=1)]
    valid: Text | None = None
    length: Annotated[int, Field(ge=2, le=1_048_576)]
    documents: bool = False


class OptimiserPart(_Part):
    """name: ``adamw``; or ``muon`` for matrices of the stack, with AdamW for all else.

    lr: AdamW's highest rate; muon_lr: Muon's. weight_decay: of matrices and embeddings, not of vectors.
    """

    name: Literal["adamw", "muon"] = "adamw"
    lr: Positive = 1e-3
    muon_lr: Positive = 2e-2
    weight_decay: NotNegative = 0.1
    betas: Annotated[tuple[Share, Share], Field(strict=False)] = (0.9, 0.95)
    eps: Positive = 1e-8
    clip: Positive | None = 1.0


class RatePart(_Part):
    """The rate over the steps: linear warm-up, then ``shape``.

    wsd: constant, then a cosine over the last ``decay`` of the steps; warmdown: constant, then a straight
    line over them; cosine and linear: down from the end of the warm-up on. warmup, decay: shares of the
    steps. final: the last rate, as a share of the highest.
    """

    shape: Literal["wsd", "warmdown", "cosine", "linear"] = "wsd"
    warmup: Share = 0.05
    decay: Share = 0.10
    final: Share = 0.0


class AveragePart(_Part):
    """Weights averaged beside the training; what is evaluated and exported is the average.

    ema: an exponential mean with this decay a step. swa: the plain mean of the weights every ``every`` steps
    over the last ``share`` of the steps, and of these only where the rate is below ``below`` of its highest
    (tight SWA has 0.2), so that what was learnt at high rates does not blur it.
    """

    kind: Literal["ema", "swa"]
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.997
    share: Annotated[float, Field(gt=0, le=1)] = 0.2
    every: Count = 50
    below: Annotated[float, Field(gt=0, le=1)] | None = None


class TrainPart(_Part):
    """One training.

    start: the model.safetensors of the lab that it begins with, of the same model; null for fresh weights.
    batch: rows of one optimiser step, over all processes; micro: rows of one forward pass of one process
    (accumulation is what is left between them). recompute: activations of a layer are not kept but computed
    again in the backward pass. z_loss: weight of the squared log-partition (0 for none). balance: weight of
    what the experts of every ``moe`` add for being chosen unevenly (Switch's 0.01; 0 for none). parallel: how
    several processes share the work. save_every, keep: checkpoints; eval_every, eval_rows: validation.
    """

    steps: Count
    start: Text | None = None
    batch: Count
    micro: Count | None = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    optimiser: OptimiserPart = OptimiserPart()
    rate: RatePart = RatePart()
    average: AveragePart | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    kernel: Literal["auto", "torch", "c", "triton", "fla"] = "auto"
    recompute: bool = False
    compile: bool = False
    z_loss: NotNegative = 0.0
    balance: NotNegative = 0.01
    parallel: Literal["ddp", "fsdp"] = "ddp"
    save_every: Count = 500
    keep: Annotated[int, Field(ge=1, le=1000)] = 2
    eval_every: Count = 200
    eval_rows: Count = 64


class Spec(_Part):
    """A model's specification, checked; ``lab.model.spec.load`` makes it."""

    kind: Literal["model"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    model: ModelPart
    data: DataPart
    train: TrainPart
