"""The folder of a training: spec.yaml, env.json, log.jsonl, checkpoints/, model.safetensors.

No torch here, so that ``lab status`` can look into one at once.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.files import ResultsError, json_of, text_of, write_text

__all__ = [
    "KIND",
    "MODEL",
    "FolderError",
    "Step",
    "begin_log",
    "check",
    "is_training",
    "locked",
    "steps_of",
    "tell",
]

KIND = "model folder of the hybrid-architecture lab"
ENV, SPEC, LOG, MODEL, CHECKPOINTS = "env.json", "spec.yaml", "log.jsonl", "model.safetensors", "checkpoints"

FREE = (
    "name",
    "train.micro",
    "train.kernel",
    "train.recompute",
    "train.compile",
    "train.parallel",
    "train.save_every",
    "train.keep",
    "train.eval_every",
    "train.eval_rows",
)
"""What may change from one start to the next: it says how the same training is computed and watched."""


class FolderError(ValueError):
    """A folder cannot be trained in."""


@dataclass(frozen=True)
class Step:
    """A line of log.jsonl. loss: nats per target; tokens: inputs so far; seconds: at work so far.

    tokens_per_s: of this step, all processes together. mfu: the share of the peak that three times the
    forward pass's FLOPs need (recomputation is not counted). memory: bytes at most held by the leading
    process. valid_bpb: bits per byte of held-out text, where it was scored.
    """

    step: int
    loss: float
    grad_norm: float
    lr: float
    tokens: int
    seconds: float
    tokens_per_s: float
    mfu: float
    memory: int
    valid_bpb: float | None = None

    @property
    def seconds_per_step(self) -> float:
        """The mean so far."""
        return self.seconds / self.step


def is_training(folder: Path) -> bool:
    """Whether ``folder`` says that a training made it. Raises ResultsError where its env.json is broken."""
    try:
        env = json_of(text_of(folder / ENV), folder / ENV, "move it away")
    except (FileNotFoundError, NotADirectoryError):
        return False
    return isinstance(env, dict) and env.get("kind") == KIND


def check(folder: Path, asked: Mapping[str, Any], stored: Mapping[str, Any] | None, data: list[str]) -> None:
    """Refuse a folder that holds something else. ``asked``, ``stored``: specifications as plain values.

    data: digests of what is trained on. Raises FolderError.
    """
    if folder.exists() and not folder.is_dir():
        raise FolderError(f"{folder}: this is no folder; give another --out")
    if not is_training(folder):
        if folder.exists() and any(path.name != "lock" for path in folder.iterdir()):
            raise FolderError(f"{folder}: holds other files, and no training; give another --out")
        return
    if stored is None:
        raise FolderError(f"{folder}: its {SPEC} is gone; give another --out, or delete this folder")
    before, now = _flat(stored), _flat(asked)
    changed = [key for key in sorted(before | now) if before.get(key) != now.get(key) and key not in FREE]
    if changed:
        key = changed[0]
        raise FolderError(
            f"{folder}: holds a training with {key} = {before.get(key)}, and {now.get(key)} is asked for"
            f"{_more(len(changed) - 1)}; give another --out or name, or delete this folder"
        )
    env = json_of(text_of(folder / ENV), folder / ENV, "delete this folder")
    if env.get("data") != data:
        raise FolderError(
            f"{folder}: was trained on data that are others now, although their names are the same; "
            "give another --out, or bring the data back"
        )


def _more(count: int) -> str:
    return "" if not count else f" ({count} more differ{'s' if count == 1 else ''})"


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    if not isinstance(value, Mapping):
        return {key: value}
    found: dict[str, Any] = {}
    for name, inner in value.items():
        found |= _flat(inner, f"{key}.{name}" if key else str(name))
    return found


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder against a second training; the lock goes with the process, however it ends."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderError(f"{folder}: another training is at work here; wait for it or stop it") from None
        yield


def is_locked(folder: Path) -> bool:
    """Whether a training is at work in ``folder``."""
    try:
        with locked(folder):
            return False
    except FolderError:
        return True


def steps_of(folder: Path) -> list[Step]:
    """What log.jsonl tells, a last line that was cut off left out. Raises ResultsError."""
    path = folder / LOG
    try:
        lines = text_of(path).splitlines(keepends=True)
    except FileNotFoundError:
        return []
    found = []
    for number, line in enumerate(lines, start=1):
        if line.endswith("\n"):
            value = json_of(line, f"{path}:{number}", "delete this line")
            try:
                found.append(Step(**value))
            except TypeError:
                raise ResultsError(
                    f"{path}:{number}: this is no step of a training; delete this line"
                ) from None
    return found


def begin_log(folder: Path, done: int) -> None:
    """Leave the lines up to step ``done``: what came after it was lost, and is trained again."""
    kept = "".join(_line(step) for step in steps_of(folder) if step.step <= done)
    write_text(folder / LOG, kept)


def tell(folder: Path, step: Step) -> None:
    """Add a line."""
    with (folder / LOG).open("a", encoding="utf-8") as file:
        file.write(_line(step))


def _line(step: Step) -> str:
    return json.dumps(step.__dict__) + "\n"
