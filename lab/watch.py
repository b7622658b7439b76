"""A run folder looked at again and again: every result file is read once, and nothing is locked or written.

A sweep writes its files whole, so what is there can be read; what vanishes between listing and reading is not
there, and a file that is none of ours is named and left out until it changes.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from analysis.dashboard import Pulse, version
from sweeps import results, status
from sweeps.results import SCHEMA, Results, ResultsError

__all__ = ["Listing", "Watch"]

Stamp = tuple[int, int]
"""When a file was written, in nanoseconds, and its size."""
BESIDE = ("recipe.yaml", "env.json", "failures.jsonl", "pruned.json")
SETTLED = 2.0
"""Seconds after which a folder's time of change surely differs from that of a later change."""


@dataclass(frozen=True)
class Listing:
    """The files of a run folder at one moment, without their contents; ``version`` is that of ``trials``."""

    trials: dict[str, Stamp]
    version: str
    beside: dict[str, Stamp]
    status: Stamp | None
    working: bool

    @property
    def heard(self) -> float | None:
        """When the newest file was written, in seconds since 1970."""
        stamps = [*self.trials.values(), *self.beside.values(), *([self.status] if self.status else [])]
        return max((when for when, _ in stamps), default=0) / 1e9 or None


@dataclass
class Watch:
    """One run folder and the rows that have been read from it."""

    folder: Path
    frame: pl.DataFrame = field(default_factory=SCHEMA.to_frame)
    read: dict[str, Stamp] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    _settled: Stamp | None = None
    _trials: tuple[dict[str, Stamp], str] = field(default_factory=lambda: ({}, version()))

    def listing(self) -> Listing:
        """What is there now. The result files are looked through only if one has come or gone since."""
        beside = {name: stamp for name in BESIDE if (stamp := _stamp(self.folder / name))}
        said = _stamp(self.folder / status.FILE)
        changed = _stamp(self.folder / "trials")
        # A sweep renames whole files into place, which their folder shows; a broken one may mend in place.
        if changed is None or changed != self._settled or self.broken:
            began = time.time()
            found = _stamps(self.folder / "trials")
            self._trials = found, version(found)
            self._settled = changed if changed and began - changed[0] / 1e9 > SETTLED else None
        return Listing(*self._trials, beside, said, status.at_work(self.folder))

    def results(self, listing: Listing) -> Results:
        """All results in ``listing``, of which only the new files are read.

        Raises ResultsError where the folder is none of ours or a file beside the results is broken.
        """
        env = results.check_folder(self.folder)
        self._renew(listing.trials)
        recipe = self.folder / "recipe.yaml"
        text = recipe.read_text(encoding="utf-8") if "recipe.yaml" in listing.beside else ""
        lost, left = results.failures(self.folder), results.pruned(self.folder)
        return Results(results.in_order(self.frame), text, env, lost, left)

    def pulse(self, listing: Listing, failed: int) -> Pulse:
        """How far the sweep is, as far as the folder tells."""
        said = _said(self.folder / status.FILE)
        state = said.get("state")
        if listing.working:
            state = "working"
        elif state not in ("complete", "decided", "time"):
            state = "stopped" if state in ("working", "stopped") else "idle"
        at_once = said.get("at_once") or len(said.get("running") or ())
        working = state == "working"
        return Pulse(
            state=state,
            finished=len(listing.trials),
            failed=failed,
            heard=listing.heard,
            total=said.get("total") or None,
            running=at_once or None if working else None,
            round=said.get("round") or None,
            rounds=said.get("rounds") or None,
            eta=said.get("eta") if working else None,
        )

    def _renew(self, trials: dict[str, Stamp]) -> None:
        changed = {name for name, stamp in trials.items() if self.read.get(name) != stamp}
        gone = self.read.keys() - trials.keys()
        old = [name.removesuffix(".parquet") for name in gone | (changed & self.read.keys())]
        parts = [self.frame.filter(~pl.col("run").is_in(old)) if old else self.frame]
        self.broken = {
            name: why for name, why in self.broken.items() if name in trials and name not in changed
        }
        for name in sorted(changed):
            path = self.folder / "trials" / name
            try:
                parts.append(results.read_run(path))
            except ResultsError as exc:
                if not path.exists():
                    continue  # it was set aside since the listing
                self.broken[name] = str(exc)
        self.frame = pl.concat(parts, rechunk=True)
        self.read = dict(trials)


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size


def _stamps(trials: Path) -> dict[str, Stamp]:
    found: dict[str, Stamp] = {}
    try:
        with os.scandir(trials) as entries:
            for entry in entries:
                if entry.name.endswith(".parquet"):
                    with suppress(FileNotFoundError):  # it was set aside since
                        found[entry.name] = entry.stat().st_mtime_ns, entry.stat().st_size
    except FileNotFoundError:
        return {}
    return found


def _said(path: Path) -> dict[str, Any]:
    """What the sweep last said of itself; {} where it says nothing that can be read."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}
