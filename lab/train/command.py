"""``lab train``: a specification to a trained model, on whatever is here."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analysis.counts import short
from lab.progress import Progress, duration
from lab.sweep import SetOption
from lab.terminal import BlocksOption, JsonOption, emit, known_blocks, percent, say, table

if TYPE_CHECKING:
    from lab.train.folder import Step
    from lab.train.run import Begun, Ended

__all__ = ["train"]


def train(
    spec: Annotated[
        str, typer.Argument(metavar="SPEC", help="A YAML file, or the name of a shipped specification.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder of the training; default: models/NAME.")
    ] = None,
    set_: SetOption = None,
    peak: Annotated[
        float | None,
        typer.Option(
            metavar="TFLOPS",
            help="Peak of one process that MFU is held against; default: a matrix product measured here.",
            min=1e-6,
        ),
    ] = None,
    blocks: BlocksOption = None,
    json: JsonOption = False,
) -> None:
    """Train a model by its specification, and say how well it predicts text that was held out.

    The same command goes on after a stop of any kind. Ctrl-C and SIGTERM save first, and exit with 130 and
    143. Several processes: torchrun --nproc-per-node 2 -m lab train SPEC.

    Examples:
      lab train smoke
      lab train smoke --set train.steps=100 --set train.seed=1 --out models/short
      lab train smoke --set train.optimiser.name=muon --out models/muon --json
    """
    from lab.train.loop import Diverged
    from lab.train.run import train as run
    from lab.train.shipped import load

    known = known_blocks(blocks)
    asked = load(spec, set_ or (), known)
    folder = Path("models", asked.name) if out is None else out
    with Progress(unit="steps") as progress:
        try:
            teller = _Teller(progress)
            ended = run(asked, folder, teller, known, None if peak is None else peak * 1e12)
        except Diverged as exc:
            progress.line(f"error: {exc}; the checkpoints before it stay in {folder / 'checkpoints'}")
            raise typer.Exit(1) from None
    if teller.speaks:
        emit(_document(ended)) if json else say(_page(ended))
    if ended.code:
        raise typer.Exit(ended.code)


class _Teller:
    """The live line; only the leading process tells anything."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.speaks = False

    def begun(self, begun: Begun) -> None:
        self.speaks = True
        where = "1 process" if begun.processes == 1 else f"{begun.processes} processes"
        begins = f" from step {begun.step:,}" if begun.step else ""
        self.progress.start(
            f"{begun.folder}: {short(begun.params)} parameters{begins}, {where} on {begun.device}, "
            f"kernel {begun.kernel}; MFU is of {begun.peak / 1e9:.3g} GFLOP/s a process ({begun.peak_from})",
            begun.step,
            begun.steps,
        )

    def step(self, step: Step, steps: int) -> None:
        left = (steps - step.step) * step.seconds_per_step
        what = (
            f"loss {step.loss:.3f}, gradient {step.grad_norm:.2f}, {short(step.tokens_per_s)} tokens/s, "
            f"MFU {percent(step.mfu)}, {step.memory / 2**30:.2f} GiB"
        )
        if step.valid_bpb is None:
            self.progress.step(what, step.step, steps, left)
        else:
            self.progress.line(f"step {step.step:,}: {step.valid_bpb:.3f} bits per byte held out; {what}")


def _document(ended: Ended) -> dict[str, Any]:
    return {**dataclasses.asdict(ended), "folder": str(ended.folder)}


def _page(ended: Ended) -> str:
    spent = f"{short(ended.tokens)} tokens in {duration(ended.seconds)}"
    if ended.bits is None or ended.bigram is None or ended.xz is None:
        return (
            f"{ended.folder}: stopped and saved at step {ended.step:,} of {ended.steps:,}, {spent}; "
            "the same command goes on from here"
        )
    rows = [
        ("the model", f"{ended.bits:.3f}"),
        ("a bigram of bytes, fitted on the training text", f"{ended.bigram:.3f}"),
        ("xz -9", f"{ended.xz:.3f}"),
    ]
    return "\n".join(
        (
            f"{ended.folder}: finished, {ended.steps:,} steps, {spent}, {short(ended.params)} parameters",
            "",
            table((f"bits per byte of {short(ended.held_out)} held-out bytes", ""), rows),
            "",
            *(f"data: {one.words}" for one in ended.data),
            f"weights and specification: {ended.folder / 'model.safetensors'}",
        )
    )
