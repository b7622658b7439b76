"""How far a training is, for ``lab status``: read from its folder, without torch, without disturbing it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from analysis.counts import short
from lab.progress import duration
from lab.terminal import percent
from lab.train.folder import MODEL, SPEC, FolderError, Step, is_locked, steps_of
from sweeps import yamlmarks
from sweeps.files import text_of

__all__ = ["TrainingStatus", "page", "read"]


@dataclass(frozen=True)
class TrainingStatus:
    """state: ``working``, ``stopped`` or ``finished``. last: the last step told; None before the first."""

    name: str
    state: str
    steps: int
    last: Step | None
    valid_bpb: float | None

    @property
    def eta(self) -> float | None:
        """Seconds of work that are left, at the pace so far."""
        return None if self.last is None else (self.steps - self.last.step) * self.last.seconds_per_step

    def document(self) -> dict[str, Any]:
        return {**asdict(self), "eta": self.eta}


def read(folder: Path) -> TrainingStatus:
    """The state of the training in ``folder``. Raises FolderError, ResultsError."""
    try:
        value = yamlmarks.read(text_of(folder / SPEC).encode()).value
        name, steps = value["name"], int(value["train"]["steps"])
    except (OSError, yamlmarks.YamlError, KeyError, TypeError, ValueError) as exc:
        raise FolderError(f"{folder / SPEC}: is no specification of a model; delete this folder") from exc
    told = steps_of(folder)
    scores = [one.valid_bpb for one in told if one.valid_bpb is not None]
    state = "working" if is_locked(folder) else "finished" if (folder / MODEL).exists() else "stopped"
    return TrainingStatus(name, state, steps, told[-1] if told else None, scores[-1] if scores else None)


def page(found: TrainingStatus, where: str) -> str:
    """A few lines."""
    last = found.last
    at = 0 if last is None else last.step
    state = {
        "working": "at work",
        "finished": "finished",
        "stopped": f"stopped at step {at:,}; the same lab train goes on from its last checkpoint",
    }[found.state]
    lines = [f"{where}: {state}"]
    left = f", about {duration(found.eta)} left" if found.state == "working" and found.eta else ""
    lines.append(f"{at:,} of {found.steps:,} steps{left}")
    if last is not None:
        lines.append(
            f"loss {last.loss:.3f}, gradient {last.grad_norm:.2f}, {short(last.tokens)} tokens, "
            f"{short(last.tokens_per_s)} tokens/s, MFU {percent(last.mfu)}, {last.memory / 2**30:.2f} GiB"
        )
    if found.valid_bpb is not None:
        lines.append(f"{found.valid_bpb:.3f} bits per byte held out, when last scored")
    return "\n".join(lines)
