"""Protocols: task settings with the budgets at which they tell schedules apart, one word in a recipe.

    tasks: lite                           as it stands here
    tasks: {task: lite, steps: 500}       with another budget for all of its settings

A suite (``synthetics.protocol``) says what is asked; a protocol says also how long to train for the answer.
What is in one was chosen on measurements, told in docs/trust.md: change it with new ones only.
"""

from __future__ import annotations

from collections.abc import Mapping

from sweeps.form import TaskPart

__all__ = ["PROTOCOLS", "parts_of"]

PROTOCOLS: Mapping[str, tuple[TaskPart, ...]] = {
    "lite": tuple(
        TaskPart(task=task, steps=300, batch=16, eval_every=30)
        for task in (
            "recall(vocab=16, length=64)",
            "overwrite(vocab=16, length=64)",
            "mqar(vocab=16, length=32, pairs=2)",
            "mqar(vocab=16, length=32, pairs=4)",
            "copying(vocab=16, length=48, copy=8)",
        )
    ),
}


def parts_of(text: str) -> tuple[TaskPart, ...]:
    """What one entry of ``tasks`` is made of: a protocol's parts, else the entry itself."""
    return PROTOCOLS.get(text.strip(), (TaskPart(task=text),))
