"""The documented training: consistent with itself, and honest about what nobody says."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.genesis.training import HERE, Fact, Training, TrainingError, training

TEXT = HERE.read_text(encoding="utf-8")


def facts(found: Training) -> Iterator[tuple[str, Fact[Any]]]:
    for stage in (found.pre_training, found.fine_tuning):
        yield from ((f"{type(stage).__name__}.{name}", fact) for name, fact in stage)


def test_the_numbers_agree_with_each_other() -> None:
    first, second = training().pre_training, training().fine_tuning
    assert first.tokens_per_step.known == first.batch.known * first.context.known == 262_144
    assert first.steps.known == first.tokens.known // first.tokens_per_step.known == 7_629
    assert sum(first.mixture.known.values()) == sum(first.schedule.known.values()) == 100
    assert list(first.schedule.known.values()) == [5, 85, 10]
    assert first.warm_up_steps.known == 381
    assert second.steps.known == second.conversations.known // second.effective_batch.known == 3_789
    assert (
        first.betas.known == [0.9, 0.95] and first.learning_rate.known == second.learning_rate.known == 1e-3
    )


def test_every_field_has_a_status_and_only_the_unknown_lack_a_value() -> None:
    found = dict(facts(training()))
    assert len(found) == len(re.findall(r"^  \w+:", TEXT, re.MULTILINE))
    for name, fact in found.items():
        assert (fact.value is None) == (fact.status == "unknown"), name
    unknown = {name.partition(".")[2] for name, fact in found.items() if fact.status == "unknown"}
    assert unknown >= {
        "eps",
        "seed",
        "precision",
        "packing",
        "gradient_clip",
        "min_learning_rate",
        "mup_groups",
    }
    with pytest.raises(TrainingError, match="said nowhere"):
        _ = training().pre_training.seed.known


def test_the_wheel_takes_the_file_along() -> None:
    # hatchling leaves out what git ignores.
    done = subprocess.run(
        ["git", "check-ignore", HERE.name], cwd=HERE.parent, capture_output=True, check=False
    )
    assert done.stdout == b""


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("DCLM: 22", "DCLM: 23", "mixture comes to 101; the other fields ask for 100"),
        ("constant: 85", "constant: 80", "schedule comes to 95"),
        ("value: 262144", "value: 262145", "tokens_per_step comes to 262145"),
        ("value: 7629", "value: 7630", "steps comes to 7630; the other fields ask for 7629"),
        ("value: 381", "value: 380", "warm_up_steps comes to 380"),
        ("value: 3789", "value: 1", "fine_tuning: steps comes to 1"),
        ("eps: {value: null", "eps: {value: 1.0e-8", "eps: the value is 1e-08 and the status unknown"),
        ("{value: 2048, unit: tokens", "{value: null, unit: tokens", "context: the value is None"),
        ("context: {value: 2048", "context: {value: many", "context.value: input should be a valid"),
        ("batch: {value: 128", "batch: {value: 0", "pre_training.batch.value"),
        ("eps: {value: null, status: unknown}", "eps: {value: null}", "eps.status: field required"),
        ("inferred, note: batch", "guessed, note: batch", "'documented', 'inferred' or 'unknown'"),
        ("  tokens:", "  toks:", "pre_training.tokens: field required"),
        ("pre_training:", "pre_training: [", "not YAML"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(old: str, new: str, words: str, tmp_path: Path) -> None:
    assert old in TEXT
    (tmp_path / "training.yaml").write_text(TEXT.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(TrainingError) as caught:
        training(tmp_path / "training.yaml")
    told = str(caught.value)
    assert told.startswith(str(tmp_path)) and words in told and len(told.splitlines()) == 1, told


def test_the_command_shows_every_field_once(answer) -> None:
    text = answer("genesis", "recipe")
    found = training()
    assert text.startswith("38 fields: 17 documented, 5 inferred, 16 unknown\n")
    listed = [line for line in text.splitlines() if line.startswith(("pre-training", "fine-tuning"))]
    several = sum(len(fact.value) - 1 for _, fact in facts(found) if isinstance(fact.value, dict))
    assert len(listed) == 38 + several
    assert re.search(r"mixture: FineWeb-Edu +51 % +documented", text)
    assert re.search(r"min learning rate +- +unknown", text)
    assert json.loads(answer("genesis", "recipe", "--json")) == found.model_dump()
