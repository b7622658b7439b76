"""What ``lab transfer show`` prints: the sentences, the correlations, the losses; the same for ``--json``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from analysis.counts import short
from analysis.transfer import Against, Transfer
from analysis.transfer_words import (
    cell_name,
    edges,
    frontier_text,
    headline,
    notes,
)
from lab.terminal import table

__all__ = ["document", "page"]


def document(found: Transfer) -> dict[str, Any]:
    """The whole answer as plain values."""
    return {
        "sentence": headline(found),
        "notes": notes(found),
        "complete": found.complete,
        **asdict(found),
    }


def page(found: Transfer) -> str:
    """What stands on stdout."""
    parts = [headline(found)]
    if said := notes(found):
        parts.append("\n".join(said))
    if found.overall is not None:
        parts += [_correlations(found), _by_cell(found), _losses(found)]
    parts += [text for one in (found.by_flops, found.by_state) if (text := frontier_text(one))]
    return "\n\n".join(parts)


def _correlations(found: Transfer) -> str:
    rows = [
        (
            "hybrids" if about.among == "hybrids" else "all",
            held.predictor,
            f"{held.tau:.2f}",
            edges(held.interval),
            edges(held.seeds_alone),
            "-" if held.ahead is None else f"{held.ahead:+.2f}",
            "-" if held.partial is None else f"{held.partial:.2f}",
        )
        for about in (found.overall, found.hybrids)
        if about is not None
        for held in about.held
    ]
    header = ("among", "predictor", "tau", "95 %", "this panel", "score ahead by", "score, with it fixed")
    size = f"{len(found.labels)} schedules, {len(found.cells)} of the cells complete"
    return f"Tau-b with the mean loss ({size})\n\n{table(header, rows)}"


def _by_cell(found: Transfer) -> str:
    others = list(dict.fromkeys(held.predictor for about in found.against for held in about.held[1:]))
    rows = [
        (
            cell_name(about),
            "hybrids" if about.among == "hybrids" else "all",
            about.seeds,
            f"{about.score.tau:.2f}",
            edges(about.score.interval),
            *(_tau(about, name) for name in others),
        )
        for about in found.against
    ]
    header = ("cell", "among", "seeds", "score", "95 %", *others)
    return f"Tau-b with the loss by size and tokens\n\n{table(header, rows)}"


def _tau(about: Against, predictor: str) -> str:
    return next((f"{held.tau:.2f}" for held in about.held if held.predictor == predictor), "-")


def _losses(found: Transfer) -> str:
    rows = [
        (
            line.label,
            f"{line.score:.3f}",
            line.n_full,
            short(line.state),
            *(f"{bits:.3f}" for bits in line.bits),
        )
        for line in found.lines
    ]
    heads = (f"{size}, {short(tokens)}" for size, tokens in found.cells)
    return f"Bits per byte, means over seeds\n\n{table(('schedule', 'score', 'full', 'state', *heads), rows)}"
