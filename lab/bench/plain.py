"""The same models as a textbook writes them: eager PyTorch, autograd, nothing made fast.

The reference of a training step. It computes the function of our ``LanguageModel``, which a test holds it to
with the same weights (``plain_names``). Its modules are no blocks and know no state: they serve this alone.

B batch, T time, D model width, H heads, K key width, V value width, F hidden width, N chunks of C tokens.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.attention import Attention
from blocks.base import Block, Shape
from blocks.ffn import SwiGLU
from blocks.fox import FoX
from blocks.gdn import GDN
from blocks.schedule import Schedule

__all__ = ["PlainModel", "delta_rule", "forgetting", "make_part", "plain_names"]


class RMSNorm(nn.Module):
    """x / rms(x) * weight."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps, self.weight = eps, nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def rotate(x_BHTK: Tensor, base: float) -> Tensor:
    """Rotary positions from 0 on (Su et al. 2021), as the field writes them: x cos + rotate_half(x) sin."""
    length, width = x_BHTK.shape[2:]
    kind = {"dtype": x_BHTK.dtype, "device": x_BHTK.device}
    frequency = base ** (-torch.arange(0, width, 2, **kind) / width)
    angle = torch.outer(torch.arange(length, **kind), frequency).repeat(1, 2)
    first, second = x_BHTK.chunk(2, dim=-1)
    return x_BHTK * angle.cos() + torch.cat([-second, first], dim=-1) * angle.sin()


def forgetting(q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, log_f_BHT: Tensor) -> Tensor:
    """softmax(q k / sqrt(K) + c_i - c_j) v over j <= i, c the running sum of log f (Lin et al. 2025)."""
    c_BHT = log_f_BHT.cumsum(-1)
    scores = q_BHTK @ k_BHTK.transpose(-1, -2) * q_BHTK.shape[-1] ** -0.5
    scores = scores + (c_BHT[..., :, None] - c_BHT[..., None, :])
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    return scores.masked_fill(later, -torch.inf).softmax(-1) @ v_BHTK


def delta_rule(
    q_BHTK: Tensor, k_BHTK: Tensor, v_BHTV: Tensor, log_a_BHT: Tensor, b_BHT: Tensor, chunk: int = 32
) -> Tensor:
    """The gated delta rule from an empty state, chunk by chunk (Yang et al. 2025, section 3.3)."""
    length = q_BHTK.shape[2]
    missing = -length % chunk
    q, k, v = (F.pad(x, (0, 0, 0, missing)).unflatten(2, (-1, chunk)) for x in (q_BHTK, k_BHTK, v_BHTV))
    log_a, b = (F.pad(x, (0, missing)).unflatten(2, (-1, chunk)) for x in (log_a_BHT, b_BHT))
    sums = log_a.cumsum(-1)
    later = torch.ones(chunk, chunk, dtype=torch.bool, device=q.device).triu(1)
    decay = (sums[..., :, None] - sums[..., None, :]).masked_fill(later, -torch.inf).exp()
    system = (b[..., None] * (k @ k.transpose(-1, -2)) * decay).tril(-1)
    system = system + torch.eye(chunk, dtype=q.dtype, device=q.device)
    u = torch.linalg.solve_triangular(system, b[..., None] * v, upper=False)
    w = torch.linalg.solve_triangular(system, (b * sums.exp())[..., None] * k, upper=False)
    scores = (q @ k.transpose(-1, -2)) * decay
    state = q.new_zeros(*q.shape[:2], k.shape[-1], v.shape[-1])
    out = []
    for n in range(q.shape[2]):
        wrong = u[:, :, n] - w[:, :, n] @ state
        from_state = (q[:, :, n] * sums[:, :, n, :, None].exp()) @ state
        out.append(from_state + scores[:, :, n] @ wrong)
        to_end = (sums[:, :, n, -1:] - sums[:, :, n]).exp()
        carried = sums[:, :, n, -1, None, None].exp() * state
        state = carried + (k[:, :, n] * to_end[..., None]).transpose(-1, -2) @ wrong
    return torch.cat(out, dim=2)[:, :, :length]


def _heads(x_BTX: Tensor, heads: int) -> Tensor:
    """[B, T, H * X] -> [B, H, T, X]."""
    return x_BTX.unflatten(-1, (heads, -1)).transpose(1, 2)


class PlainAttention(nn.Module):
    """Softmax attention with rotary positions."""

    def __init__(self, block: Attention, shape: Shape) -> None:
        super().__init__()
        self.heads, self.base = shape.heads, block.base
        self.q, self.k, self.v, self.out = (nn.Linear(shape.dim, shape.dim, bias=False) for _ in range(4))

    def forward(self, x_BTD: Tensor) -> Tensor:
        q, k, v = (_heads(layer(x_BTD), self.heads) for layer in (self.q, self.k, self.v))
        o = F.scaled_dot_product_attention(rotate(q, self.base), rotate(k, self.base), v, is_causal=True)
        return self.out(o.transpose(1, 2).flatten(2))


class PlainFoX(nn.Module):
    """Forgetting attention with the matrix of biases."""

    def __init__(self, block: FoX, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.q, self.k, self.v, self.out = (nn.Linear(shape.dim, shape.dim, bias=False) for _ in range(4))
        self.forget = nn.Linear(shape.dim, shape.heads)
        nn.init.constant_(self.forget.bias, block.forget_bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        q, k, v = (_heads(layer(x_BTD), self.heads) for layer in (self.q, self.k, self.v))
        log_f_BHT = F.logsigmoid(self.forget(x_BTD)).transpose(1, 2)
        return self.out(forgetting(q, k, v, log_f_BHT).transpose(1, 2).flatten(2))


class PlainGDN(nn.Module):
    """Gated DeltaNet with short convolution, output norm and output gate."""

    def __init__(self, block: GDN, shape: Shape) -> None:
        super().__init__()
        self.heads, (key, value) = shape.heads, block.widths(shape)
        self.key, self.keys, self.values = key, shape.heads * key, shape.heads * value
        mixed = 2 * self.keys + self.values
        self.split = [mixed, self.heads, self.heads, self.values]
        self.project = nn.Linear(shape.dim, sum(self.split), bias=False)
        self.conv = nn.Conv1d(mixed, mixed, block.conv, groups=mixed, padding=block.conv - 1, bias=False)
        self.log_pace = nn.Parameter(torch.zeros(self.heads))
        self.step_bias = nn.Parameter(torch.zeros(self.heads))
        self.norm = RMSNorm(value, shape.eps)
        self.out = nn.Linear(self.values, shape.dim, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        mixed, step, write, gate = self.project(x_BTD).split(self.split, dim=-1)
        mixed = F.silu(self.conv(mixed.transpose(1, 2))[..., : x_BTD.shape[1]].transpose(1, 2))
        parts = mixed.split([self.keys, self.keys, self.values], dim=-1)
        q, k, v = (_heads(x, self.heads) for x in parts)
        q, k = (x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6) for x in (q, k))
        log_a = -self.log_pace.exp() * F.softplus(step + self.step_bias)
        b = write.sigmoid()
        o = delta_rule(q * self.key**-0.5, k, v, log_a.transpose(1, 2), b.transpose(1, 2))
        return self.out(self.norm(o.transpose(1, 2)).flatten(2) * F.silu(gate))


class PlainSwiGLU(nn.Module):
    """SwiGLU as one projection that is cut in two."""

    def __init__(self, block: SwiGLU, shape: Shape) -> None:
        super().__init__()
        hidden = block.params(shape) // (3 * shape.dim)
        self.gate_up = nn.Linear(shape.dim, 2 * hidden, bias=False)
        self.out = nn.Linear(hidden, shape.dim, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        gate, up = self.gate_up(x_BTD).chunk(2, dim=-1)
        return self.out(F.silu(gate) * up)


def make_part(block: Block, shape: Shape) -> nn.Module | None:
    """The plain module of a block, None where none is written here for the block or one of its options."""
    if shape.norm != "rms":
        return None
    match block:
        case Attention() if block == Attention(base=block.base):
            return PlainAttention(block, shape)
        case FoX() if block == FoX(forget_bias=block.forget_bias):
            return PlainFoX(block, shape)
        case GDN(expand_k=keys, expand_v=values, conv=conv) if conv:
            same = block == GDN(expand_k=keys, expand_v=values, conv=conv)
            return PlainGDN(block, shape) if same else None
        case SwiGLU():
            return PlainSwiGLU(block, shape)
    return None


class PlainModel(nn.Module):
    """Embedding, pre-norm residual stack, norm, head."""

    def __init__(self, schedule: Schedule, shape: Shape, vocab: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for block in (block for layer in schedule for block in layer):
            part = make_part(block, shape)
            if part is None:
                raise NotImplementedError(f"there is no plain form of {block} at {shape}")
            parts.append(part)
        self.embedding = nn.Embedding(vocab, shape.dim)
        self.norms = nn.ModuleList(RMSNorm(shape.dim, shape.eps) for _ in parts)
        self.parts = nn.ModuleList(parts)
        self.norm = RMSNorm(shape.dim, shape.eps)
        self.head = nn.Linear(shape.dim, vocab, bias=False)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits [B, T, vocabulary]."""
        x_BTD = self.embedding(tokens_BT)
        for norm, part in zip(self.norms, self.parts, strict=True):
            x_BTD = x_BTD + part(norm(x_BTD))
        return self.head(self.norm(x_BTD))


def plain_names(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a ``LanguageModel`` (weights, or gradients) under the names of its ``PlainModel``."""
    found: dict[str, Tensor] = {}
    places = sorted({tuple(map(int, n.split(".")[2:4])) for n in named if n.startswith("stack.layers.")})
    for i, (layer, block) in enumerate(places):
        prefix = f"stack.layers.{layer}.{block}."
        inner = {name.removeprefix(prefix): t for name, t in named.items() if name.startswith(prefix)}
        found[f"norms.{i}.weight"] = inner.pop("norm.weight")
        if "block.up.weight" in inner:
            both = inner.pop("block.gate.weight"), inner.pop("block.up.weight")
            inner["block.gate_up.weight"] = torch.cat(both)
        for name, tensor in inner.items():
            taps = name == "block.conv.weight"  # conv1d wants them as [channel, 1, tap]
            found[f"parts.{i}.{name.removeprefix('block.')}"] = tensor[:, None] if taps else tensor
    return found | {name: t for name, t in named.items() if not name.startswith("stack.layers.")}
