"""Which runs each round of a sweep asks for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import polars as pl

from sweeps import space
from sweeps.clock import Clock
from sweeps.form import Recipe
from sweeps.halving import Setting, floor, survivors
from sweeps.pool import Job
from sweeps.pruning import Race
from sweeps.roster import Roster
from sweeps.run import Run, runs_of
from sweeps.store import Store

__all__ = ["Rounds"]


class Rounds:
    """The jobs of every round by the key of their run. With halving they hang on what is stored so far."""

    def __init__(
        self, recipe: Recipe, roster: Roster, race: Race, store: Store, clock: Clock, code: str
    ) -> None:
        self.recipe, self.roster, self.race = recipe, roster, race
        self.store, self.clock, self.code = store, clock, code
        self.tasks = space.task_texts(recipe)
        self.families: dict[str, list[str]] = defaultdict(list)
        for task in self.tasks:
            self.families[_family(task)].append(task)
        self._counts = space.optimiser_counts(recipe)
        self._left: dict[tuple[int, str, int], tuple[Setting, ...]] = {}
        self._areas: dict[str, float] = {}
        self.failed: set[str] = set()  # keys of runs that nobody need wait for

    @property
    def total(self) -> int:
        """Runs of the whole sweep."""
        candidates = self.roster.candidates.values()
        settings = (self.roster.wanted - len(candidates)) * sum(self._counts)
        settings += sum(sum(self._counts[: self.race.rounds_of(one.arch)]) for one in candidates)
        return settings * len(self.tasks)

    def share_after(self, number: int) -> float:
        """What follows round ``number`` (from 1), in units of that round."""
        return sum(self._counts[number:]) / self._counts[number - 1]

    def every_of(self, number: int, seed: int) -> dict[str, Job]:
        """All that a round could ask of one candidate: every optimiser setting."""
        runs = runs_of(self.recipe, self.roster.candidates[number], self.tasks, seed)
        return {run.key(self.code): Job(run, number) for run in runs}

    def of(self, number: int, seed: int) -> dict[str, Job]:
        """What a round asks of one candidate; a run that was given up stands under the key it has then."""
        if not self.recipe.halving:
            return self.every_of(number, seed)
        parts = (self._of_family(number, family, seed) for family in self.families)
        return {key: job for part in parts for key, job in part.items()}

    def _of_family(self, number: int, family: str, seed: int) -> dict[str, Job]:
        tasks, left = self.families[family], self.left(number, family, seed)
        mine = {
            (job.run.task, _setting(job.run)): replace(job, run=replace(job.run, trainings=len(left)))
            for job in self.every_of(number, seed).values()
            if job.run.task in tasks
        }
        return dict(self._as_stored(mine[task, setting]) for task in tasks for setting in left)

    def _as_stored(self, job: Job) -> tuple[str, Job]:
        """A job with its floor, as far as that is known, and the key under which its run is or will be."""
        key = job.run.key(self.code)
        if key not in self.store and (floor := self.floor(job)):
            job = replace(job, floor=floor)
            if self.store.can_find(given_up := job.key(self.code, "stopped")):
                return given_up, job
        return key, job

    def floor(self, job: Job) -> float | None:
        """The area that a run must reach, 0 where it is free to; None while others have to end before it.

        The settings of a task with several settings of difficulty have none: they count together.
        """
        run = job.run
        if not self.recipe.halving or self.recipe.score == "accuracy":
            return 0.0
        if len(self.families[_family(run.task)]) > 1:
            return 0.0
        left = self.left(job.trial, _family(run.task), run.seed)
        if len(left) == 1:
            return 0.0
        own = self._sum_before(run)
        sums: list[float] = []
        for setting in left[: left.index(_setting(run))]:
            rival = _with_setting(run, setting)
            before = self._sum_before(rival)
            if rival.key(self.code) in self.failed or before is None:
                return 0.0
            key, _ = self._as_stored(replace(job, run=rival, floor=0.0))
            if key not in self.store:
                return None
            sums.append(before + self._area(key))
        return 0.0 if own is None else floor(sums, own, len(left))

    def _sum_before(self, run: Run) -> float | None:
        """The areas of a run's setting over the earlier rounds; None if one is missing."""
        seeds = range(self.recipe.first_seed, run.seed)
        keys = [replace(run, seed=seed).key(self.code) for seed in seeds]
        return sum(map(self._area, keys)) if all(key in self.store for key in keys) else None

    def _area(self, key: str) -> float:
        if key not in self._areas:
            self._areas[key] = self.store.final_rows([key])["auc_valid"][0]
        return self._areas[key]

    def left(self, number: int, family: str, seed: int) -> tuple[Setting, ...]:
        """The optimiser settings that a candidate has left on a task in the round of ``seed``."""
        left = self.roster.candidates[number].optimisers
        for now in range(self.recipe.first_seed + 1, seed + 1):
            if len(left) == 1:
                break
            if (place := (number, family, now)) not in self._left:
                played = range(self.recipe.first_seed, now)
                parts = [self._of_family(number, family, earlier) for earlier in played]
                if not parts[-1].keys() <= self.store.keys:
                    break  # a round that is not complete leaves all that were in it
                self._left[place] = survivors(
                    self.store.final_rows(key for part in parts for key in part),
                    self.roster.candidates[number].optimisers,
                    len(self.families[family]),
                    played,
                    self.recipe.score,
                )
            left = self._left[place]
        return left

    def jobs(self, seed: int) -> dict[str, Job]:
        """A round, of those in the race: task by task as the recipe lists them, the longest runs first.

        So that a sweep that is ended within a round has whole tasks, and workers end a round together.
        """
        jobs = {
            key: job
            for number, candidate in self.roster.candidates.items()
            if self.race.takes_part(candidate.arch, seed)
            for key, job in self.of(number, seed).items()
        }
        order = {task: i for i, task in enumerate(self.tasks)}

        def place(item: tuple[str, Job]) -> tuple[int, float]:
            return order[item[1].run.task], -self.clock.work(item[1].run)

        return dict(sorted(jobs.items(), key=place))  # settings of a candidate stay in their order

    def lacking(self, jobs: Mapping[str, Job]) -> list[Job]:
        """Those of ``jobs``, by key, that have no result and are not set aside."""
        done = self.store.keys | self.failed
        return [job for key, job in jobs.items() if key not in done]

    def dropped(self, seed: int) -> set[str]:
        """Keys of runs that a round could have asked for and does not."""
        every = {key for number in self.roster.candidates for key in self.every_of(number, seed)}
        return every - self.jobs(seed).keys()

    def gather(self, seed: int) -> dict[str, Job]:
        """A round, with all that is finished of it anywhere fetched into the store."""
        while True:  # a run that is found can make known what another had to reach
            before = len(self.store.keys)
            jobs = self.jobs(seed)
            self.store.fetch(jobs)
            if not self.recipe.halving or len(self.store.keys) == before:
                return jobs

    def is_complete(self, seed: int) -> bool:
        """Whether a round has runs and every one of them is stored."""
        jobs = self.jobs(seed)
        return self.roster.full and bool(jobs) and jobs.keys() <= self.store.keys

    def finals(self, seed: int) -> pl.DataFrame:
        """The final rows of a round that is complete."""
        return self.store.final_rows(self.jobs(seed))


def _family(task: str) -> str:
    return task.partition("(")[0]


def _setting(run: Run) -> Setting:
    return run.training.lr, run.training.weight_decay


def _with_setting(run: Run, setting: Setting) -> Run:
    return replace(run, training=replace(run.training, lr=setting[0], weight_decay=setting[1]))
