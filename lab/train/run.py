"""A training from its specification to its folder: opened or gone on with, trained, scored, written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from blocks import BLOCKS
from blocks.base import Kernel
from blocks.kernels import gpu
from blocks.kernels.native import KernelError, library
from lab.data.origin import Origin, origins_of
from lab.model.form import Spec
from lab.model.spec import Blocks, build, dump, load, read_model, schedule_of, trained_on, write_model
from lab.train import checkpoint as checkpoints
from lab.train import folder as folders
from lab.train.baselines import bigram_bits, xz_bits
from lab.train.feed import Feed, open_feed
from lab.train.folder import CHECKPOINTS, ENV, KIND, MODEL, SPEC, Step
from lab.train.loop import Trainer, TrainError
from lab.train.meter import matmul_rate
from lab.train.parallel import Crew, crew
from lab.train.signals import Ending
from sweeps.begin import timestamp
from sweeps.files import TEMPORARY, json_of, text_of, write_text
from sweeps.run import versions

__all__ = ["Begun", "Ended", "Listener", "kernel_of", "train"]


@dataclass(frozen=True)
class Begun:
    """What is told before the first step.

    step: where it goes on from. peak: FLOP/s of one process that MFU is held against; peak_from:
    ``measured``, a matrix product here in the training's precision, or ``stated``.
    """

    folder: Path
    params: int
    step: int
    steps: int
    kernel: str
    device: str
    processes: int
    peak: float
    peak_from: str


@dataclass(frozen=True)
class Ended:
    """What a training came to. state: ``finished``, or ``stopped``, by a signal or ``pause``, and saved.

    code: the exit code that a signal asks for, else 0.

    bits, bigram, xz: bits per byte of all held-out text that is scored, by the model (the average where one
    is kept), a bigram of bytes fitted on the training text, and ``xz -9``; None before the end. data: what it
    was trained and scored on.
    """

    state: str
    folder: Path
    step: int
    steps: int
    params: int
    tokens: int
    seconds: float
    held_out: int
    data: Sequence[Origin]
    bits: float | None = None
    bigram: float | None = None
    xz: float | None = None
    code: int = 0


class Listener(Protocol):
    """Told what happens, in the leading process alone."""

    def begun(self, begun: Begun) -> None: ...
    def step(self, step: Step, steps: int) -> None: ...


def kernel_of(spec: Spec, device: str = "cpu") -> Kernel:
    """What ``train.kernel`` stands for: ``auto`` is triton on a GPU (``cuda``) and torch on a CPU.

    A step of a language model has thousands of tokens, over which torch's forms take half the time of the C
    kernels even where these take whole layers; sweeps, whose steps are short, choose otherwise.
    """
    if spec.train.kernel != "auto":
        return spec.train.kernel
    return "triton" if device == "cuda" else "torch"


def train(
    spec: Spec,
    folder: Path,
    listener: Listener,
    blocks: Blocks = BLOCKS,
    peak: float | None = None,
    feed: Feed | None = None,
    branch: Path | None = None,
    pause: Callable[[int], bool] = lambda step: False,
) -> Ended:
    """Train ``spec`` in ``folder``, or go on where it stopped, with all processes that torchrun started.

    peak: FLOP/s of one process; None to measure. feed: what is read; None to open what the specification
    names. branch: a checkpoint of another training to go on from, where the folder has none of its own; it is
    the caller's to know that the two are alike up to there. pause: asked before every step with the number of
    steps done; where it says so, the training is saved and left. Raises the errors of ``lab.train`` and of
    what it opens, and Diverged.
    """
    with ExitStack() as stack:
        together = stack.enter_context(crew())
        feed = open_feed(spec) if feed is None else feed
        kernel = _kernel(spec, together.device)
        last = checkpoints.latest(folder / CHECKPOINTS) or branch
        start = None if last else _start(spec, blocks)
        if together.leads:
            folders.check(folder, spec.model_dump(mode="json"), _stored(folder, blocks), feed.digests)
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(folders.locked(folder))
        together.wait()
        return _train(spec, folder, listener, blocks, peak, feed, kernel, together, start, branch, pause)


def _train(
    spec: Spec,
    folder: Path,
    listener: Listener,
    blocks: Blocks,
    peak: float | None,
    feed: Feed,
    kernel: Kernel,
    crew: Crew,
    start: Mapping[str, Tensor] | None,
    branch: Path | None,
    pause: Callable[[int], bool],
) -> Ended:
    precision = torch.autocast(crew.device.type, torch.bfloat16, enabled=spec.train.precision == "bf16")
    rate = matmul_rate(crew.device, precision) if peak is None else peak
    kept = folder / CHECKPOINTS
    if crew.leads:
        kept.mkdir(exist_ok=True)
        checkpoints.clear(kept)
    crew.wait()
    trainer = Trainer(spec, feed.source, feed.held_out, crew, kernel, blocks, rate, start)
    if (last := checkpoints.latest(kept) or branch) is not None:
        trainer.restore(last)
    begun = Begun(
        folder=folder,
        params=trainer.params,
        step=trainer.progress.step,
        steps=spec.train.steps,
        kernel=kernel,
        device=str(crew.device.type),
        processes=crew.world,
        peak=rate,
        peak_from="measured" if peak is None else "stated",
    )
    if crew.leads:
        _write_head(spec, begun, feed)
        listener.begun(begun)

    def told(step: Step) -> None:
        if crew.leads:
            folders.tell(folder, step)
            listener.step(step, spec.train.steps)

    with Ending() as ending:
        finished = trainer.run(kept, told, lambda: ending() or pause(trainer.progress.step))
    return _end(trainer, folder, feed, blocks, finished, 0 if ending.asked is None else ending.code)


def _end(trainer: Trainer, folder: Path, feed: Feed, blocks: Blocks, finished: bool, code: int) -> Ended:
    """Score and write what a finished training leaves. All processes call it."""
    spec, progress, crew = trainer.spec, trainer.progress, trainer.crew
    bits = bigram = xz = None
    if finished:
        bits = trainer.score(list(range(feed.held_out.count)))
        weights = trainer.weights()
        if crew.leads:
            noted = json_of(text_of(folder / ENV), folder / ENV, "delete this folder")["learnt_from"]
            _write_model(weights, spec, [Origin(**one) for one in noted], folder / MODEL, blocks)
            bigram, xz = bigram_bits(feed.train_text(), feed.held_out.text), xz_bits(feed.held_out.text)
    return Ended(
        state="finished" if finished else "stopped",
        folder=folder,
        step=progress.step,
        steps=spec.train.steps,
        params=trainer.params,
        tokens=progress.tokens,
        seconds=progress.seconds,
        held_out=len(feed.held_out.text),
        data=feed.data,
        bits=bits,
        bigram=bigram,
        xz=xz,
        code=0 if finished else code,
    )


def _kernel(spec: Spec, device: torch.device) -> Kernel:
    """The kernel, compiled where it is C and compared with its reference where it is for GPUs.

    Raises TrainError where a compiler is missing or a kernel is wrong.
    """
    if spec.train.compile and device.type == "cpu" and not cpp_compiler():
        raise TrainError(
            "train.compile is true, and torch.compile needs a C++ compiler, which is not found here; "
            "install one (apt install g++), name it in CXX, or set train.compile=false"
        )
    kernel = kernel_of(spec, device.type)
    if kernel == "triton" or kernel == "fla":
        if device.type != "cuda":
            raise TrainError(
                f"train.kernel is {kernel}, which runs on GPUs alone; set train.kernel=torch or auto"
            )
        try:
            gpu.verify(device, torch.bfloat16 if spec.train.precision == "bf16" else torch.float32, kernel)
        except KernelError as exc:
            raise TrainError(f"{exc}; or set train.kernel=torch") from exc
    if kernel == "c":
        if device.type != "cpu":
            raise TrainError("train.kernel is c, which runs on CPUs alone; set train.kernel=torch or auto")
        try:
            library(torch.float32)
        except KernelError as exc:
            raise TrainError(f"{exc}; or set train.kernel=torch") from exc
    return kernel


def _start(spec: Spec, blocks: Blocks) -> dict[str, Tensor] | None:
    """The weights that ``train.start`` names. Raises SpecError; TrainError where they are another model's."""
    if spec.train.start is None:
        return None
    model, of = read_model(Path(spec.train.start), blocks=blocks)
    kept, asked = of.model.model_dump(), spec.model.model_dump()
    kept["schedule"], asked["schedule"] = (schedule_of(one, blocks) for one in (of, spec))
    del kept["depth"], asked["depth"]  # what is laid is compared, however it is written
    for key in asked:
        if kept[key] != asked[key]:
            raise TrainError(
                f"train.start is {spec.train.start}, whose model.{key} is {getattr(of.model, key)}, and "
                f"{getattr(spec.model, key)} is asked for; the two must be the same model"
            )
    return model.state_dict()


def cpp_compiler() -> str | None:
    """The C++ compiler that torch.compile would call on a CPU: ``CXX``, or g++; None where there is none."""
    return shutil.which(os.environ.get("CXX", "g++"))


def _stored(folder: Path, blocks: Blocks) -> dict[str, Any] | None:
    """The specification that ``folder`` was begun with, as plain values; None where there is none."""
    path = folder / SPEC
    return load(path, blocks=blocks).model_dump(mode="json") if path.is_file() else None


def _write_head(spec: Spec, begun: Begun, feed: Feed) -> None:
    """spec.yaml, env.json, and the log up to where the training goes on from."""
    folder, now = begun.folder, timestamp()
    path = folder / ENV
    earlier = json_of(text_of(path), path, "delete this folder") if path.exists() else {}
    env = {
        "kind": KIND,
        "name": spec.name,
        "created": earlier.get("created", now),
        "continued": now,
        **versions(),
        "device": begun.device,
        "processes": begun.processes,
        "threads": torch.get_num_threads(),
        "kernel": begun.kernel,
        "peak_flops": begun.peak,
        "peak_from": begun.peak_from,
        "params": begun.params,
        "data": feed.digests,
        "origins": [asdict(one) for one in feed.data],
        # Kept from the first start: the file that train.start names may be gone when a training goes on.
        "learnt_from": earlier.get("learnt_from") or [asdict(one) for one in _learnt_from(spec)],
    }
    write_text(folder / SPEC, dump(spec))
    write_text(path, json.dumps(env, indent=2) + "\n")
    folders.begin_log(folder, begun.step)


def _learnt_from(spec: Spec) -> list[Origin]:
    """What the weights were trained on: the data of their start, then its own, without what was held out."""
    # A folder of an earlier version may go on after its start is gone: then nobody can say what that learnt.
    start = None if spec.train.start is None else Path(spec.train.start)
    before = [] if start is None or not start.exists() else trained_on(start)
    return list(dict.fromkeys([*before, *origins_of(one.data for one in spec.data.train)]))


def _write_model(
    weights: dict[str, Tensor], spec: Spec, data: Sequence[Origin], path: Path, blocks: Blocks
) -> None:
    """The file, whole or not at all."""
    model = build(spec, blocks=blocks)
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(value)
    partial = path.with_name(f"{TEMPORARY}{path.name}")
    write_model(model, spec, partial, data)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
