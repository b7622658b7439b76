"""``lab chat``: a conversation is one long sequence read once, in the form the model was trained on."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from blocks.model import LanguageModel
from lab.chat import _form_of, _wording
from lab.data.chatml import Turn, encode_batch
from lab.data.prepare import prepare
from lab.data.sources import How
from lab.data.tokens import Bytes
from lab.generation.language import Language
from lab.generation.sampling import Sampling
from lab.generation.steps import read_on
from lab.generation.streaming import Spelled
from lab.generation.talk import ChatML, Talk
from lab.model.spec import build, loads, write_model
from tests.lab.test_generation import TEXT

SPEC, GREEDY = loads(TEXT), Sampling(temperature=0)
LINES = ("the cat?", "was tut 猫")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """What stdin holds."""

    def set_stdin(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))

    return set_stdin


class Watched(LanguageModel):
    """A model that remembers every id it has read, says letters alone, and with ``end`` at times that."""

    read: list[int]
    end: int | None = None

    def forward(self, tokens_BT, state=None, context=None):
        self.read += tokens_BT[0].tolist()
        logits, after = super().forward(tokens_BT, state, context)
        logits[..., 128:] -= 1e3
        if self.end is not None:
            logits[..., self.end] = 1e3 if len(self.read) % 7 == 0 else -1e3
        return logits, after


def watched(end: int | None = None) -> Watched:
    torch.manual_seed(0)
    model = build(SPEC).double().eval()
    model.__class__, model.read, model.end = Watched, [], end
    return model  # pyright: ignore[reportReturnType]


def talk_of(model: Watched, form: str, steps: int, system: str | None = None) -> Talk:
    wording = _wording(Bytes(), form, system)
    return Talk(Language(model), Spelled(Bytes()), wording, GREEDY, steps, 0)


def same_state(model: Watched, talk: Talk) -> bool:
    """Whether the past is that of all that was read, at once."""
    read, model.end = list(model.read), None
    whole, _ = read_on(Language(model), torch.tensor([[*read, *talk.unread]]))
    piecewise, _ = read_on(Language(model), torch.tensor([talk.unread]), talk.past)
    return talk.length == len(read) and torch.allclose(whole, piecewise, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("steps", [1, 40])
def test_in_chatml_it_is_the_conversation_as_it_is_prepared_for_training(steps: int) -> None:
    tokenizer = Bytes()
    model = watched(end=tokenizer.id_of("<|im_end|>"))
    talk = talk_of(model, "chatml", steps, system="be brief")
    turns = [Turn("system", "be brief")]
    for line in LINES:
        told = "".join(talk.answer(line))
        assert 0 < len(told) <= steps
        turns += [Turn("user", line), Turn("assistant", told)]
    assert [*model.read, *talk.unread] == [256, *encode_batch(tokenizer, [turns])[0][0].tolist()]
    assert same_state(model, talk)


@pytest.mark.parametrize(("apart", "inner"), [(True, [5, 5]), (False, [10])])
def test_role_and_words_are_encoded_apart_or_as_one(apart: bool, inner: list[int]) -> None:
    wording = ChatML(lambda text, _: [len(text)], (100, 101), apart=apart)
    assert wording.turn("hello") == [100, *inner, 101, 1, 100, 10]


@pytest.mark.parametrize("ends", [False, True])
def test_plain_it_goes_on_and_a_separator_begins_anew(ends: bool) -> None:
    model = watched(end=256 if ends else None)
    talk = talk_of(model, "plain", 10)
    pieces = [("".join(talk.answer(line)), list(talk.unread)) for line in LINES]
    assert same_state(model, talk)
    assert model.read[:9] == [256, *b"the cat?"]
    for _, unread in pieces:
        # What was drawn last is what is read first of the next turn.
        assert len(unread) == 1 and (unread == [256]) == ends


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    talks = [{"messages": [{"role": r, "content": c} for r, c in (("user", "a"), ("assistant", "b"))]}] * 9
    (tmp_path / "talks.jsonl").write_text("".join(json.dumps(one) + "\n" for one in talks))
    prepare([str(tmp_path / "talks.jsonl")], tmp_path / "talks", Bytes(), How(field="messages", chat=True))
    torch.manual_seed(0)
    for name, data in (("chat", "talks"), ("text", "corpus"), ("gone", "nowhere")):
        spec = loads(TEXT, overrides=[f"data.train=[{{data: {data}}}]"])
        (tmp_path / name).mkdir()
        write_model(build(spec), spec, tmp_path / name / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_model_is_asked_in_the_form_it_was_trained_on(folder: Path) -> None:
    def form(data: str) -> str:
        return _form_of(loads(TEXT, overrides=[f"data.train=[{{data: corpus}}, {{data: {data}}}]"]))

    assert form("talks") == "chatml" and form("corpus") == "plain"


def test_every_line_is_answered_as_the_parts_answer_it_and_linear_state_stays(lab, folder, said) -> None:
    said("hello\n\n   \nwas tut die Katze?\nbye")
    outcome = lab("chat", "text", "--steps", 6, "--temperature", 0, "--stats")
    assert outcome.code == 0 and outcome.out.count("\n") >= 3
    told = [line for line in outcome.err.splitlines() if line.startswith("state after")]
    assert len(told) == 3
    held = [dict(part.split(" ")[:2] for part in line.partition(": ")[2].split(", ")) for line in told]
    assert held[0]["linear"] == held[2]["linear"] and held[1]["window"] == held[2]["window"]
    full = [int(one["full"].replace(",", "")) for one in held]
    assert full[0] < full[1] < full[2]
    said("hello\nbye\n")
    first = lab("chat", "chat", "--steps", 6, "--seed", 1, "--temperature", 2)
    said("hello\nbye\n")
    assert first.code == 0 and lab("chat", "chat", "--steps", 6, "--seed", 1, "--temperature", 2) == first


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("nowhere",), "nowhere: there is no such file"),
        (("text", "--form", "chatlm"), "--form is 'chatlm'; known are chatml and plain"),
        (("text", "--system", "x"), "--system belongs to ChatML"),
        (("gone",), "or give --form chatml or --form plain"),
        (("text", "--temperature", "-1"), "temperature is -1"),
        (("chat", "--system", "\udcff"), "--system holds '\\udcff'"),
    ],
    ids=str,
)
def test_bad_input_is_one_sentence(lab, folder: Path, said, words, told: str) -> None:
    said("hello\n")
    outcome = lab("chat", *words)
    assert (outcome.code, outcome.out) == (2, "") and told in outcome.err
    assert len(outcome.err.splitlines()) == 1
