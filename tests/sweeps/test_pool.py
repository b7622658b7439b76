"""The pool: processes forked from one that has loaded torch, whose results are those of any other process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from sweeps import results, space
from sweeps.pool import Job, Pool, Reply, Setup, _begin, use_one_thread
from sweeps.recipe import loads
from sweeps.run import code_hash, execute, runs_of
from tests.sweeps.machines import TEXT


def jobs(*overrides: str) -> list[Job]:
    recipe = loads(TEXT, "tiny", ("train.steps=6", "train.eval_every=3", "seeds=1", *overrides))
    return [
        Job(run, number)
        for number, one in enumerate(space.candidates(recipe))
        for run in runs_of(recipe, one, space.task_texts(recipe), 0)
    ]


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    folder = tmp_path / "runs"
    folder.mkdir()
    results.open_folder(folder, {}, TEXT)
    return Setup(folder, code_hash())


def all_of(pool: Pool, given: list[Job]) -> list[Reply]:
    waiting, replies = list(given), list[Reply]()
    while waiting or pool.busy:
        while waiting and pool.idle:
            pool.submit(waiting.pop())
        replies += pool.wait()
    return replies


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def worker_of(pool: Pool) -> int:
    (one,) = pool.under_way
    return int(one.who.removeprefix("process "))


def test_a_forked_worker_computes_what_a_process_of_its_own_does(setup: Setup) -> None:
    given = jobs()[:4]
    with Pool(2, setup) as pool:
        replies = all_of(pool, given)
    assert {reply.kind for reply in replies} == {"done"} and len(replies) == 4
    use_one_thread()
    alone = [results.to_frame(execute(job.run, job.trial, setup.code)) for job in given]
    stored = results.read(setup.folder).frame
    assert stored.drop("seconds").equals(results.in_order(pl.concat(alone)).drop("seconds"))


def test_workers_are_forked_from_one_process_that_has_torch(setup: Setup) -> None:
    with Pool(2, setup) as pool:
        for job in jobs("train.steps=3000")[:2]:
            pool.submit(job)
        pids = [int(one.who.removeprefix("process ")) for one in pool.under_way]
        (server,) = {parent_of(pid) for pid in pids}
        assert server != os.getpid() and parent_of(server) == os.getpid()
        assert "libtorch" in Path(f"/proc/{server}/maps").read_text()


def test_a_process_begins_though_its_server_was_killed_a_moment_ago() -> None:
    context = multiprocessing.get_context("forkserver")
    for _ in range(3):
        process = context.Process(target=time.sleep, args=(60,), daemon=True)
        _begin(process)
        assert process.pid is not None
        os.kill(parent_of(process.pid), signal.SIGKILL)
        another = context.Process(target=time.sleep, args=(0,))
        _begin(another)
        another.join(60)
        process.kill()
        assert another.exitcode == 0


@pytest.mark.parametrize("victim", ["worker", "server and worker"])
def test_whoever_is_killed_is_replaced_and_told(setup: Setup, victim: str) -> None:
    long, short = jobs("train.steps=3000")[0], jobs()[0]
    with Pool(1, setup) as pool:
        pool.submit(long)
        pid = worker_of(pool)
        while "libtorch" not in Path(f"/proc/{pid}/maps").read_text():
            time.sleep(0.05)
        if victim == "server and worker":
            os.kill(parent_of(pid), signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        (reply,) = pool.wait(60)
        assert (reply.kind, reply.job) == ("died", long) and "process ended" in reply.detail
        (again,) = all_of(pool, [short])
        assert (again.kind, again.job) == ("done", short)
    assert set(results.stored(setup.folder)) == {short.key(setup.code, "budget")}


def test_no_worker_outlives_its_pool(setup: Setup) -> None:
    with Pool(1, setup) as pool:
        pool.submit(jobs("train.steps=3000")[0])
        pid = worker_of(pool)
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.slow
def test_ctrl_c_is_not_for_workers(setup: Setup) -> None:
    # In a process of its own: only whoever starts Python's resource tracker has SIGINT unblocked by it.
    program = f"""
import os, signal
from pathlib import Path
from sweeps.pool import Pool, Setup
from tests.sweeps.test_pool import jobs, worker_of
if __name__ == "__main__":
    with Pool(1, Setup(Path({str(setup.folder)!r}), {setup.code!r})) as pool:
        pool.submit(jobs()[0])
        sent = 0
        while not (replies := pool.wait(0.01)):
            os.kill(worker_of(pool), signal.SIGINT)
            sent += 1
        print([reply.kind for reply in replies], sent > 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.stderr) == ("['done'] True\n", "")


@pytest.mark.slow
def test_a_torch_of_the_users_own_folder_is_not_taken(setup: Setup, tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from sweeps.pool import Pool, Setup
from tests.sweeps.test_pool import all_of, jobs
if __name__ == "__main__":
    with Pool(1, Setup(Path({str(setup.folder)!r}), {setup.code!r})) as pool:
        print([reply.kind for reply in all_of(pool, jobs()[:1])])
"""
    (tmp_path / "torch.py").write_text("raise SystemExit('not this one')\n")
    # Like the command itself, a script elsewhere: Python looks beside it, and not where the user stands.
    script = tmp_path / "bin" / "script.py"
    script.parent.mkdir()
    script.write_text(program)
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.strip() == "['done']", done.stderr
