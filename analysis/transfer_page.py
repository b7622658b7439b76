"""The page of a transfer study: figures and tables in one self-contained HTML file. Values in, text out."""

from __future__ import annotations

import plotly.graph_objects as go

from analysis.counts import short
from analysis.fragments import Part, cell, e, section, spot, table
from analysis.frontier import Frontier
from analysis.plots import INK, OKABE_ITO, colours, safe, styled
from analysis.report import document
from analysis.transfer import Transfer
from analysis.transfer_words import cell_name, edges, frontier_text, headline, notes

__all__ = ["by_cell", "by_cost", "figures", "render", "score_and_loss"]

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")


def render(found: Transfer, name: str) -> str:
    """The page: it needs no network, and forbids itself one."""
    head = (
        f"<header><h1>{e(headline(found))}</h1>"
        f'<p class="question">{e(name)}: does a verdict from synthetic tasks carry over to language?</p>'
        "</header>"
        f"<section><ul>{''.join(f'<li>{e(note)}</li>' for note in notes(found))}</ul></section>"
    )
    parts = [Part("head", head)]
    if found.overall is not None:
        parts += [_correlations(found), _losses(found)]
    parts += [
        part
        for place, one in (("flops", found.by_flops), ("state", found.by_state))
        if one is not None
        for part in [_frontier(place, one)]
    ]
    return document(f"{name}: does the verdict transfer?", parts)


def figures(found: Transfer) -> dict[str, go.Figure]:
    """The page's figures by name; none before a cell is complete."""
    if found.overall is None:
        return {}
    costs = {"flops": found.by_flops, "state": found.by_state}
    return {
        "cells": by_cell(found),
        "scores": score_and_loss(found),
        **{name: by_cost(one) for name, one in costs.items() if one is not None},
    }


def _correlations(found: Transfer) -> Part:
    assert found.overall is not None
    groups = [found.overall, *([found.hybrids] if found.hybrids else []), *found.against]
    rows = [
        (
            cell("cell", e(cell_name(about))),
            cell("among", f"{about.schedules} {'hybrids' if about.among == 'hybrids' else 'schedules'}"),
            cell("seeds", str(about.seeds)),
            cell("predictor", e(held.predictor)),
            cell("tau", f"{held.tau:.2f}"),
            cell("95 %", edges(held.interval)),
            cell("this panel", edges(held.seeds_alone)),
            cell("score ahead by", "-" if held.ahead is None else f"{held.ahead:+.2f}"),
            cell("score, with it fixed", "-" if held.partial is None else f"{held.partial:.2f}"),
        )
        for about in groups
        for held in about.held
    ]
    content = spot("cells", "", "Tau of the synthetic score with the loss, by size and tokens")
    note = (
        "Kendall's tau-b with the loss: 1 is the same order, 0 no relation. 95 %: seeds and schedules drawn "
        "anew; this panel: seeds alone."
    )
    return section(
        "correlations", "Correlations", note, content + table(rows, "cards"), {"cells": by_cell(found)}
    )


def by_cell(found: Transfer) -> go.Figure:
    """Tau of the score and of the best plain predictor by cell, with 95 % intervals."""
    cells = [one for one in found.against if one.among == "all"]
    names = [held.predictor for held in found.overall.held] if found.overall else []
    drawn = go.Figure()
    for place, name in enumerate(names):
        some = [(one, held) for one in cells for held in one.held if held.predictor == name]
        drawn.add_trace(
            go.Scatter(
                x=[safe(cell_name(one)).removesuffix(" tokens").replace(", ", "<br>") for one, _ in some],
                y=[held.tau for _, held in some],
                error_y={
                    "type": "data",
                    "array": [max(0.0, held.interval[1] - held.tau) for _, held in some],
                    "arrayminus": [max(0.0, held.tau - held.interval[0]) for _, held in some],
                    "thickness": 1,
                    "width": 3,
                    "visible": place == 0,
                },
                name=safe(name),
                mode="lines+markers",
                line={"color": OKABE_ITO[place], "width": 3 if place == 0 else 1},
                marker={"symbol": SYMBOLS[place % len(SYMBOLS)], "size": 9},
            )
        )
    drawn.update_xaxes(title="parameters, and tokens trained on")
    drawn.update_yaxes(title="Kendall's tau-b with the loss", range=[-1.05, 1.05], dtick=0.5)
    return _legend(styled(drawn, height=420))


def _losses(found: Transfer) -> Part:
    heads = [f"{size}, {short(tokens)}" for size, tokens in found.cells]
    rows = [
        (
            cell("schedule", e(line.label)),
            cell("score", f"{line.score:.3f}"),
            cell("full layers", str(line.n_full)),
            cell("state", short(line.state)),
            *(cell(head, f"{bits:.3f}") for head, bits in zip(heads, line.bits, strict=True)),
        )
        for line in found.lines
    ]
    content = spot("scores", "", "Loss against synthetic score, one point per schedule") + table(
        rows, "cards"
    )
    note = "Bits per byte of held-out text, means over seeds; by synthetic score; state at the largest size."
    return section("losses", "Scores and losses", note, content, {"scores": score_and_loss(found)})


def score_and_loss(found: Transfer) -> go.Figure:
    """Loss against synthetic score in the last complete cell, one point per schedule."""
    colour = colours(found.labels)
    drawn = go.Figure(
        [
            go.Scatter(
                x=[line.score],
                y=[line.bits[-1]],
                mode="markers",
                name=safe(line.label),
                marker={
                    "color": colour[line.label],
                    "size": 10,
                    "symbol": "diamond" if line.hybrid else "circle",
                },
                meta={"label": line.label, "colour": colour[line.label]},
            )
            for line in found.lines
        ]
    )
    size, tokens = found.cells[-1]
    drawn.update_xaxes(title="synthetic score")
    drawn.update_yaxes(title=f"bits per byte at {size}, {short(tokens)} tokens")
    return _legend(styled(drawn, height=460))


def _frontier(place: str, one: Frontier) -> Part:
    said = frontier_text(one) or "Too few points are beaten by nobody for a fit."
    content = spot(place, "", f"Loss against {one.cost}, with the frontier")
    return section(place, f"Loss against {one.cost}", said, content, {place: by_cost(one)})


def by_cost(one: Frontier) -> go.Figure:
    """Loss against a cost on logarithmic axes: a colour per schedule, a symbol per size; and the fit."""
    labels = list(dict.fromkeys(point.label for point in one.spots))
    sizes = list(dict.fromkeys(point.size for point in one.spots))
    colour = colours(labels)
    drawn = go.Figure()
    for label in labels:
        mine = [point for point in one.spots if point.label == label]
        drawn.add_trace(
            go.Scatter(
                x=[point.cost for point in mine],
                y=[point.bits for point in mine],
                mode="markers",
                name=safe(label),
                text=[safe(f"{point.size}, {short(point.tokens)} tokens") for point in mine],
                marker={
                    "color": colour[label],
                    "size": 8,
                    "symbol": [SYMBOLS[sizes.index(point.size) % len(SYMBOLS)] for point in mine],
                },
                meta={"label": label, "colour": colour[label]},
            )
        )
    for place, size in enumerate(sizes):  # the key to the symbols: no point of its own
        marker = {"color": INK, "size": 8, "symbol": SYMBOLS[place % len(SYMBOLS)]}
        drawn.add_trace(go.Scatter(x=[None], y=[None], mode="markers", name=safe(size), marker=marker))
    if one.scale is not None:
        ends = [one.on[0].cost, one.on[-1].cost]
        drawn.add_trace(
            go.Scatter(
                x=ends,
                y=[one.at(end) for end in ends],
                mode="lines",
                name="fitted frontier",
                line={"color": INK, "dash": "dash", "width": 2},
            )
        )
    drawn.update_xaxes(title=f"{one.cost} (log scale)", type="log")
    drawn.update_yaxes(title="bits per byte (log scale)", type="log")
    return _legend(styled(drawn, height=480))


def _legend(drawn: go.Figure) -> go.Figure:
    drawn.update_layout(showlegend=True, legend={"orientation": "h", "y": -0.25, "font_size": 12})
    return drawn
