"""A comparison of two candidates in plain English: one sentence to send, and what to know before using it."""

from __future__ import annotations

from analysis.compare import Comparison
from analysis.power import MOST_SEEDS, Prediction
from analysis.stats import Interval
from analysis.words import amount, listed, margin_text, notes, saving, score_name, unit, value_text, where

__all__ = [
    "NAMED",
    "bound_text",
    "cost_text",
    "p_text",
    "pair_notes",
    "pair_sentence",
    "range_text",
    "seeds_text",
]

NAMED = (
    "This is for a pair named before its results were seen: p is not corrected over pairs. For a pair picked "
    "out of the ranking take the p of the report, which is corrected for all pairs."
)


def pair_sentence(found: Comparison) -> str:
    """One sentence that claims no more than the seeds carry; names the two as they were asked for."""
    interval, p = found.whole.interval, found.whole.p
    if interval is None or p is None:
        return _one_seed(found)
    numbers = _numbers(found, interval, p)
    parts = [_told(found, numbers) if found.told_apart else _open(found, numbers), _within(found)]
    if not found.told_apart:
        parts.append(_more(found))
    return f"{'; '.join(part for part in parts if part)}."


def pair_notes(found: Comparison) -> list[str]:
    """What to know before using the sentence, a sentence or two each."""
    told = [NAMED]
    for label, left in zip(found.labels, found.left, strict=True):
        if left:
            told.append(
                f"{label} left the race after round {left.round} of {left.rounds}: the two are compared on "
                f"the {len(found.seeds)} seeds that both have, and p is taken times the {found.looks} rounds "
                "after which it could have left. It left because it looked bad, so its gap is somewhat too "
                "large, and it is not asked whether either is within the margin."
            )
    if rest := notes(found.pair):
        told.append(rest)
    return told


def seeds_text(found: Comparison, needed: Prediction | None) -> str:
    """How many seeds a prediction asks for, ``about 120 seeds, 90 more``."""
    if needed is None:
        return "no number of seeds"
    if needed.seeds is None:
        return f"more than {MOST_SEEDS:,} seeds"
    more = needed.seeds - len(found.seeds)
    return f"about {needed.seeds:,} seeds" + (f", {more:,} more" if more > 0 else ", which are there")


def p_text(p: float) -> str:
    """``0.043``, ``<0.001``."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def cost_text(found: Comparison) -> str:
    """Which of the two is cheaper, by the first of state, FLOPs and parameters that differs."""
    rows = [found.pair.row(label) for label in found.labels]
    cheap, dear = sorted(rows, key=lambda row: (row.state, row.flops, row.params))
    if (cheap.state, cheap.flops, cheap.params) == (dear.state, dear.flops, dear.params):
        return "Both cost the same."
    return f"{cheap.label} has {saving(cheap, dear)} than {dear.label}."


def bound_text(found: Comparison, place: int, bound: float) -> str:
    """How much worse the first (place 0) or the second is at most, or better at least."""
    label, other = found.labels[place], found.labels[1 - place]
    size = f"{amount(found.pair, abs(bound))} {unit(found.pair)}s"
    if bound < 0:
        return f"{label} is better than {other} by {size} at least (one-sided 95 %)"
    inside = "" if found.within is None or found.within[place] else "not shown to be "
    margin = f"{inside}within {margin_text(found.pair)}"
    return f"{label} is worse than {other} by {size} at most (one-sided 95 %): {margin}"


def range_text(found: Comparison, interval: Interval) -> str:
    """An interval of a difference, without its unit."""
    low, high = (amount(found.pair, edge) for edge in interval)
    return f"{low} to {high}"


def _order(found: Comparison) -> tuple[str, str]:
    """The one that is ahead, and the other."""
    first, second = found.labels
    return (first, second) if found.lead >= 0 else (second, first)


def _numbers(found: Comparison, interval: Interval, p: float) -> str:
    """Interval of the lead, p and seeds, as a bracket."""
    turned = (-interval[1], -interval[0]) if found.whole.difference < 0 else interval
    shown = f"p {p_text(p)}" if p < 0.001 else f"p = {p_text(p)}"
    return f"(95 % interval {range_text(found, turned)}, {shown}, {len(found.seeds)} seeds)"


def _size(found: Comparison) -> str:
    """The difference without sign, with its unit."""
    return f"{amount(found.pair, abs(found.whole.difference))} {unit(found.pair)}s"


def _score(found: Comparison) -> str:
    return score_name(found.pair)


def _goal(found: Comparison) -> str:
    """What a steps score counts the steps to."""
    return _score(found).removeprefix("steps ")


def _told(found: Comparison, numbers: str) -> str:
    better, worse = _order(found)
    by_steps = found.pair.score == "steps"
    gap = f"{_size(found)} fewer {_goal(found)}" if by_steps else f"{_size(found)} of {_score(found)}"
    return f"{better} is better than {worse} {where(found.pair)} by {gap} {numbers}"


def _open(found: Comparison, numbers: str) -> str:
    ahead, _ = _order(found)
    if found.whole.difference == 0:
        lead = f"their {_score(found)} is the same"
    elif found.pair.score == "steps":
        lead = f"{ahead} needs {_size(found)} fewer {_goal(found)}"
    else:
        lead = f"{ahead} is {_size(found)} of {_score(found)} ahead"
    first, second = found.labels
    return f"{first} and {second} cannot be told apart {where(found.pair)}: {lead} {numbers}"


def _within(found: Comparison) -> str:
    """Non-inferiority, both ways where they are not told apart; of the worse one where they are."""
    if found.within is None:
        return ""
    margin, (first, second) = margin_text(found.pair), found.labels
    if found.told_apart:
        _, worse = _order(found)
        small = found.within[found.labels.index(worse)]
        return f"even so, {worse} is shown to be within {margin} of it" if small else ""
    match found.within:
        case (True, True):
            return f"each is shown to be within {margin} of the other"
        case (False, False):
            return f"neither is shown to be within {margin} of the other"
        case (fine, _):
            good, than = (first, second) if fine else (second, first)
            return f"{good} is shown to be no more than {margin} worse than {than}, not the other way round"


def _more(found: Comparison) -> str:
    """What it would take to tell them apart."""
    if all(task.verdict != "open" for task in found.pair.tasks):
        return "more seeds would not help, as every task is at its ceiling or at chance for both"
    if any(found.left):
        return "no more seeds are given to one that left the race"
    if found.as_seen is None:
        return "no difference was seen that more seeds could show"
    need, power = seeds_text(found, found.as_seen), f"{100 * found.as_seen.power:.0f} %"
    return f"a difference as large as this takes {need}, to be shown with a power of {power}"


def _one_seed(found: Comparison) -> str:
    pair = found.pair
    scores = [
        f"{label} has {value_text(pair, value, 3)}"
        for label, value in zip(found.labels, (found.whole.first, found.whole.second), strict=True)
    ]
    return (
        f"One seed gives no interval, and nothing shows yet that the two differ: {listed(scores)} "
        f"{where(pair)} ({_score(found)}); 2 seeds are the least, and 5 make a fair prediction of how many "
        "it takes."
    )
