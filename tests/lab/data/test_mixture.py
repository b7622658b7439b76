"""Rows: a pure function of (sources, length, seed, step, index); each once an epoch; segments and mask."""

import random
from collections import Counter

import numpy as np
import pytest

from lab.data.mixture import Mixture, Rows
from lab.data.tokens import DataError, JsonTokenizer


def texts(rng: random.Random, letters: str, count: int) -> list[str]:
    return ["".join(rng.choices(letters, k=rng.randrange(1, 40))) for _ in range(count)]


@pytest.fixture
def two(prepared):
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    return [(prepared(texts(rng, "abc", 60)), 3.0), (prepared(texts(rng, "xyz", 25)), 1.0)]


def same(one: Rows, other: Rows) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("tokens", "segments", "mask")
    )


def test_rows_are_the_same_however_they_are_asked_for(two) -> None:
    whole = [Mixture(two, 16, 5, 8).rows(step, range(8)) for step in range(20)]
    again = Mixture(two, 16, 5, 8)
    for step in reversed(range(20)):  # a run that is resumed, in another order, by other processes
        for parts in ([[0, 1, 2, 3], [4, 5, 6, 7]], [[7], [5, 3, 1], [0, 2, 4, 6]]):
            for part in parts:
                rows = again.rows(step, part)
                assert same(
                    rows, Rows(*(getattr(whole[step], name)[part] for name in ("tokens", "segments", "mask")))
                )
    assert not same(whole[0], Mixture(two, 16, 6, 8).rows(0, range(8))), "the seed counts"


def test_an_epoch_has_each_row_of_a_source_once_in_an_order_of_its_own(two) -> None:
    mixture = Mixture(two, 16, 5, 8)
    seen: dict[tuple[int, int], list[int]] = {}
    for step in range(40):
        at = mixture.places(step, range(8))
        for source, epoch, row in zip(at.source.tolist(), at.epoch.tolist(), at.row.tolist(), strict=True):
            seen.setdefault((source, epoch), []).append(row)
    whole = [key for key in seen if (key[0], key[1] + 1) in seen]
    assert len(whole) > 3
    for source, epoch in whole:
        assert sorted(seen[source, epoch]) == list(range(mixture.rows_of_epoch[source]))
    assert seen[0, 0] != seen[0, 1] and seen[0, 0] != sorted(seen[0, 0])


def test_each_token_is_a_target_once_an_epoch(prepared) -> None:
    tokens = prepared(["".join(map(chr, range(32, 127)))])
    stream = tokens.tokens("train")
    mixture = Mixture([(tokens, 1.0)], 5, 0, mixture_rows := (len(stream) - 1) // 5)
    rows = mixture.rows(0, range(mixture_rows))
    targets = Counter(rows.tokens[:, 1:].ravel().tolist())
    assert targets == Counter(stream[1 : 5 * mixture_rows + 1].tolist())
    assert set(targets.values()) == {1}


def test_shares_are_those_of_the_weights(two) -> None:
    mixture = Mixture(two, 16, 0, 4)
    assert mixture.shares == (0.75, 0.25)
    for step in range(10):
        rows = mixture.rows(step, range(4))
        assert sum(bool(set(row) & set(b"xyz")) for row in rows.tokens.tolist()) == 1


def test_segments_count_the_documents_of_a_row(two) -> None:
    mixture = Mixture(two, 30, 1, 16)
    rows = mixture.rows(3, range(16))
    for tokens, segments in zip(rows.tokens.tolist(), rows.segments.tolist(), strict=True):
        number, wanted = 0, []
        for token in tokens:
            wanted.append(number)
            number += token == 256
        assert segments == wanted
    assert rows.segments.max() > 0 and rows.mask.all()
    assert rows.tokens.dtype == rows.segments.dtype == np.int64 and rows.mask.dtype == bool
    assert rows.tokens.shape == rows.segments.shape == rows.mask.shape == (16, 31)


def test_a_mask_lies_beside_its_tokens_and_text_has_ones(prepared) -> None:
    talk = [{"role": "user", "content": "abc"}, {"role": "assistant", "content": "XYZ"}]
    talks, plain = prepared([talk] * 9, chat=True), prepared(["plain text, lower case"] * 9)
    rows = Mixture([(talks, 1.0), (plain, 1.0)], 40, 0, 8).rows(0, range(8))
    learned = set(rows.tokens[rows.mask & (rows.tokens < 97)].tolist())
    assert learned >= set(b"XYZ")
    for tokens, mask in zip(rows.tokens, rows.mask, strict=True):
        if mask.all():
            assert not set(tokens.tolist()) & set(b"XYZ")
        else:
            assert set(tokens[mask].tolist()) <= {*b"XYZ", 255}
            assert not set(tokens[~mask].tolist()) & set(b"XYZ")


def test_no_answer_is_learned_whose_conversation_began_in_the_row_before(prepared) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    long = [
        [
            {"role": role, "content": words}
            for role, words in zip(("user", "assistant") * 3, said, strict=True)
        ]
        for said in (texts(rng, "abc", 6) for _ in range(40))
    ]
    talks, plain = prepared(long, chat=True), prepared(texts(rng, "xyz", 40))
    stream, counts = talks.tokens("train"), talks.mask("train")
    assert counts is not None
    length = 50  # shorter than many of them
    sources = [(talks, 1.0)], [(plain, 1.0)]
    alone, text = (Mixture(one, length, seed, 1, documents=True) for one in sources)
    together = Mixture(sources[0], length, seed, 1)
    cut = 0
    for step in range(alone.rows_of_epoch[0]):
        rows, at = alone.rows(step, [0]), int(alone.places(step, [0]).row[0]) * length
        for t in range(length + 1):
            begin = at + t  # of the document that the token belongs to, in the stream
            while begin > 0 and stream[begin - 1] != talks.separator:
                begin -= 1
            assert rows.mask[0, t] == (bool(counts[at + t]) and begin >= at)
            cut += bool(counts[at + t]) and begin < at
        # Unless documents are kept apart, all counts.
        assert together.rows(step, [0]).mask[0].tolist() == counts[at : at + length + 1].astype(bool).tolist()
    assert cut > 0
    for step in range(text.rows_of_epoch[0]):
        assert text.rows(step, [0]).mask.all()


def test_what_cannot_be_mixed_is_said(prepared, bpe: JsonTokenizer) -> None:
    short, other = prepared(["a"]), prepared(["Haus und Haus"], bpe)
    with pytest.raises(DataError, match=r"has 2 tokens to train on; a row of length 4 takes 5"):
        Mixture([(short, 1.0)], 4, 0, 1)
    with pytest.raises(DataError, match=r"tokenizer bytes, .* with trained, which is another"):
        Mixture([(short, 1.0), (other, 1.0)], 1, 0, 1)
    with pytest.raises(DataError, match="length is 0"):
        Mixture([(short, 1.0)], 0, 0, 1)
    for step, indices in ((0, [2]), (0, [-1]), (-1, [0])):
        with pytest.raises(DataError, match="rows 0 to 1"):
            Mixture([(short, 1.0)], 1, 0, 2).rows(step, indices)
