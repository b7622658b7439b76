"""``lab(...)`` runs one command line in this process and returns its exit code, stdout and stderr."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.cli import run

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def lab(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = run([str(one) for one in arguments])
        said = capsys.readouterr()
        return Outcome(code, said.out, said.err)

    return call


@pytest.fixture
def answer(lab: Callable[..., Outcome]) -> Callable[..., str]:
    """The stdout of a command line that must succeed."""

    def call(*arguments: object) -> str:
        outcome = lab(*arguments)
        assert outcome.code == 0, outcome.err
        return outcome.out

    return call


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the files of CONTRIBUTING.md: my_blocks.py, window.yaml, parity.py."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for name, content in re.findall(r"^```\w+ (\S+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        (tmp_path / name).write_text(content, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path
