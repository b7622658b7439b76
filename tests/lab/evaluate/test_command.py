"""``lab eval``: what is asked is measured, as text and as JSON; what does not go together is refused."""

import json
from pathlib import Path

import pytest

from lab.data.prepare import prepare
from lab.data.tokens import open_tokenizer
from lab.evaluate.bits import Windows, bits_per_byte, score
from lab.evaluate.symbols import GROUPS
from lab.evaluate.text import encode
from lab.model.spec import loads, write_model
from synthetics.protocol import parse_task, show_task
from tests.lab.evaluate.small import SPEC, Bytes, model_of

STORY = "the cat sat on the mat, and the dog sat on the cat. äö "


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.safetensors, of a model trained on ./data, and a text."""
    tmp_path = tmp_path_factory.mktemp("eval")
    (tmp_path / "texts").mkdir()
    for i in range(40):
        (tmp_path / "texts" / f"{i}.txt").write_text(f"{i}: {STORY}", encoding="utf-8")
    prepare([str(tmp_path / "texts")], tmp_path / "data", open_tokenizer("bytes"), valid=0.2)
    spec = loads(SPEC.replace("data: corpus", "data: ./data"))
    write_model(model_of()[0], spec, tmp_path / "model.safetensors")
    (tmp_path / "story.txt").write_text(STORY * 6, encoding="utf-8")
    (tmp_path / "empty.txt").write_text("")
    return tmp_path


@pytest.fixture
def place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def test_a_file_is_scored_as_the_library_scores_it(place: Path, answer) -> None:
    (found,) = json.loads(answer("eval", "model.safetensors", "--text", "story.txt", "--json"))["texts"]
    text = encode("story", [STORY * 6], Bytes(), 257)
    wanted = bits_per_byte(score(model_of()[0], text, Windows(32, 16)).nats.sum(), text.size)
    assert found["bits_per_byte"] == pytest.approx(wanted, abs=1e-5)
    assert found["bytes"] == len((STORY * 6).encode()) == found["tokens"] == sum(
        row["targets"] for row in found["by_context"]
    )  # fmt: skip
    assert found["lossless"] and found["first_token"] == "predicted after a separator"
    assert found["how"] == {"window": 32, "stride": 16}
    cut = json.loads(answer("eval", "model.safetensors", "--text", "story.txt", "--limit", 53, "--json"))
    assert cut["texts"][0]["bytes"] == 52  # the 53rd byte is half a letter
    page = answer("eval", "model.safetensors", "--text", "story.txt", "--whole", "--chunk", 50)
    assert "bits per byte" in page and "state carried over chunks of 50" in page


def test_without_a_text_it_is_what_the_specification_held_out(place: Path, answer) -> None:
    (found,) = json.loads(answer("eval", "model.safetensors", "--json"))["texts"]
    assert found["text"] == "./data (validation)"
    documents = found["tokens"] - found["bytes"]  # a separator each
    assert 1 <= documents < 40
    (other,) = json.loads(answer("eval", "model.safetensors", "--data", "data", "--limit", 100, "--json"))[
        "texts"
    ]
    assert other["bytes"] == 100 and other["tokens"] == 101  # 61 bytes of the first, a separator, 39 more


def test_test_time_training_has_both_forms_side_by_side(place: Path, answer) -> None:
    arguments = ("eval", "model.safetensors", "--text", "story.txt", "--golf", "--fresh", 0.2)
    settings = ("--set", "chunk=64", "--set", "epochs=2", "--set", "row=32", "--set", "lr=2e-3")
    found = json.loads(answer(*arguments, *settings, "--json"))["ttt"]
    assert found["how"] == {"window": 32, "stride": 32}  # 64, but for the short window
    assert found["score_first"]["leaks"] is False and found["contaminated"]["leaks"] is True
    assert found["contaminated"]["contaminated_bits_per_byte"] < found["bits_per_byte"]
    assert "bits_per_byte" not in found["contaminated"]
    size = len((STORY * 6).encode())
    assert found["bytes"] + found["fresh"]["bytes"] == size
    assert found["fresh"]["bytes"] == pytest.approx(0.2 * size, abs=2)
    assert found["contaminated"]["settings"]["rates"]["*.channel.out.*"] == 3.0
    page = answer("eval", "model.safetensors", "--text", "story.txt", "--ttt", "--set", "reset=true")
    assert "score-first" in page and "weights are reset" in page and "CONTAMINATED" not in page


def test_recall_is_asked_in_the_models_own_characters(place: Path, answer) -> None:
    task = "recall(vocab=8, length=16, train_examples=64)"
    arguments = ("eval", "model.safetensors", "--synthetic", task, "--examples", 16)
    found = json.loads(answer(*arguments, "--fit", 2, "--json"))
    assert "texts" not in found
    (row,) = found["synthetic"]
    assert 0 <= row["acc"] <= row["acc_among"] + 1e-9 <= 1.001 and row["examples"] == 16
    assert {"trained", "scratch"} <= set(row["fit"])
    assert "chance" in answer(*arguments)


def test_mad_is_every_family_asked_or_named_with_its_reason(place: Path, answer) -> None:
    arguments = ("eval", "model.safetensors", "--synthetic", "mad", "--synthetic", "recalls", "--examples", 2)
    rows = json.loads(answer(*arguments, "--json"))["synthetic"]
    wanted = dict.fromkeys(show_task(parse_task(text)) for text in (*GROUPS["mad"], *GROUPS["recalls"]))
    assert [row["task"] for row in rows] == list(wanted)  # each once
    for row in rows:
        assert ("acc" in row) != ("not_asked" in row)
    page = answer(*arguments)
    reasons = [row["not_asked"] for row in rows if "not_asked" in row]
    assert len(reasons) == 2 and all(f"Not asked: {reason}." in page for reason in reasons)


# arguments after "eval model.safetensors" -> what the sentence has to name
REFUSED: dict[str, tuple[str, ...]] = {
    "--text story.txt --data data": ("--text", "--data", "one text"),
    "--text none.txt": ("none.txt",),
    "--text empty.txt": ("empty.txt", "empty", "at least one byte"),
    "--text story.txt --stride 33": ("stride is 33", "1 and the window of 32"),
    "--text story.txt --whole --window 8": ("--whole", "--window"),
    "--text story.txt --chunk 8": ("--chunk", "--whole"),
    "--text story.txt --whole --ttt": ("--whole", "test-time training"),
    "--text story.txt --set lr=1": ("--set", "--ttt"),
    "--text story.txt --ttt --set lrr=1": ("lrr", "did you mean 'lr'"),
    "--text story.txt --ttt --set rates={'x.*':3}": ("'x.*'", "embedding.weight"),
    "--text story.txt --ttt --fresh 1": ("--fresh is 1", "below 1"),
    "--text story.txt --window 0": ("--window", "'0'"),
    "--text story.txt --kernel cuda": ("'cuda'", "auto, torch and c"),
    "--data nowhere": ("nowhere",),
    "--tokenizer none.json": ("none.json",),
    "--fit 3": ("--fit", "--synthetic"),
    "--include .": ("--include", "--tasks"),
    "--tasks ,": ("--tasks", "genesis"),
    "--synthetic recal": ("recal", "did you mean 'recall'"),
    "--synthetic parity": ("parity", "--fit"),
    "--synthetic compression": ("compression", "auto-encoder"),
    "--synthetic mad --synthetic compression": ("compression", "auto-encoder"),
    "--synthetic mqar": ("128 symbols", "94"),
}


@pytest.mark.parametrize("line", list(REFUSED))
def test_what_cannot_be_asked_is_one_sentence(line: str, place: Path, lab) -> None:
    outcome = lab("eval", "model.safetensors", *line.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("error: ") == 1 and "Traceback" not in outcome.err
    for word in REFUSED[line]:
        assert word in outcome.err, outcome.err
