"""Synthetic tasks: how an instance is drawn, and how a model is trained and scored on one.

``TASKS`` is the registry: one word -> the dataclass that draws and solves the task. Adding a task is one file
and one line here; the contract tests, the command line and the recipes pick it up. A user's own joins without
a fork: ``parse_task(text, {**TASKS, "mine": Mine})``.
"""

from __future__ import annotations

from collections.abc import Mapping

from synthetics.base import IGNORE, Batch, Split, Task, TaskError
from synthetics.compositional import CompositionalMQAR
from synthetics.compression import Compression
from synthetics.copying import Copying
from synthetics.dyck import Dyck
from synthetics.fuzzy import FuzzyRecall
from synthetics.memorization import Memorization
from synthetics.mqar import MQAR
from synthetics.multihop import MultiHop
from synthetics.needle import Needle
from synthetics.ngram import NGram
from synthetics.overwrite import Overwrite
from synthetics.recall import NoisyRecall, Recall
from synthetics.tracking import Majority, Parity, Permutation

__all__ = ["IGNORE", "TASKS", "Batch", "Split", "Task", "TaskError"]

_ALL: tuple[type[Task], ...] = (
    Recall,
    NoisyRecall,
    FuzzyRecall,
    Copying,
    Compression,
    Memorization,
    MQAR,
    MultiHop,
    Overwrite,
    Parity,
    Permutation,
    CompositionalMQAR,
    Majority,
    Dyck,
    Needle,
    NGram,
)

TASKS: Mapping[str, type[Task]] = {task.name: task for task in _ALL}
