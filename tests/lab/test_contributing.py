"""The examples of CONTRIBUTING.md do what the page says, as they stand there."""

import inspect
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from synthetics import TASKS, Task
from synthetics.protocol import parse_task, show_task
from synthetics.splits import draw

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SHELL = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]


def test_the_page_shows_commands() -> None:
    assert len(SHELL) >= 5 and {line.split()[0] for line in SHELL} == {"lab", "pytest"}


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in SHELL if line.startswith("pytest ")])
def test_the_block_keeps_the_contract(line: str, workplace: Path) -> None:
    words = [str(workplace / word) if word == "my_blocks.py" else word for word in shlex.split(line)]
    # A process of its own: the options and registries of pytest are global to one.
    command = [sys.executable, "-m", *words, "-p", "no:cacheprovider"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in SHELL if line.startswith("lab ")])
def test_every_command_runs(line: str, answer, workplace: Path) -> None:
    assert answer(*shlex.split(line)[1:])


def test_the_task_is_one(workplace: Path) -> None:
    mine = runpy.run_path("running_sum.py")["RunningSum"]
    task = parse_task("running_sum(length=40)", {**TASKS, "running_sum": mine})
    assert show_task(task) == "running_sum(length=40)"
    assert isinstance(task, Task)
    batch = draw(task, "test", 0, 50)
    assert np.array_equal(task.solve(batch.inputs), batch.targets)
    levels = task.levels(batch)
    assert levels.shape == batch.targets.shape and levels.min() == 0 and levels.max() > 3
    drawn_input, drawn_target = (line.split()[1:] for line in inspect.getdoc(mine).splitlines()[-2:])
    rows = np.array([drawn_input], dtype=np.int64)
    assert [str(answer) for answer in mine().solve(rows)[0]] == drawn_target
