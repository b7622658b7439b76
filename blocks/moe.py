"""A mixture of experts: many small SwiGLUs, of which every token is worked on by the few it chooses.

N tokens (of all sequences), D model width, E experts, K experts of a token, F hidden width of an expert,
M = N*K pairs of a token and one of its experts. Like the other channel mixers it keeps no memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.base import (
    LOSSES,
    Context,
    Cores,
    Kernel,
    OptionError,
    Role,
    Shape,
    State,
    at_least_fp32,
    core_of,
    inner_width,
)
from blocks.products import Linear, linear

__all__ = ["MoE", "balance", "experts_reference", "experts_sorted", "route"]


def route(logits_NE: Tensor, active: int) -> tuple[Tensor, Tensor]:
    """(weight_NK, expert_NK): the ``active`` likeliest experts of each token; ties go to the lowest index.

    Weights are probabilities over the chosen ones; a lone one keeps its own among all (Fedus et al. 2022, eq.
    2), or the router would have nothing to learn from.
    """
    expert_NK = logits_NE.argsort(dim=-1, descending=True, stable=True)[:, :active]
    weight_NK = logits_NE.softmax(-1).gather(-1, expert_NK)
    return weight_NK / weight_NK.sum(-1, keepdim=True) if active > 1 else weight_NK, expert_NK


def balance(logits_NE: Tensor, expert_NK: Tensor) -> Tensor:
    """E sum_e f_e P_e, 1 where experts share evenly, up to E (Fedus et al. 2022, eq. 4 to 6).

    f_e is the share of pairs that go to expert e, P_e its mean probability, through which gradients flow.
    """
    experts = logits_NE.shape[1]
    share_E = expert_NK.flatten().bincount(minlength=experts) / expert_NK.numel()
    return experts * (share_E.to(logits_NE.dtype) * logits_NE.softmax(-1).mean(0)).sum()


def experts_reference(
    x_ND: Tensor, weight_NK: Tensor, expert_NK: Tensor, gate_EFD: Tensor, up_EFD: Tensor, out_EDF: Tensor
) -> Tensor:
    """y_n = sum over its experts of weight * out (silu(gate x_n) * up x_n), token by token and one by one.

    Shazeer et al. 2017, eq. 1, with the experts of Shazeer 2020, eq. 6. Returns y_ND.
    """
    ys = []
    for x_D, weights, experts in zip(x_ND, weight_NK, expert_NK.tolist(), strict=True):
        y_D = torch.zeros_like(x_D)
        for weight, e in zip(weights, experts, strict=True):
            u_F = F.silu(torch.einsum("fd,d->f", gate_EFD[e], x_D)) * torch.einsum("fd,d->f", up_EFD[e], x_D)
            y_D = y_D + weight.to(x_D.dtype) * torch.einsum("df,f->d", out_EDF[e], u_F)
        ys.append(y_D)
    return torch.stack(ys)


def experts_sorted(
    x_ND: Tensor, weight_NK: Tensor, expert_NK: Tensor, gate_EFD: Tensor, up_EFD: Tensor, out_EDF: Tensor
) -> Tensor:
    """The same function with the tokens of each expert laid together, however many they are: none is dropped.

    The device is asked once how many tokens each expert has; an expert without any costs nothing.
    """
    (tokens, active), experts = expert_NK.shape, len(gate_EFD)
    order_M = expert_NK.flatten().argsort(stable=True)
    counts = expert_NK.flatten().bincount(minlength=experts).tolist()
    parts = x_ND.index_select(0, order_M // active).split(counts)
    weights = zip(gate_EFD.unbind(), up_EFD.unbind(), out_EDF.unbind(), strict=True)
    ys = [
        linear(F.silu(linear(x, gate)) * linear(x, up), out)
        for x, (gate, up, out) in zip(parts, weights, strict=True)
        if len(x)
    ]
    # Each pair back to its place, and summed there: unlike index_add, in the same order on every device.
    y_MD = torch.cat(ys).index_select(0, order_M.argsort())
    return (weight_NK[..., None].to(y_MD.dtype) * y_MD.view(tokens, active, -1)).sum(1)


class _MoE(nn.Module):
    def __init__(self, block: MoE, shape: Shape, kernel: Kernel) -> None:
        super().__init__()
        self.experts, self.active, hidden = block.experts, block.active, block.hidden(shape)
        self.core = core_of(_CORES, kernel)
        self.router = Linear(shape.dim, block.experts, bias=False)
        # The matrices of all experts, one under the other: each has a gradient, whoever was chosen.
        self.gate = Linear(shape.dim, block.experts * hidden, bias=False)
        self.up = Linear(shape.dim, block.experts * hidden, bias=False)
        self.out = Linear(block.experts * hidden, shape.dim, bias=False)
        # An expert reads its own channels alone, and starts as a matrix of so many inputs does.
        nn.init.uniform_(self.out.weight, -(hidden**-0.5), hidden**-0.5)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, context: Context | None = None
    ) -> tuple[Tensor, State]:
        x_ND = x_BTD.flatten(0, 1)
        with torch.autocast(x_BTD.device.type, enabled=False):
            # In half precision close calls would fall otherwise than in full.
            logits_NE = linear(at_least_fp32(x_ND), at_least_fp32(self.router.weight))
            weight_NK, expert_NK = route(logits_NE, self.active)
            if context is not None and LOSSES in context:
                context[LOSSES].add(balance(logits_NE, expert_NK))
        gate, up = (layer.weight.unflatten(0, (self.experts, -1)) for layer in (self.gate, self.up))
        out = self.out.weight.unflatten(1, (self.experts, -1)).transpose(0, 1)
        return self.core(x_ND, weight_NK, expert_NK, gate, up, out).view_as(x_BTD), {}


_CORES: Cores = {"torch": experts_sorted, "reference": experts_reference}


@dataclass(frozen=True, kw_only=True)
class MoE:
    """A mixture of SwiGLU experts (Shazeer et al. 2017, eq. 1). FLOPs are those of the experts in use.

    A token's experts are the ``active`` likeliest under softmax(W x), weighed by their probabilities; they
    depend on that token alone, in training as in decoding, and no expert is ever full. ``context`` takes the
    balance loss out, where it holds ``blocks.base.Losses``; without it nothing keeps a router from choosing
    few experts.

    experts: how many there are. active: how many work on a token. expand: hidden width of one over D.
    """

    experts: int = 8
    active: int = 2
    expand: float = 4 / 3

    def __post_init__(self) -> None:
        if self.experts < 2:
            raise OptionError(f"moe: experts is {self.experts}; it must be at least 2")
        if not 1 <= self.active <= self.experts:
            raise OptionError(
                f"moe: active is {self.active}; it must be at least 1 and at most the {self.experts} experts"
            )
        if not self.expand > 0:
            raise OptionError(f"moe: expand is {self.expand:g}; it must be above 0")

    @property
    def role(self) -> Role:
        return "channel"

    def hidden(self, shape: Shape) -> int:
        """F of one expert. Raises OptionError where no channel is left."""
        return inner_width("moe", self.expand, shape.dim)

    def build(self, shape: Shape, kernel: Kernel = "torch") -> nn.Module:
        """A freshly initialised module. Raises OptionError where no hidden channel is left."""
        return _MoE(self, shape, kernel)

    def params(self, shape: Shape) -> int:
        return shape.dim * self.experts * (1 + 3 * self.hidden(shape))

    def state_size(self, shape: Shape, length: int) -> int:
        return 0

    def flops(self, shape: Shape, length: int) -> int:
        return 2 * shape.dim * (self.experts + 3 * self.active * self.hidden(shape))
