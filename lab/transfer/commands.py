"""``lab transfer``: a study of whether synthetic scores predict loss: run it, show it, pack it."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from analysis.counts import short
from lab.progress import Progress, duration
from lab.sweep import SetOption, seconds_of
from lab.terminal import (
    BlocksOption,
    CommandError,
    FiguresOption,
    FormatOption,
    JsonOption,
    emit,
    known_blocks,
    plural,
    say,
)

if TYPE_CHECKING:
    from analysis.transfer import Transfer
    from lab.train.folder import Step
    from lab.train.run import Begun
    from lab.transfer.form import Study

__all__ = ["Shows", "pack_rows", "run_study", "show_study"]

STUDY = "study.yaml"

StudyArgument = Annotated[
    str,
    typer.Argument(
        metavar="STUDY", help="A YAML file, the name of a shipped study, or the folder of one that was run."
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The folder of the study; default: the one given, or runs/NAME."),
]


class Shows(TyperGroup):
    """The commands of ``lab transfer``; a study in place of a command is shown: ``lab transfer RUN``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As typer does, with ``show`` before the name, file or folder of a study."""
        if args and args[0] not in self.commands:
            from lab.transfer.pieces import shipped

            args = ["show", *args] if args[0] in shipped() or Path(args[0]).exists() else args
        return super().resolve_command(ctx, args)


def run_study(
    study: StudyArgument,
    out: OutOption = None,
    time_: Annotated[
        str | None, typer.Option("--time", metavar="TIME", help="End, saved, after: 90s, 110m, 2h.")
    ] = None,
    set_: SetOption = None,
    blocks: BlocksOption = None,
    json: JsonOption = False,
) -> None:
    """Train a study's schedules as language models, at every size, count of tokens and seed; on one thread.

    Start it once per core in the same folder: the processes share the work. The same command goes on after a
    stop of any kind, and trains nothing twice.

    Examples:
      lab transfer run transfer --time 110m
      lab transfer run mine.yaml --out runs/mine --json
    """
    import torch

    from lab.train.meter import matmul_rate
    from lab.transfer import rows
    from lab.transfer.pieces import load, pieces
    from lab.transfer.work import CPU, Left, Worker, made_by
    from sweeps.run import code_hash

    known = known_blocks(blocks)
    study, out = _named(study, out)
    end = None if time_ is None else time.monotonic() + seconds_of(time_)
    asked = load(study, set_ or (), known)
    torch.set_num_threads(1)
    folder = _folder(asked, out)
    _begin(folder, asked)
    with Progress(unit="steps of this training") as progress:
        todo = pieces(asked, known)
        teller = _Teller(progress)
        worker = Worker(
            folder=folder,
            made=made_by(todo[0], code_hash(blocks)),
            listener=teller,
            packs=(rows.KNOWN / f"{asked.name}.parquet",),
            out_of_time=lambda: end is not None and time.monotonic() >= end,
            peak=matmul_rate(CPU, torch.autocast("cpu", enabled=False)),
            blocks=known,
        )
        code = 0
        try:
            worker.run(todo)
        except Left as left:
            code = left.code
    counted = worker.count(todo)
    if json:
        emit({"folder": str(folder), "done": counted.done, "asked": counted.asked, "trained": teller.stored})
    else:
        say(_end(folder, counted.done, counted.asked, teller.stored))
    if code:
        raise typer.Exit(code)


def show_study(
    study: StudyArgument,
    out: OutOption = None,
    verdict: Annotated[
        Path | None,
        typer.Option(
            metavar="FRAME_OR_RUN",
            help="The sweep whose scores are held against the loss; default: the shipped runs of the recipe.",
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write the page, too.")] = None,
    figures: FiguresOption = None,
    format_: FormatOption = "svg",
    set_: SetOption = None,
    blocks: BlocksOption = None,
    json: JsonOption = False,
) -> None:
    """Say whether synthetic scores predict loss, as far as the study is: correlations, frontiers, a verdict.

    Rows are those of the folder, and those that ship with the lab.

    Examples:
      lab transfer show transfer
      lab transfer show transfer --verdict sweeps/known/lite.parquet
      lab transfer show runs/transfer --figures figures
      lab transfer show mine.yaml --html mine.html --json
    """
    from lab.transfer.page import document, page
    from lab.transfer.pieces import load
    from lab.transfer.show import held_against, rows_of

    _check(html, figures, format_)
    known = known_blocks(blocks)
    study, out = _named(study, out)
    asked = load(study, set_ or (), known)
    frame, wanted = rows_of(asked, _folder(asked, out), known)
    found = held_against(asked, frame, wanted, verdict)
    if html is not None:
        from analysis.transfer_page import render
        from sweeps.files import write_text

        write_text(html, render(found, asked.name))
    drawn = None if figures is None else _draw(found, figures, format_)
    data, words = _here(asked.data)
    if json:
        more = {"html": str(html)} if html is not None else {}
        more |= {"figures": drawn} if drawn is not None else {}
        emit(document(found) | {"data_here": data} | more)
        return
    say(f"{page(found)}\n\n{words}")
    if html is not None:
        say(f"\npage: {html}")
    if drawn is not None:
        say(f"{plural(len(drawn), 'figure')}: {figures}")


def pack_rows(
    study: StudyArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A parquet file.")],
    out: OutOption = None,
    set_: SetOption = None,
    blocks: BlocksOption = None,
    json: JsonOption = False,
) -> None:
    """Gather a study's finished trainings, those that ship included, in one parquet file.

    Examples:
      lab transfer pack transfer lab/transfer/known/transfer.parquet
    """
    from lab.transfer.pieces import load
    from lab.transfer.rows import pack
    from lab.transfer.show import rows_of

    if file.is_dir() or not file.parent.is_dir():
        raise CommandError(f"{file}: a file name in a folder that exists is wanted")
    known = known_blocks(blocks)
    study, out = _named(study, out)
    asked = load(study, set_ or (), known)
    frame, wanted = rows_of(asked, _folder(asked, out), known)
    pack(frame, file)
    if json:
        emit({"file": str(file), "rows": frame.height, "asked": wanted})
    else:
        say(f"{file}: {frame.height:,} of {plural(wanted, 'training')}")


def _check(html: Path | None, figures: Path | None, ending: str) -> None:
    """Refuse, before the answer is worked out, what it cannot be written to. Raises CommandError."""
    if html is not None and (html.is_dir() or not html.parent.is_dir()):
        raise CommandError(f"--html {html}: a file name in a folder that exists is wanted")
    if figures is not None:
        from lab.figures import check_folder

        check_folder(figures, ending)


def _draw(found: Transfer, figures: Path, ending: str) -> list[str]:
    """Every figure of the page as a file in ``figures``; the paths."""
    from analysis.transfer_page import figures as figures_of
    from lab.figures import draw

    return draw(figures_of(found), figures, ending)


def _named(study: str, out: Path | None) -> tuple[str, Path | None]:
    """The file of a study and its folder, where ``study`` is a folder; a shipped study's name goes first.

    Raises CommandError.
    """
    from lab.transfer.pieces import shipped

    folder = Path(study)
    if study in shipped() or not folder.is_dir():
        return study, out
    if not (folder / STUDY).is_file():
        raise CommandError(
            f"{study}: this is a directory without {STUDY}, so no transfer study was run in it"
        )
    return str(folder / STUDY), out or folder


def _here(data: str) -> tuple[dict[str, Any] | None, str]:
    """The study's data as they are on this machine, plain and in words; None where they are not."""
    from lab.data.origin import origin_of
    from lab.data.tokens import DataError

    try:
        found = origin_of(data)
    except DataError as exc:
        return None, f"data on this machine: none ({exc})"
    return asdict(
        found
    ), f"data on this machine: {found.words}; rows that were made elsewhere may be of others"


def _folder(study: Study, out: Path | None) -> Path:
    return Path("runs", study.name) if out is None else out


def _begin(folder: Path, study: Study) -> None:
    """The folder, with the study in it. Raises CommandError where it is something else's."""
    from lab.transfer.pieces import dump
    from sweeps.files import write_text

    if folder.exists() and not folder.is_dir():
        raise CommandError(f"{folder}: this is no folder; give another --out")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / STUDY).is_file():
        raise CommandError(f"{folder}: holds other files, and no transfer study; give another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / STUDY, dump(study))


def _end(folder: Path, done: int, asked: int, stored: int) -> str:
    return f"{folder}: {done:,} of {plural(asked, 'training')} done, {stored:,} of them now"


class _Teller:
    """The live line, and a line for each row."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.stored = progress, 0

    def begun(self, begun: Begun) -> None:
        pass

    def step(self, step: Step, steps: int) -> None:
        what = f"loss {step.loss:.3f}, {short(step.tokens_per_s)} tokens/s"
        self.progress.step(what, step.step, steps, None)

    def row(self, row: dict[str, Any]) -> None:
        self.stored += 1
        self.progress.line(
            f"{row['label']}, size {row['size']}, seed {row['seed']}, {short(row['tokens'])} tokens: "
            f"{row['bits']:.4f} bits per byte, {row['status']}, {duration(row['seconds'])}"
        )
