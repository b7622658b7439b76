"""Help: at once, without heavy imports, with examples that run."""

import json
import shlex
import subprocess
import sys
from typing import Any

import pytest
from typer.main import get_command

from lab.cli import app

HEAVY = {"torch", "optuna", "polars", "plotly", "numpy", "scipy", "yaml", "safetensors", "tokenizers"}

PROBE = """
import json, sys
from lab.cli import run
code = run(sys.argv[1:])
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def below(group: Any, name: str = "") -> dict[str, Any]:
    """Every command under ``group``, the groups among them included: ``genesis info``."""
    found: dict[str, Any] = {}
    for word, command in getattr(group, "commands", {}).items():
        full = f"{name} {word}".strip()
        found |= {full: command, **below(command, full)}
    return found


COMMANDS = below(get_command(app))
DATA = ("prepare", "tokenizer", "show")
GENESIS = ("info", "logits", "generate", "chat", "verify", "audit", "race", "pace", "recipe")
TRANSFER = ("run", "show", "pack")


def test_the_commands_are_those_of_the_design() -> None:
    wanted = (
        "sweep worker status plan validate ablate score describe blocks tasks sample report dashboard "
        "compare mup train pack calibrate doctor bench eval genesis data transfer scale generate export chat"
    )
    groups = {f"genesis {word}" for word in GENESIS} | {f"data {word}" for word in DATA}
    groups |= {f"transfer {word}" for word in TRANSFER}
    assert set(COMMANDS) == {*wanted.split(), *groups}


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], *([*name.split(), "--help"] for name in COMMANDS)], ids=" ".join
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
    lines = [line.strip() for line in COMMANDS[command].epilog.splitlines()]
    found = [shlex.split(line)[1:] for line in lines if line.startswith("lab ")]
    assert found, f"{command} has no example"
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_every_example_is_a_command_line_of_its_command(command: str) -> None:
    for words in examples(command):
        name = command.split()
        assert words[: len(name)] == name
        # Options and arguments are read; nothing is run. What follows < is the shell's.
        rest = words[len(name) :]
        rest = rest[: rest.index("<")] if "<" in rest else rest
        COMMANDS[command].make_context(command, rest, resilient_parsing="--help" in rest)


CHEAP = {"describe", "blocks", "sample", "doctor", "validate"}
EXAMPLES = [words for command in COMMANDS if command in CHEAP for words in examples(command)]


@pytest.mark.parametrize("words", EXAMPLES, ids=" ".join)
def test_the_examples_of_quick_commands_run(words, answer, workplace) -> None:
    assert answer(*words)
