"""Mutated recipes and run folders through the command line: each is taken, or refused in one sentence.

    python -m tests.fuzz --recipes 10000 --folders 1000 --seed 5     # everything
    python -m tests.fuzz --seed 5 --case folder/17                   # one case again, with all that it says

The commands run in this process, through ``lab.cli.run``, which turns bad input into a sentence and lets a
bug through with its traceback; one case in ``--every`` goes through ``lab`` in a process of its own as well.
A case breaks when a command raises or warns, ends with another code than 0 or 2, says no sentence, takes
longer than LIMIT seconds or more than MEMORY bytes, or when a finished run that was not touched is lost.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from lab.cli import run
from sweeps import packs, results
from sweeps.pool import use_one_thread
from tests.folder_mutants import damage, mutated_bytes, mutated_frame
from tests.recipe_mutants import recipe_mutant
from tests.watched import LIMIT, acting_as, encodes, inline, limited, peak, unfit

__all__ = ["Break", "Fuzz"]

MEMORY = 1_500_000_000
ADDRESSES = 12_000_000_000
NOBODY = 65_534
STDERR = 2

TINY = """\
name: tiny
pattern: r*gdn(conv=2) + fox
search: {r: [1:1, 2:1]}
shape: {dim: 16, heads: 2}
tasks: ["recall(vocab=8, length=16, train_examples=64)"]
train: {steps: 4, batch: 8, eval_every: 2, eval_examples: 16, lr: 1e-2, kernel: torch}
seeds: 2
"""


@dataclass(frozen=True)
class Break:
    """A case that broke. case: ``recipe/12``; story: what was mutated; what: what went wrong, a traceback."""

    case: str
    story: str
    what: str


@dataclass
class Fuzz:
    """Cases of one seed, run below ``place``. slowest: (seconds, case), one per case."""

    seed: int
    place: Path
    every: int = 500
    aloud: bool = False
    breaks: list[Break] = field(default_factory=list)
    slowest: list[tuple[float, str]] = field(default_factory=list)
    codes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        use_one_thread()
        faulthandler.enable(STDERR)

    # -- what a case is

    def recipe(self, number: int) -> None:
        """A recipe through validate, which checks and plans; some through the real plan, too."""
        rng = self._begin("recipe", number)
        mutant = recipe_mutant(rng)
        self.story = mutant.story
        file = self.here / "mutant.yaml"
        file.write_bytes(mutant.content)
        options = [part for one in mutant.overrides for part in ("--set", one)]
        code = self.command("validate", file, *options)
        if number % self.every == 0:
            self.alone("validate", file, *options)
            if code == 0:
                self.alone("plan", file, *options)
        self._end()

    def folder(self, number: int) -> None:
        """A run folder through report, pack, sweep and calibrate, in some order."""
        rng = self._begin("folder", number)
        runs = self.here / "runs"
        shutil.copytree(self.base, runs / "tiny")
        broken = runs / "tiny"
        if rng.random() < 0.15:
            broken = broken.rename(runs / "beside")  # a neighbour, of which a new sweep takes what it can
        self.story, touched = damage(rng, broken)
        pack = self.here / "pack.parquet"
        shutil.copyfile(self.reference, pack)
        if rng.random() < 0.3:
            self.story += f"; the pack: {_break_pack(rng, pack)}"
        lines: list[tuple[str | Path, ...]] = [
            ("report", broken),
            ("pack", broken, rng.choice((pack, self.here / "new.parquet"))),
            ("sweep", self.file, "--runs", runs, "--workers", "1"),
            ("calibrate", pack, "--halves", "0"),
            ("calibrate", broken, "--halves", "0"),
        ]
        if rng.random() < 0.5:
            rng.shuffle(lines)
        user = NOBODY if "bits" in self.story and os.geteuid() == 0 else None
        with acting_as(user, self.here):
            for line in lines:
                self.command(*line)
        if number % max(1, self.every // 10) == 0:
            self.alone(*rng.choice(lines))
        self._keep(broken, touched)
        self._end()

    def frame(self, number: int) -> None:
        """A pack of results through calibrate, with and without a protocol, and with a run folder's pack."""
        rng = self._begin("frame", number)
        pack = self.here / "pack.parquet"
        shutil.copyfile(self.reference, pack)
        self.story = _break_pack(rng, pack)
        self.command("calibrate", pack, "--halves", "0", "--score", rng.choice(("auc", "accuracy")))
        self.command("calibrate", self.reference, "--halves", "0", "--protocol", pack)
        if number % self.every == 0:
            self.alone("calibrate", pack, "--halves", "0")
        self._end()

    # -- what all cases start from

    def prepare(self) -> None:
        """One real sweep, and a slice of the shipped reference: five schedules, two cells, four seeds."""
        self.file = self.place / "tiny.yaml"
        self.file.write_text(TINY)
        self.case, self.story = "base", "nothing is broken"
        start = self.place / "start"
        if self.command("sweep", self.file, "--runs", start, "--workers", "1"):
            raise RuntimeError(f"the sweep that is to be broken does not run: {self.said}")
        self.base = start / "tiny"
        (self.base / "report.html").unlink()
        self.finished = {key: _content(path) for key, path in results.stored(self.base).items()}
        whole = results.read_run(packs.KNOWN / "reference.parquet")
        labels, settings = (sorted(whole[name].unique())[:n] for name, n in (("label", 5), ("setting", 2)))
        seeds = sorted(whole["seed"].unique())[:4]
        few = pl.col("label").is_in(labels) & pl.col("setting").is_in(settings) & pl.col("seed").is_in(seeds)
        self.reference = self.place / "reference.parquet"
        whole.filter(few).write_parquet(self.reference)

    def _begin(self, kind: str, number: int) -> random.Random:
        self.case, self.story = f"{kind}/{number}", ""
        self.here = self.place / "case"
        self.here.mkdir()
        self.began = time.monotonic()
        return random.Random(f"{self.seed}/{self.case}")

    def _end(self) -> None:
        self.slowest = sorted([*self.slowest, (time.monotonic() - self.began, self.case)])[-8:]
        for path in self.here.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
        shutil.rmtree(self.here)

    # -- what is done with it, and what may come of it

    def command(self, *arguments: str | Path) -> int | None:
        """One command line in this process; its code, None if it broke."""
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", how) for how in ("strict", "backslashreplace"))
        line, code, before = [os.fspath(one) for one in arguments], None, peak()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), limited(), inline():
                code = run(line)
        except BaseException as exc:  # also Hang, and the panics of polars, which are no Exception
            if isinstance(exc, KeyboardInterrupt):
                raise
            self.said = traceback.format_exc()
            self.note(line, self.said)
            return None
        err.flush()
        self.said = err.buffer.getvalue().decode(errors="replace")  # type: ignore[attr-defined]
        self.codes[f"{line[0]} {code}"] = self.codes.get(f"{line[0]} {code}", 0) + 1
        if self.aloud:
            print(f"$ lab {' '.join(map(ascii, line))}\n{self.said.strip()[:2000]}\n[{code}]")
        if wrong := unfit(code, self.said):
            self.note(line, f"{wrong}: {self.said[:1000]}")
        if (more := peak() - before) > MEMORY:
            self.note(line, f"took {more / 1e9:.1f} GB more")
        return code

    def alone(self, *arguments: str | Path) -> None:
        """The same through the real command, in a process of its own, with its own workers."""
        line = [os.fspath(one) for one in arguments]
        if any("\0" in one or not encodes(one) for one in line):
            return  # no shell can hand over such an argument
        program = [sys.executable, "-c", "from lab.cli import main; main()", *line]
        try:
            done = subprocess.run(
                program, capture_output=True, text=True, errors="replace", timeout=12 * LIMIT
            )
        except subprocess.TimeoutExpired:
            self.note(["(alone)", *line], f"takes longer than {12 * LIMIT} seconds")
            return
        self.codes[f"alone {line[0]} {done.returncode}"] = (
            self.codes.get(f"alone {line[0]} {done.returncode}", 0) + 1
        )
        if wrong := unfit(done.returncode, done.stderr):
            self.note(["(alone)", *line], f"{wrong}: {done.stderr[-3000:]}")

    def note(self, line: Sequence[str], what: str) -> None:
        """Keep a break."""
        shown = " ".join(one if len(one) < 100 else f"{one[:100]}..." for one in line)
        self.breaks.append(Break(self.case, self.story, f"lab {shown!a}\n{what}"))

    def _keep(self, broken: Path, touched: set[str]) -> None:
        """Whether every finished run that was not touched is still there, as it was."""
        if "*" in touched:
            return
        for key, before in self.finished.items():
            if key in touched:
                continue
            places = [broken / part / f"{key}.parquet" for part in ("trials", "earlier")]
            if not any(path.is_file() and _content(path).equals(before) for path in places):
                self.note(["sweep"], f"the finished run {key} is lost")


def _content(path: Path) -> pl.DataFrame:
    """What a sweep never changes of a finished run."""
    try:
        return pl.read_parquet(path).drop("trial", "label", "choices", "trainings")
    except (pl.exceptions.PolarsError, OSError):
        return pl.DataFrame()


def _break_pack(rng: random.Random, pack: Path) -> str:
    if rng.random() < 0.4:
        content, story = mutated_bytes(rng, pack.read_bytes())
        pack.write_bytes(content)
        return story
    frame, stories = pl.read_parquet(pack), []
    for _ in range(rng.choice((1, 1, 2, 4))):
        if frame.width:
            frame, story = mutated_frame(rng, frame)
            stories.append(story)
    frame.write_parquet(pack)
    return "; ".join(stories)


def main() -> int:
    """The command: its options are in the module's text. Exit code 1 if anything broke."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    for name, number in (("recipes", 300), ("folders", 20), ("frames", 100), ("first", 0), ("every", 500)):
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--case", default="")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))  # the machine is not ours alone
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        fuzz = Fuzz(given.seed, Path(place), given.every, aloud=bool(given.case))
        fuzz.prepare()
        kinds: dict[str, Callable[[int], None]] = {
            "recipe": fuzz.recipe,
            "folder": fuzz.folder,
            "frame": fuzz.frame,
        }
        numbers = {"recipe": given.recipes, "folder": given.folders, "frame": given.frames}
        cases = [(k, i) for k, n in numbers.items() for i in range(given.first, given.first + n)]
        if given.case:
            kind, _, number = given.case.partition("/")
            cases = [(kind, int(number))]
        told = 0
        for kind, number in cases:
            if number % 100 == 0:
                print(f"{kind}/{number} after {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            kinds[kind](number)
            for one in fuzz.breaks[told:]:
                print(f"\n== --seed {given.seed} --case {one.case}: {one.story}\n{one.what}", flush=True)
            told = len(fuzz.breaks)
    broken = len({one.case for one in fuzz.breaks})
    print(f"\n{len(cases):,} cases, {broken} broke, {time.monotonic() - began:.0f} s, seed {given.seed}")
    print("ends:", ", ".join(f"{what}: {n}" for what, n in sorted(fuzz.codes.items())))
    print("slowest:", ", ".join(f"{case} {seconds:.1f} s" for seconds, case in reversed(fuzz.slowest)))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
