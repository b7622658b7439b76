"""What a training costs: sums that add up, activations that autograd keeps, devices as they are named."""

import json
from pathlib import Path

import pytest
import torch

from blocks import BLOCKS
from blocks.base import Shape
from blocks.schedule import parse
from lab.model.budget import ROOM, BudgetError, budget, device_named, matmul_rate
from lab.model.held import _Live, kept, passing
from lab.model.spec import build, loads
from lab.train.shipped import shipped
from sweeps.recipe import shipped as recipes

TEXT = """\
kind: model
name: tiny
model:
  schedule: 3*(gdn(conv=2), swiglu(expand=2)) + (fox, swiglu(expand=2))
  shape: {dim: 16, heads: 2}
  vocab: 300
data: {train: [{data: corpus}], length: 64}
train: {steps: 10, batch: 8}
"""
SHAPE = Shape(dim=16, heads=2)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", BLOCKS)
def test_short_rows_tell_what_long_ones_keep(name: str, bf16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    guessed = kept(BLOCKS[name](), SHAPE, 640, bf16)
    monkeypatch.setattr("lab.model.held.SHORT", (640,))  # now the row itself is run
    real = kept(BLOCKS[name](), SHAPE, 640, bf16)
    assert guessed[0] + 2 * guessed[1] == pytest.approx(real[0] + 2 * real[1], rel=1e-3), name
    # What rows share and grows with their length, such as a mask, is counted with them: never too little.
    assert guessed[1] >= 0.999 * real[1], name


@pytest.mark.parametrize("bf16", [False, True])
def test_values_that_a_model_embeds_are_held_with_the_block_that_reads_them(bf16: bool) -> None:
    (((plain,),), ((reading,),)) = (parse(text) for text in ("attn", "attn(values=True)"))
    size = 64 * SHAPE.dim * (2 if bf16 else 4)
    more = kept(reading, SHAPE, 64, bf16)[1] - kept(plain, SHAPE, 64, bf16)[1]
    assert size <= more <= size + 16 * 64  # and the way from the token to its narrow row
    assert passing(reading, SHAPE, 64)[1] >= passing(plain, SHAPE, 64)[1]


def test_what_is_held_at_most_counts_what_is_there_and_lets_go_of_what_went() -> None:
    with _Live() as live:
        a = torch.ones(1000)  # 4,000 bytes
        b = a.view(10, 100).mul_(2)  # the same
        c = a + 1
        del c
        d = b.double()  # 8,000 bytes
        assert live.now == 12_000 and live.most == 12_000
        del a, b, d
    assert live.now == 0 and live.most == 12_000


@pytest.mark.parametrize("name", ["gdn", "fox", "swiglu"])
def test_a_block_needs_more_for_a_moment_than_it_keeps(name: str) -> None:
    fixed, row = passing(BLOCKS[name](), SHAPE, 64)
    # Its output and the gradient of it are there at least.
    assert row >= 2 * 4 * 64 * SHAPE.dim and fixed >= 0


def test_sums_add_up() -> None:
    spec = loads(TEXT)
    found, memory = budget(spec), budget(spec).memory
    total = sum(found.params.values())
    assert total == sum(p.numel() for p in build(spec).parameters())
    assert (found.tokens, found.steps) == (10 * 8 * 64, 10)
    assert found.all_flops == 3 * found.flops * found.tokens
    assert (memory.weights, memory.gradients, memory.optimiser) == (4 * total, 4 * total, 8 * total)
    parts = (
        memory.weights,
        memory.gradients,
        memory.optimiser,
        memory.activations,
        memory.logits,
        memory.working,
    )
    assert memory.total == sum(parts) and memory.rows == 8
    assert memory.logits == 8 * 64 * 300 * 16
    half = budget(loads(TEXT, overrides=["train.micro=4"])).memory
    assert memory.total - half.total == 4 * memory.row
    assert half.most_rows(half.total / ROOM + 1) == 4 and half.most_rows(1.0) == 0


@pytest.mark.parametrize(
    ("overrides", "devices", "less"),
    [
        (["train.parallel=fsdp"], 2, "weights"),
        (["train.optimiser.name=muon"], 1, "optimiser"),
        (["train.recompute=true"], 1, "activations"),
        (["train.micro=2"], 1, "logits"),
    ],
)
def test_what_saves_memory_saves_it_there(overrides: list[str], devices: int, less: str) -> None:
    plain, saved = budget(loads(TEXT)), budget(loads(TEXT, overrides=overrides), devices)
    assert getattr(saved.memory, less) < getattr(plain.memory, less)
    assert (saved.all_flops > plain.all_flops) == ("recompute" in overrides[0])


DESIGNS = (
    [],
    ["model.residual=branch_scale", "model.tied=false"],
    ["model.norms=bare", "model.inputs=smear"],
)


@pytest.mark.parametrize("design", DESIGNS, ids=str)
def test_several_devices_hold_what_they_exchange_beside_the_rest(design: list[str]) -> None:
    sets = [*design, "train.micro=2"]
    model = build(loads(TEXT, overrides=sets))
    total = sum(p.numel() for p in model.parameters())
    sharded = [sum(p.numel() for p in part.parameters()) for part in model.stack.parts()]
    for way, exchanged in (
        ("ddp", 4 * total),
        ("fsdp", 4 * max(sharded) + 8 * (total - sum(sharded))),
    ):
        spec = loads(TEXT, overrides=[*sets, f"train.parallel={way}"])
        one, two = budget(spec, 1).memory, budget(spec, 2).memory
        assert (one.exchange, two.exchange) == (0, exchanged)
        shared = ("weights", "gradients", "optimiser", "average")
        saved = sum(getattr(one, part) - getattr(two, part) for part in shared)
        assert two.total == one.total - saved + exchanged


def test_devices_are_taken_by_name_or_by_their_peak() -> None:
    def rate(precision: str) -> float:
        return {"bf16": 7e9, "fp32": 5e9}[precision]

    assert device_named("a100", "bf16", rate).peak == 312e12 > device_named("a100", "fp32", rate).peak
    given = device_named("mine:100e12@0.3", "bf16", rate)
    assert (given.peak, given.mfu, given.memory) == (100e12, 0.3, None)
    assert device_named("cpu@0.5", "fp32", rate).peak == 5e9
    assert device_named("A100:1e12", "bf16", rate).memory == 80e9
    seconds = budget(loads(TEXT)).seconds(given, 2)
    assert seconds == pytest.approx(budget(loads(TEXT)).all_flops / (0.3 * 100e12 * 2))


@pytest.mark.parametrize("text", ["tpu", "a100@0", "a100@2", "mine:0", ":3", "", "a100@x", "a100:1.2.3"])
def test_no_other_device_is_planned_for(text: str) -> None:
    with pytest.raises(BudgetError, match="--device"):
        device_named(text, "bf16", lambda precision: 1.0)


def test_the_rate_of_this_machine_leaves_its_threads_alone() -> None:
    threads = torch.get_num_threads()
    assert matmul_rate("fp32", 64, 0.01) > 0
    assert torch.get_num_threads() == threads


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TEXT)
    return Path("tiny.yaml")


def test_plan_and_validate_read_a_specification(answer, spec: Path) -> None:
    page = answer("plan", spec, "--device", "a100", "--device", "old:1e9@1", "--devices", "2")
    for part in ("tiny: ", "gdn", "activations", "2 x a100", "10 steps of 8 x 64 tokens", "fits"):
        assert part in page
    found = json.loads(answer("plan", spec, "--device", "old:1e9@1", "--set", "train.steps=20", "--json"))
    assert found["devices"][0]["seconds"] == pytest.approx(found["flops"] / 1e9)
    assert found["tokens"] == 20 * 8 * 64 and found["memory"]["total"] > 0
    assert "is valid: a model of 4 layers" in answer("validate", spec)
    assert json.loads(answer("validate", spec, "--json"))["kind"] == "model"


@pytest.mark.parametrize("name", shipped())
@pytest.mark.parametrize("command", ["plan", "validate"])
def test_a_shipped_specification_is_found_by_its_name_unless_a_recipe_has_it(
    command: str, name: str, lab, spec: Path
) -> None:
    words = ("--device", "a100", "--set", "data.length=64") if command == "plan" else ()
    by_path = lab(command, shipped()[name], *words)
    assert by_path.code == 0 and name in by_path.out and not by_path.err
    if name in recipes():
        said = lab(command, name)
        assert said.code == 0 and "a model of" not in said.out
        assert said.err.count("\n") == 1 and f"lab {command} {shipped()[name]}" in said.err
    else:
        assert lab(command, name, *words) == by_path == lab(command, f"{name}.yaml", *words)


def test_a_device_too_small_is_told_with_the_rows_that_fit(answer, spec: Path) -> None:
    sets = ("--set", "model.shape.dim=32", "--set", "data.length=16384", "--set", "train.batch=512")
    page = answer("plan", spec, *sets, "--set", "model.vocab=50000", "--device", "a100")
    assert "too large; train.micro=" in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("plan", "tiny.yaml", "--workers", "2"), ("--workers", "--devices")),
        (("plan", "smoke", "--device", "a100"), ("--device", "is a recipe")),
        (("plan", "gollf"), ("no shipped recipe or specification", "did you mean 'golf'", "ratios")),
        (("plan", "."), ("is a directory", "recipe or specification")),
        (("plan", "tiny.yaml", "--device", "tpu"), ("'tpu'", "a100")),
        (("plan", "tiny.yaml", "--set", "train.micro=3"), ("train.micro", "divide the batch")),
        (("validate", "tiny.yaml", "--set", "model.vocab=3"), ("model.vocab", "is 3; bytes")),
    ],
    ids=str,
)
def test_bad_input_is_one_sentence(lab, spec: Path, words: tuple[str, ...], said: tuple[str, ...]) -> None:
    outcome = lab(*words)
    assert (outcome.code, outcome.out) == (2, "") and outcome.err.count("error:") == 1
    assert all(word in outcome.err for word in said), outcome.err
