"""Which laws the five functions keep: ``documented`` all of them, the shipped ones what they really keep."""

from typing import get_args

import pytest
import torch
from torch import Tensor

from blocks.genesis_model import MODES, GenesisModel, Mode, ModeError
from lab.genesis.verify import SMALL, randomised

EXACT = {"atol": 1e-8, "rtol": 1e-8}
CUTS = ([1] * 9 + [121], [64, 66], [63, 1, 1, 65], [130])


@pytest.fixture(scope="module")
def weights() -> tuple[GenesisModel, Tensor]:
    model, ids, _ = randomised(SMALL, 7)
    return model, ids[:, :130]


@torch.no_grad()
def logits(model: GenesisModel, ids_BT: Tensor) -> Tensor:
    return model(ids_BT)[0]


@pytest.mark.parametrize("mode", ["documented", "shipped-train", "shipped-cache"])
def test_any_split_gives_the_whole(mode: Mode, weights: tuple[GenesisModel, Tensor]) -> None:
    model, ids = weights[0].in_mode(mode), weights[1]
    whole = logits(model, ids)
    for cuts in CUTS:
        state, out = None, []
        with torch.no_grad():
            for piece in ids.split(cuts, dim=1):
                y, state = model(piece, state)
                out.append(y)
        torch.testing.assert_close(torch.cat(out, dim=1), whole, **EXACT)


@pytest.mark.parametrize("mode", get_args(Mode))
def test_the_future_and_the_neighbours_have_no_say_but_where_the_package_lets_them(
    mode: Mode, weights: tuple[GenesisModel, Tensor]
) -> None:
    """One confidence for the whole batch lets both in, in evaluation as shipped."""
    model, ids = weights[0].in_mode(mode), weights[1]
    whole = logits(model, ids)
    future = (logits(model, ids[:, :70]) - whole[:, :70]).abs().amax().item()
    neighbours = (logits(model, ids[:1]) - whole[:1]).abs().amax().item()
    leaks = MODES[mode].metacognition == "batch mean"
    assert (future > 1e-6) == leaks and (neighbours > 1e-6) == leaks, (future, neighbours)
    assert leaks or max(future, neighbours) < 1e-8


@pytest.mark.parametrize("mode", get_args(Mode))
def test_a_mode_is_one_function_in_training_and_in_evaluation(
    mode: Mode, weights: tuple[GenesisModel, Tensor]
) -> None:
    model, ids = weights[0].in_mode(mode), weights[1]
    assert torch.equal(logits(model.train(), ids), logits(model.eval(), ids))


def test_evaluating_leaves_no_trace(weights: tuple[GenesisModel, Tensor]) -> None:
    """The package writes its history of confidences into the weights it would save."""
    model, ids = weights[0].in_mode("shipped-eval"), weights[1]
    before = {name: t.clone() for name, t in model.state_dict().items()}
    first = logits(model, ids)
    assert torch.equal(first, logits(model, ids))
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_every_documented_part_takes_a_gradient(weights: tuple[GenesisModel, Tensor]) -> None:
    """All but the reflection, which nothing documented uses either."""
    model = weights[0].in_mode("documented")
    loss = model(weights[1])[0].square().sum()
    names = [name for name, _ in model.named_parameters()]
    grads = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    without = {name for name, g in zip(names, grads, strict=True) if g is None or not g.any()}
    assert without == {"metacognition.reflection.weight"}
    assert all(g is None or g.isfinite().all() for g in grads)


@pytest.mark.parametrize("mode", ["shipped-eval", "shipped-eval-delta"])
def test_a_mode_that_averages_over_its_input_refuses_a_state(
    mode: Mode, weights: tuple[GenesisModel, Tensor]
) -> None:
    model = weights[0].in_mode(mode)
    with torch.no_grad():
        _, state = model(weights[1])
        with pytest.raises(ModeError, match=r"cannot go on from a state; .* shipped-cache or documented"):
            model(weights[1][:, :1], state)


def test_the_fast_weight_is_the_sum_of_the_cards_gradients(weights: tuple[GenesisModel, Tensor]) -> None:
    """W_t = W_0 - r sum_{i<t} grad_i, token by token, against the form that sees all tokens at once."""
    part = weights[0].in_mode("documented").metacognition
    h = torch.randn(2, 9, SMALL.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        got, kept = part._documented(h, None)
        w0 = part.w0 + part.a @ part.b
        for row in range(len(h)):
            w = w0.clone()
            for t in range(h.shape[1]):
                torch.testing.assert_close(got[row, t], part.q(h[row, t]) @ w, **EXACT)
                k, v = part.k(h[row, t]), part.v(h[row, t])
                w = w - part.rate_D * torch.outer(k, k @ w0 - v)
            torch.testing.assert_close(w0 - part.rate_D * kept["sum"][row], w, **EXACT)
