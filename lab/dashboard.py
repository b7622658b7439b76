"""``lab dashboard``: the report of a sweep as a page that renews itself, served to this machine alone."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from lab.sweep import RunsOption, run_folder
from lab.terminal import CommandError, note, plural, say

__all__ = ["dashboard"]


def dashboard(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or the name of one in --runs.")],
    runs: RunsOption = Path("runs"),
    port: Annotated[int, typer.Option(help="0: any that is free.", min=0, max=65535)] = 0,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open it in the browser.")] = False,
) -> None:
    """Watch a sweep: its report as a page that renews itself, for this machine alone, until Ctrl-C.

    It only reads the folder: start and end it whenever you like. Across machines: ssh -L 8000:127.0.0.1:PORT.

    Examples:
      lab dashboard ratios
      lab dashboard runs/ratios --port 8000 --open
    """
    from lab.site import HERE, Server, Site
    from lab.watch import Watch
    from sweeps.interrupt import keep_interrupts
    from sweeps.results import check_folder

    folder = run_folder(run, runs)
    check_folder(folder)
    keep_interrupts()
    watch = Watch(folder)
    many = len(watch.listing().trials)
    if many > 1000:
        note(f"{folder}: reading {plural(many, 'run')}")
    try:
        server = Server((HERE, port), Site(watch))
    except OSError as exc:
        raise CommandError(
            f"port {port} of {HERE} cannot be had ({exc.strerror}); give another --port, or 0 for any"
        ) from exc
    address = f"http://{HERE}:{server.server_port}/"
    say(f"{folder}: {address} (Ctrl-C ends it)")
    if open_:
        webbrowser.open(address)
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            note("the dashboard has ended; the sweep is not touched by it")
