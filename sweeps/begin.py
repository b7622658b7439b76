"""What a sweep does before its first run: open its storage, hold the folder, say what it runs on, compile."""

from __future__ import annotations

import datetime
import fcntl
import importlib.metadata
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from blocks.kernels import native
from sweeps.form import Recipe
from sweeps.run import chosen_kernel, versions

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

__all__ = ["SweepError", "build_kernels", "environment", "locked", "opened", "timestamp"]


class SweepError(ValueError):
    """A sweep cannot start or go on; the folder keeps what is finished."""


def build_kernels(recipe: Recipe) -> None:
    """Compile the C kernels, if runs take them, before workers would do so at once and fail one by one."""
    if chosen_kernel(recipe.train.kernel) == "c":
        try:
            native.library(torch.float32)
        except native.KernelError as exc:
            raise SweepError(f"{exc}; or set train.kernel=torch") from exc


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder against a second sweep; the lock goes with the process, however it ends."""
    with (folder / "lock").open("w") as file:
        for left in reversed(range(10)):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not left:
                    raise SweepError(
                        f"{folder}: another sweep is at work here; wait for it, stop it, or start it with "
                        "--storage and help it by lab worker"
                    ) from None
            time.sleep(0.02)  # lab status holds it for a moment, to see whether it is held
        yield


def timestamp() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def environment(recipe: Recipe, code: str) -> dict[str, object]:
    """The env.json of a sweep of ``recipe`` under the sources ``code``."""
    packages = {name: importlib.metadata.version(name) for name in ("numpy", "optuna", "polars")}
    return {
        "name": recipe.name,
        "created": timestamp(),
        "continued": timestamp(),
        "code": code,
        **versions(),
        **packages,
    }


@contextmanager
def opened(storage: str | None) -> Iterator[BaseStorage | None]:
    """The storage, before anything is written: one that cannot be used leaves no trace."""
    if storage is None:
        yield None
        return
    from sweeps.storages import open_storage

    with open_storage(storage, make=True) as shared:
        yield shared
