"""Primitives of hybrid language models, and the notation that composes them.

``BLOCKS`` is the registry: one word of a schedule -> the dataclass it builds. Adding a block is one file
and one line here; the contract tests, the command line and the recipes pick it up.
"""

from __future__ import annotations

from blocks.attention import Attention
from blocks.base import Block
from blocks.deltanet import DeltaNet
from blocks.ffn import MLP, Sparse, SwiGLU
from blocks.fox import FoX
from blocks.gated_attention import GatedAttention
from blocks.gdn import GDN
from blocks.genesis import GenesisFoX, GenesisGLA
from blocks.gla import GLA
from blocks.hyena import Hyena, MultiHeadHyena
from blocks.kda import KDA
from blocks.linear import LinearAttention
from blocks.mamba import Mamba
from blocks.mamba2 import Mamba2
from blocks.moe import MoE
from blocks.retention import RetNet
from blocks.rwkv7 import RWKV7
from blocks.ttt import TTT

BLOCKS: dict[str, type[Block]] = {
    "attn": Attention,
    "gated_attn": GatedAttention,
    "fox": FoX,
    "gdn": GDN,
    "deltanet": DeltaNet,
    "kda": KDA,
    "gla": GLA,
    "rwkv7": RWKV7,
    "retnet": RetNet,
    "linear": LinearAttention,
    "mamba": Mamba,
    "mamba2": Mamba2,
    "ttt": TTT,
    "hyena": Hyena,
    "mh_hyena": MultiHeadHyena,
    "genesis_gla": GenesisGLA,
    "genesis_fox": GenesisFoX,
    "swiglu": SwiGLU,
    "mlp": MLP,
    "sparse": Sparse,
    "moe": MoE,
}

__all__ = ["BLOCKS"]
