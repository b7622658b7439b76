"""Models in few bits: how rows are rounded, what a file keeps of which tensor, and that it comes back."""

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from blocks import BLOCKS
from blocks.notation import show_call
from lab.model.packed import STEP, PackedError, Part, is_packed, pack, unpack
from lab.model.rounding import CLIPS, RoundingError, round_rows, top_of
from lab.model.spec import SpecError, build, header_of, loads, read_model
from lab.model.zstd import MAGIC, compress, decompress

TEXT = """\
kind: model
name: tiny
model: {schedule: "(gdn, swiglu) + (fox, mlp)", shape: {dim: 16, heads: 2}, vocab: 257}
data: {train: [{data: corpus}], length: 32}
train: {steps: 10, batch: 8}
"""


def heavy_tailed(rows: int = 8, columns: int = 2000) -> torch.Tensor:
    """Rows of Student's t with four degrees of freedom, each of its own scale."""
    seed = random.randrange(2**32)
    print("seed", seed)
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(rows, columns, generator=generator)
    chi = torch.randn(rows, columns, 4, generator=generator).square().sum(-1)
    return normal / (chi / 4).sqrt() * torch.logspace(-3, 1, rows)[:, None]


@pytest.mark.parametrize("bits", [6, 8])
def test_what_is_not_clipped_is_off_by_half_a_step_at_most(bits: int) -> None:
    weight = heavy_tailed()
    rounded = round_rows(weight, bits)
    top, step = top_of(bits), rounded.size_R.float()[:, None]
    assert int(rounded.steps_RC.abs().max()) == top
    inside = weight.abs() <= top * step
    assert ((rounded.whole() - weight).abs() <= 0.5001 * step)[inside].all()
    beyond = rounded.steps_RC[~inside].abs()
    assert bool((beyond == top).all()) and (bits == 8 or len(beyond) > 0)


def test_every_row_has_the_clip_that_is_best_for_itself() -> None:
    weight = heavy_tailed()
    error_R = (round_rows(weight, 6).whole() - weight).square().sum(1)
    for clip in CLIPS:
        step = (weight.abs().quantile(clip, dim=1) / 31).half().float()[:, None]
        alike_R = ((weight / step).round().clamp(-31, 31) * step - weight).square().sum(1)
        assert (error_R <= alike_R * 1.0001).all(), clip
    # On some of these rows clipping pays, so that the search has something to find.
    widest = (weight.abs().amax(1) / 31)[:, None]
    unclipped_R = ((weight / widest).round() * widest - weight).square().sum(1)
    assert (error_R < 0.95 * unclipped_R).any()


def test_rows_of_small_numbers_keep_their_bits_unless_a_finest_step_is_asked_for() -> None:
    weight = 0.05 * torch.randn(16, 512, generator=torch.Generator().manual_seed(0))

    def error(finest: float) -> float:
        return float((round_rows(weight, 6, finest).whole() - weight).norm() / weight.norm())

    assert error(0.0) < 0.04 and 0.15 < error(1 / 31) < 0.25
    tiny = round_rows(1e-6 * weight, 6).whole()
    assert float((tiny - 1e-6 * weight).norm() / (1e-6 * weight).norm()) < 0.5
    # A step that float16 cannot hold is its smallest number, and never 0.
    least = round_rows(torch.full((1, 3), 1e-7), 6)
    assert least.size_R.item() == 2.0**-24 and (least.steps_RC == 2).all()
    assert not round_rows(torch.zeros(2, 5), 6).whole().any()


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 1e30])
def test_what_cannot_be_rounded_is_refused(wrong: float) -> None:
    with pytest.raises(RoundingError):
        round_rows(torch.tensor([[1.0, wrong]]), 6)


@pytest.mark.parametrize(("name", "tied"), [*((name, True) for name in BLOCKS), ("gdn", False)])
def test_a_file_comes_back_as_it_was_rounded_whatever_the_blocks(name: str, tied: bool, tmp_path) -> None:
    spec = loads(
        TEXT,
        overrides=[f"model.schedule={show_call(name, BLOCKS[name]())!r}", f"model.tied={str(tied).lower()}"],
    )
    torch.manual_seed(0)
    model, path = build(spec), tmp_path / "m.zst"
    packed, kept = pack(model, header_of(spec), Part(6))
    path.write_bytes(packed)
    assert is_packed(path) and packed.startswith(MAGIC)
    back, said = read_model(path)
    assert said == spec and (back.head.weight is back.embedding.weight) == tied
    parameters = sum(p.numel() for p in model.parameters())
    assert sum(one.numbers for one in kept) == parameters
    own = dict(back.named_parameters())
    for key, before in model.named_parameters():
        assert (own[key] - before).abs().max() <= 0.05 * before.abs().max() + 1e-6, key
    # Rounded once, always rounded: the file of what was read is the same file.
    assert pack(back, header_of(spec), Part(6))[0] == packed


def test_which_tensors_get_how_many_bits() -> None:
    spec = loads(TEXT, overrides=["model.tied=false"])
    torch.manual_seed(0)
    model = build(spec)
    packed, kept = pack(model, header_of(spec), Part(6))
    tensors = load(decompress(packed))
    for name in ("embedding.weight", "head.weight"):
        assert tensors[name].dtype == torch.int8 and int(tensors[name].abs().max()) == 127
        assert tensors[f"{name}{STEP}"].shape == (257,)
    assert int(tensors["stack.layers.0.1.block.up.weight"].abs().max()) == 31
    # Norms, and the matrices of gates, which have a row a head.
    small = {name: one for name, one in model.named_parameters() if one.ndim == 1 or one.numel() <= 16**2 / 4}
    assert {one.ndim for one in small.values()} >= {1, 2}
    assert all(tensors[name].dtype == torch.float16 for name in small)
    assert {(one.kind, one.bits) for one in kept} == {
        ("hidden matrices", 6),
        ("embedding and head", 8),
        ("the rest", 16),
    }


def test_the_factor_of_mup_comes_back_with_the_logits(tmp_path: Path) -> None:
    spec = loads(TEXT, overrides=["model.mup=8"])
    torch.manual_seed(0)
    model, path = build(spec).eval(), tmp_path / "m.zst"
    path.write_bytes(pack(model, header_of(spec), Part(8))[0])
    back, said = read_model(path)
    assert said.model.mup == back.mup == 8
    ids = torch.arange(40)[None]
    with torch.no_grad():
        before, after = model(ids)[0], back.eval()(ids)[0]
    assert float((after - before).norm() / before.norm()) < 0.05


def test_broken_files_are_one_sentence(tmp_path: Path) -> None:
    spec, path = loads(TEXT), tmp_path / "m.zst"
    packed, _ = pack(build(spec), header_of(spec), Part(6))
    other = pack(build(loads(TEXT, overrides=["model.shape.dim=8"])), header_of(spec), Part(6))[0]
    bare = pack(build(spec), {}, Part(6))[0]
    for content, said in (
        (packed[: len(packed) // 2], "no whole zstd frame"),
        (compress(b"no tensors", 3), "no weights of the lab"),
        (other, "not those of its specification"),
        (bare, "no specification"),
    ):
        path.write_bytes(content)
        with pytest.raises(SpecError, match=said) as caught:
            read_model(path)
        assert "\n\n" not in str(caught.value) and str(path) in str(caught.value)
    path.write_bytes(packed[:9])
    with pytest.raises(PackedError):
        unpack(path)


def test_weights_that_are_no_numbers_are_not_packed() -> None:
    spec = loads(TEXT)
    model = build(spec)
    with torch.no_grad():
        model.norm.weight[0] = float("nan")
    with pytest.raises(PackedError, match=r"norm\.weight: a number is not finite"):
        pack(model, header_of(spec), Part(6))
