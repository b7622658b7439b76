"""A job as plain JSON values and back: how runs reach workers on other machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from sweeps.pool import Job
from sweeps.run import Run

__all__ = ["WireError", "job_of", "plain"]


class WireError(ValueError):
    """A job of a queue is none of this version."""


def plain(job: Job) -> dict[str, Any]:
    """``job`` as values that JSON holds; ``job_of`` gives it back, equal in every bit."""
    return asdict(job)


def job_of(values: Mapping[str, Any]) -> Job:
    """The job that ``plain`` wrote. Raises WireError where a field is missing, unknown or of another kind."""
    try:
        return Job(**{**values, "run": _made(Run, values["run"])})
    except (KeyError, TypeError, ValueError) as exc:
        raise WireError(
            f"a job in the queue is none of this version's ({type(exc).__name__}: {exc}); use the same "
            "version of the lab on all machines"
        ) from exc


def _made(kind: Any, value: Any) -> Any:
    """What JSON made of a ``kind`` as one again: mappings are dataclasses, lists are tuples.

    Of a union it is the member that such a value can be; other values are what they are.
    """
    members = get_args(kind)
    if isinstance(value, dict):
        made: Any = next(one for one in (kind, *members, None) if one is None or is_dataclass(one))
        hints = _hints(made)
        if value.keys() != hints.keys():
            raise TypeError(f"fields {', '.join(sorted(value.keys() ^ hints.keys()))}")
        return made(**{name: _made(hints[name], part) for name, part in value.items()})
    if isinstance(value, list):
        row = next((one for one in (kind, *members) if get_origin(one) is tuple), None)
        if row is None:
            raise TypeError("a list where none is known")
        kinds = get_args(row)
        kinds = kinds[:1] * len(value) if kinds[1:] == (...,) else kinds
        return tuple(_made(one, part) for one, part in zip(kinds, value, strict=True))
    return value


@cache
def _hints(kind: Any) -> Mapping[str, Any]:
    """Name -> type of the fields of a dataclass. Raises TypeError for anything else."""
    if kind is None:
        raise TypeError("values where none are known")
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}
