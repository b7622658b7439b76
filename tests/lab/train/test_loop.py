"""The loop in one process: what must give the same weights, what a checkpoint holds, where it broke."""

import math
import shutil
from pathlib import Path

import pytest
import torch

from blocks.mup import groups
from lab.train.checkpoint import CheckpointError, clear, latest
from lab.train.loop import Diverged, TrainError, micro_of
from lab.train.parallel import Crew
from lab.train.run import cpp_compiler, kernel_of
from tests.lab.train.small import ALONE, spec_of, trained, trainer_of


def furthest(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert list(a) == list(b)
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def identical(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_a_batch_in_passes_is_the_batch_whole_and_recomputing_changes_nothing(
    data: Path, tmp_path: Path
) -> None:
    whole, lines = trained(spec_of(data), tmp_path / "whole")
    parts, told = trained(spec_of(data, "train.micro=1"), tmp_path / "parts")
    assert [one.loss for one in told] == pytest.approx([one.loss for one in lines], rel=1e-5)
    assert furthest(whole.weights(), parts.weights()) < 1e-4
    again, _ = trained(spec_of(data, "train.recompute=true"), tmp_path / "again")
    assert identical(whole.weights(), again.weights())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler, about its own insides
@pytest.mark.skipif(cpp_compiler() is None, reason="no C++ compiler here: apt install g++")
def test_a_compiled_training_is_the_plain_one(data: Path, tmp_path: Path) -> None:
    from torch._dynamo.utils import counters  # a second to load

    counters.clear()
    block = "model.schedule='(attn, swiglu)'"
    plain, lines = trained(spec_of(data, block), tmp_path / "plain")
    compiled, told = trained(spec_of(data, block, "train.compile=true"), tmp_path / "compiled")
    assert counters["frames"]["ok"] > 0, "torch.compile was never asked"
    assert [one.loss for one in told] == pytest.approx([one.loss for one in lines], rel=1e-5)
    assert furthest(plain.weights(), compiled.weights()) < 1e-4


def test_the_balance_of_experts_is_learned_from_by_its_weight_and_not_reported(
    data: Path, tmp_path: Path
) -> None:
    mixture = "model.schedule='(gdn, moe(experts=3)) + (attn, swiglu)'"
    ends, first = {}, set()
    for sets in (("train.balance=0",), ("train.balance=2",), ("train.balance=2", "train.recompute=true")):
        trainer, lines = trained(spec_of(data, mixture, *sets), tmp_path / "-".join(sets))
        first.add(lines[0].loss)
        ends["-".join(sets)] = trainer.weights()
    assert len(first) == 1, "cross entropy alone is reported, before anything was learned the same for all"
    without, with_it, again = ends.values()
    assert furthest(without, with_it) > 1e-4
    assert identical(with_it, again)
    plain = [
        trained(spec_of(data, sets), tmp_path / "plain" / sets)[0]
        for sets in ("train.balance=0", "train.balance=2")
    ]
    assert identical(plain[0].weights(), plain[1].weights()), "without experts there is nothing to balance"


@pytest.mark.parametrize(
    "sets",
    [
        (),
        ("train.optimiser.name=muon", "train.average={kind: swa, share: 0.9, every: 2}"),
        ("train.precision=bf16", "train.average={kind: ema, decay: 0.5}", "train.z_loss=1e-3"),
    ],
    ids=["plain", "muon", "bf16"],
)
def test_a_training_that_is_gone_on_with_ends_bit_for_bit_as_if_it_had_not_stopped(
    data: Path, tmp_path: Path, sets: tuple[str, ...]
) -> None:
    spec = spec_of(data, *sets)
    through, lines = trained(spec, tmp_path / "through")
    trained(spec, tmp_path / "pieces", until=3)
    assert latest(tmp_path / "pieces").name == "step-3"  # pyright: ignore[reportOptionalMemberAccess]
    resumed, rest = trained(spec, tmp_path / "pieces")
    assert identical(through.weights(), resumed.weights())
    assert [(one.step, one.loss, one.tokens) for one in rest] == [
        (one.step, one.loss, one.tokens) for one in lines[3:]
    ]
    assert lines[-1].valid_bpb == rest[-1].valid_bpb


def test_what_is_scored_and_left_is_the_average_where_one_is_kept(data: Path, tmp_path: Path) -> None:
    spec = spec_of(data, "train.average={kind: ema, decay: 0.9}", "train.optimiser.lr=0.05")
    trainer, lines = trained(spec, tmp_path)
    own = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    assert furthest(trainer.weights(), own) > 1e-3
    with torch.no_grad():
        for name, p in trainer.model.named_parameters():
            p.copy_(trainer.weights()[name])
    trainer.average = None
    assert trainer.score(list(range(4))) == trainer.score(list(range(4)))
    assert lines[-1].valid_bpb == pytest.approx(
        trainer.score([i * trainer.held_out.count // 4 for i in range(4)])
    )


def test_the_last_checkpoints_are_kept_and_one_half_written_is_never_taken(
    data: Path, tmp_path: Path
) -> None:
    trained(spec_of(data), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-4", "step-6"]
    # What a process leaves that dies while it saves: everything but the last rename.
    shutil.copytree(tmp_path / "step-6", tmp_path / ".tmp-8")
    assert latest(tmp_path) == tmp_path / "step-6"
    clear(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-4", "step-6"]


def test_a_torn_checkpoint_is_told_with_what_to_do(data: Path, tmp_path: Path) -> None:
    trained(spec_of(data), tmp_path, until=2)
    file = next((tmp_path / "step-2").glob("*.distcp"))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"step-2: cannot be read .*delete this folder"):
        trainer_of(spec_of(data)).restore(tmp_path / "step-2")


@pytest.mark.parametrize(
    ("broken", "place"),
    [
        ("stack.layers.1.0.block.out.weight", r"the output of layer 2, block 1: out$"),
        ("stack.layers.0.1.norm.weight", r"the output of layer 1, block 2: norm$"),
        ("head.weight", r"the output of (embedding|head)$"),
    ],
)
def test_a_number_that_is_none_stops_with_the_step_and_the_layer_and_the_checkpoint_stays(
    data: Path, tmp_path: Path, broken: str, place: str
) -> None:
    trainer = trainer_of(spec_of(data))
    trainer.run(tmp_path, lambda _: None, lambda: trainer.progress.step == 3)
    with torch.no_grad():
        dict(trainer.model.named_parameters(remove_duplicate=False))[broken].view(-1)[0] = math.nan
    with pytest.raises(Diverged, match=rf"^step 4: loss nan, gradient norm nan; first not finite: {place}"):
        trainer.run(tmp_path, lambda _: None)
    assert latest(tmp_path) == tmp_path / "step-3"


def test_a_gradient_that_is_not_finite_is_told_where_outputs_are(data: Path, tmp_path: Path) -> None:
    trainer = trainer_of(spec_of(data))
    gate = dict(trainer.model.named_parameters())["stack.layers.0.1.block.up.weight"]
    gate.register_hook(lambda grad: grad * math.nan)
    with pytest.raises(Diverged, match=r"step 1: loss [56].*: the gradient of layer 1, block 2: up.weight$"):
        trainer.run(tmp_path, lambda _: None)


def test_muon_takes_hidden_matrices_and_adamw_all_else(data: Path) -> None:
    trainer = trainer_of(spec_of(data, "train.optimiser.name=muon"))
    named = {id(p): name for name, p in trainer.model.named_parameters()}
    adamw, muon = (
        {named[id(p)] for group in one.param_groups for p in group["params"]} for one in trainer.optimisers
    )
    assert not adamw & muon and adamw | muon == set(named.values())
    assert all(".block." in name and name.endswith("weight") and "conv" not in name for name in muon)
    assert {"embedding.weight", "norm.weight", "stack.layers.0.0.block.log_pace"} <= adamw
    assert "stack.layers.1.1.block.up.weight" in muon


def test_vectors_do_not_decay_and_rates_follow_the_groups(data: Path, tmp_path: Path) -> None:
    trainer, lines = trained(spec_of(data, "train.rate.warmup=0.5"), tmp_path, until=2)
    decays = {name: group.decays for group in groups(trainer.model) for name in group.names}
    for optimiser in trainer.optimisers:
        for group in optimiser.param_groups:
            assert group["lr"] == pytest.approx(group["base_lr"] * 2 / 3)
    assert lines[-1].lr == pytest.approx(1e-3 * 2 / 3)
    assert not decays["norm.weight"] and decays["embedding.weight"]


def test_documents_are_kept_apart(data: Path) -> None:
    one = trainer_of(spec_of(data, "data.documents=true"))
    batch = one._batches(1)[0]
    assert batch.segments is not None and batch.segments.shape == batch.inputs.shape
    starts = batch.segments[:, 1:] != batch.segments[:, :-1]
    assert (batch.targets[:, :-1][starts] == -100).all()


def test_a_batch_that_does_not_split_evenly_is_refused(data: Path) -> None:
    spec = spec_of(data, "train.micro=2")
    assert micro_of(spec, ALONE) == 2 and micro_of(spec, Crew(1, 2, ALONE.device)) == 2
    with pytest.raises(TrainError, match=r"train.batch is 4 rows, 3 processes .* change train.batch"):
        micro_of(spec, Crew(0, 3, ALONE.device))
    with pytest.raises(TrainError, match="4 processes at 2 rows a pass"):
        micro_of(spec, Crew(0, 4, ALONE.device))


def test_auto_is_triton_on_a_gpu_alone_and_a_kernel_that_is_named_stays(data: Path) -> None:
    chosen = {device: kernel_of(spec_of(data), device) for device in ("cpu", "cuda")}
    assert chosen == {"cpu": "torch", "cuda": "triton"} and kernel_of(spec_of(data)) == "torch"
    assert kernel_of(spec_of(data, "train.kernel=torch"), "cuda") == "torch"
