"""Train what a study asks for and is not there yet, piece by piece; processes may share a folder.

    runs/NAME/study.yaml        the study as it is run
             rows/*.parquet     a row per finished training
             pieces/KEY/        of a piece under way: its trunk (the longest training), a branch, a lock

A process works at one piece at a time, which it locks. After a kill it goes on by the checkpoints of
``lab.train``. A finished training leaves nothing but its row.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import polars as pl
import torch

from blocks.cost import counts, flops_per_token
from lab.data.shards import open_tokens
from lab.data.tokens import open_tokenizer
from lab.evaluate.bits import Windows, bits_per_byte, score
from lab.evaluate.sources import source_of
from lab.model.form import Spec
from lab.model.spec import read_model, schedule_of, shape_of
from lab.train.checkpoint import latest
from lab.train.feed import Feed, open_feed
from lab.train.folder import CHECKPOINTS, MODEL, FolderError, Step, locked, steps_of
from lab.train.loop import Diverged
from lab.train.run import Begun, Ended, kernel_of, train
from lab.transfer import rows
from lab.transfer.pieces import Blocks, Piece, branch_step, row_key
from sweeps.match import costs
from sweeps.run import versions

__all__ = ["Counted", "Left", "Worker", "made_by"]

CPU = torch.device("cpu")


class Left(Exception):
    """A piece was left before its end, saved; ``code`` as a signal asks for it, 0 where time was up."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Listener(Protocol):
    """Told of steps, and of every row as it is stored."""

    def begun(self, begun: Begun) -> None: ...
    def step(self, step: Step, steps: int) -> None: ...
    def row(self, row: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Counted:
    """Trainings of a study: how many are asked for, how many of them are done."""

    done: int
    asked: int


def made_by(piece: Piece, code: str) -> str:
    """Hash of what a row hangs on beside what is asked for: sources and torch (``code``), kernel, data.

    piece: any one of the study, all of which have kernel and data in common.
    """
    study = piece.study
    parts = [code, kernel_of(piece.spec(study.tokens[0])), open_tokens(study.data).digest]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Worker:
    """One process at work on a study in ``folder``.

    made: of ``made_by``; rows made otherwise are not of this study. packs: files of rows that count as done.
    out_of_time: asked before every step. peak: FLOP/s of this process, for the log of a training.
    """

    folder: Path
    made: str
    listener: Listener
    packs: tuple[Path, ...]
    out_of_time: Callable[[], bool]
    peak: float
    blocks: Blocks

    def run(self, pieces: Sequence[Piece]) -> None:
        """Do what is left of ``pieces`` and nobody else is at. Raises Left."""
        have = self._have()
        for piece in pieces:
            if self._missing(piece, have):
                self._claim(piece)
            else:
                shutil.rmtree(
                    self._place(piece), ignore_errors=True
                )  # of one that was killed in its last moment

    def count(self, pieces: Sequence[Piece]) -> Counted:
        """How far the study is."""
        have = self._have()
        asked = sum(len(piece.study.tokens) for piece in pieces)
        return Counted(asked - sum(len(self._missing(piece, have)) for piece in pieces), asked)

    def _place(self, piece: Piece) -> Path:
        return self.folder / "pieces" / f"{piece.key}-{self.made}"

    def _claim(self, piece: Piece) -> None:
        place = self._place(piece)
        place.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(place))
            except FolderError:
                return  # another process is at it
            for tokens in self._missing(piece, self._have()):
                if self.out_of_time():
                    raise Left(0)
                self._train(piece, tokens, place)
            for left in ("trunk", "branch"):
                shutil.rmtree(place / left, ignore_errors=True)

    def _have(self) -> set[str]:
        """The keys of all rows that were made as this process makes them."""
        frame = rows.read(self.folder, *self.packs)
        return set(frame.filter(pl.col("made") == self.made)["key"])

    def _missing(self, piece: Piece, have: Set[str]) -> list[int]:
        """The counts of tokens that have no row yet."""
        keys = {tokens: row_key(piece.spec(tokens), piece.study.scored) for tokens in piece.study.tokens}
        return [tokens for tokens, key in keys.items() if key not in have]

    def _feed(self, spec: Spec) -> Feed:
        """What the training reads: without a text for baselines, and of the held-out one a row.

        Models are scored by ``lab.evaluate`` when they are done.
        """
        feed = open_feed(spec)
        held = feed.held_out
        few = slice(0, held.length + 1)
        text = held.text[: held.length]
        mask = None if held.mask is None else held.mask[few]
        return replace(feed, train=(), held_out=replace(held, stream=held.stream[few], mask=mask, text=text))

    def _train(self, piece: Piece, tokens: int, place: Path) -> None:
        """One training to its row: along the trunk to where it branches off, then to its end."""
        last = piece.study.tokens[-1]
        trunk, branch = place / "trunk", place / "branch" / str(tokens)
        try:
            if tokens == last:
                self._go(piece.spec(last), trunk, None, None)
                done = trunk
            else:
                at = branch_step(piece.study, tokens)
                if (branch / CHECKPOINTS).is_dir() and latest(branch / CHECKPOINTS) is not None:
                    of = None
                else:
                    self._go(piece.spec(last), trunk, None, at)
                    of = trunk / CHECKPOINTS / f"step-{at}"
                self._go(piece.spec(tokens), branch, of, None)
                done = branch
        except Diverged:
            self._store(piece, tokens, None, trunk)
            return
        self._store(piece, tokens, done / MODEL, done)
        shutil.rmtree(place / "branch", ignore_errors=True)

    def _go(self, spec: Spec, folder: Path, branch: Path | None, until: int | None) -> Ended:
        """Train to the end or to step ``until``. Raises Left where it ended before."""

        def pause(step: int) -> bool:
            return (until is not None and step >= until) or self.out_of_time()

        ended = train(
            spec, folder, self.listener, self.blocks, self.peak, self._feed(spec), branch=branch, pause=pause
        )
        if ended.code or (ended.state == "stopped" and ended.step != until):
            raise Left(ended.code)
        return ended

    def _store(self, piece: Piece, tokens: int, model: Path | None, folder: Path) -> None:
        spec = piece.spec(tokens)
        bits, size = _scored(spec, piece.study.scored, model, self.blocks)
        schedule, shape = schedule_of(spec, self.blocks), shape_of(spec)
        cost, layers = costs(schedule, shape, spec.data.length), counts(schedule)
        flops = flops_per_token(schedule, shape, spec.model.vocab, spec.data.length)
        logged = steps_of(folder)
        row = {
            "key": row_key(spec, piece.study.scored),
            "made": self.made,
            "study": piece.study.name,
            "label": piece.label,
            "size": piece.size,
            "seed": piece.seed,
            "tokens": tokens,
            "steps": spec.train.steps,
            "schedule": spec.model.schedule,
            "dim": shape.dim,
            "heads": shape.heads,
            "depth": layers.depth,
            "n_linear": layers.linear,
            "n_window": layers.window,
            "n_full": layers.full,
            "params": cost["params"],
            "state": cost["state"],
            "flops": flops,
            "train_flops": 3.0 * flops * tokens,
            "status": "diverged" if model is None else "finished",
            "bits": bits,
            "scored": size,
            "seconds": logged[-1].seconds if logged else 0.0,
            "kernel": kernel_of(spec),
            "torch": versions()["torch"],
            "machine": versions()["machine"],
        }
        rows.write(self.folder, row)
        self.listener.row(row)


def _scored(spec: Spec, limit: int, model: Path | None, blocks: Blocks) -> tuple[float, int]:
    """Bits per byte of the first ``limit`` held-out bytes, and their number; without a model by luck."""
    (source,) = source_of(spec, open_tokenizer(spec.data.tokenizer), None, None)
    text = source.whole(limit)
    if model is None:
        return len(text.ids) * math.log2(spec.model.vocab) / text.size, text.size
    opened, _ = read_model(model, kernel_of(spec), blocks)
    losses = score(opened, text, Windows(spec.data.length, spec.data.length))
    return bits_per_byte(float(losses.nats.sum()), text.size), text.size
