"""The three commands: one answer on stdout, what happens meanwhile on stderr."""

import json
from pathlib import Path

import pytest

from lab.data.shards import open_tokens
from lab.data.tokens import open_tokenizer


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    talk = {"messages": [{"role": "user", "content": "How?"}, {"role": "assistant", "content": "So."}]}
    (tmp_path / "talks.jsonl").write_text(json.dumps(talk) + "\n")
    (tmp_path / "text.txt").write_text("".join(f"document {number} of many\n\n" for number in range(200)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_text_to_a_tokenizer_to_tokens(lab, place: Path) -> None:
    made = lab(
        "data", "tokenizer", "text.txt", "--boundary", "", "--vocab", "280", "--out", "t.json", "--json"
    )
    about = json.loads(made.out)
    assert about["vocab"] == open_tokenizer("t.json").vocab == 280
    done = lab(
        "data", "prepare", "text.txt", "--boundary", "", "--tokenizer", "t.json", "--out", "out", "--json"
    )
    assert done.code == 0, done.err
    tokens = open_tokens("out")
    assert json.loads(done.out)["digest"] == tokens.digest
    assert about["documents"] == tokens.documents("train"), "the tokenizer saw nothing that is held out"
    assert 0 < tokens.documents("valid") < 30 and tokens.documents("train") + tokens.documents("valid") == 200
    # The folder has all it needs.
    (place / "t.json").unlink()
    shown = lab("data", "show", "out", "--check", "-n", "1")
    assert shown.code == 0 and "document 0 of many" in shown.out and tokens.digest in shown.out
    assert "all shards are what was written" in shown.out


def test_conversations_are_shown_with_what_counts(lab, place: Path) -> None:
    done = lab("data", "prepare", "talks.jsonl", "--chat", "--out", "out")
    assert done.code == 0 and "note: none of 1 document is held out" in done.err
    shown = lab("data", "show", "out", "--json")
    assert json.loads(shown.out)["beginnings"] == ["user\nHow?\nassistant\n[[So.]]\n"]


def test_few_pieces_make_a_small_tokenizer_and_that_is_said(lab, place: Path) -> None:
    made = lab("data", "tokenizer", "text.txt", "--out", "t.json", "--valid", "0")
    assert made.code == 0 and "fewer than --vocab 4,096" in made.err
    again = lab("data", "tokenizer", "text.txt", "--out", "t.json")
    assert again.code == 2 and "is there already" in again.err
