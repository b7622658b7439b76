"""Synthetic tasks: how an instance is drawn, and how a model is trained and scored on one."""

from __future__ import annotations

from collections.abc import Mapping

from synthetics.base import IGNORE, Batch, Split, Task, TaskError
from synthetics.memorization import Memorization
from synthetics.mqar import MQAR
from synthetics.recall import NoisyRecall, Recall

__all__ = ["IGNORE", "TASKS", "Batch", "Split", "Task", "TaskError"]

TASKS: Mapping[str, type[Task]] = {task.name: task for task in (Recall, NoisyRecall, Memorization, MQAR)}
"""Every task by name. A user's own joins without a fork: ``parse_task(text, {**TASKS, "mine": Mine})``."""
