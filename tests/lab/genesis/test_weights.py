"""Released files: written and read back bit for bit, in every form they come in; the package's own too."""

import importlib.util
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from blocks.genesis_model import CONFIGS, GENESIS_147M, GENESIS_152M, GENESIS_SWEETSPOT, GenesisModel
from lab.genesis.findings import features
from lab.genesis.released import GenesisFileError, Released
from lab.genesis.starts import measure
from lab.genesis.weights import layout, load, read, save, to_model, to_released
from tests.lab.genesis.files import refusal, rewrite
from tests.lab.genesis.small import small, some_ids

CONFIG = small().config


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A valid file of the small model, in float32."""
    file = tmp_path / "weights.safetensors"
    save(small(), file, torch.float32)
    return file


# Counts.


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (GENESIS_152M, 151_757_837),
        (GENESIS_147M, 151_772_237),
        (GENESIS_SWEETSPOT, 411_598_381),
        (replace(GENESIS_152M, full_every=5), 151_817_983),
        (replace(GENESIS_152M, full_every=6), 151_878_129),
        (replace(GENESIS_152M, full_every=7), 151_938_275),
        (replace(GENESIS_152M, full_every=31), 152_178_859),
        (replace(GENESIS_152M, full_every=1), 150_374_479),
    ],
    ids=["152m", "147m", "sweetspot", "4:1", "5:1", "6:1", "all linear", "all full"],
)
def test_the_layout_and_the_formulas_have_the_released_counts(config, count: int) -> None:
    assert sum(config.params().values()) == count
    assert sum(math.prod(part.shape) for part in layout(config)) == count
    with torch.device("meta"):
        model = GenesisModel(config, "shipped-train")
    assert sum(p.numel() for p in model.parameters()) == count


def test_the_components_of_the_released_model_have_the_documented_counts() -> None:
    parts = GENESIS_152M.params()
    assert parts == {
        "embedding": 28_960_704,
        "genesis_gla": 34_659_597,
        "genesis_fox": 10_127_551,
        "ffn": 74_649_600,
        "block norms": 34_560,
        "final norm": 576,
        "ttt": 1_997_568,
        "self model": 331_776,
        "confidence": 332_353,
        "reflection": 663_552,
    }
    assert sum(parts.values()) - parts["embedding"] == 122_797_133
    names = [part.released for part in layout(GENESIS_152M)]
    assert len(names) == len(set(names)) == 576


# Round trips.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_written_is_read_bit_for_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    model = small().to(dtype)
    save(model, tmp_path / "w.safetensors")
    again = load(tmp_path / "w.safetensors", "shipped-cache", dtype)
    assert not again.training and again.config == model.config and again.mode == "shipped-cache"
    for (name, mine), (other, yours) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert name == other and mine.dtype == yours.dtype and mine.equal(yours), name
    ids_BT = some_ids(2, 70)
    assert model(ids_BT)[0].equal(again(ids_BT)[0])


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_survives_the_header(name: str) -> None:
    assert Released.of(CONFIGS[name]).config() == CONFIGS[name]


@pytest.mark.parametrize("full_every", [1, 3, 49, 93, 99, 185, 1000])
def test_a_ratio_survives_that_the_package_rounds_down(full_every: int) -> None:
    config = replace(CONFIG, full_every=full_every)
    released = Released.of(config)
    assert int(1 / released.hybrid_full_attn_ratio) == full_every
    assert released.config() == config


def test_names_and_pieces_are_one_to_one() -> None:
    model = small()
    ours = {name: p.detach() for name, p in model.named_parameters()}
    back = to_model(CONFIG, to_released(CONFIG, ours))
    assert back.keys() == ours.keys()
    assert all(back[name].equal(t) for name, t in ours.items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_narrow_types_come_back_widened(dtype: torch.dtype, path: Path) -> None:
    stored = {name: t.to(dtype) for name, t in load_file(path).items()}
    rewrite(path, stored)
    weights = read(path)
    assert set(weights.stored.values()) == {dtype}
    assert all(t.dtype == torch.float32 and t.equal(stored[n].float()) for n, t in weights.tensors.items())


def test_types_may_differ_from_tensor_to_tensor(path: Path) -> None:
    tensors = load_file(path)
    tensors["ln_f.omega"] = tensors["ln_f.omega"].double()
    tensors["blocks.0.attn.A_log"] = tensors["blocks.0.attn.A_log"].bfloat16()
    rewrite(path, tensors)
    weights = read(path)
    assert weights.tensors["ln_f.omega"].dtype == weights.stored["ln_f.omega"] == torch.float64
    assert weights.stored["blocks.0.attn.A_log"] == torch.bfloat16
    assert {p.dtype for p in load(path).parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "names", [("tok_emb.weight",), ("lm_head.weight",), ("tok_emb.weight", "lm_head.weight")]
)
def test_the_head_stands_under_either_name_or_both(names: tuple[str, ...], path: Path) -> None:
    wanted = read(path).tensors
    tensors = load_file(path)
    embedding = tensors.pop("tok_emb.weight")
    rewrite(path, {**tensors, **{name: embedding.clone() for name in names}})
    weights = read(path)
    assert weights.tensors.keys() == wanted.keys()
    assert all(weights.tensors[name].equal(t) for name, t in wanted.items())


@pytest.mark.parametrize("shape", [(), (0,), (1, 1, 4099, 6)])
def test_buffers_of_any_shape_and_type_are_left_aside(shape: tuple[int, ...], path: Path) -> None:
    buffers = {
        "blocks.0.attn.rope.inv_freq": torch.zeros(shape, dtype=torch.int8),
        "blocks.4.attn.rope.cos_cached": torch.full(shape, math.nan),
        "blocks.4.attn.rope.sin_cached": torch.full(shape, math.inf, dtype=torch.bfloat16),
        "metacognition.evolution_history": torch.zeros(shape),
        "metacognition.evolution_idx": torch.zeros(shape, dtype=torch.int64),
    }
    wanted = read(path).tensors
    rewrite(path, {**load_file(path), **buffers})
    weights = read(path)
    assert set(weights.buffers) == set(buffers) and weights.tensors.keys() == wanted.keys()


def test_a_named_configuration_stands_in_for_a_header_and_never_overrules_one(path: Path) -> None:
    wrong = replace(CONFIG, vocab=98)
    assert read(path, CONFIG).released.config() == CONFIG
    with pytest.raises(GenesisFileError, match="describes another model than --config"):
        read(path, wrong)
    rewrite(path, format="pt")
    assert read(path, CONFIG).released.config() == CONFIG
    with pytest.raises(GenesisFileError, match=r"tok_emb\.weight is "):
        read(path, wrong)
    assert "--config genesis-152m" in refusal(path)


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(path: Path, monkeypatch) -> None:
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        Path(str(_[1])).write_bytes(b"half")
        raise OSError("no space")

    monkeypatch.setattr("lab.genesis.weights.save_file", full)
    with pytest.raises(OSError, match="no space"):
        save(small(), path)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


# The package itself, in processes of its own: importing it changes what is imported here.

FIELDS = {
    "vocab_size": 97,
    "n_embd": 64,
    "n_layer": 6,
    "n_head": 4,
    "n_kv_head": 2,
    "gla_expand_k": 0.75,
    "gla_expand_v": 1.5,
    "ttt_rank": 3,
    "use_mup": True,
    "mup_base_width": 48,
    "selective_k_ratio": 0.85,
}
PACKAGE = """
import contextlib, dataclasses, json, sys
out, fields = sys.argv[1:]
with contextlib.redirect_stdout(sys.stderr):
    import torch
    from genesis import Genesis, GenesisConfig
    from safetensors.torch import save_file
    torch.manual_seed(0)
    config = GenesisConfig(**json.loads(fields))
    model = Genesis(config)
    held = {name: t.detach().clone().contiguous() for name, t in model.state_dict().items()}
    save_file(held, out, metadata={"genesis_config_json": json.dumps(dataclasses.asdict(config))})
    with torch.device("meta"):
        models = [Genesis(make()) for make in (GenesisConfig.genesis_147m, GenesisConfig.genesis_sweetspot)]
print(json.dumps([sum(p.numel() for p in model.parameters()) for model in models]))
"""
LOADER = """
import contextlib, sys
with contextlib.redirect_stdout(sys.stderr):
    from genesis import cli
    from safetensors.torch import save_file
    chat = object.__new__(cli.GenesisChat)
    chat.device = "cpu"
    model = chat._load_model(sys.argv[1])
    save_file({name: p.detach().clone().contiguous() for name, p in model.named_parameters()}, sys.argv[2])
"""


def in_package(program: str, *arguments: object) -> str:
    if importlib.util.find_spec("genesis") is None:
        pytest.skip("genesis-llm is not importable here; make install brings it")
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """A file of a freshly made model of the package, and how many parameters its two own models have."""
    file = tmp_path_factory.mktemp("package") / "package.safetensors"
    counts = json.loads(in_package(PACKAGE, file, json.dumps(FIELDS)))
    return file, counts


@pytest.mark.slow
def test_a_file_of_the_package_loads_and_is_at_its_start(packaged: tuple[Path, list[int]]) -> None:
    file, _ = packaged
    weights, stored = read(file), load_file(file)
    assert all(t.equal(stored[name]) for name, t in weights.tensors.items())
    assert set(stored) - set(weights.tensors) == {*weights.buffers, "lm_head.weight"}
    model = load(file, "shipped-eval")
    assert model.config == replace(CONFIG, ttt_rank=3)
    assert model(some_ids(1, 9))[0].isfinite().all()
    # What the audit takes for the start is what the package makes.
    found = measure(weights)
    assert not [one for one in found.values() if one.state == "moved"]
    assert {one.trained for one in features(found, 0.85)} == {"never", "no sign", None}


def test_the_package_has_the_counts_that_are_claimed_for_it(packaged: tuple[Path, list[int]]) -> None:
    assert packaged[1] == [sum(config.params().values()) for config in (GENESIS_147M, GENESIS_SWEETSPOT)]


@pytest.mark.slow
def test_a_file_of_ours_is_whole_to_the_loader_of_the_package(path: Path, tmp_path: Path) -> None:
    in_package(LOADER, path, tmp_path / "loaded.safetensors")
    loaded, wanted = load_file(tmp_path / "loaded.safetensors"), read(path).tensors
    assert loaded.keys() == wanted.keys()
    assert all(loaded[name].equal(t) for name, t in wanted.items())
