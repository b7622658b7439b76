"""``lab genesis verify``, ``race`` and ``pace``: what they print, what they return, and what they ask for."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from blocks.genesis_model import GenesisModel
from lab.genesis import save
from lab.genesis.pace import matrices, pace
from lab.genesis.peer import version
from lab.genesis.race import race
from lab.genesis.verify import LENGTHS, SHIPPED, SMALL, randomised
from lab.model.spec import build, loads
from lab.terminal import CommandError

TINY = """\
kind: model
name: tiny
model: {schedule: "(gdn, swiglu) + (fox, swiglu)", shape: {dim: 16, heads: 2}, vocab: 300}
data: {train: [{data: corpus}], length: 32}
train: {steps: 5, batch: 6, micro: 3}
"""

package = pytest.mark.skipif(version() is None, reason="genesis-llm is not here; make install puts it")


@pytest.mark.slow
@package
def test_a_file_is_verified_as_it_lies(tmp_path: Path, answer) -> None:
    path = tmp_path / "random.safetensors"
    save(randomised(SMALL, 3, batch=1)[0], path)
    document = json.loads(answer("genesis", "verify", str(path), "--seed", "4", "--json"))
    assert document["held"] and document["seed"] == 4
    assert len(document["rows"]) == len(SHIPPED) * len(LENGTHS)
    # The package's own casts are there: the same comparison would fail with them.
    assert max(row["as_shipped"] for row in document["rows"]) > 1e-8
    graded = [row["length"] for row in document["rows"] if row["gradients"] is not None]
    assert graded == list(LENGTHS)


@pytest.mark.slow
@package
def test_another_function_is_found_out(tmp_path: Path, lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours with one gain moved by a thousandth is no longer the file's: exit code 1, and where."""
    import lab.genesis.weights as weights

    path = tmp_path / "random.safetensors"
    save(randomised(SMALL, 3, batch=1)[0], path)
    build = weights.build

    def moved(*arguments) -> GenesisModel:
        model = build(*arguments)
        model.norm.weight.data[0] += 1e-3
        return model

    monkeypatch.setattr(weights, "build", moved)
    done = lab("genesis", "verify", str(path), "--seed", "4")
    assert done.code == 1
    assert "differs" in done.out and "28 of 28 rows differ" in done.out


def test_without_the_package_it_says_how_to_get_it(
    lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "genesis" else found(name, *rest)
    )
    spec = tmp_path / "tiny.yaml"
    spec.write_text(TINY)
    for words in (("verify",), ("race",), ("pace", spec)):
        done = lab("genesis", *words)
        assert done.code == 2 and "pip install --no-deps" in done.err and done.err.count("\n") == 1


def test_a_file_and_random_weights_at_once_are_refused(lab, tmp_path: Path) -> None:
    done = lab("genesis", "verify", str(tmp_path / "x.safetensors"), "--full")
    assert done.code == 2 and "choose one" in done.err


def test_an_unknown_kind_of_race_is_refused(lab) -> None:
    done = lab("genesis", "race", "--only", "backward")
    assert done.code == 2 and "backward" in done.err and "decode4" in done.err


@pytest.mark.slow
@package
@pytest.mark.parametrize("strong", [False, True])
def test_a_file_as_it_starts_and_one_of_strong_decay_are_verified(tmp_path: Path, lab, strong: bool) -> None:
    """Real files come as they are: near ties, decays that make the package's own gate gradient NaN."""
    torch.manual_seed(5)
    model = GenesisModel(SMALL, "shipped-eval")
    if strong:
        for name, parameter in model.named_parameters():
            if name.endswith("log_pace"):
                parameter.data.fill_(5.0)
                break
    path = tmp_path / "file.safetensors"
    save(model, path)
    done = lab("genesis", "verify", str(path), "--seed", "4")
    assert done.code == 0, done.out + done.err
    assert ("of genesis-llm are not finite; ours are" in done.out) == strong


def _fail(*_: object) -> None:
    raise RuntimeError("no such side")


@pytest.mark.slow
def test_a_side_that_dies_ends_the_race(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.genesis.race._theirs", _fail)
    with pytest.raises(CommandError, match="a side of the race ended early in train"):
        list(race(1, 1, ["train"], SMALL))


@pytest.mark.slow
@package
@pytest.mark.parametrize("what", ["decode4", "train"])
def test_both_sides_of_a_race_run(what: str) -> None:
    (result,) = race(2, 1, [what], SMALL)
    assert len(result.ratios) == 2 and min(result.ratios) > 0
    assert min(result.memory, result.peer_memory) > 10_000_000


def test_matrices_are_those_that_multiply_tokens() -> None:
    spec = loads(TINY)
    multiplied = 0
    model = build(spec)
    for name, weight in model.named_parameters():
        # A short convolution and vectors multiply no matrix; the embedding does as the tied head.
        multiplied += weight.numel() if weight.ndim == 2 and "conv" not in name else 0
    assert matrices(spec).weights == multiplied
    assert matrices(spec).flops(10) == 6 * 10 * multiplied


@pytest.mark.slow
@package
def test_steps_of_ours_their_products_and_the_package_take_turns() -> None:
    spec = loads(TINY)
    lines = pace(spec, [1, 2], repeats=2, threads=1, config=SMALL, warm_up=0)
    assert [line.tokens for line in lines] == [32, 32, 64, 64, 32]
    assert all(len(line.seconds) == 2 and min(line.seconds) > 0 for line in lines)
    ours, products, more, _, peer = lines
    flops = matrices(spec).flops(32)
    assert [line.flops for line in (ours, products, more, peer)] == [flops, flops, 2 * flops, None]
    assert ours.times(peer)[0] == pytest.approx(peer.seconds[0] / ours.seconds[0])
    # Products alone take no longer than the steps that hold them.
    assert min(products.seconds) < max(ours.seconds)
