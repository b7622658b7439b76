"""Files that hold no usable weights: one sentence that names the file, at once, whatever is in them."""

import json
import math
import os
import pickle
import random
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from blocks.genesis_model import GenesisConfig, GenesisModel
from lab.genesis.released import GenesisFileError, Released, parse_released
from lab.genesis.weights import read, save
from tests.lab.genesis.files import configured, header, refusal, rewrite
from tests.lab.genesis.small import small


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A valid file of the small model, in float32."""
    file = tmp_path / "weights.safetensors"
    save(small(), file, torch.float32)
    return file


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A valid file of a few kilobytes."""
    file = tmp_path / "tiny.safetensors"
    config = GenesisConfig(vocab=7, dim=8, depth=2, heads=2, kv_heads=1, full_every=2, ttt_rank=1)
    save(GenesisModel(config), file)
    read(file)
    return file


def raw(path: Path, document: Any, data: bytes = b"") -> None:
    """A safetensors file with this header, whatever it says."""
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


# Not the format at all.


def test_every_truncation_is_refused(tiny: Path) -> None:
    whole = tiny.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    seed = random.randrange(2**31)
    print(f"seed {seed}")
    cuts = {*range(12), length + 7, length + 8, length + 9, len(whole) - 1}
    cuts |= set(random.Random(seed).sample(range(len(whole)), 400))
    for cut in cuts:
        tiny.write_bytes(whole[:cut])
        assert "no whole safetensors file" in refusal(tiny), cut


def test_a_flipped_byte_gives_weights_or_a_sentence_and_nothing_else(tiny: Path) -> None:
    whole = tiny.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    seed = random.randrange(2**31)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(300):
        broken = bytearray(whole)
        broken[rng.randrange(length + 8)] = rng.randrange(256)
        tiny.write_bytes(bytes(broken))
        try:
            read(tiny)
        except GenesisFileError as exc:
            assert str(exc).startswith(str(tiny)) and str(exc).isprintable(), exc


@pytest.mark.parametrize("claim", [0, 1, 2**20, 2**40, 2**63, 2**64 - 1])
def test_a_header_that_lies_about_its_length_is_refused(claim: int, tiny: Path) -> None:
    whole = tiny.read_bytes()
    tiny.write_bytes(struct.pack("<Q", claim) + whole[8:])
    assert "no whole safetensors file" in refusal(tiny)


def test_data_beyond_what_the_header_says_is_refused(tiny: Path) -> None:
    tiny.write_bytes(tiny.read_bytes() + b"more")
    assert "no whole safetensors file" in refusal(tiny)


class Bomb:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, ("executed",)


@pytest.mark.parametrize(
    "kind", ["empty", "pickle", "torch", "zip", "text", "list", "number", "bytes", "deep"]
)
def test_another_kind_of_file_is_refused_and_never_run(kind: str, path: Path, monkeypatch) -> None:
    monkeypatch.chdir(path.parent)
    match kind:
        case "empty":
            path.write_bytes(b"")
        case "pickle":
            path.write_bytes(pickle.dumps(Bomb()))
        case "torch":
            torch.save({"tok_emb.weight": Bomb()}, path)
        case "zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("weights", "x" * 1000)
        case "text":
            path.write_text("weights\n" * 100)
        case "list":
            raw(path, [1, 2, 3])
        case "number":
            raw(path, {"tok_emb.weight": 3})
        case "bytes":
            raw(path, bytes(range(256)))
        case _:
            raw(path, b"{" * 100_000)
    assert "no whole safetensors file" in refusal(path)
    assert not Path("executed").exists()


def test_a_message_of_the_format_itself_stays_one_printable_line(path: Path) -> None:
    name = "a\nb\x1b[31m" + "long" * 10_000
    raw(path, {name: {"dtype": name, "shape": [1], "data_offsets": [0, 4]}}, b"0000")
    assert len(refusal(path)) < 400


def test_missing_files_and_directories_say_so_in_the_words_of_every_command(lab, tmp_path: Path) -> None:
    for name, words in (("none.safetensors", "there is no file"), (".", "is a directory")):
        outcome = lab("genesis", "audit", tmp_path / name)
        assert (outcome.code, outcome.out) == (2, "") and words in outcome.err
        assert outcome.err.startswith("error: ") and len(outcome.err.splitlines()) == 1


def test_a_pipe_or_device_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for odd in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(GenesisFileError, match="is a pipe or a device"):
            read(odd)


# The format, but other tensors.


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("tok_emb.weight", (98, 64)),
        ("blocks.0.attn.b_proj.bias", (4, 1)),
        ("blocks.3.attn.k_proj.weight", (64, 32)),
        ("ln_f.omega", ()),
        ("metacognition.ttt.A_init", (64, 0)),
        ("metacognition.ttt.W0", (1,) * 60),
    ],
)
def test_a_wrong_shape_is_named_with_both_shapes(name: str, shape: tuple[int, ...], path: Path) -> None:
    tensors = load_file(path)
    wanted = list(tensors[name].shape)
    rewrite(path, {**tensors, name: torch.zeros(shape)})
    assert f"{name} is {str(list(shape))[:100]}" in (told := refusal(path)) and f"asks for {wanted}" in told


def test_missing_and_additional_tensors_are_named(path: Path) -> None:
    tensors = load_file(path)
    gone = [name for name in tensors if "b_proj" in name]
    rewrite(path, {name: t for name, t in tensors.items() if name not in gone})
    assert "lacks blocks.0.attn.b_proj.bias, blocks.0.attn.b_proj.weight," in (told := refusal(path))
    assert f"and {len(gone) - 3} more" in told and f"asks for {len(tensors)}" in told
    rewrite(path, {**tensors, "blocks.0.attn.b_prj.bias": torch.zeros(4), "extra\n": torch.zeros(1)})
    assert "has beside its weights blocks.0.attn.b_prj.bias, extra?;" in refusal(path)
    rewrite(path, {name: t for name, t in tensors.items() if not name.startswith("metacognition.")})
    assert "lacks metacognition." in refusal(path)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_numbers_that_are_none_are_counted(value: float, dtype: torch.dtype, path: Path) -> None:
    tensors = load_file(path)
    spoilt = tensors["ln_f.omega"].to(dtype)
    spoilt[[1, 5]] = value
    rewrite(path, {**tensors, "ln_f.omega": spoilt})
    assert "ln_f.omega has 2 values that are NaN or infinite" in refusal(path)


@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64, torch.float8_e8m0fnu]
)
def test_other_types_are_refused_by_their_name(dtype: torch.dtype, path: Path) -> None:
    rewrite(path, {**load_file(path), "ln_f.omega": torch.zeros(64).to(dtype)})
    assert "ln_f.omega is of type " in (told := refusal(path)) and "known are F64, F32, BF16" in told


@pytest.mark.parametrize("kind", ["F4", "F6_E2M3", "F6_E3M2"])
def test_types_that_torch_cannot_hold_are_refused_by_their_name(kind: str, tiny: Path) -> None:
    whole = tiny.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    header, data = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    begin, end = header["ln_f.omega"]["data_offsets"]
    size = 8 * int(kind[1]) // 8  # bytes of eight values
    shift = size - (end - begin)
    for name, entry in header.items():
        if name != "__metadata__" and entry["data_offsets"][0] >= end:
            entry["data_offsets"] = [at + shift for at in entry["data_offsets"]]
    header["ln_f.omega"] |= {"dtype": kind, "data_offsets": [begin, begin + size]}
    raw(tiny, header, data[:begin] + bytes(size) + data[end:])
    assert f"ln_f.omega is of type {kind}; known are" in refusal(tiny)


def test_a_head_of_its_own_is_refused(path: Path) -> None:
    tensors = load_file(path)
    head = tensors["tok_emb.weight"].clone()
    head[3, 3] += 1e-3
    rewrite(path, {**tensors, "lm_head.weight": head})
    assert "lm_head.weight differs from tok_emb.weight" in refusal(path)
    rewrite(path, {**tensors, "lm_head.weight": head[:5].clone()})
    assert "lm_head.weight is [5, 64]" in refusal(path)


# The header's configuration.


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no JSON"),
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("9" * 5_000, "is no JSON"),
        ("[1]", "is list; an object"),
        ("null", "is NoneType; an object"),
        ('"n_layer"', "is str; an object"),
        ("{}", "lacks blocks.10.attn.A_log"),  # the package's defaults: twelve layers
    ],
    ids=["empty", "open", "deep", "long", "list", "null", "string", "defaults"],
)
def test_a_header_that_is_no_object_of_fields(text: str, words: str, path: Path) -> None:
    rewrite(path, genesis_config_json=text)
    assert words in refusal(path)


def test_a_header_without_a_configuration_says_what_to_do(path: Path) -> None:
    for metadata in ({"format": "pt"}, {"config": "{}"}):
        rewrite(path, **metadata)
        assert "no genesis_config_json; say which model it holds with --config" in refusal(path)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"n_layers": 6}, "unknown field n_layers; did you mean n_layer?"),
        ({"zzz": 1}, "unknown field zzz; no release of the package has it"),
        ({"a\nb\x1b[2J" + "c" * 500: 1}, "unknown field a?b?[2J"),
        ({"\ud800": 1}, "the name of a field is '"),
        ({"n_layer": "six"}, "n_layer is 'six'; input should be a valid integer"),
        ({"n_layer": 6.5}, "n_layer is 6.5"),
        ({"n_layer": True}, "n_layer is True"),
        ({"n_layer": None}, "n_layer is None"),
        ({"n_layer": ["x" * 10_000]}, "n_layer is ['xxx"),
        ({"n_layer": 0}, "n_layer is 0; input should be greater than or equal to 1"),
        ({"n_layer": 10**9}, "n_layer is 1000000000; input should be less than or equal to 1024"),
        ({"n_layer": 10**400}, "n_layer is 1000"),
        ({"n_embd": 10**12}, "n_embd is 1000000000000; input should be less than or equal to"),
        ({"vocab_size": 2**60}, "vocab_size is"),
        ({"ttt_rank": 10**18}, "ttt_rank is"),
        ({"gla_conv_size": 2**40}, "gla_conv_size is"),
        ({"gla_chunk_size": 2**62}, "gla_chunk_size is"),
        ({"gla_expand_k": 1e300}, "gla_expand_k is 1e+300; input should be less than or equal to 64"),
        ({"gla_expand_v": math.inf}, "gla_expand_v is inf"),
        ({"gla_expand_k": 0.7}, "its configuration fits no model: genesis_gla: with expand_k=0.7"),
        ({"mup_output_mult": math.nan}, "mup_output_mult is nan; input should be a finite number"),
        ({"hybrid_full_attn_ratio": 1e-300}, "hybrid_full_attn_ratio is 1e-300; input should be greater"),
        ({"hybrid_full_attn_ratio": 0}, "hybrid_full_attn_ratio is 0"),
        ({"hybrid_full_attn_ratio": 1.5}, "hybrid_full_attn_ratio is 1.5"),
        ({"ttt_inner_lr": -1}, "ttt_inner_lr is -1"),
        ({"selective_k_ratio": 2}, "selective_k_ratio is 2"),
        ({"n_head": 5}, "n_head is 5 at n_embd 64 and n_kv_head 2; n_head must divide n_embd"),
        ({"n_kv_head": 3}, "n_head is 4 at n_embd 64 and n_kv_head 3"),
        ({"use_fox": False}, "use_fox is False; input should be True"),
        ({"ttt_mode": "minibatch"}, "ttt_mode is 'minibatch'; input should be 'dual'"),
        ({"norm_eps": 1e-5}, "norm_eps is 1e-05"),
        ({"vocab_size": 98}, "tok_emb.weight is [97, 64]; its configuration asks for [98, 64]"),
        ({"n_layer": 5}, "has beside its weights blocks.5."),
        ({"n_layer": 1024}, "lacks blocks.10.attn"),
        ({"hybrid_full_attn_ratio": 0.5}, "lacks blocks.1.attn.fgate_proj"),
    ],
    ids=lambda value: (
        next(iter(value))[:20].encode("ascii", "replace").decode() if isinstance(value, dict) else ""
    ),
)
def test_a_field_that_cannot_be_is_named(fields: dict[str, Any], words: str, path: Path) -> None:
    configured(path, **fields)
    began = time.process_time()
    assert words in refusal(path)
    assert time.process_time() - began < 2, "a header costs no time"


def test_any_header_gives_a_configuration_that_makes_a_layout_or_a_sentence() -> None:
    """Random documents out of the fields there are: nothing but GenesisFileError may come out of them."""
    seed = random.randrange(2**31)
    print(f"seed {seed}")
    rng = random.Random(seed)
    values = [0, 1, 2, 3, 8, 64, 10**30, -1, 0.25, 1e-9, 1e308, math.nan, True, None, "dual", [], {}]
    for _ in range(2_000):
        fields = {
            name: rng.choice(values) for name in rng.sample(list(Released.model_fields), rng.randint(0, 4))
        }
        try:
            config = parse_released(json.dumps(fields), "here").config()
        except GenesisFileError as exc:
            assert str(exc).startswith("here: ") and str(exc).isprintable()
        else:
            assert config.depth <= 1024 and 1 <= config.full_every <= 2048


def test_fields_without_effect_are_checked_for_their_type_and_otherwise_left_alone(path: Path) -> None:
    before = read(path)
    configured(path, block_size=1, head_dim=3, selective_schedule="linear", ttt_chunk_size=7)
    after = read(path)
    assert after.released.config() == before.released.config() and after.released.block_size == 1
    configured(path, block_size="much")
    assert "block_size is 'much'" in refusal(path)


def test_dropout_is_refused_for_it_changes_the_function_in_training(path: Path) -> None:
    configured(path, dropout=0.5)
    assert "dropout is 0.5" in refusal(path)


def test_only_the_buffers_of_the_package_are_left_aside(path: Path) -> None:
    tensors = {**load_file(path), "blocks.0.attn.rope.inv_freq": torch.zeros(3)}
    rewrite(path, tensors, **header(path).get("__metadata__", {}))
    assert read(path).buffers == ("blocks.0.attn.rope.inv_freq",)
    tensors["junk.rope.inv_freq"] = torch.zeros(3)
    rewrite(path, tensors, **header(path).get("__metadata__", {}))
    assert "junk.rope.inv_freq" in refusal(path)
