"""One Ctrl-C is one KeyboardInterrupt, in the main thread, though polars is at work in it and beside it."""

import subprocess
import sys
from pathlib import Path

import pytest

COUNT = """\
import os, signal, threading, time
import polars as pl
from sweeps.interrupt import keep_interrupts

def query():
    return pl.read_parquet("x.parquet").sort("a").to_dicts()

def read():
    try:
        while True:
            query()
    except BaseException as exc:
        print("the thread died of", type(exc).__name__, flush=True)

class Cleanup:
    def __enter__(self):
        pass
    def __exit__(self, *_):
        cleaned.append(1)

pl.DataFrame({"a": range(300), "b": ["x"] * 300}).write_parquet("x.parquet")
keep_interrupts()
threading.Thread(target=read, daemon=True).start()
cleaned, chained = [], 0
for n in range(40):
    try:
        with Cleanup():
            threading.Timer(0.005 + 0.0007 * n, os.kill, (os.getpid(), signal.SIGINT)).start()
            while True:
                query()
    except KeyboardInterrupt as exc:
        chained += exc.__context__ is not None
print(len(cleaned), chained)
"""


@pytest.mark.slow
def test_one_interrupt_a_signal(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNT], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("40 0\n", "", 0)
