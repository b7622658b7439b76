"""What each part of an architecture is worth: left out of the whole, and added to what is left without any.

The effect of a part is the score with it less the score without, paired by task and seed, with the intervals
of ``stats``; once in the whole (leave one out), once alone (add one in). Where the two differ, parts stand in
for each other or need each other. p is corrected over all effects of the table (Holm), which are all looked
at. Effects are those of this size, these tasks and this budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from analysis.stats import (
    LEVEL,
    Estimate,
    Interval,
    Samples,
    arrays,
    estimate,
    gap,
    holm,
    rounding,
    samples_of,
)
from analysis.tables import Board, Score

__all__ = ["Ablation", "Effect", "Parts", "Worth", "ablation"]

Verdict = Literal["helps", "hurts", "open", "one seed"]
IN_FULL, ALONE = "in full", "alone"


@dataclass(frozen=True)
class Parts:
    """Labels of the variants. without, only: part -> label."""

    full: str
    bare: str
    without: Mapping[str, str]
    only: Mapping[str, str]


@dataclass(frozen=True)
class Effect:
    """Score with a part less score without, in the unit of the score; positive is better, for steps too.

    interval and p are None at one seed. verdict: at 5 %, p corrected over the table.
    """

    mean: float
    interval: Interval | None
    p: float | None
    verdict: Verdict


@dataclass(frozen=True)
class Worth:
    """One part. in_full, alone: its effects, None where a variant has no complete round.

    params, flops, state: what it costs in the whole; state after the longest stored length.
    """

    part: str
    in_full: Effect | None
    alone: Effect | None
    params: int
    flops: int
    state: int


@dataclass(frozen=True)
class Ablation:
    """The parts in the recipe's order. seeds: of the whole. full, bare: their scores with intervals."""

    score: Score
    seeds: int
    full: tuple[float, Interval | None]
    bare: tuple[float, Interval | None]
    worth: tuple[Worth, ...]


def ablation(ranked: Board, parts: Parts) -> Ablation | None:
    """The worth of each part; None where the whole or the bare one has no complete round yet."""
    archs = {label: arch for arch, label in ranked.candidates.select("arch", "label").iter_rows()}
    samples = samples_of(ranked)
    of = {label: samples[arch] for label, arch in archs.items() if arch in samples}
    if parts.full not in of or parts.bare not in of:
        return None
    gaps = {
        (part, place): _between(ranked, of.get(more), of.get(less))
        for part in parts.without
        for place, more, less in (
            (IN_FULL, parts.full, parts.without[part]),
            (ALONE, parts.only[part], parts.bare),
        )
    }
    effects, costs = _told(gaps), {row["label"]: row for row in ranked.candidates.iter_rows(named=True)}
    worth = []
    for part, label in parts.without.items():
        less = costs.get(label, costs[parts.full])
        cost = [int(costs[parts.full][what]) - int(less[what]) for what in ("params", "flops", "state")]
        worth.append(Worth(part, effects[part, IN_FULL], effects[part, ALONE], *cost))
    whole, bare = (estimate(arrays(of[label]), rounding(ranked)) for label in (parts.full, parts.bare))
    return Ablation(
        score=ranked.score,
        seeds=len(next(iter(of[parts.full].values()))),
        full=(whole.mean, whole.interval()),
        bare=(bare.mean, bare.interval()),
        worth=tuple(worth),
    )


def _between(ranked: Board, more: Samples | None, less: Samples | None) -> Estimate | None:
    """With less without; None where one of them has no complete round."""
    if more is None or less is None:
        return None
    return gap(ranked, more, less, -1.0 if ranked.lower_is_better else 1.0)


def _told(gaps: Mapping[tuple[str, str], Estimate | None]) -> dict[tuple[str, str], Effect | None]:
    """Effects with p corrected over all of them."""
    p_values = {key: found.p_value() for key, found in gaps.items() if found is not None}
    known = {key: p for key, p in p_values.items() if p is not None}
    corrected = dict(zip(known, holm(list(known.values())), strict=True))
    return {key: None if found is None else _effect(found, corrected.get(key)) for key, found in gaps.items()}


def _effect(found: Estimate, p: float | None) -> Effect:
    told: Verdict = "one seed"
    if p is not None:
        told = "open" if p > 1 - LEVEL else "helps" if found.mean > 0 else "hurts"
    return Effect(found.mean, found.interval(), p, told)
