"""Speed and memory beside genesis-llm on the same random weights; both take turns (``lab.genesis.turns``)."""

from __future__ import annotations

import multiprocessing as mp
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.genesis_model import GENESIS_152M, GenesisConfig, GenesisModel
from lab.genesis.turns import Work, take_turns
from lab.genesis.weights import load, save

__all__ = ["WHATS", "Result", "peer_model", "race", "random_weights"]

WHATS = {
    "forward": "evaluation, 1 x 512 tokens, last logits",
    "decode": "generation, 32 tokens after 64, batch 1",
    "decode4": "generation, 32 tokens after 64, batch 4",
    "train": "training step with AdamW, 1 x 256 tokens",
}
STEPS = 32


@dataclass(frozen=True)
class Result:
    """Medians of seconds and peak memory [bytes] of both sides, and the ratios theirs / ours of the pairs."""

    what: str
    seconds: float
    peer_seconds: float
    ratios: tuple[float, ...]
    memory: int
    peer_memory: int

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)


def race(
    repeats: int, threads: int, whats: list[str], config: GenesisConfig = GENESIS_152M
) -> Iterator[Result]:
    """One Result per kind of work, medians over ``repeats`` pairs after a warm-up."""
    with tempfile.TemporaryDirectory(prefix="lab-race-") as folder:
        path = random_weights(Path(folder), config)
        for what in whats:
            yield _pair(path, what, repeats, threads)


def random_weights(folder: Path, config: GenesisConfig = GENESIS_152M) -> Path:
    """A released file in ``folder`` with the weights that a training starts from.

    Made in a process of its own: a child starts with its parent's peak of memory.
    """
    path = folder / "random.safetensors"
    maker = mp.get_context("spawn").Process(target=_make, args=(config, path))
    maker.start()
    maker.join()
    return path


def _make(config: GenesisConfig, path: Path) -> None:
    torch.manual_seed(0)
    save(GenesisModel(config, "shipped-eval"), path)


def _pair(path: Path, what: str, repeats: int, threads: int) -> Result:
    ours, theirs = take_turns(
        what, [partial(_ours, path, what), partial(_theirs, path, what)], repeats, threads
    )
    ratios = tuple(slow / fast for fast, slow in zip(ours.seconds, theirs.seconds, strict=True))
    medians = [statistics.median(timed.seconds) for timed in (ours, theirs)]
    return Result(what, medians[0], medians[1], ratios, ours.memory, theirs.memory)


def _ids(what: str, vocab: int) -> Tensor:
    sizes = {"forward": (1, 512), "decode": (1, 64), "decode4": (4, 64), "train": (1, 256)}
    return torch.randint(vocab, sizes[what], generator=torch.Generator().manual_seed(0))


def _ours(path: Path, what: str) -> Work:
    mode = {"forward": "shipped-eval", "train": "shipped-train"}.get(what, "shipped-cache")
    model = load(path, mode)  # pyright: ignore[reportArgumentType]
    ids = _ids(what, model.config.vocab)
    if what == "train":
        optimizer = torch.optim.AdamW(
            model.train().parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True
        )
        targets = ids.roll(-1, 1).flatten()
        return _timed_step(optimizer, lambda: F.cross_entropy(model(ids)[0].flatten(0, 1), targets))
    if what == "forward":
        return _timed(lambda: model(ids, last_only=True))

    def start() -> tuple[Tensor, Any]:
        return model(ids, last_only=True)

    return _timed_steps(start, lambda token, state: model(token, state, last_only=True))


def peer_model(path: Path) -> Any:
    """The package's model of a released file, in float32, by the package's own loader."""
    from genesis import cli  # pyright: ignore[reportMissingImports]

    chat = object.__new__(cli.GenesisChat)
    chat.device = "cpu"
    return chat._load_model(str(path))


def _theirs(path: Path, what: str) -> Work:
    model = peer_model(path)
    ids = _ids(what, model.config.vocab_size)
    if what == "train":
        model.train()
        optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.95), "cpu")
        targets = ids.roll(-1, 1).contiguous()
        return _timed_step(optimizer, lambda: model(ids, targets=targets)[1])
    if what == "forward":
        return _timed(lambda: model(ids))

    def start() -> tuple[Tensor, Any]:
        logits, _, _, kept = model(ids, use_cache=True)
        return logits, kept

    def step(token: Tensor, kept: Any) -> tuple[Tensor, Any]:
        logits, _, _, kept = model(token, past_key_values=kept, use_cache=True)
        return logits, kept

    return _timed_steps(start, step)


def _timed(call: Callable[[], object]) -> Work:
    def work() -> float:
        with torch.no_grad():
            started = time.perf_counter()
            call()
            return time.perf_counter() - started

    return work


def _timed_steps(start: Callable[[], tuple[Tensor, Any]], step: Callable[..., tuple[Tensor, Any]]) -> Work:
    """Greedy decoding; the prefill is not timed."""

    def work() -> float:
        with torch.no_grad():
            logits, state = start()
            started = time.perf_counter()
            for _ in range(STEPS):
                logits, state = step(logits.argmax(-1), state)
            return time.perf_counter() - started

    return work


def _timed_step(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> Work:
    def work() -> float:
        started = time.perf_counter()
        value = loss()
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        return time.perf_counter() - started

    return work
