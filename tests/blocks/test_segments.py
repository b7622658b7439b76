"""Packed documents in whole models: laid out and back, little filled up, refused where nothing is meant."""

import itertools
import random

import pytest
import torch
from torch import nn

from blocks.base import Shape
from blocks.genesis_model import GENESIS_152M, GenesisModel, ModeError
from blocks.model import LanguageModel, StateError
from blocks.schedule import parse
from blocks.segments import DOCUMENTS, SHORT, SegmentError, layout_of

SHAPE = Shape(dim=16, heads=2)
HYBRID = "(gdn, swiglu) + (attn(window=4), mlp) + (fox(conv=4), sparse) + genesis_gla"


def model() -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(parse(HYBRID), SHAPE, vocab=11).double()


def rows(lengths: list[list[int]]) -> torch.Tensor:
    return torch.stack([torch.arange(len(row)).repeat_interleave(torch.tensor(row)) for row in lengths])


def test_a_model_sees_each_document_of_a_row_alone() -> None:
    net, ids = model(), torch.randint(11, (2, 40), generator=torch.Generator().manual_seed(1))
    lengths = [[7, 33], [1, 20, 19]]
    packed, _ = net(ids, context={"segments": rows(lengths)})
    for i, row in enumerate(lengths):
        alone = torch.cat([net(one)[0][0] for one in ids[i : i + 1].split(row, dim=1)])
        torch.testing.assert_close(packed[i], alone, atol=1e-8, rtol=1e-8)
    # The same rows unpacked are something else, or this test could not fail.
    assert (packed - net(ids)[0]).abs().max() > 1e-3


class Same(nn.Module):
    """A mixer that gives back what it is given."""

    def forward(self, x_BTD: torch.Tensor, state: None, context: object) -> tuple[torch.Tensor, dict]:
        return x_BTD, {}


def test_every_token_has_one_place_and_little_is_filled_up() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(50):
        size = rng.randint(1, 300)
        lengths = []
        for _ in range(rng.randint(1, 4)):
            marks = sorted({0, size, *(rng.randrange(size) for _ in range(rng.randrange(20)))})
            lengths.append([b - a for a, b in itertools.pairwise(marks)])
        x = torch.randn(len(lengths), size, 1)
        layout = layout_of(rows(lengths), x)
        if layout is None:
            assert all(len(row) == 1 for row in lengths)
            continue
        assert torch.equal(layout.run(Same(), x, ({},) * len(layout.buckets)), x)
        used = sum(at.numel() for at in layout.buckets)
        assert used <= sum(max(2 * one, SHORT) for row in lengths for one in row)


def test_a_channel_mixer_takes_the_rows_as_they_are() -> None:
    net, seen = model(), []
    for part in net.stack.parts():
        part["block"].register_forward_pre_hook(lambda _, given: seen.append(list(given[0].shape)))
    net(torch.zeros(2, 40, dtype=torch.long), context={"segments": rows([[7, 33], [1, 39]])})
    blocks = [block.role for block in net.stack.blocks()]
    assert [shape for shape in seen if shape == [2, 40, 16]] == [[2, 40, 16]] * blocks.count("channel")


def test_a_block_reads_the_context_of_its_documents_and_what_it_leaves_is_found() -> None:
    context = {"segments": rows([[2, 3], [5]]), "tokens": torch.arange(10).view(2, 5), "word": "kept"}
    layout = layout_of(context["segments"], torch.zeros(2, 5, 1))
    assert layout is not None
    (one,) = layout.contexts(context)
    assert one["tokens"].tolist() == [[0, 1, 1, 1, 1], [2, 3, 4, 4, 4], [5, 6, 7, 8, 9]]
    assert one["word"] == "kept" and "segments" not in one
    one["loss"] = 1.0
    assert context[DOCUMENTS][0]["loss"] == 1.0


@pytest.mark.parametrize(
    "segments,said",
    [
        (torch.zeros(2, 4, dtype=torch.long), r"torch.int64 \[2, 4\].*\[2, 5\]"),
        (torch.zeros(2, 5), "torch.float32"),
        ([[0] * 5] * 2, "list"),
        (torch.tensor([[0, 0, 1, 1, 1], [0, 1, 0, 0, 0]]), "row 1 go down"),
    ],
)
def test_segments_that_do_not_fit_are_refused_in_one_sentence(segments: object, said: str) -> None:
    with pytest.raises(SegmentError, match=f"^segments .*{said}[^\n]*$"):
        model()(torch.zeros(2, 5, dtype=torch.long), context={"segments": segments})


@pytest.mark.parametrize("lengths", [[5], [2, 3]])
def test_packed_documents_neither_take_a_state_nor_leave_one(lengths: list[int]) -> None:
    net, ids, segments = model(), torch.zeros(1, 5, dtype=torch.long), rows([lengths])
    _, state = net(ids)
    with pytest.raises(SegmentError, match="segments and a state"):
        net(ids, state, {"segments": segments})
    _, none = net(ids, context={"segments": segments})
    with pytest.raises(StateError, match="the state is one of 0 layers and the model has 4"):
        net(ids, none)


def test_a_block_that_reads_across_documents_refuses_them() -> None:
    with torch.device("meta"):
        net = GenesisModel(GENESIS_152M)
    with pytest.raises(ModeError, match="segments"):
        net(torch.zeros(1, 4, dtype=torch.long, device="meta"), context={"segments": rows([[2, 2]])})
