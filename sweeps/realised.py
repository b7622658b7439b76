"""What options come to in a shape: two spellings of one model are told to be one.

Widths are rounded to whole channels, and some options have no say beside others: at dim 32
``swiglu(expand=2.66)`` and ``swiglu(expand=2.65625)`` both have 85 hidden channels. A run keeps the text that
the recipe gave it; only the question whether two candidates are the same is answered from here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from blocks.attention import Attention, key_value_heads
from blocks.base import Block, Shape, inner_width
from blocks.deltanet import DeltaNet
from blocks.ffn import MLP, Sparse, SwiGLU
from blocks.fox import FoX
from blocks.gated_attention import GatedAttention
from blocks.gdn import GDN
from blocks.genesis import GenesisFoX, GenesisGLA
from blocks.gla import GLA
from blocks.kda import KDA
from blocks.mamba import Mamba
from blocks.moe import MoE
from blocks.retention import RetNet
from blocks.rwkv7 import RWKV7
from blocks.schedule import Schedule

__all__ = ["realised", "realised_block"]


def realised(schedule: Schedule, shape: Shape) -> tuple[Block, ...]:
    """The blocks of ``schedule`` in turn, each as ``realised_block`` writes it.

    Layers only group blocks for counting: ``(gdn, swiglu)`` and ``gdn + swiglu`` are one model. Raises
    OptionError where a block does not fit the shape.
    """
    return tuple(realised_block(block, shape) for layer in schedule for block in layer)


def realised_block(block: Block, shape: Shape) -> Block:
    """``block`` with every option that is rounded, or has no say, at the one value that stands for it.

    Equal for two blocks exactly if they build the same module in ``shape``. A block of a user's own is as it
    is: what its options mean is not known here. Raises OptionError where it does not fit the shape.
    """
    rule = _RULES.get(type(block))
    return block if rule is None else rule(block, shape)


def _swiglu(block: SwiGLU, shape: Shape) -> SwiGLU:
    return replace(block, expand=block.params(shape) // (3 * shape.dim) / shape.dim)


def _mlp(block: MLP, shape: Shape) -> MLP:
    return replace(block, expand=block.params(shape) // (2 * shape.dim) / shape.dim)


def _sparse(block: Sparse, shape: Shape) -> Sparse:
    hidden = block.params(shape) // (3 * shape.dim)
    kept = block.kept(shape)
    cut = replace(block, expand=hidden / shape.dim, k_ratio=kept / hidden)
    if kept == hidden:  # all are kept, whichever go together
        cut = replace(cut, block=Sparse.block)
    return cut if block.mask == "soft" else replace(cut, temperature=Sparse.temperature)


def _attention(block: Attention, shape: Shape) -> Attention:
    heads, width = block.widths(shape)
    rotated = 0 if block.window == 1 else block.rotary(shape)  # who sees only itself sees no distance
    base = block.base if rotated > 2 else Attention.base  # the first pair turns by a radian at any base
    return replace(block, kv_heads=heads, rope=rotated / width, base=base)


def _shared_heads(block: FoX | GenesisFoX, shape: Shape) -> Block:
    return replace(block, kv_heads=key_value_heads("fox", block.kv_heads, shape))


def _expanded(block: GDN | GLA | RetNet, shape: Shape) -> Block:
    keys, values = (shape.heads * width / shape.dim for width in block.widths(shape))
    return replace(block, expand_k=keys, expand_v=values)


def _kda(block: KDA, shape: Shape) -> Block:
    return _expanded(replace(block, rank=block.narrow(shape)), shape)


def _rwkv7(block: RWKV7, shape: Shape) -> RWKV7:
    return replace(block, rank=block.narrow(shape))


def _retnet(block: RetNet, shape: Shape) -> Block:
    turned = block.widths(shape)[0] >= 4  # the first pair turns by a radian at any base
    return _expanded(block if turned else replace(block, base=RetNet.base), shape)


def _moe(block: MoE, shape: Shape) -> MoE:
    return replace(block, expand=inner_width("moe", block.expand, shape.dim) / shape.dim)


def _mamba(block: Mamba, shape: Shape) -> Mamba:
    return replace(block, expand=block.inner(shape) / shape.dim, dt_rank=block.rank(shape))


def _genesis_gla(block: GenesisGLA, shape: Shape) -> GenesisGLA:
    heads, *per_head = block.widths(shape)
    keys, values = (shape.heads * width / shape.dim for width in per_head)
    chunk = block.chunk if block.rule == "chunk_delta" else GenesisGLA.chunk
    return replace(block, kv_heads=heads, expand_k=keys, expand_v=values, chunk=chunk)


_RULES: Mapping[type[Any], Callable[[Any, Shape], Block]] = {
    SwiGLU: _swiglu,
    MLP: _mlp,
    Sparse: _sparse,
    Attention: _attention,
    GatedAttention: _attention,
    FoX: _shared_heads,
    GenesisFoX: _shared_heads,
    GDN: _expanded,
    DeltaNet: _expanded,
    KDA: _kda,
    RWKV7: _rwkv7,
    RetNet: _retnet,
    GLA: _expanded,
    Mamba: _mamba,
    MoE: _moe,
    GenesisGLA: _genesis_gla,
}
