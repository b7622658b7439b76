"""How often each run was begun in vain, in the run folder: the count outlives the sweep that counts.

Counted is what a sweep saw: a run that raised, or whose process or worker was lost. Runs that end because the
sweep itself is killed or stopped are none of it: whoever stops it three times has not proved a run wrong.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from sweeps import results
from sweeps.begin import timestamp
from sweeps.files import append, entries

__all__ = ["TRIES", "Tries", "forget"]

TRIES = 2
"""How often a run is begun: lost with its worker, or failed, so often, it is set aside with its reason."""

FILE = "tries.jsonl"


@dataclass(frozen=True)
class _Try:
    """One try that came to nothing and was not the last. run: its key."""

    run: str
    reason: str
    when: str


class Tries:
    """Of the runs of ``folder``, whose lock it needs. before: what earlier sweeps have set aside, by key."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._counts = Counter(one.run for one in entries(_Try, folder / FILE))
        self.before = {failure.run: failure for failure in results.failures(folder)}

    def again(self, key: str, reason: str) -> bool:
        """Whether a run that came to nothing is begun once more, which is then written down."""
        self._counts[key] += 1
        if self._counts[key] >= TRIES:
            return False
        append(self._folder / FILE, vars(_Try(key, reason, timestamp())))
        return True


def forget(folder: Path) -> None:
    """Let every run without a result be begun again, as often as a new one."""
    for name in ("failures.jsonl", FILE):
        (folder / name).unlink(missing_ok=True)
