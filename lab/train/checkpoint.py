"""Checkpoints: everything that the next step depends on, written whole or not at all, for any process count.

``checkpoints/step-N/`` is what ``torch.distributed.checkpoint`` writes; a folder has that name only once all
of it is on the disk. No generator is kept: after the weights are drawn, a training draws nothing that is
not a function of its seed and the step.
"""

from __future__ import annotations

import os
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from lab.train.average import Average
from lab.train.parallel import Crew
from sweeps.files import TEMPORARY

__all__ = ["CheckpointError", "Progress", "clear", "latest", "restore", "save"]


class CheckpointError(ValueError):
    """A checkpoint cannot be read."""


@dataclass
class Progress:
    """How far a training is: steps and tokens that counted, and seconds at work."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0


def _steps(folder: Path) -> dict[int, Path]:
    """The whole checkpoints in ``folder``, in order."""
    found = {}
    for path in folder.glob("step-*"):
        if number := re.fullmatch(r"step-(\d+)", path.name):
            found[int(number[1])] = path
    return dict(sorted(found.items()))


def latest(folder: Path) -> Path | None:
    """The last whole checkpoint; None where there is none."""
    return next(reversed(_steps(folder).values()), None)


def clear(folder: Path) -> None:
    """Take away what processes left that died while they saved."""
    for path in folder.glob(f"{TEMPORARY}*"):
        shutil.rmtree(path)


def _state(
    model: nn.Module, optimisers: Sequence[Optimizer], average: Average | None, progress: Progress
) -> dict[str, Any]:
    """All of it by name. An optimiser that has not stepped yet gets the state that its first step makes."""
    state: dict[str, Any] = {
        "model": get_model_state_dict(model),
        "optimiser": get_optimizer_state_dict(model, list(optimisers)),
        "progress": asdict(progress),
    }
    if average is not None:
        state |= {"average": dict(average.values), "averaged": average.count}
    return state


def save(
    folder: Path,
    model: nn.Module,
    optimisers: Sequence[Optimizer],
    average: Average | None,
    progress: Progress,
    keep: int,
    crew: Crew,
) -> Path:
    """Write ``folder/step-N`` and keep the last ``keep``. All processes call it, and all wait for it."""
    partial, done = folder / f"{TEMPORARY}{progress.step}", folder / f"step-{progress.step}"
    state = _state(model, optimisers, average, progress)
    with _alone_on_purpose():
        state_dict_saver.save(state, checkpoint_id=partial, no_dist=crew.world == 1)  # it waits for the disk
    crew.wait()
    if crew.leads:
        if done.exists():
            shutil.rmtree(done)
        partial.rename(done)
        directory = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        for old in list(_steps(folder).values())[:-keep]:
            # Renamed first: what is half deleted must not look like a checkpoint.
            shutil.rmtree(old.rename(folder / f"{TEMPORARY}{old.name}"))
    crew.wait()
    return done


def restore(
    path: Path, model: nn.Module, optimisers: Sequence[Optimizer], average: Average | None, crew: Crew
) -> Progress:
    """Take everything from ``path``, written by any number of processes. Raises CheckpointError."""
    state = _state(model, optimisers, average, Progress())
    try:
        with _alone_on_purpose():
            state_dict_loader.load(state, checkpoint_id=path, no_dist=crew.world == 1)
    except (
        Exception,
        CheckpointException,
    ) as exc:  # whatever a torn or foreign file makes the unpickler raise
        raise CheckpointError(
            f"{path}: cannot be read ({_reason(exc)}); delete this folder, and the one before it is taken"
        ) from exc
    set_model_state_dict(model, state["model"])
    set_optimizer_state_dict(model, list(optimisers), state["optimiser"])
    if average is not None:
        average.count = state["averaged"]  # its tensors are filled in place
    return Progress(**state["progress"])


@contextmanager
def _alone_on_purpose() -> Iterator[None]:
    """DCP warns of a lone process even where it is told of one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield


def _reason(exc: BaseException) -> str:
    return (str(exc).strip().splitlines() or [type(exc).__name__])[-1][:200]
