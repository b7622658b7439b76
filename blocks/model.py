"""Models built from a schedule: a language model, and the auto-encoder that MAD's compression task asks for.

B batch, T time, D width, V vocabulary, P positions to reconstruct.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor, nn

from blocks.base import Block, Context, Kernel, OptionError, Shape, State
from blocks.design import PLAIN, Design
from blocks.inputs import Inputs
from blocks.mup import check_base
from blocks.parts import make_norm, unit_rms
from blocks.products import Linear
from blocks.residual import BranchScale, LnScale, Topology
from blocks.schedule import Schedule
from blocks.segments import SEGMENTS, Layout, SegmentError, layout_of
from blocks.values import Values, widths_of

__all__ = ["AutoEncoder", "LanguageModel", "ModelState", "Residual", "Stack", "StateError"]

ModelState = Sequence[Sequence[State]]
"""One State per block, layer by layer."""

Packed = tuple[Layout, Sequence[Context]]
"""How the documents of packed rows are laid out, and the contexts of the buckets."""


class StateError(ValueError):
    """A state is not one of the model that it is given to."""


class Bare(nn.Module):
    """x / rms(x), without a gain."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return unit_rms(x, self.eps)


def _norm(shape: Shape, kernel: Kernel, design: Design) -> nn.Module:
    return Bare(shape.eps) if design.norms == "bare" else make_norm(shape, shape.dim, kernel)


class Residual(nn.ModuleDict):
    """x + block(norm(x)): a block with its pre-norm.

    One call per pass, however many documents the rows pack: the unit to shard over processes, or to compute
    again in the backward pass.
    """

    def __init__(
        self, block: Block, shape: Shape, kernel: Kernel, design: Design = PLAIN, layer: int = 0
    ) -> None:
        super().__init__({"norm": _norm(shape, kernel, design), "block": block.build(shape, kernel)})
        self.mixes = block.role != "channel"
        kinds = {type(part) for part in design.residual}
        self.shrink = (layer + 1) ** -0.5 if LnScale in kinds else None
        self.scale: nn.Parameter | None = (
            nn.Parameter(torch.ones(shape.dim)) if BranchScale in kinds else None
        )

    def forward(
        self,
        x_BTD: Tensor,
        state: State | None = None,
        context: Context | None = None,
        packed: Packed | None = None,
        onto_BTD: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """The sum and the block's state; ``packed`` keeps documents apart, where the block mixes tokens.

        onto_BTD: what the block's output is added to, where that is not x.
        """
        normed_BTD = self["norm"](x_BTD)
        if self.shrink is not None:
            normed_BTD = normed_BTD * self.shrink
        if packed is not None and self.mixes:
            layout, contexts = packed
            y_BTD, after = layout.run(self["block"], normed_BTD, contexts), {}
        else:
            y_BTD, after = self["block"](normed_BTD, state, context)
        if self.scale is not None:
            y_BTD = self.scale * y_BTD
        return (x_BTD if onto_BTD is None else onto_BTD) + y_BTD, after


def _refuse(given: int, wanted: int) -> NoReturn:
    raise StateError(
        f"the state is one of {given} layers and the model has {wanted}; give what the model returned, "
        "unless documents were packed: they end"
    )


class Stack(nn.Module):
    """The residual stack: for each block in turn, x = x + block(norm(x)).

    The last projection of every mixer (a module names it ``out``) starts divided by the square root of the
    number of blocks (Radford et al. 2019, sec. 2.3), so that what many mixers add at the start does not drown
    the tokens. Channel mixers start small by themselves, and scaled too they slow learning down (see LOG.md).

    design: how layers are joined, what norms they have and how they start, where not as said here.
    """

    def __init__(
        self, schedule: Schedule, shape: Shape, kernel: Kernel = "torch", design: Design = PLAIN
    ) -> None:
        super().__init__()
        self.schedule, self.shape = schedule, shape
        self.layers = nn.ModuleList(
            nn.ModuleList(Residual(block, shape, kernel, design, i) for block in layer)
            for i, layer in enumerate(schedule)
        )
        self.topology = Topology(design.residual, len(schedule), shape.dim) if design.residual else None
        for part, block in zip(self.parts(), self.blocks(), strict=True):
            out = getattr(part["block"], "out", None)
            if block.role != "channel" and isinstance(out, nn.Linear):
                out.weight.data *= len(self.blocks()) ** -0.5
        if design.init == "orthogonal":
            for part in self.parts():
                _make_orthogonal(part["block"])

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
            _refuse(len(state), len(self.layers))
        after: list[list[State]] = []
        joined, outputs = self.topology, [x_BTD]
        for i, layer in enumerate(self.layers):
            after.append([])
            if joined is not None:
                x_BTD = joined.enter(i, x_BTD, outputs)
            read_BTD = x_BTD if joined is not None and joined.parallel else None
            for j, part in enumerate(layer):  # pyright: ignore[reportArgumentType]
                before = state[i][j] if state is not None else None
                if read_BTD is None:
                    x_BTD, kept = part(x_BTD, before, context, packed)
                else:
                    x_BTD, kept = part(read_BTD, before, context, packed, x_BTD)
                after[-1].append(kept)
            if joined is not None:
                outputs.append(x_BTD)
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


def _make_orthogonal(block: nn.Module) -> None:
    """Matrices orthogonal, with a variance of 1 / inputs as before; the last projection at 0."""
    out = getattr(block, "out", None)
    for part in block.modules():
        if isinstance(part, nn.Linear) and part is out:
            nn.init.zeros_(part.weight)
        elif isinstance(part, nn.Linear):
            rows, columns = part.weight.shape
            nn.init.orthogonal_(part.weight, gain=max(1.0, rows / columns) ** 0.5)


class _Body(nn.Module):
    """Embedding, inputs and residual stack: what models of tokens have in common below their heads."""

    def __init__(
        self, schedule: Schedule, shape: Shape, vocab: int, kernel: Kernel, design: Design = PLAIN
    ) -> None:
        super().__init__()
        self.design = design
        self.embedding = nn.Embedding(vocab, shape.dim)
        self.inputs = Inputs(design.inputs, shape) if design.inputs else None
        widths = widths_of([block for layer in schedule for block in layer], shape)
        if bool(widths) != (design.values is not None):
            raise OptionError(
                "blocks with values=True and the model's embedding of values (values: embedding) belong "
                f"together; only {'blocks ask for it' if widths else 'the model has it'}"
            )
        self.values = Values(design.values, vocab, widths) if design.values else None
        self.stack = Stack(schedule, shape, kernel, design)

    def summed(
        self, tokens_BT: Tensor, state: ModelState | None, context: Context | None
    ) -> tuple[Tensor, ModelState]:
        """The last sum [B, T, D], and the state after the last token."""
        x_BTD, kept = self.embedding(tokens_BT), None
        if self.inputs is not None:
            segments_BT = None if context is None else context.get(SEGMENTS)
            state, before = self._split(state)
            x_BTD, kept = self.inputs(x_BTD, tokens_BT, before, segments_BT)
        if self.values is not None:
            context = {} if context is None else context
            self.values(tokens_BT, context)
        x_BTD, after = self.stack(x_BTD, state, context)
        return x_BTD, [*after, kept] if kept is not None and after else after

    def _split(self, state: ModelState | None) -> tuple[ModelState | None, Sequence[State] | None]:
        """The states of the layers, and of the inputs."""
        if state is None:
            return None, None
        if len(state) != 1 + len(self.stack.layers):
            _refuse(len(state), 1 + len(self.stack.layers))
        return state[:-1], state[-1]


class LanguageModel(_Body):
    """Embedding, residual stack, norm and linear head (no bias); ``tied`` shares the embedding with the head.

    The embedding starts at N(0, 1) and the head at N(0, 0.02); tied, both at N(0, 1/D), so that logits start
    at order one. Blocks initialise themselves, but for what ``Stack`` says.

    mup: the base width of maximal update parametrisation, None without. Logits are then multiplied by
    mup / D, a tied embedding starts at N(0, 1/mup) at every width, and ``blocks.mup.groups`` gives each
    parameter its learning rate. At D = mup the model is the one without. Raises MupError.

    design: what it has beside that (``blocks.design``). Where it has inputs, their states are the last
    entry of the model's. Raises OptionError where it and the blocks do not belong together.
    """

    def __init__(
        self,
        schedule: Schedule,
        shape: Shape,
        vocab: int,
        tied: bool = False,
        kernel: Kernel = "torch",
        mup: int | None = None,
        design: Design = PLAIN,
    ) -> None:
        check_base(mup, shape)
        super().__init__(schedule, shape, vocab, kernel, design)
        self.mup = mup
        self.norm = _norm(shape, kernel, design)
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
        x_BTD, after = self.summed(tokens_BT, state, context)
        x_BTD = self.norm(x_BTD)
        if self.mup is not None:
            x_BTD = x_BTD * (self.mup / self.stack.shape.dim)
        logits_BTV = self.head(x_BTD)
        if (cap := self.design.softcap) is not None:
            logits_BTV = cap * torch.tanh(logits_BTV / cap)
        return logits_BTV, after


def sinusoids(length: int, dim: int) -> Tensor:
    """Fixed positions [length, dim]: sines in the first half, cosines in the second (Vaswani et al. 2017)."""
    half = -(-dim // 2)
    angle = torch.arange(length)[:, None] * 10_000.0 ** (-torch.arange(half) / half)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)[:, :dim]


class AutoEncoder(_Body):
    """The compression head of MAD (Poli et al. 2024, sec. 3): the whole input out of one vector.

    The stack reads T tokens; h = its last output. For every position p of ``length`` a decoder without
    memory reads h + sinusoid(p): two times (norm, linear, GELU), then norm and linear to the vocabulary.
    Unlike mad-lab's, it does not overwrite the blocks' own initialisation. Of ``design``, ``softcap`` belongs
    to language models alone; norms are meant that the stack has.
    """

    positions_PD: Tensor

    def __init__(
        self,
        schedule: Schedule,
        shape: Shape,
        vocab: int,
        length: int,
        kernel: Kernel = "torch",
        design: Design = PLAIN,
    ) -> None:
        super().__init__(schedule, shape, vocab, kernel, design)
        dim = shape.dim
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
        x_BTD, after = self.summed(tokens_BT, state, context)
        return self.decoder(x_BTD[:, -1:] + self.positions_PD), after
