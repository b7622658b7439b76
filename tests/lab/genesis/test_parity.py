"""The shipped modes are the functions that genesis-llm computes, held against the package itself in float64.

Everything here needs genesis-llm beside the lab (``make install`` puts it there).
"""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from blocks.genesis_model import GenesisModel
from lab.genesis.peer import Case, noise, run, version
from lab.genesis.verify import LENGTHS, SAME, SHIPPED, SMALL, compare, randomised
from lab.genesis.weights import layout, save, to_model

pytestmark = pytest.mark.skipif(version() is None, reason="genesis-llm is not here; make install puts it")


@pytest.fixture(scope="module")
def seed() -> int:
    """A fresh one each run."""
    return random.randrange(2**31)


@pytest.fixture(scope="module")
def drawn(seed: int, tmp_path_factory: pytest.TempPathFactory) -> tuple[GenesisModel, Path, torch.Tensor]:
    model, ids, redrawn = randomised(SMALL, seed)
    print(f"seed {seed}, redrawn {redrawn}")
    path = tmp_path_factory.mktemp("genesis") / "random.safetensors"
    save(model, path)
    return model, path, ids


@pytest.mark.slow
def test_every_shipped_mode_is_the_packages_at_every_length(
    drawn: tuple[GenesisModel, Path, torch.Tensor], seed: int
) -> None:
    """Logits of all modes, and in training the gradient of every parameter."""
    rows = list(compare(*drawn, seed=seed))
    assert [(row.mode, row.length) for row in rows] == [(mode, n) for mode in SHIPPED for n in LENGTHS]
    assert all((row.gradients is not None) == (row.mode == "shipped-train") for row in rows)
    apart = [row for row in rows if not row.held]
    assert not apart, f"seed {seed}: {apart}"


def test_the_modes_differ_from_each_other(drawn: tuple[GenesisModel, Path, torch.Tensor]) -> None:
    """Else the comparison above would hold one function four times."""
    model, _, ids = drawn
    with torch.no_grad():
        logits = {mode: model.in_mode(mode)(ids[:, :130])[0] for mode in (*SHIPPED, "documented")}
    for one in logits:
        for other in logits:
            far = one == other or (logits[one] - logits[other]).abs().amax() > 1e-3
            assert far, f"{one} and {other} are the same function"


@pytest.mark.slow
@pytest.mark.parametrize("prefill", [1, 7, 64, 65])
def test_prefill_and_steps_are_the_packages_generation(
    drawn: tuple[GenesisModel, Path, torch.Tensor], prefill: int
) -> None:
    model, path, ids = drawn
    ids, out, state = ids[:, : prefill + 9], [], None
    with run(path, {"ids": ids.numpy()}, [Case("logits", "shipped-cache", "ids", prefill)]) as theirs:
        expected = torch.from_numpy(theirs["logits"])
    cached = model.in_mode("shipped-cache")
    with torch.no_grad():
        for piece in ids.split([prefill, *[1] * 9], dim=1):
            logits, state = cached(piece, state)
            out.append(logits)
    torch.testing.assert_close(torch.cat(out, dim=1), expected, atol=SAME, rtol=SAME)


@pytest.mark.slow
def test_gate_gradients_stay_finite_where_the_packages_are_not(tmp_path: Path) -> None:
    """Under strong decay its un-masked exponentials overflow; ours agree with the recurrence.

    One draw for good: next to nothing is left of the past, and the output norm magnifies what is.
    """
    model, ids, _ = randomised(SMALL, 7)
    ids = ids[:, :130].contiguous()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("log_pace"):
                parameter.fill_(float(np.log(np.float32(30))))
    path = tmp_path / "strong.safetensors"
    save(model, path)
    with run(
        path, {"ids": ids.numpy()}, [Case("x", "shipped-train", "ids", gradients=True)], seed=1
    ) as theirs:
        forward = torch.from_numpy(theirs["x"])
        broken = [name for name, grad in theirs.items() if not np.isfinite(grad).all()]
    assert any("gk_proj" in name for name in broken), "the package's gate gradient is finite after all"

    def gradients(kernel: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        train = GenesisModel(SMALL, "shipped-train", kernel).double()  # pyright: ignore[reportArgumentType]
        train.load_state_dict(model.state_dict())
        logits, _ = train(ids)
        logits.backward(noise(tuple(logits.shape), 1, logits.dtype))
        return logits.detach(), {k: p.grad for k, p in train.named_parameters() if p.grad is not None}

    (logits, fast), (_, slow) = gradients("torch"), gradients("reference")
    torch.testing.assert_close(logits, forward, atol=SAME, rtol=SAME)
    for name, grad in slow.items():
        assert fast[name].isfinite().all()
        torch.testing.assert_close(fast[name], grad, atol=SAME, rtol=SAME, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
def test_parameters_without_a_gradient_there_have_none_here(
    drawn: tuple[GenesisModel, Path, torch.Tensor],
) -> None:
    """The metacognition takes no part in training: 3,325,249 weights of the full model."""
    model, path, ids = drawn
    ids = ids[:, :130].contiguous()
    with run(path, {"ids": ids.numpy()}, [Case("x", "shipped-train", "ids", gradients=True)]) as theirs:
        touched = {name.removeprefix("x/") for name in theirs if name.startswith("x/")}
    train = model.in_mode("shipped-train")
    loss = train(ids)[0].square().sum()
    grads = torch.autograd.grad(loss, list(train.parameters()), allow_unused=True)
    ours = {name for (name, _), g in zip(train.named_parameters(), grads, strict=True) if g is None}
    marks = {part.released: torch.full(part.shape, float(part.released in touched)) for part in layout(SMALL)}
    untouched = {name for name, mark in to_model(SMALL, marks).items() if not mark.any()}
    assert ours == untouched
    assert all(name.startswith("metacognition.") for name in ours)
