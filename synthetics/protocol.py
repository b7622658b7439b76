"""Tasks as text, and the difficulty ladders that make a suite out of them."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping
from typing import Any, cast

from blocks.notation import NotationError, check_option, literal, parse_text, refuse, show_call, suggest
from synthetics import TASKS
from synthetics.base import Task, TaskError

__all__ = ["SUITES", "parse_task", "settings", "show_task", "stretch"]

SUITES: Mapping[str, tuple[str, ...]] = {
    "mad": ("recall", "noisy_recall", "fuzzy_recall", "memorization", "compression", "copying"),
    "mqar": ("mqar",),
    "hybrids": (
        "multihop",
        "overwrite",
        "parity",
        "permutation",
        "permutation(swaps=True)",
        "permutation(group=5, swaps=True)",
        "mqar(vocab=256, length=128, pairs=32)",
        "mqar(vocab=256, length=256, pairs=64)",
        "mqar(vocab=512, length=512, pairs=128)",
        "mqar(length=128, gap=96)",
        "mqar(length=256, gap=224)",
        "mqar(length=512, gap=480)",
        "copying(length=512, copy=128)",
        "copying(length=512, copy=192)",
        "copying(length=1024, copy=384)",
    ),
    "skills": ("compositional_mqar", "majority", "dyck", "needle", "ngram"),
}
"""What a suite is made of: a family with its ladder, or one setting. ``mad`` is mad-lab's benchmark of 66
settings (Poli et al. 2024). ``hybrids`` asks what that does not: more pairs and tokens than a small state
holds, long distances, values replaced, look-ups composed, state tracked. ``skills`` asks what neither does:
two tokens bound into one key, counts compared, brackets nested, needles told from what
looks like them, a language learnt from the row."""


def settings(suite: str = "mad") -> tuple[Task, ...]:
    """Every setting of ``suite``: per family its defaults, then its ladder, one factor at a time.

    Raises TaskError for an unknown suite.
    """
    if suite not in SUITES:
        raise TaskError(f"{suite!r} is no suite{suggest(suite, SUITES)}")
    return tuple(
        task
        for text in SUITES[suite]
        for task in (_ladder(TASKS[text]) if text in TASKS else [parse_task(text)])
    )


def _ladder(task: type[Task]) -> list[Task]:
    steps = [{factor: value} for factor, values in task.LADDER.items() for value in values]
    return [task(**options) for options in ({}, *steps)]


def stretch(task: Task, factor: int) -> Task:
    """``task`` with rows ``factor`` times as long and the same vocabulary.

    Raises TaskError where a model trained on ``task`` cannot be asked it, or the layout has no such length.
    """
    what = f"{show_task(task)} cannot be stretched to {factor} times its length"
    if task.head == "autoencoder":
        raise TaskError(f"{what}: its decoder knows the positions of one length alone")
    try:
        longer: Task = dataclasses.replace(cast(Any, task), length=task.length * factor)
    except (TypeError, ValueError) as exc:
        raise TaskError(f"{what}: {exc}") from None
    if longer.vocab != task.vocab:
        raise TaskError(f"{what}: its vocabulary grows with the length")
    return longer


def show_task(task: Task) -> str:
    """The canonical text of ``task``: its name and those options that are not defaults."""
    return show_call(task.name, task)


def parse_task(text: str, tasks: Mapping[str, type[Task]] = TASKS) -> Task:
    """The task written as ``name`` or ``name(option=value, ...)``.

    Raises TaskError where the text breaks the notation, a task or option is unknown, a value impossible.
    """
    call = parse_text(text, TaskError)
    text = text.strip()
    name = call.func if isinstance(call, ast.Call) else call
    if not isinstance(name, ast.Name):
        refuse(text, call, "a task is written name or name(option=value, ...)", TaskError)
    if name.id not in tasks:
        refuse(text, name, f"no task is called {name.id!r}{suggest(name.id, tasks)}", TaskError)
    cls = tasks[name.id]
    options = {}
    if isinstance(call, ast.Call):
        fields = ", ".join(field.name for field in dataclasses.fields(cls) if field.init)
        for argument in call.args:
            refuse(text, argument, f"options of {name.id} are given by name; it has {fields}", TaskError)
        for keyword in call.keywords:
            if keyword.arg is None or keyword.arg in options:
                problem = "** is not allowed" if keyword.arg is None else f"{keyword.arg} is given twice"
                refuse(text, keyword, f"{name.id}: {problem}", TaskError)
            ok, value = literal(keyword.value)
            if not ok:
                message = f"{name.id}: {keyword.arg} must be a number, True, False or a word in quotes"
                refuse(text, keyword.value, message, TaskError)
            try:
                options[keyword.arg] = check_option(name.id, cls, keyword.arg, value)
            except NotationError as exc:
                refuse(text, keyword, str(exc), TaskError)
    try:
        return cls(**options)
    except TaskError as exc:
        refuse(text, call, str(exc), TaskError)
