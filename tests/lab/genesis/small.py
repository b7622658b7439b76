"""A model small enough for every test, all of whose weights count."""

from pathlib import Path
from typing import Any

import torch

from blocks.genesis_model import GenesisConfig, GenesisModel, Mode
from lab.genesis.weights import save

VOCAB = 97
SMALL: dict[str, Any] = {"vocab": VOCAB, "dim": 64, "depth": 6, "heads": 4, "kv_heads": 2, "base_width": 48}


@torch.no_grad()
def small(mode: Mode = "shipped-cache", seed: int = 0, vocab: int = VOCAB) -> GenesisModel:
    """In float64. Parameters that start at 0 or nearly so are moved, or their paths would not be tested."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GenesisModel(GenesisConfig(**{**SMALL, "vocab": vocab}), mode).double()
        for name, parameter in model.named_parameters():
            if not name.endswith(("log_pace", "step_bias", "log_lr")):
                wide = parameter.ndim > 1 and not name.endswith("conv.weight")
                scale = parameter.shape[-1] ** -0.5 if wide else 0.3
                parameter.copy_((parameter if "norm" in name else 0) + scale * torch.randn_like(parameter))
        # As a file holds them: float32.
        for parameter in model.parameters():
            parameter.copy_(parameter.float())
    return model.eval()


def written(path: Path, vocab: int = VOCAB) -> Path:
    """A released file of ``small``."""
    save(small(vocab=vocab), path, torch.float32)
    return path


def some_ids(batch: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


def words(line: str) -> list[str]:
    """A command line after ``lab``, as a shell would cut it."""
    return line.split()
