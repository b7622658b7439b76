"""Figures of ``lab mup``: two panels side by side, without muP and with it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.plots import INK, colours, safe, styled
from lab.mup.coordinates import LOGITS, Growth, Setting
from lab.mup.rates import Curve

__all__ = ["each", "movements", "rates"]

PANELS = ((False, "without muP"), (True, "with muP"))


def movements(found: Mapping[bool, Sequence[Growth]], setting: Setting) -> go.Figure:
    """How far each output moved in all steps, over the width."""
    return _panels(
        {
            mup: [(g.name, list(setting.widths), [one[-1] for one in g.moved]) for g in growths]
            for mup, growths in found.items()
        },
        "width",
        f"movement in {setting.steps} steps",
        2,
        [float(width) for width in setting.widths],
        "log",
    )


def each(found: Mapping[str, Mapping[bool, Sequence[Growth]]], setting: Setting) -> go.Figure:
    """How far each block's output moved in a model of its own, over the width; the logits behind it grey."""
    lines = {
        mup: [
            (
                LOGITS if g.name == LOGITS else block,
                list(setting.widths),
                [m[-1] / g.moved[0][-1] if g.moved[0][-1] else math.nan for m in g.moved],
            )
            for block, growths in found.items()
            for g in growths[mup]
        ]
        for mup, _ in PANELS
    }
    title = f"movement in {setting.steps} steps, of that at {setting.widths[0]}"
    figure = _panels(lines, "width", title, 2, [float(width) for width in setting.widths], "log")
    figure.update_layout(height=560)
    return figure


def rates(found: Sequence[Curve]) -> go.Figure:
    """The loss by rate, a line for every width; a run that diverged has no point."""
    lines: dict[bool, list[tuple[str, list[float], list[float]]]] = {mup: [] for mup, _ in PANELS}
    for curve in found:
        points = [(x, y) for x, y in zip(curve.rates, curve.means, strict=True) if math.isfinite(y)]
        lines[curve.mup].append((f"{curve.width} wide", [x for x, _ in points], [y for _, y in points]))
    return _panels(lines, "highest rate", "loss, nats a byte", 2, list(found[0].rates), "linear")


def _panels(
    lines: Mapping[bool, Sequence[tuple[str, Sequence[float], Sequence[float]]]],
    x: str,
    y: str,
    base: int,
    ticks: Sequence[float],
    scale: str,
) -> go.Figure:
    figure = make_subplots(
        cols=2, shared_yaxes=True, horizontal_spacing=0.05, subplot_titles=[t for _, t in PANELS]
    )
    names = dict.fromkeys(name for name, _, _ in lines[True])
    palette = colours(list(names))
    dashes, used = {}, Counter[str]()
    for name, colour in palette.items():  # where there are more lines than colours
        dashes[name] = ("solid", "dash", "dot")[used[colour] % 3]
        used[colour] += 1
    for column, (mup, _) in enumerate(PANELS, 1):
        told: set[str] = set()
        for name, at, value in lines[mup]:
            many = name == LOGITS and len(names) < len(lines[mup])
            trace = go.Scatter(
                x=at,
                y=value,
                name=safe(name),
                mode="lines" if many else "lines+markers",
                line={"color": INK, "width": 1} if many else {"color": palette[name], "dash": dashes[name]},
                legendgroup=safe(name),
                showlegend=mup and name not in told,
                legendrank=2000 if many else 1000,
            )
            told.add(name)
            figure.add_trace(trace, row=1, col=column)
    styled(figure, 360, right=130)
    figure.update_layout(showlegend=True, legend={"x": 1.02, "y": 1, "tracegroupgap": 0})
    texts = [
        f"{tick:g}" if tick >= 1 else f"{base}<sup>{round(math.log(tick, base))}</sup>" for tick in ticks
    ]
    figure.update_xaxes(type="log", title_text=x, tickvals=list(ticks), ticktext=texts)
    figure.update_yaxes(type=scale)
    figure.update_yaxes(title_text=y, col=1)
    return figure
