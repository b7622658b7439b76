"""The bench: its references compute our functions, ratios are those of neighbours, its output is whole."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from types import SimpleNamespace
from typing import Any, Literal, get_args

import pytest
import torch
from torch import Tensor

from blocks.attention import Attention
from blocks.base import Kernel, Shape
from blocks.fox import FoX, forgetting_attention
from blocks.gdn import GDN, gated_delta_chunked, gated_delta_reference
from blocks.model import LanguageModel
from lab.bench import blocks, generation, startup, step, suite, sweep, trial
from lab.bench.kernels import cores, kernels
from lab.bench.plain import PlainModel, delta_rule, forgetting, make_part, plain_names
from lab.bench.timing import Pace, Row, Spread, fastest, make_row, measure, turns, with_rates
from sweeps.run import machine
from synthetics import TASKS
from synthetics.fit import Training
from tests.blocks.harness import assert_same, noise

SAME = 1e-9
SIZE = blocks.CoreSize(length=70, width=8, batch=2, heads=3)
STEP = step.StepSize(dim=16, length=70, batch=2)
GROUPS = ["generation", "blocks", "step", "trial", "sweep", "startup"]


def gradients(form: Callable[..., Any], inputs: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """(output, gradients of a random function of it by every input that wants one)."""
    inputs = [x.detach().clone().requires_grad_(x.requires_grad) for x in inputs]
    out = form(*inputs)
    out = out[0] if isinstance(out, tuple) else out
    return out, list(torch.autograd.grad(out, [x for x in inputs if x.requires_grad], noise(*out.shape)))


def wide(inputs: list[Tensor]) -> list[Tensor]:
    return [x.detach().double().requires_grad_(x.requires_grad) for x in inputs]


def agree(one: Callable[..., Any], other: Callable[..., Any], inputs: list[Tensor], tolerance: float) -> None:
    got, expected = gradients(one, inputs), gradients(other, inputs)
    assert_same(got[0].double(), expected[0].double(), "output", tolerance)
    for i, (a, b) in enumerate(zip(got[1], expected[1], strict=True)):
        assert_same(a.double(), b.double(), f"gradient {i}", tolerance)


@pytest.mark.parametrize("mixer", step.MIXERS)
def test_the_plain_model_is_our_model(mixer: str) -> None:
    """Logits and every weight's gradient, in float64, off the starting point, over three chunks of gdn."""
    schedule = step.schedule_of(step.MIXERS[mixer])
    torch.manual_seed(0)
    ours = LanguageModel(schedule, STEP.shape, step.VOCAB).double()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    plain = PlainModel(schedule, STEP.shape, step.VOCAB).double()
    plain.load_state_dict(plain_names(ours.state_dict()))
    tokens, _ = STEP.data()
    logits, expected = plain(tokens), ours(tokens)[0]
    assert_same(logits, expected, "logits", SAME)
    cotangent = noise(*logits.shape)
    mine = torch.autograd.grad(expected, list(ours.parameters()), cotangent)
    theirs = torch.autograd.grad(logits, list(plain.parameters()), cotangent)
    names = [name for name, _ in ours.named_parameters()]
    wanted = plain_names(dict(zip(names, mine, strict=True)))
    got = {name: g for (name, _), g in zip(plain.named_parameters(), theirs, strict=True)}
    assert got.keys() == wanted.keys()
    for name, gradient in got.items():
        assert_same(gradient, wanted[name], f"gradient of {name}", SAME)


@pytest.mark.parametrize("mixer", step.MIXERS)
def test_both_sides_of_a_step_descend_alike(mixer: str) -> None:
    """Three steps from the same weights: the same falling losses, so both sides train, and at one rate."""
    schedule = step.schedule_of(step.MIXERS[mixer])
    torch.manual_seed(0)
    ours = LanguageModel(schedule, STEP.shape, step.VOCAB).double()
    plain = PlainModel(schedule, STEP.shape, step.VOCAB).double()
    plain.load_state_dict(plain_names(ours.state_dict()))
    one, other = step.our_step(ours, *STEP.data(), Training()), step.plain_step(plain, *STEP.data())
    losses = [(float(one()), float(other())) for _ in range(3)]
    assert losses[0][0] > losses[1][0] > losses[2][0]
    for mine, theirs in losses:
        # A step changes the loss by 1e-4 and more; the plain optimiser decays vectors too, as its default is.
        assert mine == pytest.approx(theirs, abs=1e-6)


def test_blocks_without_a_plain_form_are_told_apart() -> None:
    """An option that the plain form does not know must not be timed as if it did."""
    shape = Shape(dim=16, heads=2)
    without = [Attention(window=3), FoX(conv=4), FoX(output_norm=True), GDN(conv=0), GDN(beta_max=2.0)]
    assert [make_part(block, shape) for block in without] == [None] * len(without)
    assert make_part(GDN(), replace(shape, norm="rms_zero")) is None


def test_the_plain_cores_are_our_cores() -> None:
    inputs = wide(blocks.gdn_inputs(SIZE))

    def plain_delta(*tensors: Tensor) -> Tensor:
        return delta_rule(*(x.transpose(1, 2) for x in tensors[:5])).transpose(1, 2)

    def plain_forgetting(*tensors: Tensor) -> Tensor:
        return forgetting(*(x.transpose(1, 2) for x in tensors[:4])).transpose(1, 2)

    agree(plain_delta, gated_delta_chunked, inputs, SAME)
    agree(plain_forgetting, forgetting_attention, wide(blocks.fox_inputs(SIZE)), SAME)


def test_the_reference_of_fox_is_our_core() -> None:
    """With the gradient of the gates, which flows through the mask."""
    agree(blocks.masked, forgetting_attention, wide(blocks.fox_inputs(SIZE)), SAME)


@pytest.mark.parametrize("chunk", blocks.CHUNKS)
def test_the_reference_of_gdn_is_our_core(chunk: int) -> None:
    """fla's form casts to float32, so it is held to our float64 at that precision."""
    agree(blocks.fla_chunk(chunk), gated_delta_chunked, wide(blocks.gdn_inputs(SIZE)), 5e-5)


def test_the_floor_of_fox_is_our_core_with_open_gates() -> None:
    inputs = wide(blocks.fox_inputs(SIZE))

    def opened(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return forgetting_attention(q, k, v, torch.zeros_like(inputs[3]), inputs[4])[0]

    agree(blocks.causal, opened, inputs[:3], SAME)


def test_every_kernel_but_the_reference_is_timed() -> None:
    assert set(kernels()) == set(get_args(Kernel)) - {"reference", "triton", "fla"}
    found = cores(GDN(), Shape(dim=32, heads=4))
    assert gated_delta_chunked in found.values() and gated_delta_reference not in found.values()
    assert forgetting_attention in cores(FoX(), Shape(dim=32, heads=4)).values()


class Mixer:
    """A mixer in three forms, two of which come to the same."""

    def build(self, shape: Shape, kernel: str) -> Any:
        return SimpleNamespace(core={"torch": max, "c": min, "auto": min}[kernel])


def test_kernels_that_come_to_the_same_core_are_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.bench.kernels.Kernel", Literal["auto", "reference", "torch", "c"])
    assert cores(Mixer(), Shape(dim=32)) == {"auto = c": min, "torch": max}  # pyright: ignore


def test_a_row_takes_the_ratios_of_neighbours() -> None:
    """The median of ratios, which is not the ratio of medians, and how far they spread."""
    row = make_row("x", [1.0, 2.0, 4.0], ("a", [3.0, 4.0, 20.0]), ("b", [0.5, 0.2, 1.0]))
    assert row.seconds == Spread(2.0, 1.0, 4.0)
    assert (row.reference, row.reference_seconds) == ("a", Spread(4.0, 3.0, 20.0))
    assert row.times == Spread(3.0, 2.0, 5.0)
    assert (row.floor, row.floor_seconds) == ("b", Spread(0.5, 0.2, 1.0))
    assert row.share == Spread(0.25, 0.1, 0.5)
    alone = make_row("x", [1.0, 2.0])
    assert alone.times is None and alone.share is None and alone.seconds.median == 1.5


def counting(calls: list[str], name: str, seconds: float) -> Callable[[], float]:
    def work() -> float:
        calls.append(name)
        return seconds * len(calls)

    return work


def test_sides_take_turns_and_the_warm_up_does_not_count() -> None:
    calls: list[str] = []
    seconds = turns([counting(calls, "a", 1.0), counting(calls, "b", 10.0)], repeats=2, warm_up=1)
    assert calls == list("ababab")
    assert seconds == [[3.0, 5.0], [40.0, 60.0]]


def test_ours_stands_between_reference_and_floor() -> None:
    calls: list[str] = []
    side = {name: counting(calls, name, 1.0) for name in ("reference", "ours", "floor")}
    sides = {name: blocks.Side(name, side[name]) for name in ("reference", "floor")}
    row = measure("x", side["ours"], Pace(1), **sides, warm_up=0)
    assert calls == ["reference", "ours", "floor"]
    assert row.times == Spread(1 / 2, 1 / 2, 1 / 2) and row.share == Spread(3 / 2, 3 / 2, 3 / 2)
    calls.clear()
    row = measure("x", side["ours"], Pace(1), floor=sides["floor"], warm_up=0)
    assert calls == ["ours", "floor"] and row.times is None and row.share == Spread(2.0, 2.0, 2.0)


def test_the_fastest_routine_is_the_reference() -> None:
    works = {name: partial(float, seconds) for name, seconds in {"a": 3.0, "b": 1.0, "c": 2.0}.items()}
    assert fastest(works).name == "b"


def test_a_matrix_rate_counts_the_products_of_its_yardstick() -> None:
    rate = blocks.Rate(blocks.Side("x", lambda: 2.0), size=10)
    assert rate.flops == 2000
    assert rate.floor(500).work() == 0.5
    row = with_rates(make_row("x", [2.0], floor=("rate", [0.5]), figures={"y": 3.0}), flops=4e9)
    assert row.figures == {"y": 3.0, "GFLOP/s": 2.0, "GFLOP/s matrix rate": 8.0}


def test_a_command_that_fails_is_not_timed() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        list(startup.rows(Pace(1), {("no-such-command",): "typer"}))


SMOKE = ("train.steps=4", "train.eval_every=2", "train.eval_examples=8", "seeds=1", "search.r=[1:1]")
TINY = {
    "generation": partial(generation.rows, examples=8),
    "blocks": partial(
        blocks.rows, core_sizes=[replace(SIZE, length=20)], block_sizes=[blocks.BlockSize(20, 32, batch=2)]
    ),
    "step": partial(step.rows, sizes=[STEP]),
    "trial": partial(trial.rows, recipe="smoke", steps=4, overrides=SMOKE),
    "sweep": partial(sweep.rows, overrides=(*SMOKE, "tasks=['memorization(vocab=16, length=16)']")),
    "startup": partial(startup.rows, commands={("--help",): "typer"}),
}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite at sizes that take no time."""
    small = {name: replace(group, rows=TINY[name]) for name, group in suite.GROUPS.items()}
    monkeypatch.setattr(suite, "GROUPS", small)


@pytest.mark.slow
def test_json_holds_every_group(answer: Callable[..., str], tiny: None) -> None:
    document = json.loads(answer("bench", "--repeats", 2, "--json"))
    assert document["machine"] and document["torch"] == torch.__version__
    assert (document["threads"], document["repeats"], document["clock"]) == (1, 2, "CPU")
    assert [group["group"] for group in document["groups"]] == GROUPS
    rows = {group["group"]: group["rows"] for group in document["groups"]}
    for row in (row for group in rows.values() for row in group):
        assert row["seconds"]["low"] <= row["seconds"]["median"] <= row["seconds"]["high"]
        for side, ratio in (("reference", "times"), ("floor", "share")):
            given = [bool(row[side]), row[f"{side}_seconds"] is not None, row[ratio] is not None]
            assert len(set(given)) == 1, row["what"]
    assert [row["what"].partition(",")[0] for row in rows["generation"]] == list(TASKS)
    assert all(row["figures"]["examples/s"] > 0 for row in rows["generation"])
    whats = [row["what"] for row in rows["blocks"]]
    for name in ("gdn core", "fox core", *blocks.BLOCKS):
        assert any(what.startswith(f"{name} ") for what in whats), name
    assert {row["what"].partition(" ")[0] for row in rows["step"]} == set(step.MIXERS)
    assert all(row["times"] and row["share"] and row["figures"]["GFLOP/s"] for row in rows["step"])
    assert rows["trial"][0]["figures"]["steps/s"] > 0
    assert rows["sweep"][0]["figures"]["overhead s"] > 0


def test_text_begins_with_the_machine_and_tells_the_groups_that_are_asked_for(
    answer: Callable[..., str], tiny: None
) -> None:
    text = answer("bench", "--only", "startup", "--only", "generation", "--repeats", 1)
    first, second, *rest = text.splitlines()
    assert machine() in first and torch.__version__ in first and "1 thread" in first
    assert "1 turn" in second and "CPU" in second
    assert [line for line in rest if line in GROUPS] == ["generation", "startup"]
    assert "mad-lab" in text and "lab --help" in text


def test_the_options_reach_the_groups(lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Pace] = []

    def probe(pace: Pace) -> Iterator[Row]:
        asked.append(pace)
        yield make_row("x", [1.0])

    monkeypatch.setattr(suite, "GROUPS", {"startup": suite.Group("", probe)})
    assert lab("bench", "--repeats", 3).code == 0
    assert asked == [Pace(repeats=3, threads=1)]
    assert asked[0].clock is time.process_time and Pace(3, threads=2).clock is time.perf_counter


def test_several_threads_are_timed_by_the_wall(answer: Callable[..., str], tiny: None) -> None:
    threads = torch.get_num_threads()
    try:
        document = json.loads(answer("bench", "--only", "generation", "--threads", 2, "--json"))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert (document["threads"], document["clock"]) == (2, "wall")


def test_without_fla_the_group_that_needs_it_says_so(
    lab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    outcome = lab("bench", "--only", "generation", "--only", "blocks")
    assert outcome.code == 2 and outcome.out == ""
    assert "fla-core" in outcome.err and "make install" in outcome.err


def test_help_names_every_group(answer: Callable[..., str]) -> None:
    text = answer("bench", "--help")
    assert list(suite.GROUPS) == GROUPS
    assert [name for name in GROUPS if name not in text] == []


def test_the_trial_is_the_first_run_of_its_recipe() -> None:
    run = trial.first_run("ratios", steps=50)
    assert (run.candidate.label, run.task, run.seed) == ("r=3:1", "recall(length=64)", 0)
    assert (run.training.steps, run.training.eval_every) == (50, 30)
    assert json.dumps(asdict(run))
