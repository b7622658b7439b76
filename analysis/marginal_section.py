"""The report's section on what each variable does."""

from __future__ import annotations

from analysis.fragments import Part, cell, e, table, whisker
from analysis.marginal import Effect, Importance, Marginals, Variable, defined, named
from analysis.stats import Interval, Ranking
from analysis.words import amount, unit, value_text

__all__ = ["effects"]


def effects(found: Marginals, importance: Importance | None, ranking: Ranking) -> Part:
    """Marginal means and effects of every variable, with the importance where it was worked out."""
    every = [effect for variable in found.variables for effect in variable.effects]
    edges = [edge for one in every if one.effect_interval for edge in one.effect_interval]
    edges += [one.effect for one in every if one.effect is not None]
    span = (min(edges, default=0.0), max(edges, default=0.0))
    rows = [
        _row(ranking, variable, effect, span) for variable in found.variables for effect in variable.effects
    ]
    note = " ".join((defined(found), *([named(importance)] if importance else [])))
    heading = f'<h2>What each variable does</h2><p class="note">{e(note)}</p>'
    return Part("effects", f"<section>{heading}{table(rows, 'cards')}</section>")


def _row(ranking: Ranking, variable: Variable, effect: Effect, span: Interval) -> list[tuple[str, str, str]]:
    mean = shown = "not determined"
    if effect.mean is not None:
        edges = [value_text(ranking, edge, 3) for edge in effect.interval or ()]
        mean = value_text(ranking, effect.mean, 3) + _range(edges)
    if effect.effect is not None:
        edges = [amount(ranking, edge) for edge in effect.effect_interval or ()]
        drawn = whisker(effect.effect, effect.effect_interval, span)
        shown = f"{amount(ranking, effect.effect)}{_range(edges)}{drawn}"
    return [
        cell("value", f"{e(variable.name)}={e(effect.value)}"),
        cell("schedules", str(effect.candidates), "num"),
        cell("mean score", f"<div>{mean}</div>"),
        cell(f"effect, {unit(ranking)}s", f"<div>{shown}</div>"),
    ]


def _range(edges: list[str]) -> str:
    return f'<span class="range">{edges[0]} to {edges[1]}</span>' if edges else ""
