"""genesis-llm itself, in a process of its own: ``python -m lab.genesis.peer JOB.json`` (see ``run``).

A process of its own, because the comparison in float64 needs a ``Tensor.float`` that keeps float64, and
because importing the package must not change ours. The package is no dependency: whoever wants the comparison
has installed it beside the lab. It prints while it is built; that goes to stderr.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blocks.genesis_model import Mode
from lab.genesis.released import GenesisFileError
from lab.terminal import CommandError

__all__ = ["Case", "needed", "run", "version"]

DELTA_SWITCH = "GENESIS_ENABLE_DELTA_RULE_ON_CPU"


@dataclass(frozen=True)
class Case:
    """One call of the peer: its mode, the ids by name, what becomes of them.

    prefill: in ``shipped-cache``, tokens given at once before the rest follows one by one; None for all at
    once. gradients: return those of sum(logits * cotangent) by every parameter too.
    """

    name: str
    mode: Mode
    ids: str
    prefill: int | None = None
    gradients: bool = False


def version() -> str | None:
    """The installed version of genesis-llm, None where there is none."""
    if importlib.util.find_spec("genesis") is None:
        return None
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("genesis-llm")
    return None


def needed() -> str:
    """The installed version. Raises CommandError with what to do where there is none."""
    installed = version()
    if installed is None:
        raise CommandError(
            "genesis-llm is not importable here; put it beside the lab, without what it depends on: "
            'pip install --no-deps "genesis-llm==2.0.1"'
        )
    return installed


@contextlib.contextmanager
def run(
    weights: Path, ids: Mapping[str, np.ndarray], cases: Sequence[Case], lift: bool = True, seed: int = 0
) -> Iterator[Mapping[str, np.ndarray]]:
    """What genesis-llm computes on ``weights`` in float64: for each case, by name, logits [B, T, V].

    With gradients also ``name/PARAMETER``, by released name, of sum(logits * noise(shape, seed)). lift: the
    package's casts to float32 are lifted; else they stay. Arrays lie on disk until they are looked at, and go
    when the context ends.
    """
    with tempfile.TemporaryDirectory(prefix="lab-peer-") as folder:
        job, out = Path(folder, "job.json"), Path(folder, "out")
        out.mkdir()
        np.savez(Path(folder, "ids.npz"), **ids)  # pyright: ignore[reportArgumentType]
        document = {
            "weights": str(weights.resolve()),
            "ids": str(Path(folder, "ids.npz")),
            "out": str(out),
            "lift": lift,
            "seed": seed,
            "cases": [asdict(case) for case in cases],
        }
        job.write_text(json.dumps(document))
        told = subprocess.run(
            [sys.executable, "-m", "lab.genesis.peer", str(job)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        if told.returncode:
            last = (told.stderr.strip().splitlines() or ["no message"])[-1]
            raise GenesisFileError(f"{weights}: genesis-llm does not run on it: {last}")
        yield _OnDisk(out, json.loads(Path(out, "names.json").read_text()))


class _OnDisk(Mapping[str, np.ndarray]):
    """Arrays by name, each mapped from its file when asked for."""

    def __init__(self, folder: Path, files: Mapping[str, str]) -> None:
        self.folder, self.files = folder, files

    def __getitem__(self, name: str) -> np.ndarray:
        return np.load(self.folder / self.files[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


def noise(shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> Tensor:
    """The same numbers in both processes."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype)


def _keep_float64() -> None:
    narrow = Tensor.float

    def float_(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self if self.dtype == torch.float64 else narrow(self, *args, **kwargs)

    Tensor.float = float_  # pyright: ignore[reportAttributeAccessIssue]


def _model(path: str, lift: bool) -> Any:
    """The package's model by the package's own loader, in float64."""
    if lift:
        _keep_float64()
    from genesis import cli  # pyright: ignore[reportMissingImports]

    chat = object.__new__(cli.GenesisChat)
    chat.device = "cpu"
    model = chat._load_model(path)
    return model.double()


def _logits(model: Any, ids_BT: Tensor, case: dict[str, Any]) -> Tensor:
    """[B, T, V]: asking for a loss is what makes the package return every position."""
    model.train(case["mode"] == "shipped-train")
    os.environ[DELTA_SWITCH] = "1" if case["mode"] == "shipped-eval-delta" else "0"
    if case["mode"] != "shipped-cache":
        return model(ids_BT, targets=ids_BT)[0]
    first = case["prefill"] or ids_BT.shape[1]
    head, rest = ids_BT[:, :first].contiguous(), ids_BT[:, first:]
    logits, _, _, kept = model(head, targets=head, use_cache=True)
    out = [logits]
    for t in range(rest.shape[1]):
        token = rest[:, t : t + 1]
        logits, _, _, kept = model(token, past_key_values=kept, use_cache=True)
        out.append(logits)
    return torch.cat(out, dim=1)


def _main(path: str) -> None:
    job = json.loads(Path(path).read_text())
    out, names = Path(job["out"]), {}

    def keep(name: str, t: Tensor) -> None:
        names[name] = f"{len(names)}.npy"
        np.save(out / names[name], t.detach().numpy())

    with contextlib.redirect_stdout(sys.stderr):
        model = _model(job["weights"], job["lift"])
        with np.load(job["ids"]) as stored:
            ids = {name: torch.from_numpy(stored[name]) for name in stored.files}
        for case in job["cases"]:
            tokens = ids[case["ids"]]
            with torch.set_grad_enabled(case["gradients"]):
                logits = _logits(model, tokens, case)
            keep(case["name"], logits)
            if case["gradients"]:
                model.zero_grad(set_to_none=True)
                logits.backward(noise(tuple(logits.shape), job["seed"], logits.dtype))
                for name, parameter in model.named_parameters():
                    if parameter.grad is not None:
                        keep(f"{case['name']}/{name}", parameter.grad)
    Path(out, "names.json").write_text(json.dumps(names))


if __name__ == "__main__":
    _main(sys.argv[1])
