"""A run: one candidate on one task setting with one training setting and one seed, and the rows it leaves.

A run is plain frozen values; the hash of what decides its outcome is its key in the store.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch

import blocks
import synthetics
from blocks import BLOCKS
from blocks.base import Block
from blocks.cost import counts, flops_per_token, layer_role, params_by_part, state_size, strip
from blocks.kernels.native import compiler
from blocks.schedule import Schedule, parse
from sweeps import space
from sweeps.candidate import Candidate
from sweeps.checkpoint import Checkpoint
from sweeps.form import Recipe
from sweeps.results import SCHEMA_VERSION
from sweeps.same import canonical
from synthetics.base import Task
from synthetics.difficulty import profile
from synthetics.fit import Fit, Trainer, Training
from synthetics.protocol import parse_task

__all__ = [
    "STATE_LENGTHS",
    "Run",
    "code_hash",
    "execute",
    "flops_per_step",
    "machine",
    "rows",
    "runs_of",
    "source_hash",
    "versions",
]

STATE_LENGTHS = tuple(4**power for power in range(3, 9))
"""64 to 65,536 tokens: where the state of every candidate is recorded, so that plots need no torch."""

WINDOW = 32
"""Tokens of the window whose share of a task is recorded beside every score."""

Blocks = Mapping[str, type[Block]]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One candidate, one task setting (canonical text), one training setting, one seed.

    trainings: how many optimiser settings its round gives the candidate on the task; a note beside the run.
    """

    candidate: Candidate
    task: str
    training: Training
    seed: int
    trainings: int = 1

    def key(self, code: str, floor: float = 0.0) -> str:
        """Hash of all that decides the outcome, ``code`` (see ``code_hash``) included; names stay out.

        floor: of a run that was ended because it could not reach it; a run that was not has a key without.
        """
        c = self.candidate
        parts = {
            "schedule": c.schedule,
            "shape": [c.dim, c.heads, c.norm],
            "task": self.task,
            "training": asdict(self.training),
            "seed": self.seed,
            "code": code,
        }
        if c.around:
            parts["around"] = c.around
        if floor:
            parts["floor"] = floor
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def code_hash(blocks_file: Path | None = None) -> str:
    """Under which the runs of the present sources are kept; the user's file of blocks counts.

    It is ``source_hash``, or that of earlier sources which are known to train the same (``sweeps.same``).
    """
    digest = canonical(source_hash())
    if blocks_file is not None:
        user = hashlib.sha256(blocks_file.read_bytes()).hexdigest()
        digest = hashlib.sha256(f"{digest}\nuser {user}".encode()).hexdigest()[:16]
    return digest


def source_hash() -> str:
    """Hash of the sources of ``blocks`` and ``synthetics`` and of torch's version."""
    digest = hashlib.sha256(torch.__version__.encode())
    for package in (blocks, synthetics):
        root = Path(str(package.__file__)).parent
        for path in sorted(path for end in ("*.py", "*.c", "*.h") for path in root.rglob(end)):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"\n{root.name}/{path.relative_to(root).as_posix()} {content}".encode())
    return digest.hexdigest()[:16]


def chosen_kernel(wanted: Literal["auto", "torch", "c"]) -> Literal["torch", "c"]:
    """The kernel that a recipe's word stands for on this machine."""
    if wanted != "auto":
        return wanted
    return "torch" if compiler() is None else "c"


def runs_of(recipe: Recipe, candidate: Candidate, tasks: list[str], seed: int) -> Iterator[Run]:
    """The runs of one candidate in one round: every task setting, every optimiser setting."""
    part, budgets = recipe.train, space.budgets(recipe)
    base = Training(
        steps=part.steps,
        batch=part.batch,
        warmup=part.warmup,
        clip=part.clip,
        precision=part.precision,
        kernel=chosen_kernel(part.kernel),
        eval_every=part.eval_every,
        eval_examples=part.eval_examples,
        stop=part.stop,
        threshold=part.threshold,
        extrapolate=part.extrapolate,
    )
    for task in tasks:
        for lr, weight_decay in candidate.optimisers:
            training = replace(base, lr=lr, weight_decay=weight_decay, **budgets[task])
            yield Run(
                candidate=candidate,
                task=task,
                training=training,
                seed=seed,
                trainings=len(candidate.optimisers),
            )


@cache
def machine() -> str:
    """The processor and the system, without the host's name."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = (
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line
        )
        name = next(names, name)
    return f"{name}, {platform.system()} {platform.machine()}"


@cache
def versions() -> dict[str, str]:
    """Of what a run stands on: torch, python, the lab, the machine."""
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "lab": importlib.metadata.version("hybrid-architecture-lab"),
        "machine": machine(),
    }


def execute(
    run: Run,
    trial: int,
    code: str,
    table: Blocks = BLOCKS,
    floor: float = 0.0,
    checkpoint: Checkpoint | None = None,
) -> list[dict[str, Any]]:
    """Train the run and return its rows. Bit for bit the same every time, ``seconds`` apart.

    floor: the run is ended once its area on validation cannot reach it any more. checkpoint: where it may
    have got to before, and keeps where it is.
    """
    schedule, task = parse(run.candidate.schedule, table), parse_task(run.task)
    trainer = Trainer(schedule, run.candidate.shape, task, run.training, run.seed, run.candidate.design)
    if checkpoint is not None:
        checkpoint.restore(trainer)
    reason = ""
    while not trainer.done and not reason:
        trainer.advance()
        if (best := _best_area(trainer)) < floor - 1e-9:  # not on a tie
            reason = f"its area on validation could be {best:.4f} at most, and {floor:.4f} was to be reached"
        elif checkpoint is not None:
            checkpoint.save(trainer)
    outcome = trainer.finish(reason)
    return rows(
        run, outcome, trial, run.key(code, floor if outcome.status == "stopped" else 0.0), code, table
    )


def _best_area(trainer: Trainer) -> float:
    """The area on validation if every evaluation to come is perfect."""
    evaluations = trainer.training.evaluations
    to_come = evaluations - len(trainer.curve)
    return (math.fsum(point.acc_valid for point in trainer.curve) + to_come) / evaluations


def flops_per_step(run: Run, table: Blocks = BLOCKS) -> float:
    """FLOPs of one training step: forward, and twice that for backward."""
    task = parse_task(run.task)
    schedule = parse(run.candidate.schedule, table)
    c = run.candidate
    per_token = flops_per_token(schedule, c.shape, task.vocab, task.tokens, c.design)
    return 3.0 * per_token * task.tokens * run.training.batch


def rows(
    run: Run, outcome: Fit, trial: int, key: str, code: str, table: Blocks = BLOCKS
) -> list[dict[str, Any]]:
    """The rows of a finished run: one per evaluation; a diverged run ends with one more, at chance."""
    schedule, task = parse(run.candidate.schedule, table), parse_task(run.task)
    common = {
        "schema_version": SCHEMA_VERSION,
        "run": key,
        "trial": trial,
        "label": run.candidate.label,
        "choices": run.candidate.choices_json,
        "schedule": run.candidate.schedule,
        "design": run.candidate.design_text,
        "arch": run.candidate.arch,
        "dim": run.candidate.dim,
        "heads": run.candidate.heads,
        "lr": run.training.lr,
        "weight_decay": run.training.weight_decay,
        "batch": run.training.batch,
        "precision": run.training.precision,
        "kernel": run.training.kernel,
        "steps": run.training.steps,
        "threshold": run.training.threshold,
        "trainings": run.trainings,
        "seed": run.seed,
        "status": outcome.status,
        "reason": outcome.reason,
        "code": code,
        **_costs(schedule, run.candidate, task, table),
        **_task(run.task, task),
        **versions(),
    }
    curve: list[dict[str, Any]] = [vars(point) for point in outcome.curve]
    if outcome.status == "diverged":
        curve.append(_end_of_diverged(run, outcome, task))
    finals = {
        "auc_valid": outcome.auc_valid,
        "auc": outcome.auc,
        "steps_to": outcome.steps_to,
        "acc_position": list(outcome.acc_position),
        "levels": [one.level for one in outcome.levels],
        "level_acc": [one.acc for one in outcome.levels],
        "level_count": [one.count for one in outcome.levels],
        "stretch": list(run.training.extrapolate),
        "stretch_acc": list(outcome.acc_stretched),
    }
    last = len(curve) - 1
    return [
        {**common, **point, "final": i == last, **(finals if i == last else dict.fromkeys(finals))}
        for i, point in enumerate(curve)
    ]


def _end_of_diverged(run: Run, outcome: Fit, task: Task) -> dict[str, Any]:
    """What a diverged run counts as: its whole budget spent, chance reached."""
    steps = run.training.steps
    return {
        "step": steps,
        "tokens": steps * run.training.batch * task.tokens,
        "seconds": outcome.curve[-1].seconds if outcome.curve else 0.0,
        "loss": None,
        "acc_valid": outcome.acc_valid,
        "acc": outcome.acc,
        "acc_madlab": outcome.acc_madlab,
    }


def _costs(schedule: Schedule, candidate: Candidate, task: Task, table: Blocks) -> dict[str, Any]:
    number, shape, design = counts(schedule), candidate.shape, candidate.design
    parts = params_by_part(schedule, shape, task.vocab, blocks=table, design=design)
    roles = [layer_role(layer) for layer in schedule]
    return {
        "strip": strip(schedule, table),
        "roles": ["none" if role == "channel" else role for role in roles],
        "depth": number.depth,
        "n_linear": number.linear,
        "n_window": number.window,
        "n_full": number.full,
        "params": sum(parts.values()),
        "flops": flops_per_token(schedule, shape, task.vocab, task.tokens, design),
        "state": state_size(schedule, shape, task.tokens, design),
        "state_lengths": list(STATE_LENGTHS),
        "state_sizes": [state_size(schedule, shape, length, design) for length in STATE_LENGTHS],
    }


def _task(text: str, task: Task) -> dict[str, Any]:
    numbers = profile(task, WINDOW)
    return {
        "task": task.name,
        "setting": text,
        "length": task.tokens,
        "vocab": task.vocab,
        "chance": numbers.chance,
        "ceiling": numbers.ceiling,
        "window_share": numbers.window_share,
        "level_of": task.LEVEL,
    }
