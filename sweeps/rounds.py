"""Which runs each round of a sweep asks for."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from sweeps import space
from sweeps.clock import Clock
from sweeps.form import Recipe
from sweeps.halving import Setting, survivors
from sweeps.pool import Job
from sweeps.roster import Roster
from sweeps.run import Run, runs_of
from sweeps.store import Store

__all__ = ["Rounds"]


class Rounds:
    """The jobs of every round by the key of their run. With halving they hang on what is stored so far."""

    def __init__(self, recipe: Recipe, roster: Roster, store: Store, clock: Clock, code: str) -> None:
        self.recipe, self.roster, self.store, self.clock, self.code = recipe, roster, store, clock, code
        self.tasks = space.task_texts(recipe)
        self.families: dict[str, list[str]] = defaultdict(list)
        for task in self.tasks:
            self.families[_family(task)].append(task)
        self._counts = space.optimiser_counts(recipe)
        self._left: dict[tuple[int, str, int], tuple[Setting, ...]] = {}

    @property
    def total(self) -> int:
        """Runs of the whole sweep."""
        return self.roster.wanted * len(self.tasks) * sum(self._counts)

    def share_after(self, number: int) -> float:
        """What follows round ``number`` (from 1), in units of the first round."""
        return sum(self._counts[number:]) / self._counts[0]

    def every_of(self, number: int, seed: int) -> dict[str, Job]:
        """All that a round could ask of one candidate: every optimiser setting."""
        runs = runs_of(self.recipe, self.roster.candidates[number], self.tasks, seed)
        return {run.key(self.code): Job(run, number) for run in runs}

    def of(self, number: int, seed: int) -> dict[str, Job]:
        """What a round asks of one candidate."""
        jobs = self.every_of(number, seed)
        if not self.recipe.halving:
            return jobs
        left = {family: self.left(number, family, seed) for family in self.families}
        return {
            key: replace(job, run=replace(job.run, trainings=len(left[_family(job.run.task)])))
            for key, job in jobs.items()
            if _setting(job.run) in left[_family(job.run.task)]
        }

    def left(self, number: int, family: str, seed: int) -> tuple[Setting, ...]:
        """The optimiser settings that a candidate has left on a task in the round of ``seed``."""
        if (place := (number, family, seed)) in self._left:
            return self._left[place]
        before = range(self.recipe.first_seed, seed)
        keys = {
            key
            for earlier in before
            for key, job in self.every_of(number, earlier).items()
            if job.run.task in self.families[family]
        }
        found = survivors(
            self.store.final_rows(keys & self.store.keys),
            self.roster.candidates[number].optimisers,
            len(self.families[family]),
            before,
            self.recipe.score,
        )
        if len(found) == self._counts[len(before)]:  # nothing that is still to come can change it
            self._left[place] = found
        return found

    def jobs(self, seed: int) -> dict[str, Job]:
        """A round: task by task as the recipe lists them, the longest runs first.

        So that a sweep that is ended within a round has whole tasks, and workers end a round together.
        """
        jobs = {key: job for number in self.roster.candidates for key, job in self.of(number, seed).items()}
        order = {task: i for i, task in enumerate(self.tasks)}

        def place(item: tuple[str, Job]) -> tuple[int, float, str]:
            return order[item[1].run.task], -self.clock.work(item[1].run), item[0]

        return dict(sorted(jobs.items(), key=place))

    def dropped(self, seed: int) -> set[str]:
        """Keys of runs that a round could have asked for and does not."""
        every = {key for number in self.roster.candidates for key in self.every_of(number, seed)}
        return every - self.jobs(seed).keys()

    def is_complete(self, seed: int) -> bool:
        """Whether every run of a round is stored."""
        return self.roster.full and self.jobs(seed).keys() <= self.store.keys


def _family(task: str) -> str:
    return task.partition("(")[0]


def _setting(run: Run) -> Setting:
    return run.training.lr, run.training.weight_decay
