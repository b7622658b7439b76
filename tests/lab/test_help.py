"""Help: at once, without heavy imports, with examples that run."""

import json
import shlex
import subprocess
import sys

import pytest
from typer.main import get_command

from lab.cli import app

COMMANDS = sorted(getattr(get_command(app), "commands"))  # noqa: B009 - the type of a group is private
HEAVY = {"torch", "optuna", "polars", "plotly", "numpy", "scipy", "yaml"}

PROBE = """
import json, sys
from lab.cli import run
code = run(sys.argv[1:])
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def test_the_commands_are_those_of_the_design() -> None:
    wanted = "sweep plan validate score describe blocks tasks sample report doctor"
    assert sorted(COMMANDS) == sorted(wanted.split())


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, check=True, timeout=300
    )
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    assert not HEAVY & set(modules)
    assert "Examples:" in done.stdout and "--help" in done.stdout


def examples(command: str) -> list[list[str]]:
    epilog = getattr(get_command(app), "commands")[command].epilog  # noqa: B009
    lines = [line.strip() for line in epilog.splitlines()]
    found = [shlex.split(line)[1:] for line in lines if line.startswith("lab ")]
    assert found, f"{command} has no example"
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_every_example_is_a_command_line_of_its_command(command: str) -> None:
    group = get_command(app)
    for words in examples(command):
        assert words[0] == command
        # Options and arguments are read; nothing is run.
        getattr(group, "commands")[command].make_context(command, words[1:])  # noqa: B009


CHEAP = {"describe", "blocks", "sample", "doctor", "validate"}
EXAMPLES = [words for command in COMMANDS if command in CHEAP for words in examples(command)]


@pytest.mark.parametrize("words", EXAMPLES, ids=" ".join)
def test_the_examples_of_quick_commands_run(words, answer, workplace) -> None:
    assert answer(*words)
