"""``lab worker``: help a sweep that runs elsewhere."""

from __future__ import annotations

import signal
from typing import Annotated, NoReturn

import typer

from lab.terminal import BlocksOption, note, plural, say

__all__ = ["worker"]


def worker(
    storage: Annotated[
        str, typer.Argument(metavar="STORAGE", help="As given to lab sweep: a path, or a URL.")
    ],
    study: Annotated[str, typer.Argument(metavar="STUDY", help="The sweep: the name of its recipe.")],
    results: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE",
            help="Where results go: the run folder as it is seen here, a URL (s3://..., by fsspec), or "
            "'storage'; default: the folder if it is seen here under its own path, else the storage.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes of one thread each; default: one per core.", min=1)
    ] = None,
    blocks: BlocksOption = None,
) -> None:
    """Train runs of a sweep that lab sweep --storage has started, here or on another machine, until it ends.

    Any number may join and leave at any moment. Ctrl-C, or the signal by which a cluster ends a job, gives
    back what is under way; after a power cut the sweep finds out by itself.

    Examples:
      lab worker /shared/queue.log ratios
      lab worker postgresql+psycopg://lab@db/lab ratios --workers 8
      lab worker grpc://head:13000 ratios --results s3://bucket/ratios
    """
    from sweeps.worker import work

    signal.signal(signal.SIGTERM, _leave)
    try:
        done = work(
            storage,
            study,
            results_to=results,
            workers=workers,
            blocks_file=blocks,
            on_event=lambda news: note(news.text),
        )
    except KeyboardInterrupt:
        note("stopped: what was under way is back in the queue")
        raise typer.Exit(130) from None
    say(f"{study} has ended: {plural(done, 'run')} delivered from here")


def _leave(*_: object) -> NoReturn:
    raise KeyboardInterrupt
