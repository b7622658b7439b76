"""Linear attention: softmax's exponential replaced by a product of features, so that memory is one matrix.

B batch, T time, D model width, H heads, K key width, V value width; C tokens of a chunk, N chunks of all
heads and sequences together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.base import (
    Context,
    Cores,
    Kernel,
    OptionError,
    Role,
    Shape,
    State,
    at_least_fp32,
    core_of,
    split_heads_dim,
)
from blocks.chunks import join_chunks, split_chunks
from blocks.kernels import ops
from blocks.parts import apart
from blocks.products import Linear

__all__ = ["LinearAttention", "linear_chunked", "linear_reference"]


def linear_reference(q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, s_BHKV: Tensor) -> tuple[Tensor, Tensor]:
    """S_t = S_{t-1} + k_t v_t^T and o_t = S_t^T q_t, token by token (Katharopoulos et al. 2020, eq. 18, 20).

    Queries and keys are features already; nothing is normalised here. Returns (o_BTHV, last state).
    """
    s, out = s_BHKV, []
    for t in range(q_BTHK.shape[1]):
        s = s + torch.einsum("bhk,bhv->bhkv", k_BTHK[:, t], v_BTHV[:, t])
        out.append(torch.einsum("bhk,bhkv->bhv", q_BTHK[:, t], s))
    return torch.stack(out, dim=1), s


def linear_chunked(
    q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, s_BHKV: Tensor, chunk: int = 32
) -> tuple[Tensor, Tensor]:
    """The same function in chunks of ``chunk`` tokens: masked scores inside, running sums between."""
    batch, length, heads, _ = k_BTHK.shape
    with torch.autocast(q_BTHK.device.type, enabled=False):
        q, k, v = (split_chunks(x, min(chunk, length)) for x in (q_BTHK, k_BTHK, v_BTHV))
        adds = torch.bmm(k.mT, v).unflatten(0, (batch * heads, -1))
        states = torch.cat([s_BHKV.flatten(0, 1)[:, None], adds], dim=1).cumsum(dim=1)
        inside = torch.bmm(torch.bmm(q, k.mT).tril(), v)
        out = torch.baddbmm(inside, q, states[:, :-1].flatten(0, 1))
        return join_chunks(out, batch, heads, length), states[:, -1].reshape(s_BHKV.shape)


class _Mixer(nn.Module):
    def __init__(self, block: LinearAttention, shape: Shape, kernel: Kernel) -> None:
        super().__init__()
        self.heads, self.width, self.eps = shape.heads, block.width(shape), shape.eps
        self.feature, self.normalise, self.core = block.feature, block.normalise, core_of(_CORES, kernel)
        self.exclusive = block.exclusive
        self.project = Linear(shape.dim, 3 * shape.dim, bias=False)
        self.out = Linear(shape.dim, shape.dim, bias=False)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, context: Context | None = None
    ) -> tuple[Tensor, State]:
        q, k, v = at_least_fp32(self.project(x_BTD)).unflatten(-1, (3, self.heads, self.width)).unbind(2)
        if self.feature == "elu":
            q, k = F.elu(q) + 1, F.elu(k) + 1
        q, own = q * self.width**-0.5, v
        if self.normalise:
            # The normaliser is one more value channel, which always holds 1.
            v = F.pad(v, (0, 1), value=1.0)
        s = (state or {}).get("s")
        if s is None:
            s = v.new_zeros(v.shape[0], self.heads, self.width, v.shape[-1])
        o, s = self.core(q, k, v, s)
        if self.normalise:
            o = o[..., :-1] / (o[..., -1:] + self.eps)
        if self.exclusive:
            o = apart(o, own)
        return self.out(o.flatten(2).to(x_BTD.dtype)), {"s": s}


_CORES: Cores = {"torch": linear_chunked, "c": ops.linear_memory, "reference": linear_reference}


@dataclass(frozen=True, kw_only=True)
class LinearAttention:
    """Causal linear attention (Katharopoulos et al. 2020, eq. 9 and 16-20). Linear in T; state H*K*(V+1).

    o_t = S_t^T f(q_t) / (z_t . f(q_t) + eps), S_t and z_t the sums of f(k_j) v_j^T and of f(k_j) for j <= t;
    q times K^-1/2. Nothing is forgotten: it is the baseline the gated mixers are held against.

    feature: f, elu(x) + 1 as in the paper, or the identity. normalise: divide by z_t . f(q_t); without it
    the state is H*K*V. The identity has no sign, so it cannot be normalised. exclusive: heads read nothing
    along the token's own value (``parts.apart``).
    """

    feature: Literal["elu", "identity"] = "elu"
    normalise: bool = True
    exclusive: bool = False

    def __post_init__(self) -> None:
        if self.feature not in ("elu", "identity"):
            raise OptionError(f"linear: feature is {self.feature!r}; known are elu and identity")
        if self.feature == "identity" and self.normalise:
            raise OptionError(
                "linear: feature='identity' can make the normaliser zero; give normalise=False with it"
            )

    @property
    def role(self) -> Role:
        return "linear"

    def width(self, shape: Shape) -> int:
        """K = V of one head. Raises OptionError where heads do not split the width."""
        return split_heads_dim(shape.dim, shape.heads, "linear: the model")

    def build(self, shape: Shape, kernel: Kernel = "torch") -> nn.Module:
        """A freshly initialised mixer. Raises OptionError where heads do not split the width."""
        return _Mixer(self, shape, kernel)

    def params(self, shape: Shape) -> int:
        self.width(shape)
        return 4 * shape.dim**2

    def state_size(self, shape: Shape, length: int) -> int:
        width = self.width(shape)
        return shape.heads * width * (width + self.normalise)

    def flops(self, shape: Shape, length: int) -> int:
        return 2 * (self.params(shape) + 2 * self.state_size(shape, length))  # the scan: write, read
