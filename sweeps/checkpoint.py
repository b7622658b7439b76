"""The state of a long run in a file, so that whoever takes it over need not begin anew.

A run is taken from evaluation to evaluation; between two of them its whole state is the model, the optimiser,
the curve so far and how many batches were drawn, which all follow from the seed. A run continued from there
gives the rows of one that was never stopped, bit for bit.
"""

from __future__ import annotations

import io
import pickle
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from sweeps.results import write_bytes
from synthetics.fit import Point, Trainer

__all__ = ["Checkpoint"]

EVERY = 60.0
"""Seconds between two checkpoints: a run that is shorter has none."""


class Checkpoint:
    """Of one run, in ``path``. Two that train the same run may share it: they have the same states."""

    def __init__(self, path: Path, every: float = EVERY) -> None:
        self._path, self._every = path, every
        self._saved = time.monotonic()

    def restore(self, trainer: Trainer) -> None:
        """Take a new trainer to where the file says its run was; without a file it stays at the beginning."""
        try:
            state: dict[str, Any] = torch.load(self._path, weights_only=True)
            curve = [Point(**point) for point in state["curve"]]
            trainer.model.load_state_dict(state["model"])
            trainer.optimizer.load_state_dict(state["optimizer"])
        except FileNotFoundError:
            return
        except (
            OSError,
            RuntimeError,
            ValueError,
            KeyError,
            TypeError,
            EOFError,
            pickle.UnpicklingError,
        ) as exc:
            # A broken one would break every later try, too; without it the run begins anew.
            self.clear()
            raise ValueError(
                f"{self._path}: this checkpoint could not be read, and is removed ({exc})"
            ) from exc
        trainer.curve = curve
        trainer.seconds = state["seconds"]
        trainer.test_NT = state["test_NT"].numpy()
        next(islice(trainer.batches, curve[-1].step - 1, None))  # the batches that it has seen

    def save(self, trainer: Trainer) -> None:
        """Write the state after an evaluation, unless that was done a moment ago or the run is done."""
        if trainer.done or trainer.test_NT is None or time.monotonic() - self._saved < self._every:
            return
        state = {
            "model": trainer.model.state_dict(),
            "optimizer": trainer.optimizer.state_dict(),
            "curve": [vars(point) for point in trainer.curve],
            "seconds": trainer.seconds,
            "test_NT": torch.from_numpy(trainer.test_NT),
        }
        content = io.BytesIO()
        torch.save(state, content)
        self._path.parent.mkdir(exist_ok=True)
        write_bytes(self._path, content.getvalue())
        self._saved = time.monotonic()

    def clear(self) -> None:
        """The run is stored."""
        self._path.unlink(missing_ok=True)
