"""Tasks as text, and the difficulty ladders that make a suite out of them."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping

from blocks.notation import NotationError, check_option, literal, parse_text, refuse, show_call, suggest
from synthetics import TASKS
from synthetics.base import Task, TaskError

__all__ = ["SUITES", "parse_task", "settings", "show_task"]

SUITES: Mapping[str, tuple[str, ...]] = {
    "mad": ("recall", "noisy_recall", "fuzzy_recall", "memorization", "compression", "copying"),
    "mqar": ("mqar",),
}
"""Task families by suite. ``mad`` is mad-lab's benchmark of 66 settings (Poli et al. 2024)."""


def settings(suite: str = "mad") -> tuple[Task, ...]:
    """Every setting of ``suite``: per task its defaults, then its ladder, one factor at a time.

    Raises TaskError for an unknown suite.
    """
    if suite not in SUITES:
        raise TaskError(f"{suite!r} is no suite{suggest(suite, SUITES)}")
    return tuple(task for name in SUITES[suite] for task in _ladder(TASKS[name]))


def _ladder(task: type[Task]) -> list[Task]:
    steps = [{factor: value} for factor, values in task.LADDER.items() for value in values]
    return [task(**options) for options in ({}, *steps)]


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
