"""What has been published on MAD, held against runs of our own: agrees, disagrees, cannot tell.

The figures are those of the table that the DeltaNet authors print (accuracies in %, one seed; Transformer and
GLA "borrowed from Poli et al. 2024", arXiv 2403.17844, DeltaNet their own run), and for GLA the re-run by the
MetaLA authors. Only rows whose blocks the reference sweep trained are kept: Transformer is ``attn``,
GLA ``gla``; DeltaNet is held against ``gdn``, Gated DeltaNet, the nearest of them and not the same one
(``deltanet`` would be, and was not trained there). Re-runs of one architecture differ by up to 11 points on
single tasks (GLA on recall, 80.8 and 91.6), and gaps under 3 points are within the re-run spread of a mean.
So an order is a claim when every published pair of figures has it, by 3 points or more; the others are kept
as ``open``, with what was found.

Our side is final test accuracy with the training that validation picks, mean over the settings of a task; the
verdict is that of the paired 95 % interval of ``stats``, each row for itself. Absolute figures do not
compare: the models here are smaller and are trained for less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from analysis.agreement import chosen
from analysis.panel import Panel, Sheet, cut
from analysis.stats import Estimate, estimate

__all__ = ["CLAIMS", "FIGURES", "Claim", "Held", "hold"]

Verdict = Literal["agrees", "disagrees", "cannot tell", "not covered"]

FIGURES: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "attn": {
        "compression": (51.6,),
        "fuzzy_recall": (29.8,),
        "recall": (94.1,),
        "memorization": (85.2,),
        "noisy_recall": (86.8,),
        "copying": (99.6,),
    },
    "gla": {
        "compression": (38.8, 37.70),
        "fuzzy_recall": (6.9, 12.45),
        "recall": (80.8, 91.58),
        "memorization": (63.3, 57.05),
        "noisy_recall": (81.6, 92.58),
        "copying": (88.6, 88.63),
    },
    "gdn": {
        "compression": (42.2,),
        "fuzzy_recall": (35.7,),
        "recall": (100.0,),
        "memorization": (52.8,),
        "noisy_recall": (100.0,),
        "copying": (100.0,),
    },
}
"""Mixer -> task -> published accuracies in %, the re-run second."""

NAMES = {"attn": "Transformer", "gla": "GLA", "gdn": "DeltaNet (here: gdn)"}
HARD = ("compression", "fuzzy_recall")
RECURRENT = ("gdn", "gla", "linear", "ttt")
LEAST = 3.0


@dataclass(frozen=True)
class Claim:
    """``above`` beats ``below`` on ``tasks`` (on any of them); without ``below``, it reaches ``level``.

    open: the published figures do not agree on it, or are closer than LEAST points.
    """

    text: str
    above: str
    below: str | None
    tasks: tuple[str, ...]
    level: float = 0.0
    open: bool = False


@dataclass(frozen=True)
class Held:
    """A claim and what was found. ``found``: one line of figures, our own."""

    claim: Claim
    verdict: Verdict
    found: str


def _orders() -> list[Claim]:
    """Every pair of mixers on every task, in the published order (by the first figures)."""
    claims: list[Claim] = []
    for one, other in (("attn", "gla"), ("attn", "gdn"), ("gdn", "gla")):
        for task in FIGURES[one]:
            mine, its = FIGURES[one][task], FIGURES[other][task]
            above, below, high, low = (one, other, mine, its) if mine[0] > its[0] else (other, one, its, mine)
            figures = f"{_range(high)} against {_range(low)}"
            text = f"{NAMES[above]} above {NAMES[below]} on {task} ({figures})"
            claims.append(Claim(text, above, below, (task,), open=min(high) - max(low) < LEAST))
    return claims


def _range(figures: Sequence[float]) -> str:
    return " and ".join(f"{figure:g}" for figure in figures)


CLAIMS: tuple[Claim, ...] = (
    *_orders(),
    Claim("DeltaNet (here: gdn) solves recall (100)", "gdn", None, ("recall",), level=0.99),
    *(Claim(f"{one} below softmax on {' or on '.join(HARD)}", "attn", one, HARD) for one in RECURRENT),
)
"""All rows. The last ones: every recurrent model is below softmax on one of the two hard tasks."""


def hold(reference: Panel, claims: Sequence[Claim] = CLAIMS) -> tuple[Held, ...]:
    """Hold each claim against a panel of final accuracies (``panel(frame, "accuracy")``).

    A mixer stands for the schedule that has no other mixer (and no window) in any layer; of several the first
    in natural order. A claim whose mixers or tasks are not there is ``not covered``.
    """
    sheet = cut(reference)
    members = {one: _alone(reference, one) for one in {c.above for c in claims} | {c.below for c in claims}}
    return tuple(Held(claim, *_verdict(claim, members, sheet)) for claim in claims)


def _alone(reference: Panel, mixer: str | None) -> str | None:
    for label in reference.labels:
        mixers, roles = reference.kinds[label]
        if mixers == {mixer} and "window" not in roles:
            return label
    return None


def _verdict(claim: Claim, members: Mapping[str | None, str | None], sheet: Sheet) -> tuple[Verdict, str]:
    above, below = members[claim.above], members[claim.below]
    tasks = [task for task in claim.tasks if any(part.task == task for part in sheet.parts)]
    if above is None or (claim.below and below is None):
        missing = claim.above if above is None else claim.below
        return "not covered", f"no schedule of {missing} alone"
    if not tasks:
        return "not covered", f"no complete cell of {' or '.join(claim.tasks)}"
    found = {task: _estimate(sheet, task, above, below) for task in tasks}
    words = "; ".join(f"{task} {_words(one, below is not None)}" for task, one in found.items())
    says = [_says(one, claim.level) for one in found.values()]
    if "agrees" in says:
        return "agrees", words
    # An "or" is refuted only when each of its parts is, and each was looked at.
    if says == ["disagrees"] * len(claim.tasks):
        return "disagrees", words
    return "cannot tell", words


def _estimate(sheet: Sheet, task: str, above: str, below: str | None) -> Estimate:
    """Accuracy of ``above``, less that of ``below``, on the cells of one task."""
    values = [
        scores for scores, part in zip(chosen(sheet.parts), sheet.parts, strict=True) if part.task == task
    ]
    first = sheet.labels.index(above)
    if below is None:
        return estimate([one[first] for one in values])
    second = sheet.labels.index(below)
    return estimate([one[first] - one[second] for one in values])


def _says(one: Estimate, level: float) -> Verdict:
    interval = one.interval()
    if interval is None:
        return "cannot tell"
    if one.se == 0 and one.mean == level == 0:
        return "cannot tell"
    low, high = interval
    # A difference must pass 0; a level may be met exactly.
    if low > level or (level > 0 and low >= level):
        return "agrees"
    return "disagrees" if high < level else "cannot tell"


def _words(one: Estimate, difference: bool) -> str:
    interval = one.interval()
    sign = "+" if difference else ""
    spread = (
        f" ({100 * interval[0]:{sign}.1f} to {100 * interval[1]:{sign}.1f})" if interval else " (one seed)"
    )
    return f"{100 * one.mean:{sign}.1f}{spread}".replace("-", "\N{MINUS SIGN}")
