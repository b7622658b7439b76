"""``lab genesis recipe``: how Genesis-152M was trained, and what nobody says of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lab.terminal import JsonOption, emit, plural, say, table

if TYPE_CHECKING:
    from lab.genesis.training import Fact, Training

__all__ = ["recipe"]


def recipe(json: JsonOption = False) -> None:
    """Show how Genesis-152M was trained: what is documented, what follows from it, and what nobody says.

    Examples:
      lab genesis recipe
      lab genesis recipe --json
    """
    from lab.genesis.training import training

    found = training()
    if json:
        emit(found.model_dump())
        return
    facts = list(_facts(found))
    counts = {status: sum(fact.status == status for _, _, fact in facts) for status in STATUSES}
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    say(f"{plural(len(facts), 'field')}: {told}\n")
    rows = [row for stage, name, fact in facts for row in _rows(stage, name, fact)]
    say(table(("stage", "field", "value", "status", "note"), rows))


STATUSES = ("documented", "inferred", "unknown")


def _facts(found: Training) -> Iterator[tuple[str, str, Fact[Any]]]:
    for stage in ("pre_training", "fine_tuning"):
        for name, fact in getattr(found, stage):
            yield stage.replace("_", "-"), name.replace("_", " "), fact


def _rows(stage: str, name: str, fact: Fact[Any]) -> Iterator[tuple[str, ...]]:
    """One row, or one for each entry of a value with several."""
    entries = fact.value.items() if isinstance(fact.value, dict) else [("", fact.value)]
    for i, (entry, value) in enumerate(entries):
        label = f"{name}: {entry}" if entry else name
        unit = f" {fact.unit}" if fact.unit and value is not None else ""
        yield stage, label, _shown(value) + unit, fact.status, "" if i else fact.note


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else value
