"""A specification says everything, comes back whole, and its model comes back with it, bit for bit."""

from pathlib import Path

import pytest
import torch

from blocks import BLOCKS
from blocks.base import Block, Shape
from blocks.notation import show_call
from lab.model.budget import budget
from lab.model.packed import Part, pack
from lab.model.spec import (
    SpecError,
    build,
    dump,
    header_of,
    kind_of,
    load,
    loads,
    read_model,
    write_model,
)

TEXT = """\
kind: model
name: tiny
model:
  schedule: 3*(gdn(conv=2), swiglu(expand=2)) + (fox, swiglu(expand=2))
  shape: {dim: 16, heads: 2}
  vocab: 300
data: {train: [{data: corpus}], length: 32}
train: {steps: 10, batch: 8}
"""


def test_written_out_it_is_the_same() -> None:
    spec = loads(TEXT)
    assert loads(dump(spec)) == spec
    assert spec.data.train[0].weight == 1.0


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("tied", [True, False])
def test_a_model_comes_back_from_its_file(name: str, tied: bool, tmp_path: Path) -> None:
    block: Block = BLOCKS[name]()
    block.params(Shape(dim=16, heads=2))
    spec = loads(
        TEXT, overrides=[f"model.schedule={show_call(name, block)!r}", f"model.tied={str(tied).lower()}"]
    )
    path = tmp_path / "model.safetensors"
    model = build(spec)
    write_model(model, spec, path)
    back, said = read_model(path)
    assert said == spec
    assert (back.head.weight is back.embedding.weight) == tied
    ours, theirs = model.state_dict(), back.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


AROUND = [
    "model.inputs=bigram(buckets=50, dim=8) + norm + smear",
    "model.residual=x0_mix + unet + ln_scale + branch_scale",
    "model.norms=bare",
    "model.softcap=30.0",
    "model.init=orthogonal",
]


@pytest.mark.parametrize("bits", [None, 6])
def test_what_stands_around_the_layers_comes_back_with_the_weights(bits: int | None, tmp_path: Path) -> None:
    spec = loads(TEXT, overrides=AROUND)
    assert loads(dump(spec)) == spec
    torch.manual_seed(0)
    model, path = build(spec), tmp_path / "model"
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    if bits is None:
        write_model(model, spec, path)
    else:
        path.write_bytes(pack(model, header_of(spec), Part(bits=bits))[0])
    back, said = read_model(path)
    assert said == spec and back.design == model.design
    ids = torch.arange(24).view(2, 12)
    with torch.no_grad():
        torch.testing.assert_close(back(ids)[0], model(ids)[0], atol=0 if bits is None else 0.5, rtol=0)
    assert sum(budget(spec).params.values()) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.micro=3", "it must divide the batch of 8 rows"),
        ("train.rate={warmup: 0.6, decay: 0.6}", "over 1.2 of the steps; at most 1"),
        ("train.rate={shape: warmdown, warmup: 0.6, decay: 0.6}", "over 1.2 of the steps; at most 1"),
        ("train.average={kind: ema, below: 0.2}", "belongs to kind: swa"),
        ("model.vocab=256", "bytes and the end of a document need 257"),
        ("model.schedule=gdnn", "did you mean 'gdn'"),
        ("model.shape.heads=3", "choose dim, heads or the expansion"),
        ("train.rate.shape=wsdd", "did you mean 'wsd'?"),
        ("train.stesp=1", "is no key here; did you mean 'steps'?"),
        ("data.train=[{dat: corpus}]", "is no key here; did you mean 'data'?"),
        ("model.inputs=bigrm", "did you mean 'bigram'"),
        ("model.residual=unet + unet", "one part stands there twice"),
        ("model.softcap=0.0", "must be above 0"),
        ("model.norms=none", "'gain'"),
        ("kind=recipe", "it must be 'model'"),
    ],
)
def test_what_is_wrong_is_said_where_it_stands(override: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        loads(TEXT, "tiny.yaml", [override])
    assert said in str(caught.value)
    assert f"--set {override}" in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        load(tmp_path / "none.yaml")
    with pytest.raises(SpecError, match="cannot be read"):
        read_model(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(SpecError, match="cannot be read as safetensors"):
        read_model(tmp_path / "text.safetensors")
    (tmp_path / "a.yaml").write_text(TEXT)
    assert (kind_of(tmp_path / "a.yaml"), kind_of(tmp_path / "none.yaml")) == ("model", None)
