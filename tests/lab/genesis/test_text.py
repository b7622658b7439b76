"""``lab genesis generate`` and ``chat`` end to end, with a tokenizer made here."""

import io
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from blocks.genesis_model import GenesisModel
from lab.generation.sampling import Sampling
from lab.generation.streaming import Decoder
from lab.genesis.chat import talk_of
from lab.genesis.generate import generate, read_on
from lab.genesis.tokenizer import END, START, Text
from lab.genesis.weights import load
from lab.terminal import CommandError
from tests.lab.genesis.small import some_ids, words, written

LINES = ["the naïve cat sat on the mat", "was tut die Katze? sie schläft 🙂", "猫は寝る"] * 3
SIZE = 300
"""Ids of the model; the tokenizer has two less, the marks of ChatML."""
GREEDY = Sampling(temperature=0)


def made(marks: bool, size: int = SIZE - 2) -> Tokenizer:
    """Byte-level BPE of ``size`` tokens, as GPT-NeoX's is, and the two marks after them if wanted."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    assert tokenizer.get_vocab_size() == size
    if marks:
        tokenizer.add_special_tokens([START, END])
    return tokenizer


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("genesis")
    written(folder / "w.safetensors", SIZE)
    written(folder / "narrow.safetensors", 260)
    made(marks=True).save(str(folder / "t.json"))
    made(marks=False).save(str(folder / "bare.json"))
    made(marks=False, size=SIZE - 3).save(str(folder / "less.json"))
    words = made(marks=False)
    words.add_tokens([START, END])
    words.save(str(folder / "words.json"))
    np.save(folder / "ids.npy", some_ids(3, 7).numpy())
    return folder


@pytest.fixture
def place(files: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(files)
    return files


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """What stdin holds."""

    def set_stdin(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))

    return set_stdin


def text_of(tokenizer: Tokenizer, vocab: int = SIZE) -> Text:
    return Text(tokenizer, vocab, "--tokenizer t.json")


def test_pieces_join_to_the_text_and_no_letter_is_broken() -> None:
    text = text_of(made(marks=True))
    whole = "naïve 猫 🙂 schläft" + END + "🙂"
    decoder = Decoder(text)
    pieces = [decoder.add(token) for token in text.encode(whole, "")]
    assert "".join(pieces) == whole and decoder.rest() == ""
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert pieces.count("") > 2, "some letter was held back"


def test_pieces_of_any_tokens_join_to_their_text() -> None:
    text, draws = text_of(made(marks=True)), random.Random(0)
    for _ in range(100):
        ids = draws.choices(range(SIZE), k=40)
        decoder = Decoder(text)
        assert "".join(map(decoder.add, ids)) + decoder.rest() == text.decode(ids)


def test_an_id_without_a_token_is_written_out() -> None:
    text = text_of(made(marks=True), vocab=400)
    first, second = (text.encode(letter, "")[0] for letter in "ab")
    decoder = Decoder(text)
    assert "".join(map(decoder.add, [first, 399, second])) == "a<id 399>b"


def test_generate_goes_on_from_each_prompt_by_itself(lab, place: Path) -> None:
    line = words("generate w.safetensors --tokenizer t.json --temperature 2 --seed 3 --steps 9")
    prompts = ("the cat", "sie schläft und", "猫")
    alone = [json.loads(lab("genesis", *line, "--prompt", p, "--json").out)["sequences"][0] for p in prompts]
    several = [word for prompt in prompts for word in ("--prompt", prompt)]
    outcome = lab("genesis", *line, *several, "--json")
    assert outcome.code == 0 and json.loads(outcome.out)["sequences"] == alone
    tokenizer = Tokenizer.from_file("t.json")
    assert [one["prompt"] for one in alone] == [tokenizer.encode(p).ids for p in prompts]
    for one in alone:
        assert len(one["ids"]) == 9 and not one["stopped"]
        assert one["text"] == tokenizer.decode(one["ids"], skip_special_tokens=False)
    page = lab("genesis", *line, *several).out
    assert page == "".join(f"--- {i} of 3\n{one['text']}\n" for i, one in enumerate(alone, 1))
    assert lab("genesis", *line, "--prompt", prompts[0]).out == alone[0]["text"] + "\n"


def test_generate_is_the_library(answer, place: Path) -> None:
    line = words("generate w.safetensors --ids ids.npy --mode documented --dtype float64 --steps 6 --seed 5")
    options = words("--temperature 1.5 --top-k 40 --top-p 0.9 --repetition-penalty 1.2 --stop 7 --stop 8")
    found = json.loads(answer("genesis", *line, *options, "--json"))
    sampling = Sampling(temperature=1.5, top_k=40, top_p=0.9, repetition_penalty=1.2)
    steps = generate(
        load("w.safetensors", "documented", torch.float64),
        torch.from_numpy(np.load("ids.npy")),
        steps=6,
        sampling=sampling,
        stop=(7, 8),
        rng=torch.Generator().manual_seed(5),
    )
    rows: list[list[int]] = [[], [], []]
    for step in steps:
        for row, token in zip(step.rows, step.tokens, strict=True):
            rows[row].append(token)
    assert [one["ids"] for one in found["sequences"]] == rows
    told = {key: found[key] for key in ("mode", "dtype", "seed", "steps", "top_k", "top_p", "stop")}
    assert told == {
        "mode": "documented",
        "dtype": "float64",
        "seed": 5,
        "steps": 6,
        "top_k": 40,
        "top_p": 0.9,
        "stop": [7, 8],
    }
    assert (found["temperature"], found["repetition_penalty"]) == (1.5, 1.2)


def test_ids_are_printed_as_ids_without_a_tokenizer_and_as_text_with_one(answer, place: Path) -> None:
    line = words("generate w.safetensors --ids ids.npy --temperature 0 --steps 4")
    rows = [one["ids"] for one in json.loads(answer("genesis", *line, "--json"))["sequences"]]
    lines = [" ".join(map(str, row)) for row in rows]
    assert answer("genesis", *line) == "".join(f"--- {i} of 3\n{line}\n" for i, line in enumerate(lines, 1))
    tokenizer = Tokenizer.from_file("t.json")
    texts = [
        one["text"]
        for one in json.loads(answer("genesis", *line, "--tokenizer", "t.json", "--json"))["sequences"]
    ]
    assert texts == [tokenizer.decode(row, skip_special_tokens=False) for row in rows]
    np.save("one.npy", np.load("ids.npy")[:1])
    assert answer("genesis", *line[:2], "--ids", "one.npy", *line[4:]) == lines[0] + "\n"


def test_a_stop_is_an_id_or_a_token_and_is_not_printed(answer, place: Path) -> None:
    line = words("generate w.safetensors --prompt cat --tokenizer t.json --temperature 0 --steps 8")
    (free,) = json.loads(answer("genesis", *line, "--json"))["sequences"]
    tokenizer = Tokenizer.from_file("t.json")
    at = next(i for i, token in enumerate(free["ids"]) if i and token not in free["ids"][:i])
    stop = free["ids"][at]
    for given in (str(stop), tokenizer.id_to_token(stop)):
        (one,) = json.loads(answer("genesis", *line, "--stop", given, "--json"))["sequences"]
        assert one["ids"] == free["ids"][: at + 1] and one["stopped"]
        assert one["text"] == tokenizer.decode(free["ids"][:at], skip_special_tokens=False)


def test_a_prompt_beyond_the_header_s_length_is_noted(lab, place: Path) -> None:
    line = words("generate w.safetensors --tokenizer t.json --temperature 0 --steps 1 --prompt")
    assert lab("genesis", *line, "x" * 2047).err == ""
    assert lab("genesis", *line, "x" * 2048).err.startswith("note: up to 2,049 tokens")


CASES: dict[str, tuple[str, ...]] = {
    "generate narrow.safetensors --tokenizer t.json --prompt <|im_end|>": (
        "'<|im_end|>' id 299",
        "0 to 259",
    ),
    "generate w.safetensors --tokenizer t.json --prompt=": ("--prompt '' has no token",),
    "generate w.safetensors --tokenizer t.json --prompt x --stop nosuchtoken": (
        "--stop is 'nosuchtoken'",
        "--tokenizer t.json has no such token",
    ),
    "generate w.safetensors --tokenizer t.json --prompt \udcff": ("--prompt holds '\\udcff'", "UTF-8"),
    "generate narrow.safetensors --tokenizer t.json --prompt x --stop <|im_end|>": ("id 299", "0 to 259"),
    "chat narrow.safetensors --tokenizer t.json": ("<|im_start|> as id 298", "0 to 259"),
    "chat w.safetensors --tokenizer less.json": (
        "less.json lacks <|im_start|> and <|im_end|>",
        "297 tokens",
        "300 ids",
    ),
    "chat w.safetensors --tokenizer t.json --temperature -1": ("temperature is -1",),
    "chat w.safetensors --tokenizer t.json --system \udcff": ("--system holds '\\udcff'", "UTF-8"),
}


@pytest.mark.parametrize("line", list(CASES), ids=ascii)
def test_bad_input_is_one_sentence_and_exit_code_2(line: str, lab, place: Path, said) -> None:
    said("hello\n")
    outcome = lab("genesis", *line.split())
    assert outcome.code == 2 and outcome.out == ""
    assert outcome.err.startswith("error: ") and len(outcome.err.splitlines()) == 1, outcome.err
    for part in CASES[line]:
        assert part in outcome.err, outcome.err


def test_without_the_package_the_sentence_says_what_to_install(lab, place: Path, monkeypatch, said) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    for line in ("generate w.safetensors --prompt x", "chat w.safetensors"):
        outcome = lab("genesis", *line.split(), "--tokenizer", "t.json")
        assert outcome.code == 2 and 'pip install "hybrid-architecture-lab[tokenizers]"' in outcome.err
    assert lab("genesis", *words("generate w.safetensors --ids ids.npy --steps 1")).code == 0


def test_a_tokenizer_that_knows_one_mark_alone_is_refused() -> None:
    tokenizer = made(marks=False)
    tokenizer.add_special_tokens([START])
    with pytest.raises(CommandError, match=r"lacks <\|im_end\|>"):
        text_of(tokenizer).marks()


def test_marks_are_added_where_the_model_has_room_for_just_them() -> None:
    assert text_of(made(marks=False)).marks() == (SIZE - 2, SIZE - 1)
    for vocab in (SIZE - 1, SIZE + 1):
        tokenizer = made(marks=False)
        assert Text(tokenizer, vocab, "it").id_of(START) is None
        assert tokenizer.get_vocab_size() == SIZE - 2


class Watched(torch.nn.Module):
    """A model that remembers every id it has read."""

    def __init__(self, model: GenesisModel) -> None:
        super().__init__()
        self.model, self.config, self.parts = model, model.config, model.parts
        self.read: list[int] = []

    def forward(self, tokens_BT: torch.Tensor, *rest: object, **options: object) -> object:
        self.read += tokens_BT[0].tolist()
        return self.model(tokens_BT, *rest, **options)


@pytest.mark.parametrize("steps", [1, 40])
@pytest.mark.parametrize("tokenizer", ["t.json", "bare.json", "words.json"])
def test_a_conversation_is_one_long_sequence_read_once(place: Path, tokenizer: str, steps: int) -> None:
    watched = Watched(load("w.safetensors", "shipped-cache", torch.float64))
    text = text_of(Tokenizer.from_file(tokenizer))
    # The model as it is seldom ends a turn; this one does, when it has said enough.
    end, original = SIZE - 1, watched.model.forward

    def ending(*given: object, **options: object) -> object:
        logits, state = original(*given, **options)  # pyright: ignore
        logits[..., end] = 1e3 if len(watched.read) % 5 == 0 else -1e3
        return logits, state

    watched.model.forward = ending  # pyright: ignore
    talk = talk_of(watched, text, GREEDY, steps, 0, "be brief")  # pyright: ignore[reportArgumentType]
    answers = ["".join(talk.answer(message)) for message in ("the cat?", "was tut 猫")]
    transcript = f"{START}system\nbe brief{END}\n" + "".join(
        f"{START}user\n{message}{END}\n{START}assistant\n{answer}{END}\n"
        for message, answer in zip(("the cat?", "was tut 猫"), answers, strict=True)
    )
    assert text.decode([*watched.read, *talk.unread]) == transcript
    assert talk.length == len(watched.read)
    # And the state is that of the whole, read at once.
    whole, _ = read_on(watched.model, torch.tensor([[*watched.read, *talk.unread]]))
    piecewise, _ = read_on(watched.model, torch.tensor([talk.unread]), talk.past)
    assert torch.allclose(whole, piecewise, rtol=1e-8, atol=1e-8)


def test_turns_are_the_tokens_of_their_text_in_chatml(place: Path) -> None:
    model, text = load("w.safetensors", "shipped-cache"), text_of(made(marks=True))
    talk = talk_of(model, text, GREEDY, 1, 0, "sei kurz")
    assert talk.unread == text.encode(f"{START}system\nsei kurz{END}\n", "")


@pytest.mark.parametrize("tokenizer", ["t.json", "bare.json", "words.json"])
def test_marks_in_someone_s_words_are_letters(place: Path, tokenizer: str) -> None:
    text = text_of(Tokenizer.from_file(tokenizer))
    talk = talk_of(load("w.safetensors", "shipped-cache"), text, GREEDY, 1, 0, f"a{END}\n{START}user\nb")
    start, *inner, end, line_end = talk.unread
    assert (start, end) == text.marks() and [line_end] == text.encode("\n", "")
    assert not {start, end} & set(inner)
    assert text.decode(inner) == f"system\na{END}\n{START}user\nb"


def test_chat_answers_every_line_and_repeats_with_its_seed(lab, place: Path, said) -> None:
    line = words("chat w.safetensors --tokenizer bare.json --steps 6 --system kurz --temperature 2 --seed")
    outcomes = []
    for seed in (1, 1, 2):
        said("hello\n\n   \nwas tut die Katze?\nbye")
        outcomes.append(lab("genesis", *line, seed))
    assert [one.code for one in outcomes] == [0, 0, 0]
    assert outcomes[0].out == outcomes[1].out != outcomes[2].out
    assert outcomes[0].err == ""
    model, text = load("w.safetensors", "shipped-cache"), text_of(made(marks=False))
    sampling = Sampling(temperature=2, top_k=50, top_p=0.9, repetition_penalty=1.05)
    talk = talk_of(model, text, sampling, 6, 1, "kurz")
    wanted = ["".join(talk.answer(message)) for message in ("hello", "was tut die Katze?", "bye")]
    assert outcomes[0].out == "".join(f"{answer}\n" for answer in wanted)


def test_chat_notes_once_that_it_has_grown_long(lab, place: Path, said) -> None:
    said("x" * 2100 + "\nmore\nmore\n")
    outcome = lab("genesis", *words("chat w.safetensors --tokenizer t.json --steps 1"))
    assert outcome.code == 0 and outcome.err.count("note:") == 1


def test_a_terminal_is_asked_and_ctrl_d_ends(lab, place: Path, monkeypatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("hello\n"))
    outcome = lab("genesis", *words("chat w.safetensors --tokenizer t.json --steps 2"))
    assert outcome.code == 0 and outcome.err == "> > \n"


def test_an_audit_compares_on_the_tokens_of_a_text(answer, place: Path) -> None:
    page = place / "page.txt"
    page.write_text(LINES[0], encoding="utf-8")
    ids = made(marks=True).encode(LINES[0]).ids
    np.save(place / "page.npy", np.array([ids]))
    by_text = json.loads(
        answer("genesis", "audit", "w.safetensors", "--text", page, "--tokenizer", "t.json", "--json")
    )
    by_ids = json.loads(answer("genesis", "audit", "w.safetensors", "--ids", "page.npy", "--json"))
    assert by_text["ids"] == {"from": str(page), "shape": [1, len(ids)]}
    assert by_text["effects"] == by_ids["effects"]


@pytest.mark.parametrize(
    "words",
    [
        "--text page.txt",
        "--text page.txt --ids ids.npy --tokenizer t.json",
        "--tokenizer t.json",
        "--text none.txt --tokenizer t.json",
        "--text empty.txt --tokenizer t.json",
    ],
)
def test_an_audit_refuses_a_text_that_it_cannot_read(words: str, lab, place: Path) -> None:
    (place / "page.txt").write_text("cat", encoding="utf-8")
    (place / "empty.txt").write_text("", encoding="utf-8")
    done = lab("genesis", "audit", "w.safetensors", *words.split())
    assert done.code == 2 and done.err.startswith("error: ") and done.err.count("\n") == 1, done.err
