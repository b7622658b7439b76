"""``lab sweep`` and ``lab pack``: run a recipe, renew its answer after every round; gather its runs."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.progress import Progress, duration
from lab.terminal import BlocksOption, CommandError, JsonOption, emit, known_blocks, note, plural, say

if TYPE_CHECKING:
    from sweeps.events import Event
    from sweeps.plan import LeftOut
    from sweeps.study import Outcome

__all__ = [
    "RecipeArgument",
    "RunArgument",
    "RunsOption",
    "SetOption",
    "StorageOption",
    "Teller",
    "not_trained",
    "pack",
    "run_folder",
    "seconds_of",
    "sweep",
]

LEFT_OUT_SHOWN = 20

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a shipped recipe.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one value: train.steps=100, seeds=1."),
]
StorageOption = Annotated[
    str | None,
    typer.Option(
        metavar="STORAGE",
        help="Where lab worker finds the runs: a path (journal file), postgresql+psycopg://..., grpc://...",
    ),
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run folder, or the name of one in --runs.")
]
RunsOption = Annotated[Path, typer.Option("--runs", metavar="DIR", help="Where run folders are kept.")]


def sweep(
    recipe: RecipeArgument,
    runs: RunsOption = Path("runs"),
    workers: Annotated[
        int | None,
        typer.Option(help="Processes of one thread each; default: one per core; 0 with --storage.", min=0),
    ] = None,
    storage: StorageOption = None,
    set_: SetOption = None,
    blocks: BlocksOption = None,
    time: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="End with the last round that fits: 90s, 15m, 2h, 1h30m."),
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(metavar="TRACKER", help="Tell tensorboard, trackio, wandb or mlflow, too; repeatable."),
    ] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Also train runs that failed before and were set aside.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Run a recipe: train every schedule on every task, rank them, write a report.

    The answer is renewed after every round (one seed of everything). Run the same command again to go on:
    no finished run is trained twice, and one that failed twice waits for --retry. With --storage, lab worker
    trains runs of it on other machines.

    Examples:
      lab sweep ratios.yaml --time 15m
      lab sweep smoke --set seeds=1
      lab sweep my_recipe.yaml --runs results --workers 4 --blocks my_blocks.py
      lab sweep ratios.yaml --storage postgresql+psycopg://lab@db/lab --workers 0
      lab sweep ratios.yaml --track tensorboard
      lab sweep ratios.yaml --retry
    """
    from sweeps.plan import left_out
    from sweeps.recipe import load
    from sweeps.space import is_sampled
    from sweeps.study import sweep as run_sweep
    from sweeps.trackers import known as known_trackers

    trackers = known_trackers(track or ())
    limit = None if time is None else seconds_of(time)
    known = known_blocks(blocks)
    asked = load(recipe, set_ or (), known)
    if without := left_out(asked, known):
        note(not_trained(without, is_sampled(asked)))
    folder = runs / asked.name
    teller = Teller(folder, quiet=json)
    try:
        # Some trackers print to stdout, which with --json belongs to the document alone.
        with teller.progress, redirect_stdout(sys.stderr) if json else nullcontext():
            outcome = run_sweep(
                asked,
                folder,
                workers=workers,
                time_limit=limit,
                blocks_file=blocks,
                storage=storage,
                trackers=trackers,
                retry=retry,
                on_event=teller.tell,
            )
    except KeyboardInterrupt:
        note(teller.kept())
        raise typer.Exit(130) from None
    _answer(outcome, teller, json)


def not_trained(without: Sequence[LeftOut], sampled: bool) -> str:
    """Who is left out and why, the first of many; ``sampled``: these are examples out of a larger space."""
    lines = [f"  {one.label}: {one.reason}" for one in without[:LEFT_OUT_SHOWN]]
    if len(without) > LEFT_OUT_SHOWN:
        lines.append(f"  and {len(without) - LEFT_OUT_SHOWN:,} more, all in lab plan --json")
    return "\n".join((f"Not trained{', for example' if sampled else ''} ({len(without):,}):", *lines))


class Teller:
    """Says what a sweep does while it runs: progress on stderr, the answer of each round on stdout."""

    def __init__(self, folder: Path, quiet: bool) -> None:
        self.folder, self.quiet = folder, quiet
        self.progress = Progress()
        self.finished = self.total = 0
        self.last_page = ""

    def tell(self, event: Event) -> None:
        """Take one event of ``sweeps.study.sweep``."""
        from sweeps.events import News, Pruned, RoundDone, RunDone, RunFailed, Started

        match event:
            case Started():
                self.finished, self.total = event.stored, event.runs
                size = ", ".join(
                    plural(*one)
                    for one in (
                        (event.candidates, "candidate"),
                        (event.rounds, "round"),
                        (event.runs, "run"),
                        (event.workers, "worker"),
                    )
                )
                title = f"{self.folder}: {size}; {event.stored:,} runs are finished already"
                self.progress.start(title, event.stored, event.runs)
            case RunDone():
                self.finished, self.total = event.done, event.total
                what = f"round {event.round}, {event.label} on {event.setting}: {event.status}"
                self.progress.step(what, event.done, event.total, event.eta)
            case News():
                self.progress.line(event.text)
            case RunFailed():
                failure = event.failure
                self.progress.line(
                    f"failed: {failure.label} on {failure.setting}, seed {failure.seed}: {failure.reason}"
                )
            case Pruned():
                where = f"{event.behind} of {event.comparisons} comparisons"
                self.progress.line(
                    f"{event.label} leaves after round {event.round}: behind {event.leader} in {where} "
                    f"(Wilcoxon, p below {event.p:g})"
                )
            case RoundDone():
                last = event.eta is None or event.number == event.rounds
                left = "" if last else f", about {duration(event.eta or 0)} for the rest"
                which = f"round {event.number} of {event.rounds}"
                self.progress.line(f"{which} done in {duration(event.seconds)}{left}")
                if not self.quiet:
                    self.renew(f"After round {event.number} of {event.rounds}")

    def renew(self, title: str) -> None:
        """Print the answer as it stands now, unless it stands there already."""
        from lab.answer import page, ranking_of

        text = page(ranking_of(self.folder))
        if text != self.last_page:
            with self.progress.paused():
                say(f"{title}\n\n{text}\n")
        self.last_page = text

    def kept(self) -> str:
        """What Ctrl-C leaves behind."""
        if not self.total:
            return "stopped before the first run; nothing is lost"
        return (
            f"stopped: {self.finished:,} of {plural(self.total, 'run')} are kept in {self.folder}; "
            "the same command goes on from there"
        )


def _answer(outcome: Outcome, teller: Teller, json: bool) -> None:
    """The end of a sweep: the last answer, why it ended, and where the report is."""
    from analysis.report import write
    from lab.answer import answer_of, document

    answer = answer_of(outcome.folder)
    page = write(outcome.folder, importance=answer.importance)
    if json:
        emit({**document(answer.ranking), "sweep": _plain(outcome), "report": str(page)})
        return
    teller.renew(f"After {plural(outcome.rounds, 'round')} of {outcome.rounds_asked}")
    if answer.front:
        say(f"{answer.front}\n")
    if outcome.failures:
        failed = plural(len(outcome.failures), "run")
        say(f"{failed} failed; the report lists why, --retry tries again.")
    ended = {
        "complete": "complete",
        "decided": f"complete ({outcome.reason})",
        "time": f"ended by --time ({outcome.reason})",
    }[outcome.stopped]
    trained = f"{plural(outcome.trained, 'run')} trained, {outcome.stored:,} found finished"
    say(f"{ended}: {trained}, {duration(outcome.seconds)}")
    say(f"report: {page}")


def _plain(outcome: Outcome) -> dict[str, Any]:
    return {**asdict(outcome), "folder": str(outcome.folder)}


def seconds_of(text: str) -> float:
    """``90s``, ``15m``, ``1h30m`` as seconds. Raises CommandError."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text.strip())
    hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + seconds
    if not total:
        raise CommandError(f"--time is {text!r}; write it as 90s, 15m, 2h or 1h30m")
    return float(total)


def pack(
    run: RunArgument,
    out: Annotated[Path, typer.Argument(metavar="FILE", help="A parquet file; what it holds stays in it.")],
    runs: RunsOption = Path("runs"),
    json: JsonOption = False,
) -> None:
    """Gather the finished runs of a folder in one parquet file, to send it, keep it or analyse it.

    Examples:
      lab pack ratios ratios.parquet
    """
    from sweeps.packs import pack as gather

    number = gather(run_folder(run, runs), out)
    size = out.stat().st_size
    if json:
        emit({"file": str(out), "runs": number, "bytes": size})
    else:
        say(f"{out}: {plural(number, 'run')}, {size / 1e6:.2f} MB")


def run_folder(run: str, runs: Path) -> Path:
    """A bare name may mean a folder here or one in --runs; what is here goes first."""
    return runs / run if not Path(run).exists() and (runs / run).is_dir() else Path(run)
