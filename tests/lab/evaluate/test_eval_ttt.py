"""Test-time training: what is scored first does not know what comes later, and what does is found out."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from lab.evaluate.adaptation import (
    GOLF_CONTAMINATED,
    GOLF_SCORE_FIRST,
    Adaptation,
    AdaptationError,
    adaptation,
    learn,
    optimiser_of,
    rows_of,
)
from lab.evaluate.bits import Windows, score
from lab.evaluate.eval_ttt import leaks, score_first, train_then_score_contaminated
from lab.evaluate.text import TextError
from tests.lab.evaluate.small import model_of, prose, random_text

PLAN = Adaptation(chunk=64, lr=5e-3, row=32, batch=2, cosine=True)
HOW = Windows(32, 16)


def test_the_detector_passes_score_first_and_flags_train_then_score() -> None:
    model, schedule = model_of()
    text = prose(1)
    for at in (100, len(text.ids) - 2):
        assert not leaks(lambda t: score(model, t, HOW), text, at)
        assert not leaks(lambda t: score_first(model, schedule, t, HOW, PLAN).losses, text, at)
        assert leaks(lambda t: train_then_score_contaminated(model, schedule, t, HOW, PLAN).losses, text, at)
    reset = PLAN.model_copy(update={"reset": True})
    assert not leaks(lambda t: score_first(model, schedule, t, HOW, reset).losses, text, 100)
    with pytest.raises(TextError, match="between two tokens"):
        leaks(lambda t: score(model, t, HOW), text, 0)
    with pytest.raises(TextError, match="nothing but separators"):
        leaks(lambda t: score(model, t, HOW), text, len(text.ids) - 1)


def test_learning_helps_on_what_repeats_and_leaves_the_model_alone() -> None:
    model, schedule = model_of()
    before = {name: one.clone() for name, one in model.state_dict().items()}
    text = prose()
    plain = score(model, text, HOW).nats
    adapted = score_first(model, schedule, text, HOW, PLAN)
    assert np.array_equal(adapted.losses.nats[:64], plain[:64]), (
        "the first chunk is scored by the model itself"
    )
    assert adapted.losses.nats[64:].mean() < plain[64:].mean() - 0.1
    contaminated = train_then_score_contaminated(
        model, schedule, text, HOW, PLAN.model_copy(update={"epochs": 4})
    )
    assert contaminated.losses.nats.mean() < adapted.losses.nats.mean()
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())


def test_score_first_scores_what_score_scores_where_nothing_is_learnt() -> None:
    model, schedule = model_of()
    still = Adaptation(chunk=10, lr=1e-30, row=8)
    for text in (random_text(40, 2, apart=True), random_text(40, 3, separator=False)):
        plain = score(model, text, Windows(12, 1))
        found = score_first(model, schedule, text, Windows(12, 1), still).losses
        np.testing.assert_allclose(found.nats, plain.nats, atol=2e-5)
        assert np.array_equal(found.context, plain.context)


def test_with_reset_a_document_does_not_know_the_one_before() -> None:
    model, schedule = model_of()
    plan = PLAN.model_copy(update={"reset": True, "cosine": False})
    text = prose(2)
    half = len(text.ids) // 2
    last = replace(text, ids=text.ids[half:], size=text.size // 2)
    both = score_first(model, schedule, text, HOW, plan).losses.nats
    alone = score_first(model, schedule, last, HOW, plan).losses.nats
    np.testing.assert_allclose(both[half:], alone, atol=2e-5)
    with pytest.raises(TextError, match="reset asks for documents"):
        score_first(model, schedule, random_text(9, 1, separator=False), HOW, plan)


def test_rates_reach_the_parameters_they_name() -> None:
    model, schedule = model_of()
    names = {id(one): name for name, one in model.named_parameters()}

    def factors(plan: Adaptation) -> dict[str, float]:
        groups = optimiser_of(model, schedule, plan).param_groups
        return {names[id(one)]: group["factor"] for group in groups for one in group["params"]}

    assert set(factors(PLAN).values()) == {1.0} and len(factors(PLAN)) == len(names)
    golf = factors(GOLF_CONTAMINATED)
    assert golf["stack.layers.0.1.block.out.weight"] == 3.0
    assert golf["stack.layers.0.1.block.up.weight"] == 0.5
    assert golf["stack.layers.0.0.block.out.weight"] == 1.0  # a mixer's
    assert golf["embedding.weight"] == 1.0 and len(golf) == len(names)
    frozen = factors(Adaptation(rates={"layers.0.*": 0.0}))
    assert not any(name.startswith("stack.layers.0.") for name in frozen) and "embedding.weight" in frozen
    with pytest.raises(AdaptationError, match=r"nothing is left for the pattern 'layrs"):
        factors(Adaptation(rates={"layrs.*": 1.0}))
    with pytest.raises(AdaptationError, match="every parameter is frozen"):
        factors(Adaptation(rates={"*": 0.0}))


def test_a_rate_of_three_moves_three_times_as_far() -> None:
    model, schedule = model_of()
    rows = rows_of(prose(1).pieces()[0], 0, 32, 32)

    def moved(rates: dict[str, float]) -> torch.Tensor:
        work = copy.deepcopy(model)
        plan = Adaptation(optimiser="sgd", lr=1e-2, clip=1e9, rates=rates)
        assert learn(work, optimiser_of(work, schedule, plan), rows, plan, falling=False) == 1
        return (work.embedding.weight - model.embedding.weight).detach()

    assert moved({}).abs().max() > 0
    torch.testing.assert_close(moved({"embedding.*": 3.0}), 3 * moved({}), atol=1e-7, rtol=1e-4)


def test_a_frozen_layer_stays_and_the_others_learn() -> None:
    model, schedule = model_of()
    after = score_first(
        model, schedule, prose(1), HOW, PLAN.model_copy(update={"rates": {"layers.0.*": 0.0}})
    ).model
    moved = {
        name for name, one in after.named_parameters() if not torch.equal(one, model.get_parameter(name))
    }
    assert moved and not any(name.startswith("stack.layers.0.") for name in moved)


def test_settings_are_read_over_a_preset() -> None:
    assert adaptation([], GOLF_SCORE_FIRST) == GOLF_SCORE_FIRST
    assert adaptation(["lr=1e-3", "epochs=2"], GOLF_CONTAMINATED).model_dump() == {
        **GOLF_CONTAMINATED.model_dump(),
        "lr": 1e-3,
        "epochs": 2,
    }
    for override, said in (
        ("epoch=2", "did you mean 'epochs'"),
        ("lr=0", "must be above 0"),
        ("rates={x: -1}", "at least 0"),
        ("optimiser=adam", "'adamw' or 'sgd'"),
    ):
        with pytest.raises(AdaptationError, match=said):
            adaptation([override], Adaptation())
