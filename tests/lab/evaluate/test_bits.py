"""Bits per byte: every target once whatever the window, and all ways of scoring what is seen agree."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from blocks.model import LanguageModel
from lab.evaluate.bits import Passes, Windows, bits_per_byte, by_context, score
from lab.evaluate.text import Text, TextError, cut, encode
from lab.evaluate.windows import WindowError, spans
from lab.model.spec import loads, schedule_of, shape_of
from tests.lab.evaluate.small import SPEC, Bytes, model_of, random_text

SEED = 20261127


def test_every_target_is_scored_once_for_any_length_window_stride_and_beginning() -> None:
    for window in range(1, 12):
        for stride in range(1, window + 1):
            for begin in (0, 1, 5, 13):
                for end in range(begin, begin + 30):
                    found = list(spans(begin, end, window, stride))
                    assert [i for span in found for i in range(span.first, span.stop)] == list(
                        range(begin, end)
                    )
                    for span in found:
                        assert span.stop - span.start <= window and 0 <= span.start <= span.first
                        # Nothing is predicted from less than it could be.
                        assert span.first - span.start >= min(span.first, window - stride)


def test_windows_that_would_leave_targets_out_are_refused() -> None:
    with pytest.raises(WindowError, match="stride is 9; it must lie between 1 and the window of 8"):
        Windows(8, 9)
    with pytest.raises(WindowError, match="stride is 0"):
        Windows(8, 0)
    with pytest.raises(WindowError, match="window is 0"):
        Windows(0, 0)
    with pytest.raises(WindowError, match="chunk is 0"):
        Passes(0)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("separator", [True, False])
def test_all_ways_agree_where_the_window_holds_the_text(apart: bool, separator: bool) -> None:
    model, _ = model_of()
    text = random_text(70, SEED, apart and separator, separator)
    whole = score(model, text, Windows(100, 100))
    for how in (Windows(100, 1), Windows(70, 7), Passes(1000), Passes(1), Passes(7), Passes(64)):
        other = score(model, text, how)
        assert np.array_equal(whole.context, other.context), how
        np.testing.assert_allclose(other.nats, whole.nats, atol=2e-5, err_msg=str(how))


def test_a_window_gives_what_the_model_says_of_its_last_tokens() -> None:
    model, _ = model_of()
    text = random_text(50, SEED, separator=False)
    losses = score(model, text, Windows(16, 1))
    assert losses.nats[0] == math.log(257) and losses.context[0] == 0
    for i in (1, 15, 16, 17, 49):
        before = torch.from_numpy(text.ids[max(0, i - 16) : i].astype(np.int64))[None]
        with torch.no_grad():
            wanted = F.cross_entropy(model(before)[0][0, -1:], torch.tensor([int(text.ids[i])]))
        assert losses.nats[i] == pytest.approx(float(wanted), abs=2e-5)
        assert losses.context[i] == min(i, 16)


def test_documents_apart_do_not_see_one_another() -> None:
    model, _ = model_of()
    first, second = [10, 20, 30, 256], [40, 50, 256]

    def text(ids: list[int]) -> Text:
        return Text("two", np.array(ids), 5, 257, 256, apart=True)

    both = score(model, text(first + second), Windows(8, 8)).nats
    alone = [score(model, text(ids), Windows(8, 8)).nats for ids in (first, second)]
    np.testing.assert_allclose(both, np.concatenate(alone), atol=2e-5)
    # As in training: nothing but the separator before the first token, and no separator before the second.
    with torch.no_grad():
        wanted = F.cross_entropy(model(torch.tensor([[40]]))[0][0], torch.tensor([50]))
    assert both[5] == pytest.approx(float(wanted), abs=2e-5)


def test_a_uniform_model_takes_eight_bits_a_byte_and_the_separators() -> None:
    model = LanguageModel(schedule_of(loads(SPEC)), shape_of(loads(SPEC)), vocab=256)
    torch.nn.init.zeros_(model.head.weight)
    text = encode("words", ["äöü and more"], Bytes(), 256)
    assert text.size == len("äöü and more".encode()) and text.separator is None
    assert bits_per_byte(score(model, text, Windows(4, 2)).nats.sum(), text.size) == pytest.approx(
        8, abs=1e-6
    )
    model, _ = model_of()
    torch.nn.init.zeros_(model.head.weight)
    text = encode("words", ["one", "two"], Bytes(), 257, closed=True)
    assert (len(text.ids), text.size) == (8, 6)
    assert score(model, text, Passes(3)).nats.sum() == pytest.approx(8 * math.log(257), abs=1e-5)


def test_the_table_by_context_holds_every_target() -> None:
    model, _ = model_of()
    losses = score(model, random_text(70, SEED, separator=False), Windows(20, 20))
    rows = by_context(losses)
    assert [(row["from"], row["to"]) for row in rows] == [(0, 0), (1, 1), (2, 3), (4, 7), (8, 15), (16, 20)]
    assert sum(row["targets"] for row in rows) == 70
    total = sum(row["targets"] * row["nats"] for row in rows)
    assert total == pytest.approx(losses.nats.sum())


def test_a_text_is_cut_between_letters_and_nothing_is_lost() -> None:
    documents = ["aäb", "€", "cd"]
    raw = "".join(documents).encode()
    for size in range(len(raw) + 2):
        before, after = cut(documents, size)
        assert "".join(before + after) == "".join(documents)
        length = len("".join(before).encode())
        assert length <= size and (length > size - 3 or length == len(raw))


def test_texts_that_cannot_be_scored() -> None:
    with pytest.raises(TextError, match="is empty"):
        encode("nothing", [""], Bytes(), 257)
    with pytest.raises(TextError, match="token id 256; the model knows those below 256"):
        Text("other", np.array([1, 256]), 1, 256, None)
    with pytest.raises(TextError, match="no separator"):
        encode("two", ["a", "b"], Bytes(), 256)
