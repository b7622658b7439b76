"""The sweep: recipe -> rounds of runs -> stored results. Killed at any moment, the same call goes on.

A round is one seed of every candidate on every task setting with every optimiser setting. Rounds follow each
other, so the answer is a fair one at the end of each, and more seeds only sharpen it.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import torch

from sweeps import results, status
from sweeps.begin import SweepError, build_kernels, environment, locked, opened, timestamp
from sweeps.clock import Clock
from sweeps.events import Event, News, Outcome, Pruned, RoundDone, RunDone, RunFailed, Started
from sweeps.files import not_written
from sweeps.form import Recipe
from sweeps.interrupt import keep_interrupts
from sweeps.pool import Job, Pool, Reply, Setup, Workers, load_table
from sweeps.pruning import Race
from sweeps.results import Failure
from sweeps.roster import Roster
from sweeps.rounds import Rounds
from sweeps.run import chosen_kernel, code_hash
from sweeps.scores import mean_score
from sweeps.status import Running, Status
from sweeps.store import Store
from sweeps.trackers import Factory, tracked
from sweeps.tries import Tries, forget

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from sweeps.queue import Pace

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

LOOK = 2.0
"""Seconds after which a sweep looks up from waiting for results."""


def sweep(
    recipe: Recipe,
    folder: Path,
    *,
    workers: int | None = None,
    time_limit: float | None = None,
    blocks_file: Path | None = None,
    storage: str | None = None,
    pace: Pace | None = None,
    trackers: Mapping[str, Factory] = MappingProxyType({}),
    retry: bool = False,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Outcome:
    """Run ``recipe`` in ``folder`` (made if need be), or go on with what was begun there.

    workers: processes of one thread each; the number of cores by default. time_limit: seconds; a further
    round begins only if it fits, and past the limit no run begins. blocks_file: the user's own blocks.
    storage: where runs are published for ``lab worker``, see ``storages.open_storage``; there may then be no
    process here at all (workers=0). pace: of the beats by which those who share a storage know each other.
    trackers: told of every run trained, see ``trackers.known``. retry: also what earlier calls set aside.

    Raises SweepError, ResultsError, StorageError or JournalError; KeyboardInterrupt passes through, with
    every finished run stored.
    """
    workers = len(os.sched_getaffinity(0)) if workers is None else workers
    if workers < (storage is None):
        raise SweepError(f"--workers is {workers}; at least 1 is needed, unless others join by --storage")
    if time_limit is not None and not time_limit > 0:
        raise SweepError(f"the time limit is {time_limit} seconds; it must be above 0")
    folder = Path(folder)
    keep_interrupts()
    try:
        results.check_place(folder)
        with opened(storage) as shared:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder):
                code = code_hash(blocks_file)
                results.open_folder(folder, environment(recipe, code), recipe.text)
                if retry:
                    forget(folder)
                build_kernels(recipe)
                setup = Setup(folder, code, blocks_file)
                try:
                    with (
                        tracked(folder, recipe.name, trackers, on_event) as say,
                        _crew(recipe, setup, workers, shared, pace, say) as crew,
                    ):
                        return _Sweep(recipe, setup, crew, time_limit, say).go()
                finally:
                    results.tidy(folder)
    except OSError as exc:
        raise SweepError(f"{not_written(exc, folder)}; what is finished is kept") from exc


@contextmanager
def _crew(
    recipe: Recipe,
    setup: Setup,
    workers: int,
    storage: BaseStorage | None,
    pace: Pace | None,
    say: Callable[[Event], None],
) -> Iterator[Workers]:
    """Who trains: processes here and, by way of a storage, workers elsewhere."""
    pool = Pool(workers, setup)
    if storage is None:
        with pool:
            yield pool
        return
    from sweeps.crowd import team  # with it come SQLAlchemy and others, which a sweep alone can do without
    from sweeps.queue import VERSION, Pace, Queue

    about = {
        "version": VERSION,
        "kernel": chosen_kernel(recipe.train.kernel),
        "torch": torch.__version__,
        "blocks": setup.blocks_file is not None,
    }
    queue = Queue(storage, recipe.name, make=True)
    with team(queue, pool, setup, about, say, pace or Pace()) as both:
        yield both


class _Sweep:
    """One call of ``sweep``: the state between its events."""

    def __init__(
        self,
        recipe: Recipe,
        setup: Setup,
        crew: Workers,
        time_limit: float | None,
        on_event: Callable[[Event], None],
    ) -> None:
        self.began = time.monotonic()
        self.deadline = self.began + (time_limit or math.inf)
        self.recipe, self.setup, self.crew, self.say = recipe, setup, crew, on_event
        table = load_table(setup.blocks_file)
        self.clock = Clock(table)
        self.roster = Roster(setup.folder, recipe, table)
        self.store = Store(setup.folder)
        self.race = Race(recipe)
        self.rounds = Rounds(recipe, self.roster, self.race, self.store, self.clock, setup.code)
        self.lacking: dict[int, set[str]] = {}  # by trial: runs its first round still lacks
        self.queue: deque[Job] = deque()
        self.failures: list[Failure] = []
        self.tries = Tries(setup.folder)
        self.requeued, self.reported = 0, -math.inf
        self.trained = self.failed = self.round = 0
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
        self.say(Started(self.roster.wanted, self.rounds.total, stored, self.recipe.seeds, self.crew.size))
        for one in self.race.left.values():
            self.say(one)
        self.leave_out(every)
        reason = ""
        for number, seed in enumerate(self.recipe.rounds, start=1):
            self.round = number
            if reason := self.play(seed):
                break
        failed = f"; {len(self.failures)} runs failed" if self.failures else ""
        decided = ""
        if not reason and self.race.over is not None and self.race.over < self.recipe.seeds:
            decided = f"{self.race.winner} alone is left after round {self.race.over} of {self.recipe.seeds}"
        stopped = "time" if reason else "decided" if decided else "complete"
        self.report(stopped, patience=0.0)
        if stopped != "time":  # what was left under way is asked for no more
            shutil.rmtree(self.setup.folder / "checkpoints", ignore_errors=True)
        return Outcome(
            folder=self.setup.folder,
            candidates=len(self.roster.candidates),
            rounds=sum(self.rounds.is_complete(seed) for seed in self.recipe.rounds),
            rounds_asked=self.recipe.seeds,
            trained=self.trained,
            stored=len(self.store.keys) - self.trained,
            failures=tuple(self.failures),
            seconds=time.monotonic() - self.began,
            stopped=stopped,
            reason=(reason or decided or "every round was run") + failed,
        )

    def play(self, seed: int) -> str:
        """One round; why the sweep ends before or within it, empty if the round was played to its end."""
        began = time.monotonic()
        first = self.round == 1
        if self.recipe.halving:
            self.store.set_aside(self.rounds.dropped(seed))
        jobs = self.rounds.gather(seed) if self.recipe.halving else self.rounds.jobs(seed)
        if first:
            for number in self.roster.candidates:
                self.note_missing(number, self.rounds.of(number, seed))
        self.queue = deque(self.rounds.lacking(jobs))
        growing = first and not self.roster.full
        if not self.queue and not growing:
            self.settle(seed)
            return ""
        needs = self.clock.predict_all((job.run for job in self.queue), self.size)
        # The first unfinished round always begins, so that every call brings the sweep forward.
        if (self.trained or self.failed) and needs is not None and began + needs > self.deadline:
            return f"round {self.round} needs about {needs:.0f} s more, which the time limit does not leave"
        self.work(seed, growing)
        if self.queue or (first and not self.roster.full):
            return f"the time limit ended round {self.round} before its end"
        if self.rounds.is_complete(seed):
            self.settle(seed)
            spent = time.monotonic() - began
            self.say(RoundDone(self.round, self.recipe.seeds, seed, spent, self.estimate(0.0)))
        return ""

    @property
    def size(self) -> int:
        """How many runs are trained at once; where nobody has joined yet, one is reckoned with."""
        return max(1, self.crew.size)

    def work(self, seed: int, growing: bool) -> None:
        """Keep the workers busy until the queue is empty; past the deadline only with what is under way."""
        while True:
            in_time = time.monotonic() < self.deadline
            while growing and in_time and len(self.queue) < self.crew.idle:
                number = self.roster.grow()
                if number is None:
                    growing = False
                    break
                self.queue.extend(self.join(number, seed))
            while self.crew.idle and in_time and (job := self.next_ready()):
                self.crew.submit(job)
            if not in_time:
                self.queue.extendleft(self.crew.recall())
            # With nobody there who could take a run, workers are waited for.
            if not self.crew.busy and (self.crew.idle or not in_time or not (self.queue or growing)):
                return
            self.report("working")
            for reply in self.crew.wait(LOOK):
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
        if reply.kind == "returned" or (reply.kind != "done" and self.tries.again(key, reply.detail)):
            self.requeued += 1
            self.queue.appendleft(reply.job)
            what = f"{run.candidate.label} on {run.task}, seed {run.seed}"
            self.say(News(f"again: {what}: {reply.detail}"))
            return
        if reply.kind == "done":
            self.trained += 1
            stored = reply.job.key(self.setup.code, reply.detail)
            self.store.keys.add(stored)
            self.clock.note(run, reply.seconds)
            self.note_stored(reply.job.trial, key)
            said = run.candidate.label, run.task, run.seed, reply.detail, reply.seconds, self.round
            done = len(self.store.keys) + len(self.failures)
            self.say(RunDone(stored, *said, done, self.rounds.total, self.estimate(1.0)))
            return
        reason = f"{reply.detail}, twice" if reply.kind == "died" else reply.detail
        self.rounds.failed.add(key)
        failure = Failure(key, run.candidate.label, run.task, run.seed, reason, timestamp())
        results.record_failure(self.setup.folder, failure)
        self.failures.append(failure)
        self.failed += 1
        self.say(RunFailed(failure, len(self.store.keys) + len(self.failures), self.rounds.total))

    def leave_out(self, jobs: Mapping[str, Job]) -> None:
        """What earlier calls have set aside of ``jobs`` is not begun again."""
        self.failures = [failure for key, failure in self.tries.before.items() if key in jobs]
        self.rounds.failed.update(failure.run for failure in self.failures)
        if number := len(self.failures):
            self.say(
                News(f"left out, since they failed before: {number} of the runs; --retry tries them again")
            )

    def join(self, number: int, seed: int) -> list[Job]:
        """The runs that the first round of a new candidate lacks."""
        jobs = self.rounds.of(number, seed)
        self.store.fetch(jobs)
        self.note_missing(number, jobs)
        return self.rounds.lacking(jobs)

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

    def report(self, state: Literal["working", "complete", "decided", "time"], patience: float = 1.0) -> None:
        """Say how far the sweep is, unless it was said less than ``patience`` seconds ago."""
        now = time.monotonic()
        if now - self.reported < patience:
            return
        self.reported = now
        running = (
            Running(one.job.run.candidate.label, one.job.run.task, one.job.run.seed, one.who, one.seconds)
            for one in self.crew.under_way
        )
        said = Status(
            name=self.recipe.name,
            state=state,
            round=self.round,
            rounds=self.recipe.seeds,
            done=len(self.store.keys),
            total=self.rounds.total,
            waiting=len(self.queue),
            at_once=self.crew.size,
            requeued=self.requeued,
            running=tuple(running),
            set_aside=tuple(self.failures),
            pruned=tuple(one.label for one in self.race.left.values()),
            seconds=now - self.began,
            eta=self.estimate(5.0) if state == "working" else None,
        )
        status.write(self.setup.folder, said)
        self.crew.tell(said.document())

    def estimate(self, patience: float) -> float | None:
        """Seconds to the end of the sweep, worked out anew once the last answer is ``patience`` seconds old.

        Of a sweep of very many runs less often, so that guessing stays below 2 % of the time.
        """
        now = time.monotonic()
        if now - self.eta_at > max(patience, 50 * self.eta_cost):
            rest = self.clock.predict_all((job.run for job in self.queue), self.size)
            last = self.rounds.jobs(self.recipe.rounds[-1]).values()
            later = self.clock.predict_all((job.run for job in last), self.size)
            if rest is not None and later is not None:
                missing = self.roster.wanted / max(1, len(self.roster.candidates))
                rest = min(rest + later * missing * self.rounds.share_after(self.round), self.deadline - now)
            self.eta = None if rest is None else max(0.0, rest)
            self.eta_at, self.eta_cost = now, time.monotonic() - now
        return self.eta
