"""Experts: who is chosen, that none is dropped, what is computed at all, and what keeps them busy alike."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.base import LOSSES, Losses, OptionError, Shape
from blocks.model import LanguageModel
from blocks.moe import MoE, balance, experts_reference, experts_sorted, route
from blocks.schedule import parse
from tests.blocks.counting import multiply_adds
from tests.blocks.harness import assert_same, noise
from tests.blocks.test_gla import with_gradients

N, D, E, HIDDEN = 23, 6, 5, 7


def weights() -> list[Tensor]:
    return [noise(E, HIDDEN, D, seed=2), noise(E, HIDDEN, D, seed=3), noise(E, D, HIDDEN, seed=4)]


def test_the_likeliest_are_chosen_and_ties_go_to_the_lowest_index() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [1.0, 1.0, 1.0], [-9.0, -8.0, -9.0]]).double()
    weight, expert = route(logits, 2)
    assert expert.tolist() == [[1, 2], [0, 1], [1, 0]]
    assert_same(weight, logits.gather(-1, expert).softmax(-1), "probabilities over the chosen")
    weight, expert = route(logits, 1)
    assert expert.tolist() == [[1], [0], [1]]
    assert_same(weight, logits.softmax(-1).gather(-1, expert), "a lone one keeps its own")


@pytest.mark.parametrize("active", [1, 2, E])
@pytest.mark.parametrize("crowded", [False, True])
def test_sorting_changes_nothing_also_where_all_choose_alike(active: int, crowded: bool) -> None:
    """With ``crowded`` one expert has every token: any fixed capacity would drop some."""
    logits = noise(N, E) + (50.0 * F.one_hot(torch.tensor(3), E) if crowded else 0.0)
    weight, expert = route(logits, active)
    got, right = (
        with_gradients(
            lambda x, w, *m, form=form: [form(x, w, expert, *m)], [noise(N, D), weight, *weights()]
        )
        for form in (experts_sorted, experts_reference)
    )
    for i, (one, two) in enumerate(zip(got, right, strict=True)):
        assert_same(one, two, f"result {i}")


def test_all_experts_in_use_are_a_weighted_sum_of_swiglus() -> None:
    torch.manual_seed(0)
    module = MoE(experts=3, active=3, expand=1.5).build(Shape(dim=4)).double()
    named, x = dict(module.named_parameters()), noise(2, 5, 4)
    p = (x @ named["router.weight"].T).softmax(-1)
    hidden = F.silu(x @ named["gate.weight"].T) * (x @ named["up.weight"].T)
    each = (hidden.unflatten(-1, (3, 6)) * p[..., None]).flatten(-2)
    assert_same(module(x)[0], each @ named["out.weight"].T, "output")


def test_experts_that_are_not_chosen_are_not_computed() -> None:
    """The multiply-adds of the fast form are those of the router and of ``active`` experts a token."""
    block, shape = MoE(experts=6, active=2, expand=2.0), Shape(dim=8)
    x = noise(3, 40, 8).float()
    assert multiply_adds(block.build(shape), x) == 120 * (6 * 8 + 2 * 3 * 8 * 16)
    assert block.flops(shape, 40) == 2 * (6 * 8 + 2 * 3 * 8 * 16)


def test_a_token_has_its_experts_whatever_stands_beside_it() -> None:
    torch.manual_seed(0)
    module, x = MoE(expand=1.0).build(Shape(dim=8)).double(), noise(2, 30, 8)
    crowd = x[:1, :1].expand(2, 29, 8)
    assert_same(module(torch.cat([x[:, :1], crowd], 1))[0][:, :1], module(x)[0][:, :1], "in a crowd")


def test_balance_is_1_where_experts_share_evenly_and_their_count_where_one_has_all() -> None:
    even = torch.eye(E).repeat(4, 1).double()
    assert balance(even, route(even, 1)[1]).item() == pytest.approx(1)
    one = torch.zeros(20, E).double()
    one[:, 2] = 100
    assert balance(one, route(one, 1)[1]).item() == pytest.approx(E)
    logits = noise(N, E)
    expert = route(logits, 2)[1]
    share = torch.stack([(expert == e).double().mean() for e in range(E)])
    assert balance(logits, expert).item() == pytest.approx(float(E * share @ logits.softmax(-1).mean(0)))


def test_every_moe_of_a_model_hands_its_balance_out_to_who_asks_and_the_output_is_the_same() -> None:
    torch.manual_seed(0)
    net = LanguageModel(parse("(gdn, moe) + (attn, swiglu) + (attn, moe(active=1))"), Shape(dim=16), vocab=9)
    ids, own = torch.arange(18).view(2, 9) % 9, Losses()
    segments = torch.tensor([[0] * 4 + [1] * 5, [0] * 9])
    for context in ({}, {"segments": segments}):
        own = Losses()
        asked, plain = net(ids, context={LOSSES: own, **context})[0], net(ids, context=dict(context))[0]
        assert torch.equal(asked, plain)
        assert len(own.found) == 2 and all(0 < one.item() < 9 for one in own.found)
    torch.stack(own.found).sum().backward()
    reached = {
        name.split(".")[2] for name, p in net.named_parameters() if "router" in name and p.grad is not None
    }
    assert reached == {"0", "2"}


@pytest.mark.parametrize(
    "options,said",
    [
        ({"experts": 1}, "experts is 1"),
        ({"active": 0}, "active is 0"),
        ({"experts": 3, "active": 4}, "active is 4.* the 3 experts"),
        ({"expand": 0.0}, "expand is 0"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=f"^moe: {said}[^\n]*$"):
        MoE(**options)
