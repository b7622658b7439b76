"""How far a sweep is, as it says itself: a small file in its folder, and a note in its queue. No torch here.

The file is what the sweep last said; what is stored, failed or pruned is counted in the folder when it is
read. So it tells the truth while a sweep is at work, after its end, and after it was killed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sweeps import results
from sweeps.results import Failure, ResultsError

__all__ = ["Running", "Status", "at_work", "of_document", "read", "write"]

FILE = "status.json"


@dataclass(frozen=True)
class Running:
    """A run that is being trained, by ``who``, since ``seconds`` of the sweep's own clock."""

    label: str
    setting: str
    seed: int
    who: str
    seconds: float


@dataclass(frozen=True)
class Status:
    """What a sweep is at.

    state: ``working``; ``complete``, ``decided`` or ``time`` as in ``study.Outcome``; ``stopped`` where it
    was killed or interrupted. done of total: runs stored. waiting: runs of this round that nobody has begun.
    at_once: how many are trained at once. requeued: how often one was begun again after its worker was lost
    or gave it back. set_aside: runs without a result, begun again by a sweep that is asked to retry.
    seconds: of the last sweep so far. eta: seconds to the end, None where it cannot be told.
    """

    name: str
    state: Literal["working", "complete", "decided", "time", "stopped"]
    round: int
    rounds: int
    done: int
    total: int
    waiting: int = 0
    at_once: int = 0
    requeued: int = 0
    running: tuple[Running, ...] = ()
    set_aside: tuple[Failure, ...] = ()
    pruned: tuple[str, ...] = ()
    seconds: float = 0.0
    eta: float | None = None

    def document(self) -> dict[str, Any]:
        """The same as JSON values; ``of_document`` gives it back."""
        return asdict(self)


def of_document(values: Mapping[str, Any]) -> Status:
    """The status that ``document`` wrote. Raises ResultsError where it is none."""
    try:
        return Status(
            **{
                **values,
                "running": tuple(Running(**one) for one in values["running"]),
                "set_aside": tuple(Failure(**one) for one in values["set_aside"]),
                "pruned": tuple(values["pruned"]),
            }
        )
    except (KeyError, TypeError) as exc:
        raise ResultsError(
            f"this is no status of a sweep ({exc}); a sweep of this version renews it"
        ) from exc


def write(folder: Path, status: Status) -> None:
    """Say it in ``folder``: whole or not at all, but a power cut may leave what was said before."""
    temporary = folder / ".tmp-status"
    temporary.write_text(json.dumps(status.document()), encoding="utf-8")
    temporary.replace(folder / FILE)


def read(folder: Path) -> Status:
    """How far the sweep of ``folder`` is; takes no lock. Raises ResultsError where that is none of ours."""
    env = results.check_folder(folder)
    try:
        said = of_document(json.loads((folder / FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:  # killed before its first round, or swept by an older version
        said = Status(str(env.get("name", folder.name)), "stopped", 0, 0, 0, 0)
    except (OSError, ValueError) as exc:
        raise ResultsError(f"{folder / FILE}: this cannot be read ({exc}); sweep again to renew it") from exc
    if said.state == "working" and not at_work(folder):
        said = replace(said, state="stopped", running=(), eta=None)
    return replace(
        said,
        done=len(results.stored(folder)),
        set_aside=results.failures(folder),
        pruned=tuple(one.label for one in results.pruned(folder)),
    )


def at_work(folder: Path) -> bool:
    """Whether a sweep on this machine holds the folder's lock, without touching the lock.

    To try it would hold it for a moment, in which a sweep that starts would be refused. The kernel lists all
    locks that are held; the inode alone is compared, because some file systems show another device there.
    """
    try:
        inode = (folder / "lock").stat().st_ino
    except FileNotFoundError:
        return False
    lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    # 1: FLOCK  ADVISORY  WRITE 4711 fe:01:123456 0 EOF; one that waits for a lock has -> before FLOCK
    held = [words for line in lines if (words := line.split())[1] == "FLOCK"]
    return any(words[3] == "WRITE" and words[5].rpartition(":")[2] == str(inode) for words in held)
