"""Gated attention: attention times a gate, and nothing else."""

import pytest
import torch
from torch import nn

from blocks.attention import Attention
from blocks.base import OptionError
from blocks.gated_attention import GatedAttention
from tests.blocks.harness import SHAPE, assert_same, build, noise

X = noise(2, 37, SHAPE.dim)


def ungated(module: nn.Module) -> nn.Module:
    """Plain attention with the weights of a gated module at its defaults."""
    plain = build(Attention(rope=0.25, qk_norm=True))
    plain.load_state_dict({k: v for k, v in module.state_dict().items() if k != "gate.weight"})
    return plain


def test_a_gate_that_is_half_open_halves_attention() -> None:
    module = build(GatedAttention())
    nn.init.zeros_(module.get_parameter("gate.weight"))
    got, state = module(X)
    expected, held = ungated(module)(X)
    assert_same(got, expected / 2, "output")
    assert all(torch.equal(state[k], held[k]) for k in ("k", "v"))


def test_the_gate_is_on_what_a_head_reads_before_the_projection() -> None:
    module = build(GatedAttention())
    plain = ungated(module)
    plain.get_submodule("out").load_state_dict({"weight": torch.eye(SHAPE.dim).double()})
    gate = (X @ module.get_parameter("gate.weight").T).sigmoid()
    assert_same(module(X)[0], (gate * plain(X)[0]) @ module.get_parameter("out.weight").T, "output")


def test_a_gate_for_each_head_is_one_that_all_its_channels_share() -> None:
    heads, channels = build(GatedAttention(gate="headwise")), build(GatedAttention())
    shared = heads.state_dict()
    width = SHAPE.dim // SHAPE.heads
    channels.load_state_dict(shared | {"gate.weight": shared["gate.weight"].repeat_interleave(width, dim=0)})
    assert_same(channels(X)[0], heads(X)[0], "output")


def test_impossible_options_are_refused_under_its_own_name() -> None:
    with pytest.raises(OptionError, match=r"^gated_attn: gate is 'tanh'; known are elementwise and headwise"):
        GatedAttention(gate="tanh")  # pyright: ignore[reportArgumentType]
    for options in ({"kv_heads": 0}, {"window": 0}, {"rope": 1.5}, {"base": 0.0}):
        with pytest.raises(OptionError, match=f"^gated_attn: {next(iter(options))} is"):
            GatedAttention(**options)
