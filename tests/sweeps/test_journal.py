"""The journal cut at any byte, on a full disk, mutated: what was whole stays, and it opens or says why."""

import json
import random
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.journal import JournalError, open_journal
from sweeps.queue import Queue


def written(path: Path, number: int = 6) -> Queue:
    queue = Queue(open_journal(path), "x", make=True)
    for i in range(number):
        queue.write(queue.publish({"job": i}), "worker", f"w{i}")
    return queue


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def test_cut_at_any_byte_it_goes_on(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    written(tmp_path / "whole.log")
    content = (tmp_path / "whole.log").read_bytes()
    for i in range(20):
        path = tmp_path / f"{i}.log"
        cut = rng.randrange(len(content))
        path.write_bytes(content[:cut])
        whole = content[:cut].splitlines(keepends=True)
        half = whole.pop() if whole and not whole[-1].endswith(b"\n") else b""
        first, second = Queue(open_journal(path), "x", make=True), Queue(open_journal(path), "x", make=True)
        known = len(first.tickets())
        first.publish({"job": "a"})
        second.publish({"job": "b"})
        assert len(first.tickets()) == len(second.tickets()) == known + 2
        assert path.read_bytes().startswith(b"".join(whole)), "no whole line is lost"
        assert all(json.loads(line) for line in lines(path))
        torn = path.with_name(f"{i}.log.torn")
        assert (torn.read_bytes() if torn.exists() else b"") == (half + b"\n" if half else b"")


def test_a_writer_that_was_killed_in_a_line_stops_nobody(tmp_path: Path) -> None:
    queue = written(tmp_path / "x.log")
    with (tmp_path / "x.log").open("ab") as file:
        file.write(b'{"op_code":8,"worker_id":"dead","trial_id":0,"user_a')
    assert len(queue.tickets()) == 6, "read past the half line"
    queue.publish({"job": "more"})
    assert len(Queue(open_journal(tmp_path / "x.log"), "x").tickets()) == 7


@pytest.mark.parametrize("end", [b"\0" * 300 + b"\n", b"\0" * 300, b'{"op_code":8,"us\n', b"17\n\n"])
def test_a_last_line_that_nobody_can_read_is_cut_before_the_next(end: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    written(path)
    with path.open("ab") as file:
        file.write(end)
    try:
        queue = Queue(open_journal(path), "x")
    except JournalError:
        assert not end.startswith(b"{")  # what Optuna's reader does not pass over is said at once
        return
    queue.publish({"job": "more"})
    assert len(Queue(open_journal(path), "x").tickets()) == 7
    assert all(json.loads(line) for line in lines(path))


FULL = """
import resource, sys
from pathlib import Path
from sweeps.journal import open_journal
from sweeps.queue import Queue
path = Path(sys.argv[1])
queue = Queue(open_journal(path), "x", make=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 1000, resource.RLIM_INFINITY))
try:
    while True:
        queue.publish({"job": "x" * 300})
except OSError as exc:
    print(exc.strerror, len(queue.tickets()))
"""


def test_on_a_full_disk_nothing_half_is_left(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True, timeout=300
    )
    assert resource.RLIMIT_FSIZE is not None
    what, _, number = done.stdout.strip().rpartition(" ")
    assert what == "File too large"
    assert path.read_bytes().endswith(b"\n") and not path.with_name("x.log.torn").exists()
    again = Queue(open_journal(path), "x")
    assert len(again.tickets()) == int(number) > 0
    again.publish({"job": 1})


def test_mutated_journals_open_or_say_what_to_do(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    written(tmp_path / "whole.log")
    content = (tmp_path / "whole.log").read_bytes()
    refused = 0
    path = tmp_path / "x.log"
    for _ in range(300):
        mutant = bytearray(content)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(mutant))
            mutant[at : at + rng.randrange(3)] = bytes(rng.randrange(256) for _ in range(rng.randrange(3)))
        path.write_bytes(mutant)
        try:
            open_journal(path)
        except JournalError as exc:
            refused += 1
            assert "move it away" in str(exc) and str(exc).count("\n") == 0
    assert refused > 100
    path.write_bytes(b"".join([content, b"{broken}\n", content]))
    with pytest.raises(JournalError, match=rf"x.log:{len(content.splitlines()) + 1}: "):
        open_journal(path)
