"""An ablation for the terminal: one table, and what it says in a sentence."""

from __future__ import annotations

from analysis.ablation import Ablation, Effect, Worth
from analysis.counts import short
from lab.ablate.form import AblationPart
from lab.terminal import plural, table

__all__ = ["costs", "page"]

EFFECTS = ("left out of all", "95 %", "added to none", "95 %")
COSTS = {"parameters": "params", "FLOPs": "flops", "state": "state"}
HEADER = ("part", *EFFECTS, *COSTS, "its source says")


def page(found: Ablation, asked: AblationPart, name: str) -> str:
    """The effects in the unit of the score, with 95 % intervals, beside what the source claims."""
    rows = [
        (
            one.part,
            *_told(one.in_full, found),
            *_told(one.alone, found),
            *costs(one).values(),
            asked.parts[one.part].claim,
        )
        for one in found.worth
    ]
    return "\n\n".join((_sentence(found, name), table(HEADER, rows), _note(found)))


def costs(one: Worth) -> dict[str, str]:
    """Heading -> what a part adds to the whole: ``+1.23k``."""
    return {heading: _signed(getattr(one, what)) for heading, what in COSTS.items()}


def _sentence(found: Ablation, name: str) -> str:
    whole, bare = (_score(mean, found) for mean, _ in (found.full, found.bare))
    told = {
        verdict: [
            one.part
            for one in found.worth
            if verdict in {effect.verdict for effect in (one.in_full, one.alone) if effect is not None}
        ]
        for verdict in ("helps", "hurts")
    }
    said = [f"{verdict}: {', '.join(parts)}" for verdict, parts in told.items() if parts]
    shown = "; ".join(said) or "no part is shown to help or to hurt"
    return f"{name}: {whole} with all parts, {bare} with none, {plural(found.seeds, 'seed')}; {shown}."


def _note(found: Ablation) -> str:
    unit = "steps saved" if found.score == "steps" else f"points of {found.score}"
    return (
        f"Effects are {unit}, with less without, paired by task and seed, with 95 % intervals; * where p is\n"
        "at most 5 % after Holm's correction over the table. Costs are what the part adds to the whole:\n"
        "parameters, FLOPs of a token, scalars of state."
    )


def _score(mean: float, found: Ablation) -> str:
    return f"{mean:.0f} steps" if found.score == "steps" else f"{100 * mean:.1f}"


def _told(effect: Effect | None, found: Ablation) -> tuple[str, str]:
    """The effect and its interval."""
    if effect is None:
        return "-", "-"
    unit = 1.0 if found.score == "steps" else 100.0
    star = "*" if effect.verdict in ("helps", "hurts") else ""
    around = (
        "one seed" if effect.interval is None else " to ".join(f"{unit * x:+.1f}" for x in effect.interval)
    )
    return f"{unit * effect.mean:+.1f}{star}", around


def _signed(number: int) -> str:
    return "0" if number == 0 else f"{'+' if number > 0 else '-'}{short(abs(number))}"
