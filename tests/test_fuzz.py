"""Mutated recipes and run folders: taken, or refused in one sentence. ``python -m tests.fuzz`` does more."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeps.recipe import load
from tests import fuzz
from tests.fuzz import Fuzz


@pytest.fixture(scope="module")
def fuzzing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzz]:
    seed = random.randrange(2**32)
    print("seed", seed)
    made = Fuzz(seed, tmp_path_factory.mktemp("fuzz"), every=10**9)
    made.prepare()
    yield made


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "number"), [("recipe", 150), ("folder", 8), ("frame", 25)])
def test_mutants_are_taken_or_refused_in_one_sentence(fuzzing: Fuzz, kind: str, number: int) -> None:
    print("seed", fuzzing.seed)
    for i in range(1, number + 1):
        getattr(fuzzing, kind)(i)
    assert fuzzing.breaks == []
    # All of one kind at once would show nothing of what is behind the first refusal.
    if kind == "recipe":
        assert fuzzing.codes["validate 2"] > 0
    if kind == "folder":
        assert fuzzing.codes["sweep 0"] > 1


def test_a_bug_a_hang_and_a_lost_run_are_seen(
    fuzzing: Fuzz, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Fuzz(fuzzing.seed, tmp_path)
    seen.prepare()
    monkeypatch.setattr(fuzz, "run", lambda line: load("smoke").seeds // 0)
    seen.recipe(1)
    monkeypatch.setattr(fuzz, "run", lambda line: 1)
    seen.recipe(2)
    monkeypatch.setattr("tests.watched.LIMIT", 0.1)

    def forever(line: list[str]) -> int:
        while True:
            pass

    monkeypatch.setattr(fuzz, "run", forever)
    seen.recipe(3)
    next((seen.base / "trials").glob("*.parquet")).unlink()
    seen.here = seen.place
    seen._keep(seen.base, set())
    told = [one.what.splitlines()[-1] for one in seen.breaks]
    for word, said in zip(("ZeroDivisionError", "exit code 1", "Hang", "is lost"), told, strict=True):
        assert word in said
