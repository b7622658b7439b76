"""Models built from a schedule: a language model, and the auto-encoder that MAD's compression task asks for.

B batch, T time, D width, V vocabulary, P positions to reconstruct.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from blocks.base import Block, Context, Kernel, Shape, State
from blocks.mup import check_base
from blocks.parts import make_norm
from blocks.products import Linear
from blocks.schedule import Schedule
from blocks.segments import SEGMENTS, Layout, SegmentError, layout_of

__all__ = ["AutoEncoder", "LanguageModel", "ModelState", "Residual", "Stack", "StateError"]

ModelState = Sequence[Sequence[State]]
"""One State per block, layer by layer."""

Packed = tuple[Layout, Sequence[Context]]
"""How the documents of packed rows are laid out, and the contexts of the buckets."""


class StateError(ValueError):
    """A state is not one of the model that it is given to."""


class Residual(nn.ModuleDict):
    """x + block(norm(x)): a block with its pre-norm.

    One call per pass, however many documents the rows pack: the unit to shard over processes, or to compute
    again in the backward pass.
    """

    def __init__(self, block: Block, shape: Shape, kernel: Kernel) -> None:
        super().__init__({"norm": make_norm(shape, shape.dim, kernel), "block": block.build(shape, kernel)})
        self.mixes = block.role != "channel"

    def forward(
        self,
        x_BTD: Tensor,
        state: State | None = None,
        context: Context | None = None,
        packed: Packed | None = None,
    ) -> tuple[Tensor, State]:
        """The sum and the block's state; ``packed`` keeps documents apart, where the block mixes tokens."""
        normed_BTD = self["norm"](x_BTD)
        if packed is not None and self.mixes:
            layout, contexts = packed
            return x_BTD + layout.run(self["block"], normed_BTD, contexts), {}
        y_BTD, after = self["block"](normed_BTD, state, context)
        return x_BTD + y_BTD, after


class Stack(nn.Module):
    """The residual stack: for each block in turn, x = x + block(norm(x)).

    The last projection of every mixer (a module names it ``out``) starts divided by the square root of the
    number of blocks (Radford et al. 2019, sec. 2.3), so that what many mixers add at the start does not drown
    the tokens. Channel mixers start small by themselves, and scaled too they slow learning down (see LOG.md).
    """

    def __init__(self, schedule: Schedule, shape: Shape, kernel: Kernel = "torch") -> None:
        super().__init__()
        self.schedule, self.shape = schedule, shape
        self.layers = nn.ModuleList(
            nn.ModuleList(Residual(block, shape, kernel) for block in layer) for layer in schedule
        )
        for part, block in zip(self.parts(), self.blocks(), strict=True):
            out = getattr(part["block"], "out", None)
            if block.role != "channel" and isinstance(out, nn.Linear):
                out.weight.data *= len(self.blocks()) ** -0.5

    def parts(self) -> list[Residual]:
        """The modules of all blocks, in their order."""
        return [part for layer in self.layers for part in layer]  # pyright: ignore

    def blocks(self) -> list[Block]:
        """The blocks themselves, in their order."""
        return [block for layer in self.schedule for block in layer]

    def forward(
        self, x_BTD: Tensor, state: ModelState | None = None, context: Context | None = None
    ) -> tuple[Tensor, ModelState]:
        """The last sum, and the state after the last token.

        Where ``context`` has ``segments``, whole numbers [B, T] that count the documents of each row, every
        document is computed as if it were alone, from no state and to none: what comes back beside the sum is
        empty. Raises SegmentError where segments do not fit, or come with a state; StateError where a state
        is not this stack's.
        """
        packed = self._packed(x_BTD, state, context)
        if state is not None and len(state) != len(self.layers):
            raise StateError(
                f"the state is one of {len(state)} layers and the model has {len(self.layers)}; give what "
                "the model returned, unless documents were packed: they end"
            )
        after: list[list[State]] = []
        for i, layer in enumerate(self.layers):
            after.append([])
            for j, part in enumerate(layer):  # pyright: ignore[reportArgumentType]
                x_BTD, kept = part(x_BTD, state[i][j] if state is not None else None, context, packed)
                after[-1].append(kept)
        return x_BTD, () if context is not None and SEGMENTS in context else after

    def _packed(self, x_BTD: Tensor, state: ModelState | None, context: Context | None) -> Packed | None:
        """What keeps the documents of packed rows apart; None where there is nothing to keep apart."""
        if context is None or SEGMENTS not in context:
            return None
        if state is not None:
            raise SegmentError(
                "segments and a state are given; packed documents begin anew, so give one only"
            )
        layout = layout_of(context[SEGMENTS], x_BTD)
        return None if layout is None else (layout, layout.contexts(context))


class LanguageModel(nn.Module):
    """Embedding, residual stack, norm and linear head (no bias); ``tied`` shares the embedding with the head.

    The embedding starts at N(0, 1) and the head at N(0, 0.02); tied, both at N(0, 1/D), so that logits start
    at order one. Blocks initialise themselves, but for what ``Stack`` says.

    mup: the base width of maximal update parametrisation, None without. Logits are then multiplied by
    mup / D, a tied embedding starts at N(0, 1/mup) at every width, and ``blocks.mup.groups`` gives each
    parameter its learning rate. At D = mup the model is the one without. Raises MupError.
    """

    def __init__(
        self,
        schedule: Schedule,
        shape: Shape,
        vocab: int,
        tied: bool = False,
        kernel: Kernel = "torch",
        mup: int | None = None,
    ) -> None:
        super().__init__()
        check_base(mup, shape)
        self.mup = mup
        self.embedding = nn.Embedding(vocab, shape.dim)
        self.stack = Stack(schedule, shape, kernel)
        self.norm = make_norm(shape, shape.dim, kernel)
        self.head = Linear(shape.dim, vocab, bias=False)
        nn.init.normal_(self.embedding.weight, std=(mup or shape.dim) ** -0.5 if tied else 1.0)
        nn.init.normal_(self.head.weight, std=0.02)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(
        self, tokens_BT: Tensor, state: ModelState | None = None, context: Context | None = None
    ) -> tuple[Tensor, ModelState]:
        """Logits [B, T, V] and the state after the last token. ``tokens_BT`` are int64 ids below V.

        ``context`` may hold ``segments``: see ``Stack.forward``, also for errors.
        """
        x_BTD, after = self.stack(self.embedding(tokens_BT), state, context)
        x_BTD = self.norm(x_BTD)
        if self.mup is not None:
            x_BTD = x_BTD * (self.mup / self.stack.shape.dim)
        return self.head(x_BTD), after


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
