"""Do the present sources train as those of an earlier commit did? Train with both, and compare all bits.

    python -m tests.same COMMIT            # schedules of the panel on its tasks, a few steps each
    python -m tests.same COMMIT --adopt    # and, if all are equal, note it

A change of ``blocks`` or ``synthetics`` gives every run another key, since nobody can tell from a text what
it does to a result. Where it does nothing, this shows it, and ``--adopt`` notes in ``sweeps/known/same.json``
that the present sources stand for the earlier ones, so that finished runs still count. Both are trained here,
because bits hang on the processor, too: stored ones of another machine would not do.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import polars as pl

from sweeps.run import source_hash
from sweeps.same import FILE, earlier

ROOT = Path(__file__).parents[1]

TRAIN = """\
import random
import sys
from dataclasses import replace
import polars as pl
from sweeps import results, space
from sweeps.pool import use_one_thread
from sweeps.recipe import load
from sweeps.run import code_hash, execute, runs_of

use_one_thread()
out, number, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
every = [
    run
    for tasks in ((), ("tasks=lite",))
    for kernel in ("c", "torch")
    for recipe in [load("reference", (*tasks, "train.lr=1e-2", f"train.kernel={kernel}"))]
    for candidate in space.candidates(recipe)
    for run in runs_of(recipe, candidate, space.task_texts(recipe), 7)
]
frames = []
for run in random.Random(seed).sample(every, min(number, len(every))):
    short = replace(run.training, steps=6, eval_every=3, eval_examples=16)
    frames.append(results.to_frame(execute(replace(run, training=short), 0, "")))
pl.concat(frames).drop("seconds", "run").write_parquet(out)
print(code_hash())
"""
"""Of either sources: trains, writes the rows, prints under which hash runs are kept."""


def trained(root: Path, out: Path, number: int, seed: int) -> tuple[pl.DataFrame, str]:
    """The rows of the sources under ``root``, and their code hash."""
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(out), str(number), str(seed)],
        env={**os.environ, "PYTHONPATH": str(root)},
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return pl.read_parquet(out), done.stdout.strip()


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("commit", help="whose sources are the earlier ones")
    options.add_argument("--runs", type=int, default=200, help="how many, drawn from both kernels")
    options.add_argument("--seed", type=int, default=random.randrange(2**32))
    options.add_argument("--adopt", action="store_true", help="note that the present ones stand for them")
    given = options.parse_args()
    print("seed", given.seed, flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        then = Path(scratch) / "then"
        archive = subprocess.run(
            ["git", "archive", given.commit], cwd=ROOT, stdout=subprocess.PIPE, check=True
        ).stdout
        then.mkdir()
        subprocess.run(["tar", "-x", "-C", str(then)], input=archive, check=True)
        before, code = trained(then, Path(scratch) / "then.parquet", given.runs, given.seed)
        after, _ = trained(ROOT, Path(scratch) / "now.parquet", given.runs, given.seed)
    # How rows are kept may change, and columns may come: what both have has to be the same.
    names = [name for name in before.columns if name in after.columns and name != "schema_version"]
    wrong = [name for name in names if not before[name].equals(after[name], null_equal=True)]
    finals = before.filter("final").height
    if wrong:
        raise SystemExit(f"{finals} runs, which differ in {', '.join(wrong)}")
    print(f"{finals} runs, the same in all {len(names)} columns; {source_hash()} trains as {code}")
    if given.adopt:
        FILE.write_text(json.dumps({**earlier(), source_hash(): code}, indent=2) + "\n")


if __name__ == "__main__":
    main()
