"""Tokenizers: any text comes out as it went in, and no text can spell a mark."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from lab.data.bpe import SMALLEST, train_bpe
from lab.data.tokens import END, MARKS, SEPARATOR, START, Bytes, DataError, JsonTokenizer, open_tokenizer

TEXTS = st.lists(
    st.sampled_from([*MARKS, "\n", " ", "ü", "\0", "the"]) | st.text(max_size=8), max_size=8
).map("".join)


def word_level(specials: list[str]) -> bytes:
    inner = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore
    inner.add_special_tokens(specials)
    inner.enable_truncation(2)
    inner.enable_padding(length=9)
    return inner.to_str().encode()


@given(TEXTS)
@settings(max_examples=60, deadline=None)
def test_text_comes_back_and_holds_no_mark(bpe: JsonTokenizer, text: str) -> None:
    for tokenizer in (Bytes(), bpe):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.encode_batch(["", text])[1].tolist() == ids
        assert not {tokenizer.id_of(mark) for mark in MARKS} & set(ids)
        assert all(0 <= one < tokenizer.vocab for one in ids)


def test_marks_are_ids_of_their_own_and_no_text(bpe: JsonTokenizer) -> None:
    for tokenizer in (Bytes(), bpe):
        marks = [tokenizer.id_of(mark) for mark in MARKS]
        assert len(set(marks)) == 3 and marks[0] == tokenizer.separator
        assert tokenizer.decode([*tokenizer.encode("a"), *(one for one in marks if one is not None)]) == "a"
        assert tokenizer.id_of("the") is None


def test_bytes_are_the_bytes() -> None:
    assert Bytes().encode("é") == [0xC3, 0xA9]
    assert Bytes().decode([0xC3]) == "\N{REPLACEMENT CHARACTER}"
    assert Bytes.vocab == 257 and Bytes().separator == 256
    with pytest.raises(DataError, match="0 to 256"):
        Bytes().decode([257])


@pytest.mark.parametrize("separator", ["</s>", SEPARATOR, None])
def test_marks_that_a_file_lacks_come_after_its_last_id(separator: str | None) -> None:
    tokenizer = JsonTokenizer("x", word_level([separator] if separator else []))
    wanted = {SEPARATOR: 3, START: 4, END: 5}
    assert {mark: tokenizer.id_of(mark) for mark in MARKS} == wanted
    assert tokenizer.vocab == 6


def test_documents_stay_whole_whatever_a_file_says_of_rows() -> None:
    assert JsonTokenizer("x", word_level([])).encode("a b a b") == [0, 1, 0, 1]
    assert JsonTokenizer("x", word_level([])).encode_batch(["a b a", "b"])[1].tolist() == [1]


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    content = train_bpe(["the cat the hat"], 270)
    assert content == train_bpe(["the cat the hat"], 270), "the same text, the same file"
    for name in ("one.json", "tokenizer.json"):
        (tmp_path / name).write_text(content, encoding="utf-8")
    one, other = open_tokenizer(str(tmp_path / "one.json")), open_tokenizer(str(tmp_path))
    assert one.digest == other.digest != Bytes().digest
    assert {token: one.id_of(token) for token in MARKS} == {mark: number for number, mark in enumerate(MARKS)}
    assert json.loads(content)["model"]["type"] == "BPE"


def test_what_is_no_tokenizer_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"give bytes, or the path of a tokenizer.json"):
        open_tokenizer(str(tmp_path / "none.json"))
    (tmp_path / "bad.json").write_bytes(b"\xff{")
    with pytest.raises(DataError, match=r"bad.json is no tokenizer.json"):
        open_tokenizer(str(tmp_path / "bad.json"))
    with pytest.raises(DataError, match=f"--vocab is 258; at least {SMALLEST}"):
        train_bpe(["a"], SMALLEST - 1)
