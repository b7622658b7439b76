"""Softmax attention whose heads may keep silent: a gate of the token's own on what each head reads.

B batch, T time, D model width, H query heads, K head width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from blocks.attention import Attention, AttentionMixer
from blocks.base import Context, Kernel, OptionError, Shape, State
from blocks.products import Linear

__all__ = ["GatedAttention"]


class _Mixer(AttentionMixer):
    def __init__(self, block: GatedAttention, shape: Shape, kernel: Kernel) -> None:
        super().__init__(block, shape, kernel)
        self.gate = Linear(shape.dim, block.gates(shape), bias=False)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, context: Context | None = None
    ) -> tuple[Tensor, State]:
        o_BTHK, after = self.attend(x_BTD, state, context)
        # One gate for each channel of a head, or one for the whole head.
        gate = self.gate(x_BTD).sigmoid().unflatten(-1, (o_BTHK.shape[2], -1))
        return self.out((gate * o_BTHK).flatten(2)), after


@dataclass(frozen=True, kw_only=True)
class GatedAttention(Attention):
    """Gated attention (Qiu et al. 2025, eq. 5 at G1): softmax attention times sigmoid(W x), then projected.

    As Qwen3-Next has it: QK-norm, and rotation of a quarter of each head. Its state is that of ``attn``.

    gate: ``elementwise``, one gate for each channel of each head, or ``headwise``, one for each head.
    The other options are those of ``attn``.
    """

    word: ClassVar[str] = "gated_attn"

    rope: float = 0.25
    qk_norm: bool = True
    gate: Literal["elementwise", "headwise"] = "elementwise"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gate not in ("elementwise", "headwise"):
            raise OptionError(
                f"gated_attn: gate is {self.gate!r}; known are elementwise and headwise, and attn is without"
            )

    def gates(self, shape: Shape) -> int:
        """Gates of a token."""
        return shape.heads * (self.widths(shape)[1] if self.gate == "elementwise" else 1)

    def build(self, shape: Shape, kernel: Kernel = "torch") -> nn.Module:
        """A freshly initialised mixer. Raises OptionError where the heads do not fit."""
        return _Mixer(self, shape, kernel)

    def params(self, shape: Shape) -> int:
        return super().params(shape) + shape.dim * self.gates(shape)

    def flops(self, shape: Shape, length: int) -> int:
        return super().flops(shape, length) + 2 * shape.dim * self.gates(shape)
