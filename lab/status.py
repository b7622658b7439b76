"""``lab status``: how far a sweep or a training is, at work, after its end, or after it was killed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lab.progress import duration
from lab.sweep import RunArgument, RunsOption, StorageOption, run_folder
from lab.terminal import JsonOption, emit, plural, say

if TYPE_CHECKING:
    from sweeps.status import Status

__all__ = ["status"]


def status(
    run: RunArgument,
    runs: RunsOption = Path("runs"),
    storage: StorageOption = None,
    json: JsonOption = False,
) -> None:
    """Say how far a sweep is: runs done, being trained, begun again, set aside, and the time that is left.

    Or a training, given the folder of lab train. It disturbs neither and needs neither at work. With
    --storage it asks the queue by the sweep's name, on a machine that does not see the folder, and waits a
    few seconds for a sign of life.

    Examples:
      lab status ratios
      lab status runs/ratios --json
      lab status models/smoke
      lab status ratios --storage postgresql+psycopg://lab@db/lab
    """
    from lab.train.folder import is_training

    if storage is None and is_training(Path(run)):
        from lab.train.status import page
        from lab.train.status import read as read_training

        training = read_training(Path(run))
        emit(training.document()) if json else say(page(training, run))
        return
    if storage is None:
        from sweeps.status import read

        folder = run_folder(run, runs)
        found, where = read(folder), str(folder)
    else:
        from sweeps.queue import Pace, Queue
        from sweeps.storages import as_shown, open_storage

        with open_storage(storage) as opened:
            found = Queue(opened, Path(run).name).status(Pace())
        where = f"{found.name} in {as_shown(storage)}"
    if json:
        emit(found.document())
    else:
        say(_page(found, where))


def _page(found: Status, where: str) -> str:
    state = {
        "working": "at work",
        "complete": "complete",
        "decided": "complete, one candidate is left",
        "time": "ended by --time",
        "stopped": "stopped; the same lab sweep goes on from here",
    }[found.state]
    left = "" if found.eta is None or found.state != "working" else f", about {duration(found.eta)} left"
    far = f"round {found.round} of {found.rounds}; {found.done:,} of {plural(found.total, 'run')} done{left}"
    if not found.total:  # nobody has said it: killed before the first round, or swept by an older version
        far = f"{plural(found.done, 'run')} done; how many are asked for the next sweep says"
    lines = [f"{where}: {state}", far]
    if found.state == "working":
        lines.append(f"{len(found.running)} of {found.at_once} at once are trained, {found.waiting:,} wait")
    lines += [
        f"  {one.label} on {one.setting}, seed {one.seed}: {one.who}, {duration(one.seconds)}"
        for one in found.running
    ]
    if found.requeued:
        lines.append(f"begun again: {found.requeued}")
    if found.pruned:
        lines.append(f"left the race: {', '.join(found.pruned)}")
    lines += [f"set aside: {f.label} on {f.setting}, seed {f.seed}: {f.reason}" for f in found.set_aside]
    if found.set_aside:
        lines.append("the same lab sweep with --retry tries those again that were set aside")
    return "\n".join(lines)
