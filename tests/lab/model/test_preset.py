"""Every preset has the parameters that were published: counted from its sizes alone, by formula, as built."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch

from blocks.cost import params_by_part
from lab.model.preset import load, shipped
from lab.model.spec import SpecError, build, design_of, schedule_of, shape_of
from lab.train.shipped import load as load_spec


def golf_518() -> int:
    vocab, layers, dim, heads, groups, head, hidden = 1024, 11, 512, 8, 4, 64, 1536
    attention = (
        dim * heads * head + 2 * dim * groups * head + heads * head * dim + heads
    )  # and a gain per head
    layer = attention + 2 * dim * hidden + 4 * dim  # two mixes and two scales per channel
    bigram = 2048 * 128 + 128 * dim + 1
    values = vocab * 128 + 128 * groups * head + 1 + 2  # and a share in each of two layers
    return vocab * dim + bigram + dim + (layers // 2) * dim + layers * layer + values


def smollm2_135m() -> int:
    vocab, layers, dim, heads, groups, hidden = 49152, 30, 576, 9, 3, 1536
    head = dim // heads
    layer = 2 * dim * dim + 2 * dim * groups * head + 3 * dim * hidden + 2 * dim
    return vocab * dim + layers * layer + dim


def transformer_pp() -> int:
    vocab, layers, dim, hidden = 50280, 12, 768, 2048
    return vocab * dim + layers * (4 * dim * dim + 3 * dim * hidden + 2 * dim) + dim


def mamba2_130m() -> int:
    vocab, layers, dim, heads, state, taps = 50288, 24, 768, 24, 128, 4
    inner = 2 * dim
    mixed = inner + 2 * state  # x, B and C go through the convolution
    mixer = dim * (inner + mixed + heads) + (taps + 1) * mixed + 3 * heads + inner + inner * dim
    return vocab * dim + layers * (mixer + dim) + dim


def striped_hyena_mad() -> int:
    vocab, dim, heads, hidden, bands, width = 16, 128, 16, 352, 8, 32
    network = (2 * bands + 1) * width + width + width * width + width + 2 * width + width * heads
    hyena = 4 * dim * dim + 3 * (3 * dim) + network + heads
    return 2 * vocab * dim + hyena + 4 * dim * dim + 2 * 3 * dim * hidden + 4 * dim + dim


def qwen3_next_mini() -> int:
    vocab, layers, dim, heads, groups, experts, hidden = 256, 8, 256, 8, 2, 8, 128
    key, value, head = dim, 2 * dim, dim // heads
    delta = dim * (2 * key + 2 * value + 2 * heads) + 4 * (2 * key + value) + 2 * heads + value // heads
    delta += value * dim
    attention = dim * (2 * dim + 2 * groups * head) + 2 * head + dim * dim
    mixture = experts * 3 * dim * hidden + dim * experts
    norms = 2 * dim
    mixers = 3 * layers // 4 * delta + layers // 4 * attention
    return 2 * vocab * dim + mixers + layers * (mixture + norms) + dim


def genesis_152m() -> int:
    vocab, layers, dim, heads, groups, hidden, taps, every = 50279, 30, 576, 9, 3, 1440, 4, 4
    head, key, value = dim // heads, 48, 96  # of attention; of the linear layers, 3/4 and 3/2 of it
    mixed = heads * key + groups * (key + value)  # q, k and v, which all go through convolutions
    linear = dim * (mixed + 2 * heads * value + 2 * heads) + taps * mixed
    linear += 3 * heads + value  # biases of the writes, two scalars of the decay; a norm that heads share
    keys = groups * head  # the values have all heads
    full = dim * (4 * dim + keys + heads) + heads + taps * (keys + dim)
    full += head + dim + keys  # norms of outputs, of queries and of keys
    attending = layers // every
    mixers = attending * full + (layers - attending) * linear
    return vocab * dim + mixers + layers * (3 * dim * hidden + 2 * dim) + dim


def genesis_152m_whole() -> int:
    dim, rank, hidden = 576, 4, 288
    # Test-time layer: start, queries, keys, values, outputs and gate; a low rank; a norm, a rate, a scale.
    layer = 6 * dim * dim + 2 * rank * dim + 4 * dim
    confidence = 2 * dim * hidden + hidden + hidden + 1
    return genesis_152m() + layer + dim * dim + confidence + 2 * dim * dim


BY_CONFIGURATION: dict[str, Callable[[], int]] = {
    "golf-518": golf_518,
    "smollm2-135m": smollm2_135m,
    "transformer++": transformer_pp,
    "mamba2-130m": mamba2_130m,
    "striped-hyena-mad": striped_hyena_mad,
    "qwen3-next-mini": qwen3_next_mini,
    "genesis-152m": genesis_152m,
}
"""Counted from the published sizes without any code of the lab."""

WHOLE: dict[str, Callable[[], int]] = {"genesis-152m": genesis_152m_whole}
"""The source's whole model, where the preset leaves a part of it out; likewise."""

each = pytest.mark.parametrize("name", sorted(shipped()))


@each
def test_counts_are_those_of_the_published_configuration(name: str) -> None:
    preset = load(name)
    assert preset.name == name
    assert BY_CONFIGURATION[name]() == preset.params
    assert preset.published == (WHOLE[name]() if name in WHOLE else None)
    design = design_of(preset)
    part, schedule, shape = preset.model, schedule_of(preset), shape_of(preset)
    assert (
        sum(params_by_part(schedule, shape, part.vocab, part.tied, design=design).values()) == preset.params
    )


@each
def test_the_model_that_is_built_has_as_many(name: str) -> None:
    with torch.device("meta"):
        model = build(load(name))
    assert sum(parameter.numel() for parameter in model.parameters()) == load(name).params


@each
def test_it_is_described_with_its_source(name: str, answer) -> None:
    preset, told = load(name), json.loads(answer("describe", name, "--json"))
    assert told["preset"]["params"] == told["params"]["total"] == preset.params
    page = answer("describe", name)
    known = "this lab's own" if preset.ours else "as published"
    count = f"{preset.params:,} parameters, {known}"
    if preset.published:
        count = f"{preset.params:,} of {preset.published:,} published parameters"
    assert f"{name}: {count}\n" in page and preset.source in page
    around = (preset.model.inputs, preset.model.residual, preset.model.values)
    assert all(text in page for text in around if text)


def llama(**sizes: int) -> dict[str, int]:
    """Parameters by name of transformers' Llama, tied."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(tie_word_embeddings=True, **sizes))  # pyright: ignore
    return {name: p.numel() for name, p in model.named_parameters()}


def mamba2() -> dict[str, int]:
    from transformers import Mamba2Config, Mamba2ForCausalLM

    sizes = {"vocab_size": 50288, "hidden_size": 768, "num_hidden_layers": 24, "num_heads": 24}
    config = Mamba2Config(head_dim=64, n_groups=1, tie_word_embeddings=True, **sizes)  # pyright: ignore
    with torch.device("meta"):
        return {name: p.numel() for name, p in Mamba2ForCausalLM(config).named_parameters()}


def qwen3_next() -> dict[str, int]:
    """Without its shared expert, as the preset is."""
    from transformers import Qwen3NextConfig, Qwen3NextForCausalLM

    attention = {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 32}
    delta = {"linear_num_key_heads": 8, "linear_num_value_heads": 8, "linear_key_head_dim": 32}
    experts = {"moe_intermediate_size": 128, "num_experts": 8, "num_experts_per_tok": 2}
    sizes = {"vocab_size": 256, "hidden_size": 256, "num_hidden_layers": 8, "linear_value_head_dim": 64}
    config = Qwen3NextConfig(**sizes, **attention, **delta, **experts)  # pyright: ignore
    with torch.device("meta"):
        named = Qwen3NextForCausalLM(config).named_parameters()
        return {name: p.numel() for name, p in named if "shared_expert" not in name}


PEERS: dict[str, Callable[[], dict[str, int]]] = {
    "smollm2-135m": lambda: llama(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
    ),
    "transformer++": lambda: llama(
        vocab_size=50280,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
    ),
    "mamba2-130m": mamba2,
    "qwen3-next-mini": qwen3_next,
}
"""What transformers builds from the same configuration, where it knows the architecture."""


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.filterwarnings("ignore")  # transformers says that fast kernels are not installed
def test_transformers_own_model_has_as_many(name: str) -> None:
    assert sum(PEERS[name]().values()) == load(name).params


def test_genesis_is_the_documented_function_of_its_configuration() -> None:
    from blocks.genesis_model import GENESIS_152M

    preset = load("genesis-152m")
    assert schedule_of(preset) == GENESIS_152M.schedule("documented")
    assert (shape_of(preset), preset.model.vocab) == (GENESIS_152M.shape, GENESIS_152M.vocab)
    assert preset.model.mup == GENESIS_152M.base_width


def test_the_recipe_of_golf_trains_its_preset() -> None:
    assert load_spec("golf").model == load("golf-518").model


@pytest.mark.parametrize("option", ["--dim", "--heads", "--vocab", "--depth"])
def test_a_preset_has_its_own_sizes(option: str, lab) -> None:
    done = lab("describe", "smollm2-135m", option, 4)
    assert done.code == 2 and done.err.count("\n") == 1
    assert option in done.err and "smollm2-135m" in done.err


def test_an_unknown_preset_is_one_sentence() -> None:
    with pytest.raises(SpecError, match="did you mean 'golf-518'"):
        load("golf-51")
