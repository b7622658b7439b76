"""``train.start``: a training begins with a model that is there; and SFT, where answers alone are learned."""

from itertools import pairwise
from pathlib import Path

import pytest
from safetensors.torch import load_file

from lab.data.tokens import BYTE_MARKS, END, Bytes
from lab.model.spec import loads
from lab.train.feed import open_feed
from lab.train.folder import steps_of
from lab.train.loss import IGNORE
from lab.train.rows import batch_of
from tests.lab.train.small import TEXT
from tests.lab.train.talks import talks, write


@pytest.fixture(scope="module")
def spec(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("start") / "small.yaml"
    path.write_text(TEXT.format(data=data), encoding="utf-8")
    return path


@pytest.fixture
def started(spec: Path, answer) -> Path:
    """The weights of a small training of text."""
    folder = spec.parent / "text"
    answer("train", spec, "--out", folder, "--peak", "1", "--set", "train.optimiser.lr=1e-2")
    return folder / "model.safetensors"


def test_a_training_begins_with_the_weights_it_names(
    spec: Path, started: Path, tmp_path: Path, answer
) -> None:
    # The same model, laid in other words; a rate of nothing leaves the weights as they were.
    same = ("--set", "model.schedule=1*(gdn, swiglu) + (attn, swiglu)", "--set", "model.depth=2")
    still = ("--set", "train.optimiser.lr=1e-12", "--set", "train.steps=1")
    words = (*same, *still, "--set", f"train.start={started}", "--peak", "1")
    answer("train", spec, "--out", tmp_path / "on", *words)
    one, two = load_file(started), load_file(tmp_path / "on" / "model.safetensors")
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert value.sub(two[name]).abs().max() < 1e-9, name
    # It goes on from its own checkpoint, also where what it began with is gone.
    moved = started.rename(started.with_name("moved"))
    answer("train", spec, "--out", tmp_path / "on", *words)
    moved.rename(started)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("model.tied=false", ("model.tied is True", "False")),
        ("model.schedule=2*(gdn, swiglu)", ("model.schedule is", "2*(gdn, swiglu)")),
        ("train.start=nowhere", ("nowhere", "cannot be read")),
    ],
)
def test_weights_of_another_model_are_refused_and_nothing_is_written(
    spec: Path, started: Path, tmp_path: Path, lab, word: str, said: tuple[str, ...]
) -> None:
    told = lab(
        *("train", spec, "--out", tmp_path / "on", "--peak", "1"),
        *("--set", f"train.start={started}", "--set", word),
    )
    assert told.code == 2 and told.out == "" and told.err.startswith("error: ")
    assert all(part in told.err for part in said), told.err
    assert not (tmp_path / "on").exists()


def test_answers_are_learned_from_a_model_of_text_and_questions_are_not(
    spec: Path, started: Path, tmp_path: Path, answer
) -> None:
    write(tmp_path / "talks.jsonl", files=60)
    prepared = tmp_path / "talks"
    answer("data", "prepare", tmp_path / "talks.jsonl", "--chat", "--valid", "0.2", "--out", prepared)
    sets = (
        *(f"data.train=[{{data: {prepared}}}]", "data.length=64", "data.documents=true"),
        *("train.steps=60", "train.batch=8", "train.eval_every=60", "train.optimiser.lr=1e-2"),
        f"train.start={started}",
    )
    answer("train", spec, "--out", tmp_path / "sft", "--peak", "1", *(w for s in sets for w in ("--set", s)))
    losses = [step.loss for step in steps_of(tmp_path / "sft")]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10]), losses

    # What counted: words of answers and the mark that ends each, and nothing of a question.
    # Long rows, which hold several conversations.
    feed = open_feed(loads(spec.read_text(), "sft", (*sets, "data.length=512")))
    said = {talk[1]["content"] for talk in talks(60)}
    whole = 0
    for step in range(2):
        targets_BT = batch_of(feed.source.rows(step, range(8)), documents=True).targets
        for row_T in targets_BT:
            counted = row_T[row_T != IGNORE].tolist()
            ends = [at for at, one in enumerate(counted) if one == BYTE_MARKS[END]]
            for begin, end in pairwise(ends):
                assert Bytes().decode(counted[begin + 1 : end]) in said
                whole += 1
    assert whole > 10
