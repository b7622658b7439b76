"""``lab calibrate``: what a long reference sweep says about how far a cheap protocol may be trusted."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.progress import Progress
from lab.terminal import CommandError, JsonOption, emit, percent, plural, say, table

if TYPE_CHECKING:
    from analysis.agreement import Agreement
    from analysis.calibration import Calibration
    from analysis.choice import Point

__all__ = ["calibrate", "document", "page"]


def calibrate(
    reference: Annotated[
        Path, typer.Argument(metavar="FRAME_OR_RUN", help="A run folder, or one parquet file of results.")
    ],
    protocol: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Real runs of a cheap protocol, to be scored against it."),
    ] = None,
    close: Annotated[
        str | None, typer.Option(metavar="LABELS", help="Score these apart, too: r=3:1,r=4:1,r=6:1.")
    ] = None,
    budget: Annotated[float, typer.Option(metavar="MINUTES", help="CPU-minutes per schedule.")] = 30.0,
    score: Annotated[str, typer.Option(help="auc, or accuracy at the cut.")] = "auc",
    ties: Annotated[str, typer.Option(help="What is tied: paired, overlap or none.")] = "paired",
    halves: Annotated[int, typer.Option(help="Random halves of the panel to choose on.", min=0)] = 20,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the page with the frontier plot.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the frontier plot: FILE.svg or FILE.png.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Hold cheap protocols against a reference sweep: Kendall's tau-b against CPU-minutes.

    The reference is a long sweep of many schedules; its stored curves are cut to simulate cheaper ones. Four
    schedules and two seeds are needed, four seeds for the A/A check.

    Examples:
      lab calibrate runs/reference
      lab calibrate reference.parquet --close r=3:1,r=4:1,r=5:1,r=6:1 --html trust.html
      lab calibrate reference.parquet --protocol runs/lite --budget 15 --json
      lab calibrate reference.parquet --figure frontier.svg
    """
    from analysis.calibration import calibrate as judge
    from analysis.panel import load

    for name, value, known in (("score", score, SCORES), ("ties", ties, TIES)):
        if value not in known:
            raise CommandError(f"--{name} is {value!r}; choose one of {', '.join(known)}")
    _check(html, figure)
    frames = load(reference), None if protocol is None else load(protocol)
    with Progress(unit="halves of the panel") as bar:
        begun = False

        def tell(done: int, asked: int) -> None:
            nonlocal begun
            if not begun:
                bar.start("choosing protocols", done, asked)
            begun = True
            bar.step("each scored on the other half", done, asked, None)

        found = judge(
            *frames,
            close=[label.strip() for label in close.split(",") if label.strip()] if close else (),
            budget=60 * budget,
            score=SCORES[score],
            ties=TIES[ties],
            halves=halves,
            progress=tell,
        )
    files = {name: str(path) for name, path in (("html", html), ("figure", figure)) if path is not None}
    _write(found, html, figure)
    if json:
        emit(document(found) | files)
        return
    say(page(found))
    for name, path in files.items():
        say(f"\n{'page' if name == 'html' else name}: {path}")


def _check(html: Path | None, figure: Path | None) -> None:
    """Whether the page and the picture can be written, before anything is computed."""
    from analysis import picture

    if html is not None and (html.is_dir() or not html.parent.is_dir()):
        raise CommandError(f"--html {html}: a file name in a folder that exists is wanted")
    if figure is not None:
        picture.check(figure)


def _write(found: Calibration, html: Path | None, figure: Path | None) -> None:
    """The page and the picture, where they are asked for."""
    from analysis import picture, trust
    from sweeps.results import write_text

    if html is not None:
        write_text(html, trust.render(found))
    if figure is not None:
        picture.write(trust.figure(found), figure)


SCORES: dict[str, Any] = {"auc": "auc", "accuracy": "accuracy"}
TIES: dict[str, Any] = {"paired": "paired", "overlap": "overlap", "none": "none"}


def document(found: Calibration) -> dict[str, Any]:
    """The whole answer for ``--json``; numbers are in seconds and shares."""
    names = ("labels", "score", "ties", "close", "seeds", "budget", "reference_seconds", "left_out")
    return {
        **{name: getattr(found, name) for name in names},
        "ranking": [asdict(one) for one in found.ranking],
        "ceiling": {"split_half": asdict(found.ceiling), "repeat": asdict(found.repeat)},
        "frontier": [asdict(point) for point in found.frontier],
        "chosen": None if found.chosen is None else asdict(found.chosen),
        "real": None if found.real is None else asdict(found.real),
        "apart": [{"better": a, "than": b, **asdict(one)} for a, b, one in found.apart],
        "honesty": {
            name: None if one is None else {**asdict(one), "interval": one.interval, "across": one.across}
            for name, one in (("resampled", found.honesty), ("real", found.dealt))
        },
        "published": [asdict(one) for one in found.published],
        "cells": found.cells.to_dicts(),
    }


def page(found: Calibration) -> str:
    """What stands on stdout, in the order in which it is to be read."""
    size = f"{plural(len(found.labels), 'schedule')}, {plural(found.seeds, 'seed')}"
    cells = plural(found.cells["setting"].n_unique(), "cell")
    spent = found.reference_seconds / 60
    parts = [
        f"Reference: {size}, {cells}, {spent:.3g} CPU-minutes per schedule, score {found.score}",
        _ranking(found),
        _ceiling(found),
        _frontier(found),
        _chosen(found),
        *([_apart(found)] if found.apart else []),
        *([_real(found)] if found.real else []),
        _honesty(found),
        _published(found),
    ]
    if found.left_out:
        parts.append(f"Left out, not complete: {', '.join(found.left_out)}.")
    return "\n\n".join(parts)


def _ranking(found: Calibration) -> str:
    rows = [
        (place, one.label, f"{one.score:.3f}", _range(one.interval, 3))
        for place, one in enumerate(found.ranking, start=1)
    ]
    return table(("", "schedule", "score", "95 % interval"), rows)


def _ceiling(found: Calibration) -> str:
    rows = [
        (what, one.seeds, one.ties, f"{one.mean:.2f}", _range(one.interval), f"{one.order:.2f}")
        for what, one in (("halves of its seeds", found.ceiling), ("redrawn at full size", found.repeat))
    ]
    header = ("ceiling", "seeds", "ties", "tau", "95 % interval", "order")
    return f"The reference with itself\n\n{table(header, rows)}"


def _frontier(found: Calibration) -> str:
    from analysis.trust import share_text

    header = ("CPU-min", "of MAD", "cells", "runs", "tau", "95 % interval", "order", "held out", "close", "")
    rows = [
        (
            f"{point.choice.seconds / 60:.3g}",
            share_text(point.choice.seconds),
            len(point.choice.protocol.picks) if point.choice.protocol else 0,
            point.choice.protocol.runs if point.choice.protocol else 0,
            f"{point.agreement.tau:.2f}",
            _range(point.agreement.interval),
            f"{point.agreement.order:.2f}",
            f"{point.held_out.mean:.2f} ({_range(point.held_out.interval)})" if point.held_out else "-",
            f"{point.close.tau:.2f} ({_range(point.close.interval)})" if point.close else "-",
            "chosen" if point is found.chosen else "",
        )
        for point in found.frontier
    ]
    if not rows:
        return "No protocol of two seeds fits any of the budgets tried."
    return (
        "Simulated protocols, CPU-minutes and runs per schedule (of MAD: 396 runs, 5.38 million steps, about "
        f"170 CPU-days)\n\n{table(header, rows)}\n\n"
        "Tau counts runs that a protocol shares with the reference; its interval and the held-out tau do not."
    )


def _chosen(found: Calibration) -> str:
    point: Point | None = found.chosen
    if point is None or point.choice.protocol is None:
        return f"No protocol fits {found.budget / 60:g} CPU-minutes per schedule."
    rates = ", ".join(f"{lr:g}" for lr, _, _ in point.choice.protocol.trainings)
    rows = [(pick.setting, pick.step, pick.seeds) for pick in point.choice.protocol.picks]
    return (
        f"Chosen protocol: {point.choice.seconds / 60:.3g} CPU-minutes per schedule "
        f"(the costliest {point.dearest / 60:.3g}), learning rate {rates}\n\n"
        f"{table(('cell', 'steps', 'seeds'), rows)}\n\n"
        "Cut out of long runs, whose learning rate decays later: confirm it with real runs and --protocol."
    )


def _real(found: Calibration) -> str:
    real = found.real
    if real is None:
        return ""
    size = f"{plural(len(real.labels), 'schedule')}, {real.seconds / 60:.3g} CPU-minutes each"
    lines = [f"Real runs of a protocol ({size})", f"  whole panel: {_agreement(real.agreement)}"]
    if real.close:
        lines.append(f"  close schedules: {_agreement(real.close)}")
    if real.shared:
        lines.append(f"  {plural(real.shared, 'run')} of them are the reference's own: tau is too friendly")
    return "\n".join(lines)


def _agreement(one: Agreement) -> str:
    told = (
        f"by the reference {one.told_first}, by the protocol {one.told_second}, reversed {one.contradicted}"
    )
    taus = f"tau {one.tau:.2f} ({_range(one.interval)}), order {one.order:.2f}"
    return f"{taus}; of {plural(one.pairs, 'pair')} told apart {told}"


def _honesty(found: Calibration) -> str:
    alarms = found.honesty
    if alarms is None:
        return f"A/A: not tried, as it takes 4 seeds and the reference has {found.seeds}."
    lines = [f"A/A: the same architecture twice, called different (promised: {percent(0.05)} or less)"]
    for one, what in ((alarms, "resamples"), (found.dealt, "real pairs, each run once")):
        if one is not None:
            low, high = one.interval
            lines.append(
                f"  {one.alarms} of {one.trials:,} {what}, {one.seeds} seeds a side: {percent(one.rate)} "
                f"(95 % interval {percent(low)} to {percent(high)})"
            )
        if one is not None and one.across:
            low, high = one.across
            lines.append(f"    over architectures, whose runs are few: {percent(low)} to {percent(high)}")
    return "\n".join(lines)


def _apart(found: Calibration) -> str:
    rows = [
        (first, second, f"{100 * one.delta:+.1f}", one.seeds or "more than 10,000", one.pilot)
        for first, second, one in found.apart
    ]
    header = ("better", "than", "points", "seeds", "predicted from")
    return (
        "Seeds of the chosen protocol that tell close neighbours apart with a power of 80 %\n\n"
        f"{table(header, rows)}"
    )


def _published(found: Calibration) -> str:
    rows = [
        (one.verdict, one.claim.text + (" [open]" if one.claim.open else ""), one.found)
        for one in found.published
    ]
    return (
        "Published orders ([open]: the published figures disagree or are within 3 points), with our "
        f"differences in points\n\n{table(('verdict', 'claim', 'here'), rows)}"
    )


def _range(interval: tuple[float, float] | None, digits: int = 2) -> str:
    return f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}" if interval else "no interval"
