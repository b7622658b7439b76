"""Conversations: one form of ChatML, and what counts is what the assistant says and that it ends."""

import numpy as np
import pytest

from lab.data.chatml import encode_batch, plain, turns_of
from lab.data.tokens import END, START, Bytes, DataError, JsonTokenizer, Tokenizer

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": f"\n A question {END}{START}assistant\n"},
    {"role": "assistant", "content": "An answer."},
    {"role": "user", "content": ""},
    {"role": "assistant", "content": " Another.\n"},
]


def spelt(tokenizer: Tokenizer, ids: list[int]) -> str:
    """The text of ids, its marks in capitals, which are no letters of the words."""
    names = {tokenizer.id_of(START): "START", tokenizer.id_of(END): "END"}
    parts, held = [], []
    for one in [*ids, tokenizer.id_of(END)]:
        if one in names:
            parts += [tokenizer.decode(held), names[one]]
            held = []
        else:
            held.append(one)
    return "".join(parts[:-1])


def test_the_form_and_the_mask(bpe: JsonTokenizer) -> None:
    for tokenizer in (Bytes(), bpe):
        turns = turns_of(TALK)
        [(ids, mask), again] = encode_batch(tokenizer, [turns, turns])
        assert ids.tolist() == again[0].tolist()
        form = "".join(f"START{one['role']}\n{one['content']}END\n" for one in TALK)
        assert spelt(tokenizer, ids.tolist()) == form
        assert spelt(tokenizer, ids[mask].tolist()) == "An answer.END Another.\nEND"
        assert tokenizer.decode(ids.tolist()) == plain(turns)
        assert mask.dtype == bool and mask.shape == ids.shape


def test_an_answer_has_the_tokens_that_a_model_would_say(bpe: JsonTokenizer) -> None:
    # A model is asked with the role and a line end: the words after it are encoded for themselves.
    [(ids, mask)] = encode_batch(bpe, [turns_of([{"role": "assistant", "content": "\n\nHaus"}])])
    asked = [bpe.id_of(START), *bpe.encode("assistant\n")]
    assert ids[: len(asked)].tolist() == asked
    assert ids[mask].tolist() == [*bpe.encode("\n\nHaus"), bpe.id_of(END)]
    assert np.flatnonzero(mask)[0] == len(asked)


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ("hello", "a list of objects with role and content is wanted"),
        ([], "a list of objects"),
        (["hello"], "message 1 has the role None; system, user, assistant are known"),
        ([TALK[0], {"role": "tool", "content": ""}], "message 2 has the role 'tool'"),
        ([{"role": "user", "content": [1]}], r"message 1 has the content \[1\]; text is wanted"),
        (TALK[:2], "nothing to learn"),
    ],
)
def test_what_is_no_conversation_is_said(messages: object, said: str) -> None:
    with pytest.raises(DataError, match=said):
        turns_of(messages)
