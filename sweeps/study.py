"""The sweep: recipe -> rounds of runs -> stored results. Killed at any moment, the same call goes on.

A round is one seed of every candidate on every task setting with every optimiser setting. Rounds follow each
other, so the answer is a fair one at the end of each, and more seeds only sharpen it.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sweeps import results
from sweeps.begin import SweepError, build_kernels, environment, locked, timestamp
from sweeps.clock import Clock
from sweeps.form import Recipe
from sweeps.pool import Job, Pool, Reply, Setup, load_table
from sweeps.pruning import Race
from sweeps.results import Failure, Pruned
from sweeps.roster import Roster
from sweeps.rounds import Rounds
from sweeps.run import code_hash
from sweeps.scores import mean_score
from sweeps.store import Store

__all__ = [
    "Event",
    "Outcome",
    "Pruned",
    "RoundDone",
    "RunDone",
    "RunFailed",
    "Started",
    "SweepError",
    "sweep",
]


@dataclass(frozen=True)
class Started:
    """The folder is open. ``stored`` of ``runs`` are finished already."""

    candidates: int
    runs: int
    stored: int
    rounds: int
    workers: int


@dataclass(frozen=True)
class RunDone:
    """A run is stored. ``done`` of ``total`` runs of the sweep; ``eta``: seconds to its end, if known."""

    label: str
    setting: str
    seed: int
    status: str
    seconds: float
    round: int
    done: int
    total: int
    eta: float | None


@dataclass(frozen=True)
class RunFailed:
    """A run has no result; it is tried again by the next sweep of the folder."""

    failure: Failure
    done: int
    total: int


@dataclass(frozen=True)
class RoundDone:
    """Round ``number`` (from 1) of ``rounds`` is complete; ``eta``: seconds for the rest of the sweep."""

    number: int
    rounds: int
    seed: int
    seconds: float
    eta: float | None


Event = Started | RunDone | RunFailed | Pruned | RoundDone


@dataclass(frozen=True)
class Outcome:
    """What a sweep did. ``rounds`` of ``rounds_asked`` are complete in the folder.

    trained: runs of this call. stored: runs found finished. stopped: ``complete``; ``time`` where the limit
    ended it; ``decided`` where pruning left one candidate alone; reason says so in a sentence. seconds: of
    this call.
    """

    folder: Path
    candidates: int
    rounds: int
    rounds_asked: int
    trained: int
    stored: int
    failures: tuple[Failure, ...]
    seconds: float
    stopped: Literal["complete", "time", "decided"]
    reason: str


def sweep(
    recipe: Recipe,
    folder: Path,
    *,
    workers: int | None = None,
    time_limit: float | None = None,
    blocks_file: Path | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Outcome:
    """Run ``recipe`` in ``folder`` (made if need be), or go on with what was begun there.

    workers: processes of one thread each; the number of cores by default. time_limit: seconds; a further
    round begins only if it fits, and past the limit no run begins. blocks_file: the user's own blocks.

    Raises SweepError or ResultsError; KeyboardInterrupt passes through, with every finished run stored.
    """
    workers = len(os.sched_getaffinity(0)) if workers is None else workers
    if workers < 1:
        raise SweepError(f"workers is {workers}; at least one is needed")
    if time_limit is not None and not time_limit > 0:
        raise SweepError(f"the time limit is {time_limit} seconds; it must be above 0")
    folder = Path(folder)
    try:
        results.check_place(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            code = code_hash(blocks_file)
            results.open_folder(folder, environment(recipe, code), recipe.text)
            build_kernels(recipe)
            try:
                return _Sweep(recipe, Setup(folder, code, blocks_file), workers, time_limit, on_event).go()
            finally:
                results.tidy(folder)
    except OSError as exc:
        what = exc.strerror or str(exc)
        raise SweepError(f"{folder}: cannot be written ({what}); what is finished is kept") from exc


class _Sweep:
    """One call of ``sweep``: the state between its events."""

    def __init__(
        self,
        recipe: Recipe,
        setup: Setup,
        workers: int,
        time_limit: float | None,
        on_event: Callable[[Event], None],
    ) -> None:
        self.began = time.monotonic()
        self.deadline = self.began + (time_limit or math.inf)
        self.recipe, self.setup, self.workers, self.say = recipe, setup, workers, on_event
        table = load_table(setup.blocks_file)
        self.clock = Clock(table)
        self.roster = Roster(setup.folder, recipe, table)
        self.store = Store(setup.folder)
        self.race = Race(recipe)
        self.rounds = Rounds(recipe, self.roster, self.race, self.store, self.clock, setup.code)
        self.lacking: dict[int, set[str]] = {}  # by trial: runs its first round still lacks
        self.queue: deque[Job] = deque()
        self.failures: list[Failure] = []
        self.died: set[str] = set()
        self.trained = self.round = 0
        self.eta: float | None = None
        self.eta_at, self.eta_cost = -math.inf, 0.0

    def go(self) -> Outcome:
        """Round after round, until all are done, one candidate is left or the next round does not fit."""
        every: dict[str, Job] = {}
        for seed in self.recipe.rounds:  # what a round asks for can hang on what is stored of those before it
            every |= self.rounds.gather(seed)
            self.let_go(seed)
        self.store.set_aside(self.store.keys - every.keys())
        results.write_pruned(self.setup.folder, tuple(self.race.left.values()))
        for key, seconds in self.store.seconds.items():
            self.clock.note(every[key].run, seconds)
        stored = len(self.store.keys)
        self.say(Started(self.roster.wanted, self.rounds.total, stored, self.recipe.seeds, self.workers))
        for one in self.race.left.values():
            self.say(one)
        reason = ""
        with Pool(self.workers, self.setup) as pool:
            for number, seed in enumerate(self.recipe.rounds, start=1):
                self.round = number
                if reason := self.play(pool, seed):
                    break
        failed = f"; {len(self.failures)} runs failed" if self.failures else ""
        decided = ""
        if not reason and self.race.over is not None and self.race.over < self.recipe.seeds:
            decided = f"{self.race.winner} alone is left after round {self.race.over} of {self.recipe.seeds}"
        return Outcome(
            folder=self.setup.folder,
            candidates=len(self.roster.candidates),
            rounds=sum(self.rounds.is_complete(seed) for seed in self.recipe.rounds),
            rounds_asked=self.recipe.seeds,
            trained=self.trained,
            stored=len(self.store.keys) - self.trained,
            failures=tuple(self.failures),
            seconds=time.monotonic() - self.began,
            stopped="time" if reason else "decided" if decided else "complete",
            reason=(reason or decided or "every round was run") + failed,
        )

    def play(self, pool: Pool, seed: int) -> str:
        """One round; why the sweep ends before or within it, empty if the round was played to its end."""
        began = time.monotonic()
        first = self.round == 1
        if self.recipe.halving:
            self.store.set_aside(self.rounds.dropped(seed))
        jobs = self.rounds.gather(seed) if self.recipe.halving else self.rounds.jobs(seed)
        if first:
            for number in self.roster.candidates:
                self.note_missing(number, self.rounds.of(number, seed))
        self.queue = deque(job for key, job in jobs.items() if key not in self.store.keys)
        growing = first and not self.roster.full
        if not self.queue and not growing:
            self.settle(seed)
            return ""
        needs = self.clock.predict_all((job.run for job in self.queue), self.workers)
        # The first unfinished round always begins, so that every call brings the sweep forward.
        if (self.trained or self.failures) and needs is not None and began + needs > self.deadline:
            return f"round {self.round} needs about {needs:.0f} s more, which the time limit does not leave"
        self.work(pool, seed, growing)
        if self.queue or (first and not self.roster.full):
            return f"the time limit ended round {self.round} before its end"
        if self.rounds.is_complete(seed):
            self.settle(seed)
            spent = time.monotonic() - began
            self.say(RoundDone(self.round, self.recipe.seeds, seed, spent, self.estimate(0.0)))
        return ""

    def work(self, pool: Pool, seed: int, growing: bool) -> None:
        """Keep the workers busy until the queue is empty; past the deadline only with what is under way."""
        while True:
            in_time = time.monotonic() < self.deadline
            while growing and in_time and len(self.queue) < pool.idle:
                number = self.roster.grow()
                if number is None:
                    growing = False
                    break
                self.queue.extend(self.join(number, seed))
            while pool.idle and in_time and (job := self.next_ready()):
                pool.submit(job)
            if not pool.busy:
                return
            for reply in pool.wait():
                self.take(reply)

    def next_ready(self) -> Job | None:
        """The first of the queue that need not wait for another, taken off it."""
        for job in self.queue:
            floor = self.rounds.floor(job)
            if floor is not None:
                self.queue.remove(job)
                return replace(job, floor=floor)
        return None

    def take(self, reply: Reply) -> None:
        """Book what became of a run."""
        run, key = reply.job.run, reply.job.run.key(self.setup.code)
        if reply.kind == "stop":
            raise SweepError(f"{reply.detail}; what is finished is kept")
        if reply.kind == "died" and key not in self.died:
            self.died.add(key)
            self.queue.appendleft(reply.job)
            return
        if reply.kind == "done":
            self.trained += 1
            self.store.keys.add(reply.job.key(self.setup.code, reply.detail))
            self.clock.note(run, reply.seconds)
            self.note_stored(reply.job.trial, key)
            done, eta = len(self.store.keys) + len(self.failures), self.estimate(1.0)
            total = self.rounds.total
            label = run.candidate.label
            self.say(
                RunDone(label, run.task, run.seed, reply.detail, reply.seconds, self.round, done, total, eta)
            )
            return
        reason = f"{reply.detail}, twice" if reply.kind == "died" else reply.detail
        self.rounds.failed.add(key)
        failure = Failure(key, run.candidate.label, run.task, run.seed, reason, timestamp())
        results.record_failure(self.setup.folder, failure)
        self.failures.append(failure)
        self.say(RunFailed(failure, len(self.store.keys) + len(self.failures), self.rounds.total))

    def join(self, number: int, seed: int) -> list[Job]:
        """The runs that the first round of a new candidate lacks."""
        jobs = self.rounds.of(number, seed)
        self.store.fetch(jobs)
        self.note_missing(number, jobs)
        return [job for key, job in jobs.items() if key not in self.store.keys]

    def let_go(self, seed: int) -> tuple[Pruned, ...]:
        """Who leaves the race on the ground of the round of ``seed``."""
        return self.race.go_on(self.rounds.is_complete, self.rounds.finals, seed)

    def settle(self, seed: int) -> None:
        """Let go whoever leaves, and set aside the runs that are not asked for any longer."""
        if left := self.let_go(seed):
            asked = {key for seed in self.recipe.rounds for key in self.rounds.jobs(seed)}
            self.store.set_aside(self.store.keys - asked)
            results.write_pruned(self.setup.folder, tuple(self.race.left.values()))
        for one in left:
            self.say(one)

    # -- what Optuna and the progress bar are told

    def note_missing(self, number: int, jobs: Mapping[str, Job]) -> None:
        self.lacking[number] = set(jobs) - self.store.keys
        self.tell(number)

    def note_stored(self, number: int, key: str) -> None:
        if key in self.lacking[number]:
            self.lacking[number].discard(key)
            self.tell(number)

    def tell(self, number: int) -> None:
        """Tell Optuna a candidate's score once its first round is complete."""
        if not self.lacking[number] and not self.roster.is_told(number):
            keys = self.rounds.of(number, self.recipe.first_seed)
            self.roster.tell(number, mean_score(self.store.final_rows(keys), self.recipe.score))

    def estimate(self, patience: float) -> float | None:
        """Seconds to the end of the sweep, worked out anew once the last answer is ``patience`` seconds old.

        Of a sweep of very many runs less often, so that guessing stays below 2 % of the time.
        """
        now = time.monotonic()
        if now - self.eta_at > max(patience, 50 * self.eta_cost):
            rest = self.clock.predict_all((job.run for job in self.queue), self.workers)
            last = self.rounds.jobs(self.recipe.rounds[-1]).values()
            later = self.clock.predict_all((job.run for job in last), self.workers)
            if rest is not None and later is not None:
                missing = self.roster.wanted / max(1, len(self.roster.candidates))
                rest = min(rest + later * missing * self.rounds.share_after(self.round), self.deadline - now)
            self.eta = None if rest is None else max(0.0, rest)
            self.eta_at, self.eta_cost = now, time.monotonic() - now
        return self.eta
