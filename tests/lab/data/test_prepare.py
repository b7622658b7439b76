"""Prepared tokens: what was read, whole, in any format, split by the text alone, or nothing at all."""

import gzip
import json
import os
import random
import tracemalloc
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lab.data.manifest import MANIFEST
from lab.data.mapped import GRAIN, map_files
from lab.data.prepare import Sofar, held_out, prepare
from lab.data.shards import Tokens, open_tokens
from lab.data.sources import How
from lab.data.tokens import Bytes, DataError, JsonTokenizer

TEXTS = [
    "first\n",
    "zweiter Text, naïve",
    "",
    "first\n",
    "<|endoftext|>",
    "x" * 300,
    *(f"number {i}" for i in range(60)),
]


def documents(tokens: Tokens, split: str = "train") -> list[str]:
    stream = tokens.tokens("train" if split == "train" else "valid")
    ends = np.flatnonzero(stream == tokens.separator)
    assert not len(stream) or ends[-1] == len(stream) - 1
    return [tokens.tokenizer.decode(part[:-1]) for part in np.split(stream, ends + 1)[:-1]]


def test_the_stream_is_the_documents_each_with_its_separator(prepared, bpe: JsonTokenizer) -> None:
    wanted = [text for text in TEXTS if text]
    for tokenizer in (Bytes(), bpe):
        tokens = prepared(TEXTS, tokenizer)
        assert documents(tokens) == wanted
        assert tokens.bytes("train") == sum(len(text.encode()) for text in wanted)
        assert tokens.documents("train") == len(wanted) and tokens.manifest.empty == 1
        assert tokens.manifest.train.tokens == len(tokens.tokens("train"))
        assert (tokens.tokens("train").dtype, tokens.tokens("train").flags.writeable) == (np.uint16, False)
        assert tokens.vocab == tokenizer.vocab and tokens.tokenizer_digest == tokenizer.digest
        assert tokens.mask("train") is None and len(tokens.tokens("valid")) == 0
        tokens.check()


def test_bytes_are_those_of_the_decoded_text_also_of_conversations(prepared, bpe: JsonTokenizer) -> None:
    talk = [{"role": "user", "content": "é <|im_end|>"}, {"role": "assistant", "content": "ü\n"}]
    for tokenizer in (Bytes(), bpe):
        tokens = prepared([talk, talk], tokenizer, chat=True)
        stream, mask = tokens.tokens("train"), tokens.mask("train")
        assert tokens.bytes("train") == len(tokens.tokenizer.decode(stream).encode())
        assert mask is not None and mask.dtype == np.uint8 and len(mask) == len(stream)
        assert mask.sum() == tokens.manifest.train.learned
        assert not mask[stream == tokens.separator].any()
        assert tokens.tokenizer.decode(stream[mask == 1]) == "ü\n" * 2
        tokens.check()


def test_the_split_hangs_on_the_text_alone(prepared) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    texts = [text for text in TEXTS if text]
    one = prepared(texts, valid=0.3)
    random.Random(seed).shuffle(texts)
    other = prepared(texts * 2, valid=0.3)
    train, valid = set(documents(one)), set(documents(one, "valid"))
    assert (train, valid) == (set(documents(other)), set(documents(other, "valid")))
    assert train and valid and not train & valid
    assert other.documents("valid") == 2 * one.documents("valid")
    assert one.digest != other.digest
    # Sources of different shares leak nothing either: what a smaller share holds out, a larger one does.
    assert valid >= {text for text in texts if held_out(text, 0.1)}
    assert abs(sum(held_out(str(number), 0.1) for number in range(4000)) - 400) < 4.5 * 19


def test_many_shards_are_one_array(prepared) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    texts = ["".join(random.Random(seed + i).choices("abcd ", k=60_000)) for i in range(4)]
    many, one = prepared(texts), prepared(texts, shard=4 * GRAIN)
    assert (len(many.manifest.train.shards), len(one.manifest.train.shards)) == (4, 1)
    stream = many.tokens("train")
    assert np.array_equal(stream, one.tokens("train")) and documents(many) == texts
    assert many.digest == one.digest, "the digest is that of the content, not of its files"
    across = stream[GRAIN - 5 : GRAIN + 5]
    assert np.array_equal(across, one.tokens("train")[GRAIN - 5 : GRAIN + 5])
    assert all(shard.tokens <= GRAIN for shard in many.manifest.train.shards)


def test_only_whole_pages_can_be_put_in_a_row(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(b"12")
    with pytest.raises(ValueError, match="multiples"):
        map_files([tmp_path / "a", tmp_path / "b"], np.dtype("<u2"))
    assert map_files([], np.dtype("<u2")).shape == (0,)


def test_every_format_gives_the_same_tokens(tmp_path: Path, bpe: JsonTokenizer) -> None:
    texts = ["one\n", "two\nlines\n", "drei\n"]
    lines = "".join(json.dumps({"id": 1, "body": text}) + "\n\n" for text in texts)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    pl.DataFrame({"id": [1, 2, 3], "body": texts}).write_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.txt").write_text("---\n".join(texts) + "---\n---\n")
    (tmp_path / "folder/.git").mkdir(parents=True)
    (tmp_path / "folder/.git/config").write_bytes(b"\xff")
    for name, text in zip("abc", texts, strict=True):
        (tmp_path / "folder" / name).write_text(text)
    how = How(field="body", boundary="---")
    found = [
        prepare([str(tmp_path / name)], tmp_path / f"out-{name}", bpe, how, valid=0).digest
        for name in ("a.jsonl", "a.jsonl.gz", "a.parquet", "a.txt", "folder")
    ]
    assert len(set(found)) == 1
    assert documents(open_tokens(str(tmp_path / "out-a.txt"))) == texts
    both = prepare([str(tmp_path / "a.txt"), str(tmp_path / "folder")], tmp_path / "both", bpe, how, valid=0)
    assert [one.documents for one in both.inputs] == [3, 3] and both.train.documents == 6


def test_conversations_come_out_of_parquet_as_out_of_lines(tmp_path: Path) -> None:
    talks = [[{"role": "user", "content": f"{i}"}, {"role": "assistant", "content": "yes"}] for i in range(3)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    pl.DataFrame({"messages": talks}).write_parquet(tmp_path / "a.parquet")
    how = How(field="messages", chat=True)
    made = [
        prepare([str(tmp_path / name)], tmp_path / f"{name}.out", Bytes(), how, valid=0)
        for name in ("a.jsonl", "a.parquet")
    ]
    assert made[0].digest == made[1].digest and made[0].train.learned == 3 * 4


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "is no JSON"),
        (b"[1]", "is list, no object with the key text"),
        (b'{"body": "x"}', "has no key text; it has body: choose by --field"),
        (b'{"text": 3}', "has 3 as its text; text is wanted"),
        (b'{"text": "\xff"}', "is no text in UTF-8"),
        (b'{"text": "a\\ud800"}', "half of a pair"),
        (b"[" * 100_000, "is no JSON"),
    ],
)
def test_a_bad_line_is_told_by_file_and_line(tmp_path: Path, line: bytes, said: str) -> None:
    source, out = tmp_path / "a.jsonl", tmp_path / "out"
    source.write_bytes(b'{"text": "good"}\n' + line + b"\n" + line + b'\n{"text": "good too"}\n')
    with pytest.raises(DataError, match=rf"a.jsonl:2: .*{said}.*--allow-bad") as caught:
        prepare([str(source)], out, Bytes(), valid=0)
    assert "\n" not in str(caught.value) and not out.exists(), "nothing is left"
    with pytest.raises(DataError, match=r"a.jsonl:3: .*the 2th of 1 that may be left out"):
        prepare([str(source)], out, Bytes(), valid=0, allow_bad=1)
    told: list[str] = []
    manifest = prepare([str(source)], out, Bytes(), valid=0, allow_bad=2, tell=told.append)
    assert [one.rpartition("a.jsonl")[2][:3] for one in told] == [":2:", ":3:"]
    assert manifest.left_out == 2 and documents(open_tokens(str(out))) == ["good", "good too"]


def test_what_was_cut_short_is_begun_again_and_is_not_opened(tmp_path: Path) -> None:
    source, out = tmp_path / "a.txt", tmp_path / "out"
    source.write_text("text\n")
    out.mkdir()
    for name in ("train-00000.bin", "train-00007.bin", ".tmp-valid"):  # what a killed process leaves
        (out / name).write_bytes(b"old")
    with pytest.raises(DataError, match=r"is not finished; run lab data prepare again"):
        open_tokens(str(out))
    prepare([str(source)], out, Bytes(), valid=0)
    assert sorted(os.listdir(out)) == [MANIFEST, "train-00000.bin"]
    assert documents(open_tokens(str(out))) == ["text\n"]


def test_an_interrupt_leaves_nothing_and_a_second_process_waits(tmp_path: Path) -> None:
    source, out = tmp_path / "a.txt", tmp_path / "made/out"
    source.write_text("text\n")

    def interrupt(_: Sofar) -> None:
        with pytest.raises(DataError, match="is being prepared by another process"):
            prepare([str(source)], out, Bytes())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare([str(source)], out, Bytes(), progress=interrupt)
    assert not out.exists()


def test_folders_of_others_and_finished_ones_are_left_alone(tmp_path: Path, prepared) -> None:
    source = tmp_path / "a.txt"
    source.write_text("text\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("")
    for out, said in (
        (tmp_path / "mine", "thesis.tex"),
        (prepared(["x"]).folder, "already"),
        (source, "is a file"),
    ):
        before = sorted(out.iterdir()) if out.is_dir() else []
        with pytest.raises(DataError, match=said):
            prepare([str(source)], out, Bytes())
        assert (sorted(out.iterdir()) if out.is_dir() else []) == before


def test_what_a_disk_did_to_a_folder_is_said(prepared) -> None:
    tokens = prepared(["some text"])
    shard, manifest = tokens.folder / "train-00000.bin", tokens.folder / MANIFEST
    content, said = shard.read_bytes(), manifest.read_text()
    shard.write_bytes(b"S" + content[1:])
    with pytest.raises(DataError, match="is not what was written"):
        open_tokens(str(tokens.folder)).check()
    shard.write_bytes(content[:-2])
    with pytest.raises(DataError, match=r"has 18 bytes and not the 20"):
        open_tokens(str(tokens.folder))
    shard.unlink()
    with pytest.raises(DataError, match="is missing"):
        open_tokens(str(tokens.folder))
    for broken in (
        "{",
        said.replace('"train-00000.bin"', '"../secret"'),
        said.replace('"vocab": 257', '"vocab": "x"'),
    ):
        manifest.write_text(broken)
        with pytest.raises(DataError, match=r"manifest.json: .*prepare the folder again"):
            open_tokens(str(tokens.folder))
    with pytest.raises(DataError, match="there is no folder"):
        open_tokens(str(tokens.folder / "none"))


def test_memory_does_not_grow_with_the_input(tmp_path: Path) -> None:
    def peak(lines: int) -> int:
        source = tmp_path / f"{lines}.jsonl"
        with source.open("w") as file:
            for number in range(lines):
                file.write(json.dumps({"text": f"{number} " + "word " * 50}) + "\n")
        tracemalloc.start()
        try:
            prepare([str(source)], tmp_path / f"out-{lines}", Bytes(), valid=0.1)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    small, large = peak(2000), peak(8000)
    assert large < 1.2 * small, (small, large)


def test_datasets_of_hugging_face_are_read(tmp_path: Path, bpe: JsonTokenizer) -> None:
    (tmp_path / "set").mkdir()
    pl.DataFrame({"text": ["eins", "zwei"]}).write_parquet(tmp_path / "set/train.parquet")
    prepare([f"hf:{tmp_path}/set"], tmp_path / "out", bpe, valid=0)
    assert documents(open_tokens(str(tmp_path / "out"))) == ["eins", "zwei"]
