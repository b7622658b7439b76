"""What a sweep finds finished already: in its folder, set aside there, beside it, or shipped with the lab."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import polars as pl

from sweeps import packs, results
from sweeps.pool import Job
from sweeps.results import ResultsError

__all__ = ["Store"]


class Store:
    """The finished runs that a sweep of ``folder`` can answer from. Needs the folder's lock.

    ``trials/`` is made to hold runs of the present recipe under the present code and no others: what is no
    longer asked for waits in ``earlier/``; what is asked for again, or is finished in a neighbouring run
    folder or in a pack that ships with the lab, is fetched, its candidate's number and label rewritten.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = set(results.stored(folder))
        self.seconds: dict[str, float] = {}  # of the runs fetched so far
        self._elsewhere = _elsewhere(folder)

    def __contains__(self, key: str) -> bool:
        return key in self.keys

    def can_find(self, key: str) -> bool:
        """Whether a run is here, or ``fetch`` would look for it elsewhere."""
        return key in self.keys or key in self._elsewhere

    def set_aside(self, keys: Iterable[str]) -> None:
        """Move those of ``keys`` that are here to ``earlier/``."""
        for key in sorted(self.keys & set(keys)):
            self._path("trials", key).replace(self._path("earlier", key))
            self._elsewhere[key] = self._path("earlier", key)
            self.keys.discard(key)

    def fetch(self, jobs: Mapping[str, Job]) -> None:
        """Make every finished run of ``jobs`` (by key) one of ``trials/``, labelled as the job says."""
        for key, job in jobs.items():
            own = key in self.keys
            path = self._path("trials", key) if own else self._elsewhere.get(key)
            if path is None:
                continue
            try:
                frame = packs.rows(path, key) if path.parent == packs.KNOWN else results.read_run(path)
            except ResultsError:
                if path.parent.parent == self.folder:
                    raise
                del self._elsewhere[key]  # a neighbour may move its files at any time
                continue  # and the run is then trained here
            if frame["run"][0] != key:
                raise ResultsError(f"{path}: this file holds another run than its name says; delete it")
            relabelled = _relabel(frame, job)
            if not own or not relabelled.equals(frame):
                results.write_run(self.folder, relabelled)
                self.keys.add(key)
            self._path("earlier", key).unlink(missing_ok=True)
            self.seconds[key] = frame.filter("final")["seconds"][0]

    def final_rows(self, keys: Iterable[str]) -> pl.DataFrame:
        """The final rows of stored runs."""
        return results.read_runs(self._path("trials", key) for key in keys).filter("final")

    def _path(self, part: str, key: str) -> Path:
        return self.folder / part / f"{key}.parquet"


def _elsewhere(folder: Path) -> dict[str, Path]:
    """Finished runs outside ``trials/``: set aside here, in run folders beside this one, or shipped."""
    found: dict[str, Path] = {}
    for other in sorted(path for path in folder.resolve().parent.iterdir() if (path / "env.json").is_file()):
        if other == folder.resolve():
            continue
        try:
            results.check_folder(other)
        except ResultsError:
            continue  # not ours, or from a newer version: nothing in it can be used
        found |= results.stored(other, "earlier") | results.stored(other)
    return packs.known() | found | results.stored(folder, "earlier")


def _relabel(frame: pl.DataFrame, job: Job) -> pl.DataFrame:
    candidate = job.run.candidate
    return frame.with_columns(
        trial=pl.lit(job.trial, pl.Int32),
        label=pl.lit(candidate.label),
        choices=pl.lit(candidate.choices_json),
        trainings=pl.lit(job.run.trainings, pl.Int32),
    )
