"""Forward and backward of the mixers' cores and of every block.

B batch, T time, H heads, K key width (values are as wide).
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks import BLOCKS
from blocks.base import Block, Shape
from blocks.fox import FoX
from blocks.gdn import GDN
from lab.bench.kernels import Core, cores, kernels
from lab.bench.plain import make_part
from lab.bench.timing import Pace, Rate, Row, Side, Work, fastest, matrix_rate, measure, with_rates
from lab.terminal import CommandError

__all__ = [
    "ABOUT",
    "CoreSize",
    "causal",
    "fla_chunk",
    "fox_inputs",
    "gdn_inputs",
    "masked",
    "needed",
    "rows",
]

ABOUT = (
    "Forward and backward, float32. gdn's core against fla's naive chunked form at the best of its chunks; "
    "its floor is three times the recurrence's FLOPs at the matrix rate. fox's core against fused attention "
    "with an additive mask; its floor is fused causal attention without a gate. Whole blocks with their "
    "default options against the plain form where there is one; their floor is three times the FLOPs that "
    "they state."
)

CHUNKS = (16, 32, 64)
"""Of fla's chunked form; the fastest of them in this run is the reference."""


@dataclass(frozen=True)
class CoreSize:
    """What a core is run on."""

    length: int
    width: int
    batch: int = 32
    heads: int = 4

    def __str__(self) -> str:
        return f"B{self.batch} H{self.heads} T{self.length} d{self.width}"


@dataclass(frozen=True)
class BlockSize:
    """What a whole block is run on."""

    length: int
    dim: int
    batch: int = 32
    heads: int = 4

    def __str__(self) -> str:
        return f"B{self.batch} H{self.heads} T{self.length} dim {self.dim}"


CORE_SIZES = tuple(CoreSize(length, width) for width in (32, 64) for length in (128, 512))
BLOCK_SIZES = (BlockSize(64, 64), BlockSize(128, 128))


def needed() -> None:
    """Raises CommandError with what to do where the reference is not installed."""
    if importlib.util.find_spec("fla") is None:
        raise CommandError(
            "the group blocks holds gdn against fla-core, which is not installed here; make install brings "
            "it, and --only chooses other groups"
        )


def rows(
    pace: Pace,
    core_sizes: Iterable[CoreSize] = CORE_SIZES,
    block_sizes: Iterable[BlockSize] = BLOCK_SIZES,
    blocks: Mapping[str, type[Block]] = BLOCKS,
) -> Iterator[Row]:
    """One row per core, size and kernel, then one per size, block and kernel."""
    rate = matrix_rate(pace)
    core_sizes = list(core_sizes)
    for size in core_sizes:
        yield from _gdn(size, pace, rate)
    for size in core_sizes:
        yield from _fox(size, pace)
    for size in block_sizes:
        for name, kind in blocks.items():
            yield from _block(name, kind(), size, pace, rate)


def both_ways(form: Callable[..., Any], inputs: Sequence[Tensor], pace: Pace) -> Work:
    """Forward and backward of ``form(*inputs)``, or of the first of what it returns, to all that wants it."""
    wanted = [x for x in inputs if x.requires_grad]

    def forward() -> Tensor:
        out = form(*inputs)
        return out[0] if isinstance(out, tuple) else out

    cotangent = torch.randn_like(forward())
    return pace.timed(lambda: torch.autograd.grad(forward(), wanted, cotangent))


def _noise(*sizes: int, seed: int) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


def gdn_inputs(size: CoreSize) -> list[Tensor]:
    """q, k, v, log a, b, s as a mixer hands them to its core: keys of unit length, an empty state."""
    at = size.batch, size.length, size.heads
    q, k = (F.normalize(_noise(*at, size.width, seed=seed), dim=-1) for seed in (1, 2))
    v = _noise(*at, size.width, seed=3)
    log_a, b = -F.softplus(_noise(*at, seed=4) - 2), _noise(*at, seed=5).sigmoid()
    wanted = [x.requires_grad_() for x in (q * size.width**-0.5, k, v, log_a, b)]
    return [*wanted, torch.zeros(size.batch, size.heads, size.width, size.width)]


@cache
def _fla() -> Callable[..., Any]:
    with warnings.catch_warnings():
        # It announces on import that this machine has no GPU.
        warnings.simplefilter("ignore")
        from fla.ops.gated_delta_rule.naive import naive_chunk_gated_delta_rule
    return naive_chunk_gated_delta_rule


def fla_chunk(chunk: int) -> Core:
    """fla's naive chunked form in the order of our core's arguments. It computes in float32 alone."""
    form = _fla()

    def call(q: Tensor, k: Tensor, v: Tensor, log_a: Tensor, b: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        return form(q, k, v, log_a, b, chunk, 1.0, s, output_final_state=True)

    return call


def _gdn(size: CoreSize, pace: Pace, rate: Rate) -> Iterator[Row]:
    inputs = gdn_inputs(size)
    forms = {f"fla, chunk {c}": both_ways(fla_chunk(c), inputs, pace) for c in CHUNKS}
    reference = fastest(forms)
    # Read under the key, write, read under the query: K * V multiply-adds each.
    scan = 2 * 3 * size.batch * size.length * size.heads * size.width**2
    shape = Shape(dim=size.heads * size.width, heads=size.heads)
    for label, core in cores(GDN(expand_k=1.0, expand_v=1.0), shape).items():
        ours = both_ways(core, inputs, pace)
        row = measure(f"gdn core {size}, {label}", ours, pace, reference, rate.floor(3 * scan))
        yield with_rates(row, 3 * scan)


def fox_inputs(size: CoreSize) -> list[Tensor]:
    """q, k, v, log f and the empty past, as a mixer hands them to its core."""
    at = size.batch, size.length, size.heads
    q, k, v = (_noise(*at, size.width, seed=seed).requires_grad_() for seed in (1, 2, 3))
    log_f = F.logsigmoid(_noise(*at, seed=4) + 2).requires_grad_()
    return [q, k, v, log_f, torch.zeros(size.batch, 0, size.heads)]


def masked(q_BTHK: Tensor, k_BTHK: Tensor, v_BTHK: Tensor, log_f_BTH: Tensor, _: Tensor) -> Tensor:
    """Forgetting attention as fused attention takes it: the biases c_i - c_j as an additive mask."""
    c_BHT = log_f_BTH.transpose(1, 2).cumsum(-1)
    later = torch.ones(c_BHT.shape[-1], c_BHT.shape[-1], dtype=torch.bool, device=c_BHT.device).triu(1)
    mask = (c_BHT[..., :, None] - c_BHT[..., None, :]).masked_fill(later, -torch.inf)
    q, k, v = (x.transpose(1, 2) for x in (q_BTHK, k_BTHK, v_BTHK))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def causal(q_BTHK: Tensor, k_BTHK: Tensor, v_BTHK: Tensor) -> Tensor:
    """Fused causal attention without a gate."""
    q, k, v = (x.transpose(1, 2) for x in (q_BTHK, k_BTHK, v_BTHK))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


def _fox(size: CoreSize, pace: Pace) -> Iterator[Row]:
    inputs = fox_inputs(size)
    reference = Side("SDPA with a mask", both_ways(masked, inputs, pace))
    floor = Side("SDPA without a gate", both_ways(causal, inputs[:3], pace))
    shape = Shape(dim=size.heads * size.width, heads=size.heads)
    for label, core in cores(FoX(), shape).items():
        yield measure(f"fox core {size}, {label}", both_ways(core, inputs, pace), pace, reference, floor)


def _block(name: str, block: Block, size: BlockSize, pace: Pace, rate: Rate) -> Iterator[Row]:
    shape = Shape(dim=size.dim, heads=size.heads)
    x_BTD = _noise(size.batch, size.length, size.dim, seed=1).requires_grad_()

    def work(module: nn.Module) -> Work:
        return both_ways(lambda x, *_: module(x), [x_BTD, *module.parameters()], pace)

    plain = make_part(block, shape)
    reference = Side("plain", work(plain)) if plain else None
    flops = 3 * block.flops(shape, size.length) * size.batch * size.length
    for kernel in kernels():
        ours = work(block.build(shape, kernel))
        row = measure(f"{name} {size}, {kernel}", ours, pace, reference, rate.floor(flops))
        yield with_rates(row, flops)
