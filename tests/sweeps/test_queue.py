"""The queue: nothing is taken twice, nothing ended comes back, a job travels whole; on every backend."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.candidate import Candidate
from sweeps.pool import Job
from sweeps.queue import Beat, Pace, Queue, Silence, Ticket, as_chunks, from_chunks
from sweeps.run import Run
from sweeps.storages import StorageError, as_shown, open_storage
from sweeps.wire import WireError, job_of, plain
from synthetics.fit import Training
from tests import postgres

NAMES = st.text("abcr_:= 1", min_size=1, max_size=8)
VALUES = st.one_of(
    st.integers(), st.floats(allow_nan=False, allow_infinity=False), NAMES, st.booleans(), st.none()
)
RATES = st.floats(1e-9, 1.0)
CANDIDATES = st.builds(
    Candidate,
    label=NAMES,
    choices=st.lists(st.tuples(NAMES, VALUES), max_size=3).map(tuple),
    schedule=NAMES,
    dim=st.integers(1, 999),
    heads=st.integers(1, 9),
    norm=st.sampled_from(["rms", "rms_zero"]),
    optimisers=st.lists(st.tuples(RATES, RATES), max_size=3).map(tuple),
    also=st.lists(NAMES, max_size=2).map(tuple),
)
TRAININGS = st.builds(
    Training,
    lr=RATES,
    weight_decay=RATES,
    clip=RATES,
    precision=st.sampled_from(["fp32", "bf16"]),
    kernel=st.sampled_from(["torch", "c"]),
    extrapolate=st.sampled_from([(), (2,), (2, 4)]),
)
RUNS = st.builds(
    Run,
    candidate=CANDIDATES,
    task=NAMES,
    training=TRAININGS,
    seed=st.integers(0, 99),
    trainings=st.integers(1, 9),
)
JOBS = st.builds(Job, run=RUNS, trial=st.integers(0, 999), floor=st.floats(0.0, 1.0))


@given(JOBS)
def test_a_job_travels_whole(job: Job) -> None:
    back = job_of(json.loads(json.dumps(plain(job))))
    assert back == job
    assert hash(back) == hash(job)
    assert back.key("code", "stopped") == job.key("code", "stopped")
    assert repr(back) == repr(job), "1 is not 1.0 nor True"


@given(JOBS, st.data())
def test_a_job_of_another_version_is_refused(job: Job, data: st.DataObject) -> None:
    values = json.loads(json.dumps(plain(job)))
    part = data.draw(
        st.sampled_from([values, values["run"], values["run"]["candidate"], values["run"]["training"]])
    )
    part[data.draw(st.sampled_from(["colour", ""]))] = 1
    with pytest.raises(WireError, match="same version of the lab"):
        job_of(values)


@given(st.binary(max_size=5000))
def test_bytes_travel_as_attributes(content: bytes) -> None:
    chunks = json.loads(json.dumps(as_chunks(content)))
    assert from_chunks(chunks, len(chunks)) == content
    if content:
        for broken in ({}, {**chunks, "rows.0": "?"}):
            with pytest.raises(StorageError, match="not whole"):
                from_chunks(broken, len(chunks))


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres.server() as port:
        yield postgres.url(port)


@pytest.fixture(params=["journal", "postgresql", "grpc"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A storage by its name on the command line."""
    if request.param == "journal":
        yield str(tmp_path / "queue.log")
        return
    database = request.getfixturevalue("database")
    if request.param == "postgresql":
        yield database
        return
    from optuna.storages._grpc.server import make_server

    port = postgres.free_port()
    with open_storage(database) as behind:
        server = make_server(behind, "127.0.0.1", port)
        server.start()
        yield f"grpc://127.0.0.1:{port}"
        server.stop(None).wait()


@pytest.fixture
def opened(storage: str, request: pytest.FixtureRequest) -> Iterator[Callable[[], Queue]]:
    """Another participant of one queue each time; every test has its own queue."""
    name = f"{request.node.name}-{random.randrange(2**32)}"
    with ExitStack() as stack:
        yield lambda: Queue(stack.enter_context(open_storage(storage, make=True)), name, make=True)


def test_no_two_workers_get_the_same(opened: Callable[[], Queue]) -> None:
    queue = opened()
    published = {queue.publish({"job": i}) for i in range(24)}
    taken: list[tuple[str, int]] = []

    def take(name: str) -> None:
        own = opened()
        while ticket := own.claim(name):
            taken.append((name, ticket.number))

    workers = [threading.Thread(target=take, args=(f"w{i}",)) for i in range(4)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    numbers = [number for _, number in taken]
    assert sorted(numbers) == sorted(published) and len(set(numbers)) == 24
    assert {(ticket.worker, ticket.number) for ticket in queue.tickets()} == set(taken)
    assert queue.claim("late") is None


def test_what_is_ended_stays_ended(opened: Callable[[], Queue]) -> None:
    sweep, worker = opened(), opened()
    number = sweep.publish({"job": 1})
    assert worker.claim("w") == Ticket(number, True, {"job": 1})
    assert worker.write(number, "outcome", {"kind": "done"})
    assert [ticket.outcome for ticket in sweep.tickets()] == [{"kind": "done"}]
    sweep.end(number, counted=True)
    assert not worker.write(number, "outcome", {"kind": "failed"}), "the worker learns that it was given up"
    sweep.end(number, counted=False)
    assert sweep.tickets() == worker.tickets() == []
    waiting = sweep.publish({"job": 2})
    assert sweep.take(Ticket(waiting, True, {})) and not worker.take(Ticket(waiting, True, {}))
    sweep.end(waiting, counted=False)
    assert worker.claim("w") is None and not worker.take(Ticket(waiting, True, {}))


def test_beats_are_seen_by_others_and_end_with_their_owner(opened: Callable[[], Queue]) -> None:
    queue, other = opened(), opened()
    with Beat(queue, "x", {"session": "a"}, every=0.05, guarded=True) as beat:
        first = other.notes()["x"]["beat"]
        end = time.monotonic() + 60
        while other.notes()["x"]["beat"] < first + 2 and time.monotonic() < end:
            time.sleep(0.02)
        assert other.notes()["x"]["beat"] >= first + 2
        other.note("x", {"session": "b", "beat": 0})
        while beat.lost is None and time.monotonic() < end:
            time.sleep(0.02)
            if other.notes()["x"]["session"] == "a":  # written between two looks: the other takes it again
                other.note("x", {"session": "b", "beat": 0})
        with pytest.raises(StorageError, match="taken the queue"):
            beat.check()
    assert other.notes()["x"]["session"] == "b", "what is another's is left alone"
    with Beat(queue, "y", {}, every=9.0):
        assert other.notes()["y"] == {"beat": 1}
    assert other.notes()["y"] is None


def test_silence_counts_only_while_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    silence: Silence = Pace(beat=1.0, grace=5.0).silence()
    assert silence.look(1) == 0.0
    for now in (1.0, 2.0, 3.0):
        assert silence.look(1) == now
    now = 1000.0
    assert silence.look(1) == 5.0, "the watcher stood still: two beats at most"
    assert (silence.look(2), silence.changes) == (0.0, 1)


def test_storages_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.storages.PATIENCE", 0.5)
    for text, words in {
        "sqlite:///x.db": "SQLite",
        "nosuch://x": "no storage that is known",
        "grpc://here": "grpc://host:port",
        "grpc://127.0.0.1:9": "no proxy answers",
        str(tmp_path): "is a directory",
        str(tmp_path / "no" / "x.log"): "not there",
        "postgresql+psycopg://lab:secret@127.0.0.1:9/x": "cannot be opened",
    }.items():
        with pytest.raises(StorageError, match=words) as caught, open_storage(text):
            pass
        assert "\n" not in str(caught.value) and "secret" not in str(caught.value)
    assert as_shown("postgresql+psycopg://lab:secret@db/x") == "postgresql+psycopg://lab:***@db/x"
    with (
        open_storage(str(tmp_path / "new.log"), make=True) as new,
        pytest.raises(StorageError, match="no sweep 'x'"),
    ):
        Queue(new, "x")
