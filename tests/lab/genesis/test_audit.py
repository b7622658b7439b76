"""The audit: a file's history read off its tensors, and what documented and shipped differ by on logits."""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.genesis_model import MODES, GenesisConfig, GenesisModel, ModeError, ModeParts
from lab.genesis.effects import COMPARISONS, POSITIONS, drawn_ids, effect, effects
from lab.genesis.findings import Finding, features, findings, parts
from lab.genesis.starts import measure
from lab.genesis.weights import Weights, load, read, save
from tests.lab.genesis.small import small, some_ids

CONFIG = GenesisConfig(vocab=97, dim=64, depth=6, heads=4, kv_heads=2)
NEVER = {
    "delta rule": "never",
    "TTT fast weight": "never",
    "TTT views": "no sign",
    "confidence": "never",
    "reflection": "no sign",
    "selective activation": None,
    "FoX forget gate": "never",
    "short convolutions": "no sign",
    "output gates": "no sign",
}


def fresh(seed: int = 0, config: GenesisConfig = CONFIG, mode: str = "shipped-train") -> GenesisModel:
    torch.manual_seed(seed)
    return GenesisModel(config, mode)  # pyright: ignore[reportArgumentType]


def trained(model: GenesisModel, length: int, only: Iterable[nn.Parameter] | None = None) -> GenesisModel:
    """A few steps of AdamW on random ids."""
    optimiser = torch.optim.AdamW(only or model.parameters(), lr=3e-3, weight_decay=0.1)
    for step in range(10):
        ids_BT = some_ids(2, length + 1, seed=step)
        logits_BTV, _ = model(ids_BT[:, :-1])
        optimiser.zero_grad()
        F.cross_entropy(logits_BTV.flatten(0, 1), ids_BT[:, 1:].flatten()).backward()
        optimiser.step()
    return model


@pytest.fixture
def held(tmp_path: Path) -> Callable[..., Weights]:
    """A model's weights, by way of a real file."""

    def through(model: GenesisModel, dtype: torch.dtype | None = None) -> Weights:
        save(model, tmp_path / "audited.safetensors", dtype)
        return read(tmp_path / "audited.safetensors")

    return through


def told(weights: Weights) -> dict[str, str | None]:
    return {one.name: one.trained for one in features(measure(weights), weights.released.config().k_ratio)}


def found(weights: Weights) -> dict[str, Finding]:
    return {one.what: one for one in findings(weights, measure(weights))}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", [None, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_a_fresh_file_is_at_its_start_in_any_type(seed: int, dtype, held) -> None:
    weights = held(fresh(seed), dtype)
    assert told(weights) == NEVER
    states = [one.state for one in measure(weights).values()]
    assert (states.count("at start"), states.count("consistent"), states.count("moved")) == (35, 87, 0)
    assert states.count("no claim") == 10
    (write,) = [one for what, one in found(weights).items() if "write strength was never trained" in what]
    assert len(write.tensors) == 10
    assert (write.measured["biases"], write.measured["of them exactly 0"]) == (5, 5)
    assert found(weights)["6 layers never trained"].measured["layers"] == 6


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_eight_bits_tell_of_exact_starts_alone(dtype: torch.dtype, held) -> None:
    weights = held(fresh(), dtype)
    assert told(weights) == {name: "never" if trained == "never" else None for name, trained in NEVER.items()}
    assert not any(one.state in ("moved", "consistent") for one in measure(weights).values())
    assert told(held(trained(fresh(), 130), dtype))["delta rule"] == "yes"


def test_parameters_made_in_float64_are_at_their_start_too(held) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        model = fresh()
    finally:
        torch.set_default_dtype(torch.float32)
    assert told(held(model)) == NEVER


def test_other_widths_start_otherwise_and_are_recognised(held) -> None:
    config = replace(CONFIG, dim=96, base_width=48, ttt_lr=0.03, conv=3, k_ratio=None, init_std=0.05)
    weights = held(fresh(config=config))
    assert config.start_std == pytest.approx(0.05 / 2**0.5)
    assert told(weights) == NEVER
    assert features(measure(weights), None)[5].exercised is False


def test_training_past_a_chunk_trains_the_write_strength_and_not_the_metacognition(held) -> None:
    weights = held(trained(fresh(), 130))
    moved = ("delta rule", "FoX forget gate", "short convolutions", "output gates")
    assert told(weights) == {**NEVER, **dict.fromkeys(moved, "yes")}
    report = found(weights)
    assert report["the write strength was trained in 5 of 5 linear layers"].measured["of them exactly 0"] == 0
    assert "the TTT fast weight was never trained" in report
    assert "the forget gate was trained" in report
    assert not any("layer" in what and "never" in what for what in report)
    by_name = {part.name: part for part in parts(measure(weights))}
    assert by_name["projections"].states["moved"] == by_name["projections"].tensors


def test_training_within_a_chunk_never_reaches_the_write_strength(held) -> None:
    weights = held(trained(fresh(), 64))
    moved = ("FoX forget gate", "short convolutions", "output gates")
    assert told(weights) == {**NEVER, **dict.fromkeys(moved, "yes")}
    assert "the write strength was never trained" in found(weights)
    write = {n: t for n, t in weights.tensors.items() if "b_proj" in n}
    start = {n: t for n, t in held(fresh()).tensors.items() if "b_proj" in n}
    assert all(t.equal(start[n]) for n, t in write.items()), "no gradient, no decay"


def test_a_file_whose_metacognition_alone_was_trained(held) -> None:
    model = fresh(mode="shipped-eval")
    weights = held(trained(model, 20, list(model.metacognition.parameters())))
    # As shipped the views are never read, and no gradient passes the mean of the confidence.
    assert told(weights) == {**NEVER, "TTT fast weight": "yes"}
    assert "the TTT fast weight was trained" in found(weights)
    model = fresh(mode="documented")
    weights = held(trained(model, 20, list(model.metacognition.parameters())))
    assert told(weights) == {**NEVER, "TTT fast weight": "yes", "TTT views": "yes", "confidence": "yes"}


@torch.no_grad()
def changed(model: GenesisModel, ending: str, change: Callable[[Tensor], object]) -> GenesisModel:
    for name, parameter in model.named_parameters():
        if name.endswith(ending):
            change(parameter)
    return model


def test_weights_that_decayed_beside_biases_at_0_were_not_trained(held) -> None:
    weights = held(changed(fresh(), "write.weight", lambda t: t.mul_(0.8)))
    assert told(weights) == {**NEVER, "delta rule": "in part"}
    (one,) = [one for what, one in found(weights).items() if what.startswith("the write strength")]
    assert one.measured["std of the weights over its start"] == pytest.approx(0.8, abs=0.1)
    assert "weight decay" in one.follows


def test_one_bias_of_one_layer_is_enough_and_is_counted(held) -> None:
    model = fresh()
    with torch.no_grad():
        model.get_parameter("stack.layers.0.0.block.write.bias")[2] = 1e-9
    weights = held(model)
    assert told(weights)["delta rule"] == "yes"
    assert "the write strength was trained in 1 of 5 linear layers" in found(weights)


@pytest.mark.parametrize("name", ["log_pace", "step_bias"])
def test_decay_rates_tell_nothing_inside_their_range(name: str, held) -> None:
    weights = held(changed(fresh(), name, lambda t: t.copy_(t.mean())))
    assert told(weights) == NEVER
    assert not any(one.state == "moved" for one in measure(weights).values())
    weights = held(changed(fresh(), name, lambda t: t.add_(100)))
    assert sum(one.state == "moved" for one in measure(weights).values()) == 5


def test_small_shifts_of_many_matrices_are_seen_together(held) -> None:
    model = changed(fresh(), "write.weight", lambda t: t.mul_(1.15))
    weights = held(model)
    states = [one.state for one in measure(weights).values() if one.name.endswith("b_proj.weight")]
    assert states.count("consistent") >= 3, "15 % of 256 numbers may be chance"
    assert told(weights)["delta rule"] == "in part", "15 % of five times as many is not"


def test_a_shifted_mean_is_no_fresh_draw(held) -> None:
    # The spread around 0 stays what it was; only the middle moves, by half a standard deviation.
    shift = CONFIG.start_std / 2
    weights = held(changed(fresh(), "forget.weight", lambda t: t.mul_(0.75**0.5).add_(shift)))
    assert told(weights) == {**NEVER, "FoX forget gate": "in part"}


def test_gains_left_out_of_the_training_are_told_from_untrained_layers(held) -> None:
    model = fresh()
    gains = ("norm.weight",)
    weights = held(trained(model, 130, [p for n, p in model.named_parameters() if not n.endswith(gains)]))
    report = found(weights)
    assert report["6 layers with gains that were never trained"].measured["layers"] == 6
    assert "6 layers never trained" not in report


def test_dead_units_zero_tensors_and_copied_layers_are_named(held) -> None:
    model = fresh()
    with torch.no_grad():
        model.get_parameter("stack.layers.1.1.block.gate.weight")[[3, 5]] = 0
        model.get_parameter("stack.layers.2.1.block.out.weight")[:, 7] = 0
        model.get_parameter("stack.layers.4.1.block.up.weight").zero_()
        model.get_parameter("stack.layers.3.0.block.q_norm.weight").zero_()
        for name, parameter in model.stack.layers[5].named_parameters():
            parameter.copy_(model.stack.layers[0].get_parameter(name))
    report = found(held(model))
    rows = report["matrices with rows of 0"]
    assert (rows.tensors, rows.measured["rows"]) == (["blocks.1.ffn.gate_proj.weight"], 2)
    columns = report["matrices with columns of 0"]
    assert (columns.tensors, columns.measured["columns"]) == (["blocks.2.ffn.down_proj.weight"], 1)
    zero = report["tensors that are 0 throughout"].tensors
    assert set(zero) == {"blocks.4.ffn.up_proj.weight", "blocks.3.attn.q_norm.weight"}
    twins = report["layers that are equal"]
    assert twins.measured["pairs"] == 1
    assert {name.split(".")[1] for name in twins.tensors} == {"0", "5"}
    clean = found(held(fresh()))
    assert not any("of 0" in what or "equal" in what or "throughout" in what for what in clean)


# Documented against shipped.


def rows_of(weights: Weights, ids_BT: Tensor) -> dict[str, tuple[float, float]]:
    return {one.what: (one.rms, one.changed) for one in effects(weights, ids_BT)}


def test_an_effect_is_the_difference_computed_by_hand(tmp_path: Path) -> None:
    path, ids_BT = tmp_path / "w.safetensors", some_ids(2, 70)
    save(small(), path, torch.float32)
    rows = rows_of(read(path), ids_BT)
    with torch.no_grad():
        logits = {mode: load(path, mode, torch.float64)(ids_BT)[0] for mode in MODES}
    for what, left, right in (
        ("TTT: off, shipped", "shipped-cache", "shipped-eval"),
        ("delta rule: off, shipped chunk rule", "shipped-eval", "shipped-eval-delta"),
        ("shipped-train, shipped-eval", "shipped-train", "shipped-eval"),
        ("shipped-eval, documented", "shipped-eval", "documented"),
    ):
        gap = logits[right] - logits[left]
        wanted = gap.square().mean().sqrt() / logits[left].std()
        moved = (logits[left].argmax(-1) != logits[right].argmax(-1)).double().mean()
        assert wanted > 1e-3, f"{what} must show on randomised weights"
        assert rows[what] == pytest.approx((wanted.item(), moved.item()), rel=1e-9)
    assert all(rms > 1e-4 for rms, _ in rows.values())


def test_every_comparison_but_those_of_whole_modes_differs_in_one_thing() -> None:
    for one in COMPARISONS:
        fields = ("rule", "mask", "metacognition")
        differing = [name for name in fields if getattr(one.left, name) != getattr(one.right, name)]
        named = one.left in MODES.values() and one.right in MODES.values()
        assert len(differing) == 1 or named
        assert differing


@pytest.mark.parametrize("length", [1, 63, 64, 65])
def test_the_chunk_rule_has_no_effect_at_all_up_to_one_chunk(length: int, held) -> None:
    rms, moved = rows_of(held(small()), some_ids(2, length))["delta rule: off, shipped chunk rule"]
    assert (rms == 0) == (moved == 0) == (length <= 64)


def test_a_switch_that_the_configuration_turns_off_has_no_effect(held) -> None:
    rows = rows_of(held(fresh(config=replace(CONFIG, k_ratio=None))), some_ids(1, 12))
    assert rows["top-k: off, hard"] == rows["top-k: hard, soft"] == (0, 0)


def test_effect_is_relative_to_the_left_side_and_nan_where_that_is_flat() -> None:
    left = torch.tensor([[[0.0, 2.0], [0.0, 2.0]]], dtype=torch.float64)
    right = torch.tensor([[[0.0, 2.0], [3.0, 2.0]]], dtype=torch.float64)
    rms, moved = effect(left, right)
    assert rms == pytest.approx(1.5 / left.std().item())
    assert moved == 0.5
    assert np.isnan(effect(torch.zeros(1, 1, 3), torch.ones(1, 1, 3))[0])


# Models of parts that no mode has.


def test_parts_without_a_name_are_a_model_of_the_same_weights() -> None:
    model, ids_BT = small("shipped-eval"), some_ids(1, 30)
    dense = ModeParts("decay", None, "batch mean", "no top-k")
    other = model.in_mode(dense)
    assert other.parts == dense and other.in_mode("shipped-eval").mode == "shipped-eval"
    assert all(p is q for p, q in zip(model.parameters(), other.parameters(), strict=True))
    assert not model(ids_BT)[0].equal(other(ids_BT)[0])
    assert model(ids_BT)[0].equal(other.in_mode(MODES["shipped-eval"])(ids_BT)[0])
    with pytest.raises(ModeError, match="no top-k has no name of its own; known are shipped-eval"):
        _ = other.mode
    _, state = other(ids_BT)
    with pytest.raises(ModeError, match="no top-k averages one number over the whole input"):
        other(ids_BT, state)


# The command.


def test_the_text_has_a_headline_for_each_answer(answer, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save(trained(fresh(), 130), path, torch.bfloat16)
    page = answer("genesis", "audit", path)
    text = " ".join(page.split())  # wherever its lines are broken
    assert "TRAINED? Of 132 tensors: 8 exactly at their start" in text
    assert "Never trained: TTT fast weight, confidence." in text
    assert "Stored in bfloat16, which hides a move of less than 0.39 %" in text
    assert "attn.b_proj.weight, attn.b_proj.bias of blocks 0-2, 4-5" in text
    assert "attn.fgate_proj.bias of block 3" in text
    assert "no tensor of zeros, no dead rows or columns, no two equal layers" in text
    assert "can exercise 5 of 9 documented features; not TTT fast weight, confidence;" in text
    assert "; not known of TTT views, reflection." in text
    assert "384 positions of 2 x 192 ids (drawn uniformly, seed 0)" in text
    assert max(map(len, page.splitlines()[1:])) <= 120


def test_json_is_the_same_as_one_document(answer, tmp_path: Path) -> None:
    path, ids = tmp_path / "w.safetensors", tmp_path / "ids.npy"
    save(fresh(), path)
    np.save(ids, some_ids(1, 40).numpy().astype(np.uint16))
    document = json.loads(answer("genesis", "audit", path, "--ids", ids, "--json"))
    assert document["file"] == str(path) and document["ids"] == {"from": str(ids), "shape": [1, 40]}
    assert document["parameters"] == sum(part["parameters"] for part in document["parts"])
    assert {one["name"]: one["trained"] for one in document["features"]} == NEVER
    assert [one["what"] for one in document["effects"]] == [one.what for one in COMPARISONS]
    assert "At 40 tokens the chunk rule cannot show" in answer("genesis", "audit", path, "--ids", ids)


def test_a_file_without_a_header_is_audited_as_the_model_that_is_named(answer, lab, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = tmp_path / "w.safetensors"
    save(fresh(), path)
    save_file(load_file(path), path)
    outcome = lab("genesis", "audit", path)
    assert outcome.code == 2 and "--config" in outcome.err
    outcome = lab("genesis", "audit", path, "--config", "genesis-152m")
    assert outcome.code == 2 and "lacks" in outcome.err


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (np.zeros((1, POSITIONS + 1), np.int64), ("2,049 positions", "at most 2,048", "fewer or shorter")),
        (np.full((1, 3), 97), ("97", "vocabulary")),
        (np.zeros((2, 3)), ("float64", "integer")),
        (np.zeros(3, np.int64), ("[3]", "[B, T]")),
    ],
    ids=["long", "outside", "floats", "flat"],
)
def test_ids_that_cannot_be_used_are_one_sentence(ids: np.ndarray, words, lab, tmp_path: Path) -> None:
    save(fresh(), tmp_path / "w.safetensors")
    np.save(tmp_path / "ids.npy", ids)
    outcome = lab("genesis", "audit", tmp_path / "w.safetensors", "--ids", tmp_path / "ids.npy")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: ") and len(outcome.err.splitlines()) == 1
    assert "ids.npy" in outcome.err
    for word in words:
        assert word in outcome.err, outcome.err


def test_ids_are_drawn_alike_for_everybody() -> None:
    assert drawn_ids(97).equal(drawn_ids(97))
    assert drawn_ids(97).shape == (2, 192) and drawn_ids(97).max() < 97
