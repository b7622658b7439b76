"""Kill sweeps and their workers at random, and see whether anything is lost, doubled or different.

    python -m tests.faults --backend journal --kills 50
    python -m tests.faults --backend postgresql --kills 50
    python -m tests.faults --backend folder --kills 50        # no storage: a sweep with processes of its own
    python -m tests.faults --recipe sampled                   # Optuna chooses; or pruned, or halved

Half of the kills come at any moment, half within milliseconds of a write to the journal or to the run folder.
Whoever is killed is started again, until the sweep is whole; then the next sweep, until enough were killed.

Whatever was once stored has to stay, and nobody may be told of a run twice. An enumerated sweep has to end
with the runs of an undisturbed one, bit for bit, and so has one with pruning or halving, which hang on its
scores alone. One that is sampled may have met others: a part of its runs is repeated, each alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import polars as pl

from sweeps import results, space
from sweeps.form import Recipe
from sweeps.journal import open_journal
from sweeps.pool import Job, Pool, Setup
from sweeps.recipe import loads
from sweeps.run import code_hash, runs_of
from sweeps.scores import mean_score
from sweeps.study import sweep
from tests import postgres
from tests.sweeps.machines import SWEEP, TEXT, WORKER, Machine, finished, rows

BACKENDS = ("journal", "postgresql", "folder")
PATIENCE = 3600.0
"""Seconds after which a sweep that is not whole is called stuck."""

REPEATED = 8
"""Runs of a sweep that are trained again, each alone."""

_SIX = TEXT.replace("conv=2", "conv=c").replace("{r: [1:1, 2:1]}", "{r: [1:1, 2:1, 3:1], c: [2, 3]}")
_ONE_RATE = _SIX.replace("[1e-3, 1e-2]", "1e-2")
RECIPES = {
    "enumerated": TEXT,
    "sampled": _ONE_RATE + "trials: 4\n",
    "pruned": _ONE_RATE + "score: auc\npruning: 0.2\n",
    "halved": TEXT.replace("[1e-3, 1e-2]", "[1e-4, 1e-3, 1e-2, 1e-1]") + "score: auc\nhalving: true\n",
}


def text_of(kind: str, name: str, seeds: int) -> str:
    return RECIPES[kind].replace("name: tiny", f"name: {name}").replace("seeds: 3", f"seeds: {seeds}")


class Field:
    """One sweep, its workers, and what is done to them. seen: the runs that were stored at any time."""

    def __init__(self, place: Path, text: str, storage: str, rng: random.Random) -> None:
        place.mkdir(parents=True)
        self.rng, self.storage = rng, storage
        name = loads(text).name
        self.folder, self.recipe = place / "runs" / name, place / "tiny.yaml"
        self.recipe.write_text(text)
        self.seen: set[str] = set()
        self.retried = False
        self.spared: set[int] = set()  # the ids of those that are let start
        own = "1" if storage and rng.random() < 0.5 else "0" if storage else "2"
        self.words = str(self.recipe), str(self.folder), own, storage
        self.sweep = Machine(place / "sweep.txt", SWEEP, self.words)
        places = ("storage", str(self.folder)) if storage else ()
        self.workers: list[Machine] = []
        self.waiting = [(place / f"worker{i}.txt", (storage, name, to, "1")) for i, to in enumerate(places)]
        self.journal = Path(storage) if storage and "://" not in storage else None

    def mend(self) -> None:
        """Start what is not there: the sweep until it is whole, workers while there is a queue."""
        ended = self.sweep.process.poll()
        if ended is not None and not self.whole:
            assert ended in (0, -signal.SIGKILL), self.sweep.said
            # At its end with runs set aside: those whose process was killed twice.
            self.retried = self.retried or ended == 0
            self.sweep.words = (*self.words, "retry") if ended == 0 else self.words
            self.start(self.sweep)
        if self.waiting and "Started" in self.sweep.said:
            self.workers = [Machine(log, WORKER, words) for log, words in self.waiting]
            self.waiting = []
        for one in self.workers:
            ended = one.process.poll()
            if ended is not None and not self.whole:
                assert ended in (0, -signal.SIGKILL), one.said
                self.start(one)

    def start(self, one: Machine) -> None:
        """Again; one time in five it may be struck before it has said anything."""
        one.start()
        self.spared.discard(id(one))
        if self.rng.random() < 0.8:
            self.spared.add(id(one))

    @property
    def whole(self) -> bool:
        return self.sweep.process.poll() == 0 and not results.failures(self.folder)

    def written(self) -> tuple[int, int]:
        with contextlib.suppress(OSError):
            names = os.listdir(self.folder / "trials")
            self.seen |= {name.removesuffix(".parquet") for name in names if not name.startswith(".")}
            return len(names), self.journal.stat().st_size if self.journal else 0
        return 0, 0

    def await_moment(self) -> str:
        """Wait for the moment of the next kill; which kind it is."""
        if self.rng.random() < 0.5:
            time.sleep(self.rng.random() * 1.5)
            return "any moment"
        before, end = self.written(), time.monotonic() + 20.0
        while self.written() == before:
            if time.monotonic() > end:
                return "any moment"
            time.sleep(0.0005)
        time.sleep(self.rng.random() ** 2 * 0.02)
        return "a write"

    def strike(self) -> str | None:
        """Kill, or stop for longer than the grace, one of those that live; who it was.

        Mostly one that is at work: all would die of starting, which takes longest on a busy machine.
        """
        every = [one for one in [self.sweep, *self.workers] if one.awake or id(one) not in self.spared]
        if not every:
            return None
        one = self.rng.choice(every)
        who = "sweep" if one is self.sweep else "worker"
        children = one.children()
        what = self.rng.random()
        if children and what < 0.3:
            os.kill(self.rng.choice(children), signal.SIGKILL)
            return f"a process of the {who}"
        if what < 0.4:
            one.kill(signal.SIGSTOP)
            time.sleep(self.rng.random() * 10.0)
            one.kill(signal.SIGCONT)
            return f"{who}, stopped for a while"
        if one is self.sweep and what < 0.6:
            os.kill(one.process.pid, signal.SIGKILL)  # it alone: its processes must leave by themselves
            one.process.wait()
            return "sweep alone"
        one.kill()
        return who

    def close(self) -> None:
        for one in [self.sweep, *self.workers]:
            one.kill()


@contextlib.contextmanager
def storages(backend: str, place: Path) -> Iterator[str]:
    if backend == "postgresql":
        with postgres.server() as port:
            yield postgres.url(port)
    else:
        yield str(place / "queue.log") if backend == "journal" else ""


def play(
    backend: str,
    kills: int,
    place: Path,
    rng: random.Random,
    seeds: int = 6,
    kind: str = "enumerated",
    expected: Path | None = None,
) -> dict[str, object]:
    """Sweeps under fire until ``kills`` have struck; AssertionError where anything is not as it should.

    expected: the folder of an undisturbed sweep; by default one is made where it tells.
    Of an enumerated recipe it may have more seeds.
    """
    struck: Counter[str] = Counter()
    again = sweeps = stored = 0
    if expected is None and kind != "sampled":
        expected = place / "undisturbed" / "tiny"
        sweep(loads(text_of(kind, "tiny", seeds)), expected, workers=2)
    with storages(backend, place) as storage:
        while sum(struck.values()) < kills:
            sweeps += 1
            field = Field(place / f"sweep{sweeps}", text_of(kind, f"tiny{sweeps}", seeds), storage, rng)
            try:
                end = time.monotonic() + PATIENCE
                while not field.whole:
                    field.mend()
                    moment = field.await_moment()
                    if sum(struck.values()) < kills and not field.whole and finished(field.folder):
                        who = field.strike()
                        struck.update([f"{who}, at {moment}"] if who else [])
                    assert time.monotonic() < end, f"stuck: {field.sweep.said}"
            finally:
                field.close()
            again += field.sweep.said.count("again: ")
            stored += finished(field.folder)
            check(field, expected)
    counts = {"sweeps": sweeps, "runs": stored, "kills": sum(struck.values()), "again": again}
    return {"backend": backend, "recipe": kind, **counts, "by": struck}


def check(field: Field, expected: Path | None) -> None:
    """Nothing lost, nothing twice, nothing beside it, and every bit as it should be.

    expected: the run folder of an undisturbed sweep; None where another may have met other candidates.
    """
    recipe, found = loads(field.recipe.read_text()), rows(field.folder)
    kept = set(results.stored(field.folder))
    announced = Counter(re.findall(r"RunDone\(run='(\w+)'", field.sweep.said))
    aside = set(results.stored(field.folder, "earlier"))
    lost = (field.seen | announced.keys()) - kept - aside
    assert not lost, f"stored once and not there any more: {lost}"
    assert max(announced.values(), default=1) == 1, "nobody is told of a run twice"
    assert set(found["run"]) == kept and found.filter("final")["run"].is_unique().all(), "none twice"
    assert not results.failures(field.folder) and not list(field.folder.rglob(".tmp-*"))
    if not (recipe.pruning or recipe.halving):  # there a run that is tried again may turn a decision
        assert not aside, f"trained in vain: {aside}"
    check_study(field.folder, recipe, found)
    if expected is None:
        runs = found.filter("final").group_by("trial").agg(pl.len(), pl.col("choices").n_unique().alias("of"))
        assert runs.rows() and set(runs.select("len", "of").iter_rows()) == {(2 * recipe.seeds, 1)}
        assert runs.height == found["choices"].n_unique() == recipe.trials
    else:
        wanted = rows(expected).filter(pl.col("seed") < recipe.seeds)
        mine = found
        if recipe.halving and field.retried:
            mine, wanted = without_run_whole(found, wanted)
        assert mine.equals(wanted), f"not bit for bit: {differences(mine, wanted)}"
        assert results.pruned(field.folder) == results.pruned(expected)
    if space.is_sampled(recipe) or recipe.pruning or recipe.halving:
        check_alone(field.folder, recipe, found, field.rng)


def without_run_whole(found: pl.DataFrame, wanted: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Both without the runs that are whole here and were given up there.

    While a rival is set aside nobody can say what a run must reach, so that it is not given up; it is out
    all the same.
    """
    same = ["label", "task", "setting", "lr", "weight_decay", "seed"]
    ends, others = found.filter("final"), wanted.filter("final")
    whole = ends.filter(pl.col("status") != "stopped").select(*same, pl.col("run").alias("whole"))
    given_up = others.filter(pl.col("status") == "stopped").select(*same, "run")
    pairs = whole.join(given_up, on=same)
    return (
        found.filter(~pl.col("run").is_in(pairs["whole"].to_list())),
        wanted.filter(~pl.col("run").is_in(pairs["run"].to_list())),
    )


def differences(found: pl.DataFrame, wanted: pl.DataFrame) -> str:
    """Which runs are beside those wanted, which are not there, and in what the others differ."""
    runs, others = set(found["run"]), set(wanted["run"])
    shared = [frame.filter(pl.col("run").is_in(list(runs & others))) for frame in (found, wanted)]
    columns = [name for name in wanted.columns if not shared[0][name].equals(shared[1][name])]
    what = ["label", "task", "seed", "lr", "status"]
    beside, missing = (
        frame.filter(pl.col("final") & pl.col("run").is_in(list(names))).select(what).rows()
        for frame, names in ((found, runs - others), (wanted, others - runs))
    )
    return f"{beside} beside those wanted, {missing} not there, the others differ in {columns}"


def check_study(folder: Path, recipe: Recipe, found: pl.DataFrame) -> None:
    """Optuna was told every candidate's first score, once."""
    storage = open_journal(folder / "study.log")
    study = optuna.load_study(study_name=None, storage=storage)
    told = {trial.number: trial.value for trial in study.trials if trial.state.name == "COMPLETE"}
    first = found.filter(pl.col("final") & (pl.col("seed") == recipe.first_seed))
    scores = {
        number: mean_score(first.filter(pl.col("trial") == number), recipe.score)
        for number in found["trial"].unique()
    }
    assert told == scores


def check_alone(folder: Path, recipe: Recipe, found: pl.DataFrame, rng: random.Random) -> None:
    """Some of the runs again, each as if there were no sweep: the same rows."""
    whole = recipe.model_copy(update={"trials": "all"})
    tasks, code = space.task_texts(recipe), code_hash()
    runs = {
        run.key(code): run
        for candidate in space.candidates(whole)
        for seed in recipe.rounds
        for run in runs_of(recipe, candidate, tasks, seed)
    }
    finals = found.filter(pl.col("final") & (pl.col("status") != "stopped"))  # those hang on their rivals
    chosen = rng.sample(finals.select("run", "trial", "trainings").rows(), min(REPEATED, finals.height))
    again = folder.with_name("again")
    (again / "trials").mkdir(parents=True)
    with Pool(1, Setup(again, code)) as pool:
        for key, trial, trainings in chosen:
            pool.submit(Job(replace(runs[key], trainings=trainings), trial))
            (reply,) = pool.wait()
            assert reply.kind == "done", reply
            repeated = results.read_run(again / "trials" / f"{key}.parquet").drop("seconds")
            assert repeated.equals(found.filter(pl.col("run") == key)), f"{key} alone is the same"


def main() -> None:
    reader = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    reader.add_argument("--backend", choices=BACKENDS, default="journal")
    reader.add_argument("--recipe", choices=RECIPES, default="enumerated")
    reader.add_argument("--kills", type=int, default=50)
    reader.add_argument("--seed", type=int, default=random.randrange(2**32))
    given = reader.parse_args()
    print("seed", given.seed, flush=True)
    with tempfile.TemporaryDirectory(prefix="lab-faults-") as place:
        found = play(given.backend, given.kills, Path(place), random.Random(given.seed), kind=given.recipe)
    print(json.dumps(found, indent=1))
    like = "of the same runs alone" if given.recipe == "sampled" else "of an undisturbed sweep"
    print(f"0 lost, 0 twice, scores bit for bit those {like}")


if __name__ == "__main__":
    main()
