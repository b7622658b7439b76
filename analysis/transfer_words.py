"""What a transfer study says, in sentences that claim no more than its intervals."""

from __future__ import annotations

from analysis.counts import short
from analysis.frontier import Frontier
from analysis.stats import Interval
from analysis.transfer import Against, Held, Transfer

__all__ = ["cell_name", "edges", "frontier_text", "headline", "notes", "verdict"]


def headline(found: Transfer) -> str:
    """Whether synthetic scores predict loss here, or how far the study is from saying it."""
    if found.complete and found.overall is not None:
        return verdict(found.overall)
    far = f"Not yet decided: {found.done:,} of {found.asked:,} trainings are done."
    if found.overall is None:
        return f"{far} No size and count of tokens has all {len(found.labels)} schedules yet."
    cells = "1 cell" if len(found.cells) == 1 else f"{len(found.cells)} cells"
    own = found.overall.score
    return (
        f"{far} So far, over {cells} that all schedules have, tau is {own.tau:.2f} ({edges(own.interval)})."
    )


def verdict(about: Against) -> str:
    """The sentence for one group of schedules."""
    own = about.score
    low, high = own.interval
    who = f"{about.schedules} schedules" if about.among == "all" else f"the {about.schedules} hybrids alone"
    numbers = f"tau-b {own.tau:.2f} (95 % {edges(own.interval)}) over {who}"
    if low > 0:
        return f"Synthetic scores predict loss here: {numbers}."
    if high < 0:
        return f"Synthetic scores mislead here, the better score has the higher loss: {numbers}."
    return f"It is not shown that synthetic scores predict loss here: {numbers}."


def notes(found: Transfer) -> list[str]:
    """What else has to be said beside the headline, each a sentence."""
    told = []
    if found.complete and found.hybrids is not None:
        told.append(f"Among hybrids: {verdict(found.hybrids)}")
    if found.overall is not None:
        told += [_compared(one, found.overall.score) for one in found.overall.held[1:]]
        own = found.overall.score
        told.append(
            f"Of these very schedules, seeds alone redrawn, tau lies between {edges(own.seeds_alone)} (95 %)."
        )
    if found.ceiling is not None:
        told.append(
            "The order of the losses agrees with itself, seeds redrawn, by "
            f"{found.ceiling.mean:.2f} ({edges(found.ceiling.interval)}); no predictor can be asked for more."
        )
    elif found.overall is not None:
        told.append("One seed of the losses: their own noise is not in the intervals yet.")
    if found.diverged:
        told.append(f"{found.diverged} trainings diverged and count as a uniform guess.")
    return told


def _compared(other: Held, own: Held) -> str:
    """The score beside one plain predictor: which is ahead, and what is left with it held fixed."""
    assert other.ahead is not None and other.ahead_interval is not None
    low, high = other.ahead_interval
    name = other.predictor
    ahead = f"{other.ahead:+.2f} ({edges(other.ahead_interval, sign=True)})"
    if low > 0:
        told = f"The score says more than '{name}' (tau {other.tau:.2f}): ahead by {ahead}"
    elif high < 0:
        told = f"'{name}' says more than the score (tau {other.tau:.2f}): the score is ahead by {ahead}"
    else:
        told = f"The score is not shown to say more or less than '{name}' (tau {other.tau:.2f}): {ahead}"
    if other.partial is None or other.partial_interval is None:
        return f"{told}."
    left = f"{other.partial:.2f} ({edges(other.partial_interval)})"
    return f"{told}; with that held fixed {left} of its tau {own.tau:.2f} are left."


def frontier_text(one: Frontier | None) -> str | None:
    """The fit as a sentence; None where there is none."""
    if one is None or one.power is None or one.error is None:
        return None
    low, high = one.on[0], one.on[-1]
    return (
        f"By {one.cost} {len(one.on)} of {len(one.spots)} points are beaten by nobody, from {low.label} "
        f"({low.size}, {low.bits:.3f} bits) to {high.label} ({high.size}, {high.bits:.3f}); through them "
        f"bits fall as cost to the power -{one.power:.3f} (off by {100 * one.error:.1f} %)."
        if one.power >= 0
        else f"By {one.cost} the fit through {len(one.on)} unbeaten points does not fall."
    )


def cell_name(about: Against) -> str:
    """``60k, 328k tokens``, or the mean over all cells."""
    return "all cells" if about.size is None else f"{about.size}, {short(about.tokens or 0)} tokens"


def edges(interval: Interval, sign: bool = False) -> str:
    """``0.10 to 0.52``."""
    low, high = interval
    return f"{low:+.2f} to {high:+.2f}" if sign else f"{low:.2f} to {high:.2f}"
