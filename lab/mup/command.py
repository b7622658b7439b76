"""``lab mup``: whether rates found on a narrow model hold on a wide one, block by block."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.terminal import (
    BlocksOption,
    CommandError,
    DepthOption,
    JsonOption,
    VarOption,
    emit,
    known_blocks,
    note,
    say,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from blocks.base import Block
    from blocks.schedule import Schedule
    from lab.mup.coordinates import Growth, Setting
    from lab.mup.rates import Curve

__all__ = ["mup"]


def mup(
    schedule: Annotated[
        str | None,
        typer.Argument(
            help='A block or a schedule: gdn, "(gdn, swiglu) + (fox, mlp)"; without it, each block alone.',
            show_default=False,
        ),
    ] = None,
    base: Annotated[int, typer.Option(help="The base width.", min=1)] = 64,
    widths: Annotated[str, typer.Option(help="Widths to compare.", metavar="N,N,...")] = "64,128,256,512",
    head: Annotated[int, typer.Option(help="Channels of a head, at every width.", min=1)] = 16,
    steps: Annotated[int, typer.Option(help="Steps of AdamW.", min=1)] = 4,
    lr: Annotated[float, typer.Option(help="Its rate.")] = 1e-3,
    seeds: Annotated[int, typer.Option(help="Seeds to average over.", min=1)] = 3,
    rates: Annotated[
        int | None,
        typer.Option(metavar="STEPS", help="Train so many steps at several rates instead.", min=1),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw it to a file: .svg, .png or .html.")
    ] = None,
    depth: DepthOption = None,
    var: VarOption = None,
    blocks: BlocksOption = None,
    json: JsonOption = False,
) -> None:
    """Measure how a model's outputs move as it is widened, without and with muP.

    A movement that grows with the width asks for another rate at every width. With --rates the loss itself,
    by rate and width, on bytes of Python's standard library.

    Examples:
      lab mup gdn
      lab mup --widths 64,128 --seeds 1 --figure blocks.svg
      lab mup "(gdn, swiglu) + (fox, swiglu)" --widths 64,128,256 --figure movements.html
      lab mup "(gdn, swiglu) + (attn, swiglu)" --widths 64,128,256 --seeds 2 --rates 200 --json
    """
    from lab.describe import read_schedule
    from lab.figures import check as check_path
    from lab.mup.coordinates import Setting

    if not (lr > 0 and math.isfinite(lr)):
        raise CommandError(f"--lr is {lr:g}; it must be above 0")
    setting = Setting(
        widths=_widths(widths, head, base), base=base, head=head, steps=steps, lr=lr, seeds=seeds
    )
    if figure is not None:
        check_path(figure)
    known = known_blocks(blocks)
    if schedule is None:
        if rates is not None or depth is not None or var:
            raise CommandError(
                "--rates, --depth and --var are about one schedule; give it: lab mup gdn --rates 100"
            )
        _show_each(known, setting, figure, json)
        return
    layers = read_schedule(schedule, depth, var, known)
    if rates is not None:
        _show_rates(layers, setting, rates, figure, json)
    else:
        words = {cls: word for word, cls in known.items()}
        names = [words[type(block)] for layer in layers for block in layer]
        _show_movements(layers, [f"{i} {name}" for i, name in enumerate(names, 1)], setting, figure, json)


def _widths(text: str, head: int, base: int) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) < 2 or list(found) != sorted(set(found)) or found[0] < 1:
        raise CommandError(f"--widths is {text!r}; at least two rising whole numbers are wanted: 64,128,256")
    for name, width in (("--base", base), *(("--widths", width) for width in found)):
        if width % head:
            raise CommandError(f"{name}: {width} is no multiple of --head, {head}; heads keep their size")
    return found


def _show_each(known: Mapping[str, type[Block]], setting: Setting, figure: Path | None, json: bool) -> None:
    """Every block alone, behind it the logits."""
    from lab.mup.coordinates import check

    found: dict[str, dict[bool, list[Growth]]] = {}
    for name, cls in known.items():
        note(f"{name}: block {len(found) + 1} of {len(known)}")
        found[name] = {mup: check(((cls(),),), [name], mup, setting) for mup in (False, True)}
    if figure is not None:
        from lab.figures import write
        from lab.mup.figure import each

        write(each(found, setting), figure)
    if json:
        emit(
            [
                {"block": block, "mup": mup, **vars(one), "bound": one.bound}
                for block, both in found.items()
                for mup, growths in both.items()
                for one in growths
            ]
        )
        return
    wide = setting.widths[-1]
    header = ("block", f"at {setting.widths[0]}, plain", f"at {wide}, plain", "with muP")
    header += ("exponent, plain", "with muP", "logits, plain", "with muP")
    say(
        f"Movement of each block alone in {setting.steps} steps of AdamW at {setting.lr:g}, {_means(setting)}"
    )
    say(table(header, [(name, *_both(one[False], one[True])) for name, one in found.items()]) + "\n")
    _say_bounds([f"{name}: {one.name}" for name, both in found.items() for one in both[True] if _over(one)])


def _both(plain: Sequence[Growth], mup: Sequence[Growth]) -> Iterator[str]:
    """Cells: how far the block moved, and the exponents of it and of the logits."""
    yield f"{plain[0].moved[0][-1]:.4f}"
    yield from (f"{one[0].moved[-1][-1]:.4f}" for one in (plain, mup))
    yield from (f"{one[place].exponent:.2f}" for place in (0, 1) for one in (plain, mup))


def _show_movements(
    layers: Schedule, names: Sequence[str], setting: Setting, figure: Path | None, json: bool
) -> None:
    from lab.mup.coordinates import check

    found = {mup: check(layers, names, mup, setting) for mup in (False, True)}
    if figure is not None:
        from lab.figures import write
        from lab.mup.figure import movements

        write(movements(found, setting), figure)
    if json:
        emit(
            [
                {"mup": mup, **vars(one), "bound": one.bound}
                for mup, growths in found.items()
                for one in growths
            ]
        )
        return
    header = ("output", *(f"{width}" for width in setting.widths), "exponent")
    title = f"Movement in {setting.steps} steps of AdamW at {setting.lr:g}, {_means(setting)}"
    for mup, growths in found.items():
        say(f"{title}, {'with muP, base ' + str(setting.base) if mup else 'without muP'}")
        say(table(header, [_row(one) for one in growths]) + "\n")
    _say_bounds([one.name for one in found[True] if _over(one)])


def _means(setting: Setting) -> str:
    return f"root mean square, mean of {setting.seeds} seeds"


def _over(one: Growth) -> bool:
    """Also where the exponent is no number."""
    return not one.exponent <= one.bound


def _say_bounds(over: Sequence[str]) -> None:
    say(
        f"With muP these grow faster than their bound: {', '.join(over)}."
        if over
        else "With muP no movement grows with the width beyond its bound."
    )


def _row(one: Growth) -> tuple[str, ...]:
    return (one.name, *(f"{at[-1]:.4f}" for at in one.moved), f"{one.exponent:.2f}")


def _show_rates(layers: Schedule, setting: Setting, steps: int, figure: Path | None, json: bool) -> None:
    from lab.mup.rates import curves, origin

    def tell(width: int, mup: bool, rate: float, seed: int, loss: float) -> None:
        note(f"{width} wide, {'muP' if mup else 'plain'}, rate {rate:.2g}, seed {seed}: {loss:.3f}")

    found = curves(layers, setting, steps, tell)
    data = origin()
    if figure is not None:
        from lab.figures import write
        from lab.mup.figure import rates

        write(rates(found), figure)
    if json:
        emit([_plain(curve) | {"data": vars(data)} for curve in found])
        return
    header = ("width", "muP", *(f"2^{round(math.log2(rate))}" for rate in found[0].rates), "best")
    say(f"Loss, nats a byte, over the last fifth of {steps} steps, by highest rate; {setting.seeds} seeds")
    say(table(header, [_curve(one) for one in found]))
    say(f"data: {data.words}")


def _plain(one: Curve) -> dict[str, Any]:
    return {**vars(one), "means": one.means, "best": one.best}


def _curve(one: Curve) -> tuple[str, ...]:
    losses = (f"{mean:.3f}" if math.isfinite(mean) else "diverged" for mean in one.means)
    return (str(one.width), "yes" if one.mup else "no", *losses, f"2^{round(math.log2(one.best))}")
