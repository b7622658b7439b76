"""Models built from a schedule: a language model, and the auto-encoder that MAD's compression task asks for.

B batch, T time, D width, V vocabulary, P positions to reconstruct.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from blocks.base import Context, Kernel, Shape, State
from blocks.parts import make_norm
from blocks.products import Linear
from blocks.schedule import Schedule

__all__ = ["AutoEncoder", "LanguageModel", "ModelState", "Stack"]

ModelState = Sequence[Sequence[State]]
"""One State per block, layer by layer."""


class Stack(nn.Module):
    """The residual stack: for each block in turn, x = x + block(norm(x)).

    The last projection of every mixer (a module names it ``out``) starts divided by the square root of the
    number of blocks (Radford et al. 2019, sec. 2.3), so that what many mixers add at the start does not drown
    the tokens. Channel mixers start small by themselves, and scaled too they slow learning down (see LOG.md).
    """

    def __init__(self, schedule: Schedule, shape: Shape, kernel: Kernel = "torch") -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList(
                nn.ModuleDict(
                    {"norm": make_norm(shape, shape.dim, kernel), "block": block.build(shape, kernel)}
                )
                for block in layer
            )
            for layer in schedule
        )
        blocks = [block for layer in schedule for block in layer]
        modules = [part["block"] for layer in self.layers for part in layer]  # pyright: ignore
        for block, module in zip(blocks, modules, strict=True):
            out = getattr(module, "out", None)
            if block.role != "channel" and isinstance(out, nn.Linear):
                out.weight.data *= len(blocks) ** -0.5

    def forward(
        self, x_BTD: Tensor, state: ModelState | None = None, context: Context | None = None
    ) -> tuple[Tensor, ModelState]:
        after: list[list[State]] = []
        for i, layer in enumerate(self.layers):
            after.append([])
            for j, part in enumerate(layer):  # pyright: ignore[reportArgumentType]
                y_BTD, kept = part["block"](part["norm"](x_BTD), state[i][j] if state else None, context)
                x_BTD = x_BTD + y_BTD
                after[-1].append(kept)
        return x_BTD, after


class LanguageModel(nn.Module):
    """Embedding, residual stack, norm and linear head (no bias); ``tied`` shares the embedding with the head.

    The embedding starts at N(0, 1) and the head at N(0, 0.02); tied, both at N(0, 1/D), so that logits start
    at order one. Blocks initialise themselves, but for what ``Stack`` says.
    """

    def __init__(
        self, schedule: Schedule, shape: Shape, vocab: int, tied: bool = False, kernel: Kernel = "torch"
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, shape.dim)
        self.stack = Stack(schedule, shape, kernel)
        self.norm = make_norm(shape, shape.dim, kernel)
        self.head = Linear(shape.dim, vocab, bias=False)
        nn.init.normal_(self.embedding.weight, std=shape.dim**-0.5 if tied else 1.0)
        nn.init.normal_(self.head.weight, std=0.02)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(
        self, tokens_BT: Tensor, state: ModelState | None = None, context: Context | None = None
    ) -> tuple[Tensor, ModelState]:
        """Logits [B, T, V] and the state after the last token. ``tokens_BT`` are int64 ids below V."""
        x_BTD, after = self.stack(self.embedding(tokens_BT), state, context)
        return self.head(self.norm(x_BTD)), after


def sinusoids(length: int, dim: int) -> Tensor:
    """Fixed positions [length, dim]: sines in the first half, cosines in the second (Vaswani et al. 2017)."""
    half = -(-dim // 2)
    angle = torch.arange(length)[:, None] * 10_000.0 ** (-torch.arange(half) / half)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)[:, :dim]


class AutoEncoder(nn.Module):
    """The compression head of MAD (Poli et al. 2024, sec. 3): the whole input out of one vector.

    The stack reads T tokens; h = its last output. For every position p of ``length`` a decoder without
    memory reads h + sinusoid(p): two times (norm, linear, GELU), then norm and linear to the vocabulary.
    Unlike mad-lab's, it does not overwrite the blocks' own initialisation.
    """

    def __init__(
        self, schedule: Schedule, shape: Shape, vocab: int, length: int, kernel: Kernel = "torch"
    ) -> None:
        super().__init__()
        dim = shape.dim
        self.embedding = nn.Embedding(vocab, dim)
        self.stack = Stack(schedule, shape, kernel)
        self.decoder = nn.Sequential(
            *[
                part
                for _ in range(2)
                for part in (make_norm(shape, dim, kernel), nn.Linear(dim, dim, bias=False), nn.GELU())
            ],
            make_norm(shape, dim, kernel),
            nn.Linear(dim, vocab, bias=False),
        )
        self.register_buffer("positions_PD", sinusoids(length, dim), persistent=False)
        nn.init.normal_(self.embedding.weight)

    def forward(
        self, tokens_BT: Tensor, state: ModelState | None = None, context: Context | None = None
    ) -> tuple[Tensor, ModelState]:
        """Logits [B, P, V] for all P positions, and the state after the last token."""
        x_BTD, after = self.stack(self.embedding(tokens_BT), state, context)
        return self.decoder(x_BTD[:, -1:] + self.positions_PD), after
