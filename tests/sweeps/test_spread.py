"""A sweep with workers elsewhere: the runs, and the bits, of one that trained everything itself."""

import platform
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
import torch

from sweeps import results, status
from sweeps.begin import SweepError
from sweeps.crowd import Crowd, team
from sweeps.events import News
from sweeps.places import Place, choose, collect
from sweeps.pool import Job, Pool, Setup
from sweeps.queue import LEASE, VERSION, Beat, Pace, Queue
from sweeps.recipe import loads
from sweeps.run import code_hash, runs_of
from sweeps.space import candidates, task_texts
from sweeps.storages import StorageError, open_storage
from sweeps.study import sweep
from sweeps.wire import plain
from sweeps.worker import work
from tests import faults, postgres
from tests.sweeps.machines import RUNS, SWEEP, TEXT, WORKER, Machine, finished, rows, until

QUICK = Pace(beat=0.05, grace=0.4)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "tiny"
    assert sweep(loads(TEXT), folder, workers=2).trained == rows(folder).filter("final").height == RUNS
    return folder


@pytest.mark.slow
def test_four_workers_on_two_machines_by_postgresql(tmp_path: Path, undisturbed: Path) -> None:
    """One worker and the sweep itself are killed, then the server is away for a while.

    Half of the workers do not see the run folder.
    """
    recipe, folder = tmp_path / "tiny.yaml", tmp_path / "runs" / "tiny"
    recipe.write_text(TEXT)
    with postgres.running() as server:
        here, there = (postgres.url(server.port, host) for host in postgres.HOSTS)
        chief = Machine(tmp_path / "sweep.txt", SWEEP, (str(recipe), str(folder), "0", here))
        until(lambda: "Started" in chief.said, [chief])
        workers = [
            Machine(tmp_path / f"worker{i}.txt", WORKER, (where, "tiny", place, "1"))
            for i, (where, place) in enumerate(
                [(here, ""), (here, ""), (there, "storage"), (there, "storage")]
            )
        ]
        machines = [chief, *workers]
        try:
            until(lambda: finished(folder) >= 3, machines)
            workers[2].kill()
            until(lambda: finished(folder) >= 6, machines)
            seen = status.read(folder)
            assert (seen.state, seen.total) == ("working", RUNS) and 6 <= seen.done < RUNS
            assert seen.at_once > 0 and all(one.who.startswith(platform.node()) for one in seen.running)
            chief.kill()
            assert status.read(folder).state == "stopped"
            chief.start()
            until(lambda: finished(folder) >= 9, machines)
            with server.away():
                time.sleep(2.0)
            assert finished(folder) < RUNS, "it was away while there was something to do"
            for one in (chief, workers[0], workers[1], workers[3]):
                assert one.end() == 0, one.said
        finally:
            for one in machines:
                one.kill()
        assert rows(folder).equals(rows(undisturbed))
        seen = status.read(folder)
        assert (seen.state, seen.done, seen.running) == ("complete", RUNS, ())
        with open_storage(there) as storage:
            queue = Queue(storage, "tiny")
            assert queue.status(QUICK).document() == seen.document(), (
                "told alike where the folder is not seen"
            )
            assert queue.tickets() == []
            assert work(there, "tiny") == 0, "whoever comes after the end leaves at once"


@pytest.mark.slow
def test_four_workers_by_a_proxy(tmp_path: Path, undisturbed: Path) -> None:
    """Everybody reaches PostgreSQL by Optuna's proxy alone; a worker is killed, the proxy started anew."""
    from optuna.storages._grpc.server import make_server

    recipe, folder = tmp_path / "tiny.yaml", tmp_path / "runs" / "tiny"
    recipe.write_text(TEXT.replace("seeds: 3", "seeds: 2"))
    port = postgres.free_port()
    with postgres.server() as database, open_storage(postgres.url(database)) as behind:
        proxy = make_server(behind, "127.0.0.1", port)
        proxy.start()
        words = (f"grpc://127.0.0.1:{port}", "tiny")
        chief = Machine(tmp_path / "sweep.txt", SWEEP, (str(recipe), str(folder), "0", words[0]))
        machines = [chief]
        try:
            until(lambda: "Started" in chief.said, machines)
            for i, place in enumerate(("", "", "storage", "storage")):
                machines.append(Machine(tmp_path / f"worker{i}.txt", WORKER, (*words, place, "1")))
            until(lambda: finished(folder) >= 3, machines)
            machines.pop().kill()
            until(lambda: finished(folder) >= 5, machines)
            proxy.stop(None).wait()
            assert finished(folder) < 16, "it was away while there was something to do"
            proxy = make_server(behind, "127.0.0.1", port)
            proxy.start()
            for one in machines:
                assert one.end() == 0, one.said
        finally:
            for one in machines:
                one.kill()
            proxy.stop(None).wait()
    assert rows(folder).equals(rows(undisturbed).filter(pl.col("seed") < 2))


def test_a_storage_that_stays_away_ends_everybody_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.queue.PATIENCE", 0.5)
    with postgres.running() as server, open_storage(postgres.url(server.port)) as storage:
        queue = Queue(storage, "tiny", make=True)
        with Beat(queue, "x", {}, every=0.05) as beat:
            with server.away():
                with pytest.raises(
                    StorageError, match=r"does not answer .*; what is finished is kept"
                ) as told:
                    queue.publish({"job": 1})
                end = time.monotonic() + 60
                while beat.lost is None and time.monotonic() < end:
                    time.sleep(0.02)
            with pytest.raises(StorageError, match="does not answer"):
                beat.check()
        assert "\n" not in str(told.value)
        assert queue.publish({"job": 1}) is not None, "it is back, and so is the queue"


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "kind"), [("journal", "enumerated"), ("folder", "sampled")])
def test_killed_at_random_nothing_is_lost_doubled_or_different(
    backend: str, kind: str, tmp_path: Path, undisturbed: Path
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    expected = None if kind == "sampled" else undisturbed
    found = faults.play(backend, 4, tmp_path, random.Random(seed), seeds=2, kind=kind, expected=expected)
    assert found["kills"] == 4


# -- the sweep's side of a queue, with workers that this test plays itself


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    with open_storage(str(tmp_path / "queue.log"), make=True) as storage:
        yield Queue(storage, "tiny", make=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "runs" / "tiny" / "trials").mkdir(parents=True)
    return tmp_path / "runs" / "tiny"


def jobs() -> list[Job]:
    recipe = loads(TEXT)
    return [
        Job(run, trial)
        for trial, candidate in enumerate(candidates(recipe))
        for run in runs_of(recipe, candidate, task_texts(recipe), seed=0)
    ]


def answers(crowd: Crowd, true: Callable[[list], bool], seconds: float = 60.0) -> list:
    """Replies of one look after another until there are as many as wanted."""
    found, end = [], time.monotonic() + seconds
    while not true(found):
        assert time.monotonic() < end
        found += crowd.poll()
        time.sleep(0.02)
    return found


def test_a_worker_that_falls_silent_is_given_up_once(queue: Queue, folder: Path) -> None:
    news: list[News] = []
    crowd = Crowd(queue, folder, "code", news.append, QUICK)
    first, second = jobs()[:2]
    assert crowd.idle == 0, "nothing is published while nobody is there"
    with Beat(queue, "worker:a", {"slots": 1}, every=0.05):
        crowd.poll()
        assert crowd.idle == 3 and crowd.slots == 1
        crowd.submit(first)
        crowd.submit(second)
        ticket = queue.claim("a")
        assert ticket is not None
        time.sleep(2 * QUICK.grace)
        assert crowd.poll() == [], "it is slow, but it lives"
        assert [one.job for one in crowd.under_way] == [first]
    replies = answers(crowd, bool)
    assert [(reply.kind, reply.job) for reply in replies] == [("died", first)]
    assert not queue.write(ticket.number, "outcome", {"kind": "done"}), "back too late"
    assert crowd.busy == 1 and crowd.slots == 0
    assert crowd.recall() == second and crowd.recall() is None and queue.tickets() == []
    assert [one.text.partition(" has ")[2] for one in news] == ["joined, 1 at once", "left"]


def test_a_worker_that_vanishes_before_it_has_signed_is_given_up(queue: Queue, folder: Path) -> None:
    crowd = Crowd(queue, folder, "code", print, QUICK)
    crowd.submit(jobs()[0])
    ticket = queue.tickets()[0]
    assert queue.take(ticket)
    assert answers(crowd, bool)[0].kind == "died"


def stored(undisturbed: Path) -> tuple[Job, str, bytes]:
    """A finished run: the job, the key and the parquet."""
    for job in jobs():
        key = job.run.key(code_hash())
        path = undisturbed / "trials" / f"{key}.parquet"
        if path.exists():
            return job, key, path.read_bytes()
    raise AssertionError


@pytest.mark.slow
@pytest.mark.parametrize("by", ["storage", "folder", "url"])
def test_results_travel(by: str, queue: Queue, folder: Path, undisturbed: Path, tmp_path: Path) -> None:
    job, key, content = stored(undisturbed)
    where = {"storage": "", "folder": str(folder), "url": f"file://{tmp_path}"}[by]
    crowd = Crowd(queue, folder, code_hash(), print, QUICK)
    crowd.submit(job)
    ticket = queue.claim("a")
    assert ticket is not None
    found = Place(by, where).put(queue, ticket.number, key, content)
    outcome = {"kind": "done", "detail": "budget", "seconds": 1.0, "found": found}
    assert queue.write(ticket.number, "outcome", outcome)
    (reply,) = answers(crowd, bool)
    assert (reply.kind, reply.job, reply.detail, reply.seconds) == ("done", job, "budget", 1.0)
    assert results.stored(folder)[key].read_bytes() == content
    assert queue.tickets() == [] and crowd.busy == 0


@pytest.mark.parametrize("content", [b"", b"PAR1 and so on", None])
def test_what_comes_broken_is_not_kept(
    content: bytes | None, queue: Queue, folder: Path, undisturbed: Path
) -> None:
    job, key, whole = stored(undisturbed)
    crowd = Crowd(queue, folder, code_hash(), print, QUICK)
    other = jobs()[3] if content is None else job  # a whole file, but of another run
    crowd.submit(other)
    ticket = queue.claim("a")
    assert ticket is not None
    found = Place("storage", "").put(queue, ticket.number, key, whole if content is None else content)
    queue.write(
        ticket.number, "outcome", {"kind": "done", "detail": "budget", "seconds": 1.0, "found": found}
    )
    assert [reply.kind for reply in answers(crowd, bool)] == ["died"]
    assert results.stored(folder) == {} and not list(folder.rglob(".tmp-*"))


def test_a_new_sweep_takes_up_what_the_killed_one_left(queue: Queue, folder: Path, undisturbed: Path) -> None:
    """Delivered: collected. Under way: adopted, and answered for when asked. Waiting: taken back."""
    code = code_hash()
    done, key, content = stored(undisturbed)
    delivered, running, waiting, foreign = (
        queue.publish({"job": plain(job), "code": by})
        for job, by in zip([done, *jobs()[1:3], jobs()[3]], [code, code, code, "old"], strict=True)
    )
    for number in (delivered, running):
        assert queue.claim("a").number == number  # pyright: ignore[reportOptionalMemberAccess]
    found = Place("storage", "").put(queue, delivered, key, content)
    outcome = {"kind": "done", "detail": "budget", "seconds": 1.0, "found": found}
    queue.write(delivered, "outcome", outcome)
    crowd = Crowd(queue, folder, code, print, QUICK)
    assert set(results.stored(folder)) == {key}
    assert [ticket.number for ticket in queue.tickets()] == [running]
    assert waiting and foreign and crowd.busy == 0
    adopted = jobs()[1]
    assert crowd.has(adopted) and not crowd.has(jobs()[2])
    with Beat(queue, "worker:b", {"slots": 1}, every=0.05):
        crowd.poll()
        assert crowd.idle == 3, "what nobody has asked for yet keeps nobody from asking"
    crowd.submit(adopted)
    assert crowd.busy == 1 and len(queue.tickets()) == 1, "it is not published a second time"
    queue.write(running, "outcome", {"kind": "returned", "detail": "its worker was ended", "seconds": 0.0})
    assert [(reply.kind, reply.job) for reply in answers(crowd, bool)] == [("returned", adopted)]


def test_what_failed_while_no_sweep_was_there_is_counted(queue: Queue, folder: Path) -> None:
    job = jobs()[0]
    number = queue.publish({"job": plain(job), "code": "code"})
    assert queue.claim("a") is not None
    queue.write(number, "outcome", {"kind": "failed", "detail": "RuntimeError: no", "seconds": 1.0})
    crowd = Crowd(queue, folder, "code", print, QUICK)
    assert crowd.poll() == [], "nobody has asked for it yet"
    crowd.submit(job)
    assert [(one.kind, one.detail) for one in crowd.poll()] == [("failed", "RuntimeError: no")]
    assert queue.tickets() == []


def test_a_second_sweep_is_refused_and_told_how_to_help(queue: Queue, tmp_path: Path) -> None:
    def enter(name: str) -> None:
        (tmp_path / name).mkdir(exist_ok=True)
        setup = Setup(tmp_path / name, "code")
        with team(queue, Pool(1, setup), setup, {"version": VERSION}, print, QUICK):
            pass

    enter("mine")
    other = Beat(queue, LEASE, {"session": "s", "token": "other"}, every=0.05)
    with other, pytest.raises(SweepError, match="help it: lab worker STORAGE tiny"):
        enter("mine")
    queue.note(LEASE, {"session": "s", "token": "other", "beat": 7})
    enter("mine")  # it was killed: after the grace the queue is free
    token = (tmp_path / "mine" / "token").read_text().strip()
    queue.note(LEASE, {"session": "s", "token": token, "beat": 7})
    enter("mine")  # its own last sweep, whose lock on the folder is gone with it
    assert queue.notes()[LEASE] is None and queue.notes()["about"]["ended"]


def test_a_worker_that_would_train_something_else_is_refused(queue: Queue, tmp_path: Path) -> None:
    storage, blocks = str(tmp_path / "queue.log"), tmp_path / "blocks.py"
    blocks.write_text("")
    fine = {
        "version": VERSION,
        "ended": False,
        "code": "other",
        "torch": torch.__version__,
        "blocks": False,
        "kernel": "torch",
        "folder": str(tmp_path / "away"),
        "token": "t",
    }
    for change, words in (
        ({"version": 0}, "same version of the lab"),
        ({"torch": "1.0"}, "runs on torch 1.0"),
        ({"blocks": True}, "give the same file here: --blocks FILE"),
        ({}, "check out the sweep's commit here"),
    ):
        queue.note("about", {**fine, **change})
        with pytest.raises(StorageError, match=words):
            work(storage, "tiny")
    queue.note("about", {**fine, "code": code_hash()})
    with pytest.raises(StorageError, match="not the run folder of the sweep"):
        work(storage, "tiny", results_to=str(tmp_path))
    with pytest.raises(StorageError, match="cannot be used"):
        work(storage, "tiny", results_to="nosuch://bucket")
    about = queue.notes()["about"]
    assert choose(None, about) == choose("storage", about) == Place("storage", "")
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "token").write_text("t\n")
    assert choose(None, about) == Place("folder", str(tmp_path / "away"))
    assert [name for name in queue.notes() if name.startswith("worker:")] == []


def test_a_result_that_is_not_there_is_waited_for(queue: Queue, folder: Path, undisturbed: Path) -> None:
    job, key, content = stored(undisturbed)
    crowd = Crowd(queue, folder, code_hash(), print, QUICK)
    crowd.submit(job)
    ticket = queue.claim("a")
    assert ticket is not None
    outcome = {"kind": "done", "detail": "budget", "seconds": 1.0, "found": {"by": "folder"}}
    queue.write(ticket.number, "outcome", outcome)
    assert crowd.poll() == []
    results.write_bytes(folder / "trials" / f"{key}.parquet", content)  # a shared disk shows it at last
    assert [reply.kind for reply in crowd.poll()] == ["done"]
    with pytest.raises(FileNotFoundError):
        collect(folder, "0" * 32, {"outcome": {"found": {"by": "folder"}}})


@pytest.mark.slow
def test_a_worker_that_is_ended_gives_back_what_it_has(tmp_path: Path) -> None:
    """SIGTERM to ``lab worker``, as a cluster ends a job: the run goes on elsewhere, at once."""
    recipe, folder = tmp_path / "tiny.yaml", tmp_path / "runs" / "tiny"
    recipe.write_text(TEXT.replace("steps: 20", "steps: 4000").replace("seeds: 3", "seeds: 1"))
    storage = str(tmp_path / "queue.log")
    chief = Machine(tmp_path / "sweep.txt", SWEEP, (str(recipe), str(folder), "0", storage))
    lab = "from lab.cli import main; main()"
    machines = [chief]
    try:
        until(lambda: "Started" in chief.said, machines)
        helper = Machine(tmp_path / "worker.txt", lab, ("worker", storage, "tiny", "--workers", "1"))
        machines.append(helper)
        until(lambda: "who='" in chief.said or status.read(folder).running != (), machines)
        helper.process.send_signal(signal.SIGTERM)
        assert helper.end() == 130, helper.said
        assert "is back in the queue" in helper.said and "Traceback" not in helper.said
        until(lambda: "again: " in chief.said, machines)
        assert "its worker was ended" in chief.said
    finally:
        for one in machines:
            one.kill()
