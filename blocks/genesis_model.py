"""Genesis-152M: its configurations as schedules, its metacognition, and the five functions of its weights.

The released package computes different functions in training, in evaluation and in generation. Here each is a
``Mode`` with a name; ``documented`` is the one that its model card describes. All modes have the same
parameters under the same names, so that one set of weights serves them all.

B batch, T time, D model width, R rank, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.base import Block, Context, Kernel, Shape, State, at_least_fp32
from blocks.ffn import Sparse, SwiGLU
from blocks.genesis import GenesisFoX, GenesisGLA, Rule
from blocks.model import ModelState, Stack
from blocks.parts import RMSNorm, ShortConv, make_norm
from blocks.products import linear
from blocks.schedule import Schedule, tile
from blocks.segments import SEGMENTS

__all__ = [
    "CONFIGS",
    "GENESIS_147M",
    "GENESIS_152M",
    "GENESIS_SWEETSPOT",
    "MODES",
    "GenesisConfig",
    "GenesisModel",
    "Mode",
    "ModeError",
    "ModeParts",
]

Mode = Literal["shipped-eval", "shipped-eval-delta", "shipped-train", "shipped-cache", "documented"]


@dataclass(frozen=True)
class ModeParts:
    """What a mode switches: the linear mixers' rule, the FFN's mask, and the form of the metacognition.

    Any combination is a function of the same weights; ``MODES`` names those that somebody runs or describes.
    """

    rule: Rule
    mask: Literal["hard", "soft"] | None
    metacognition: Literal["batch mean", "per token"] | None
    what: str


MODES: dict[Mode, ModeParts] = {
    "shipped-eval": ModeParts(
        "decay", "hard", "batch mean", "the package on CPU in evaluation: no delta rule, top-k and TTT on"
    ),
    "shipped-eval-delta": ModeParts(
        "chunk_delta", "hard", "batch mean", "the same with GENESIS_ENABLE_DELTA_RULE_ON_CPU=1"
    ),
    "shipped-train": ModeParts(
        "chunk_delta", None, None, "the package on CPU in training: delta between chunks, no top-k, no TTT"
    ),
    "shipped-cache": ModeParts("decay", "hard", None, "the package in generation: no delta rule, no TTT"),
    "documented": ModeParts(
        "gated_delta", "soft", "per token", "the model card: Gated DeltaNet, soft top-k, TTT per token"
    ),
}
assert tuple(MODES) == get_args(Mode)
NAMES: dict[ModeParts, Mode] = {parts: name for name, parts in MODES.items()}


class ModeError(ValueError):
    """A mode is unknown, or is asked for what its function cannot do."""


@dataclass(frozen=True, kw_only=True)
class GenesisConfig:
    """What the released configuration says that has an effect; the defaults are Genesis-152M's.

    full_every: every so-manieth layer is ``genesis_fox``. k_ratio: share of the hidden activations that a
    token keeps, None for all. ttt_rank, ttt_lr: rank of the fast weight's static part, cap of its learning
    rate. base_width: logits are divided by dim / base_width (Yang et al. 2022) and multiplied by output_mult,
    None for neither.
    """

    vocab: int = 50_279
    dim: int = 576
    depth: int = 30
    heads: int = 9
    kv_heads: int = 3
    expand_k: float = 0.75
    expand_v: float = 1.5
    conv: int = 4
    chunk: int = 64
    full_every: int = 4
    k_ratio: float | None = 0.85
    ttt_rank: int = 4
    ttt_lr: float = 0.01
    base_width: int | None = 256
    output_mult: float = 1.0
    init_std: float = 0.02

    @property
    def shape(self) -> Shape:
        return Shape(dim=self.dim, heads=self.heads, norm="rms_zero")

    @property
    def hidden(self) -> int:
        """Width of the FFN: int(2.5 D)."""
        return int(2.5 * self.dim)

    @property
    def logit_scale(self) -> float:
        return 1.0 if self.base_width is None else self.output_mult / (self.dim / self.base_width)

    @property
    def start_std(self) -> float:
        """Of every matrix at the start: init_std, less at widths above base_width."""
        return self.init_std / math.sqrt(max(1.0, self.dim / (self.base_width or self.dim)))

    def schedule(self, mode: Mode | ModeParts) -> Schedule:
        """The layers of a mode: one ``genesis_fox`` after every full_every - 1 ``genesis_gla``."""
        parts = mode if isinstance(mode, ModeParts) else MODES[mode]
        ffn: Block = SwiGLU(expand=self.hidden / self.dim)
        if self.k_ratio is not None and parts.mask is not None:
            # The package rounds the number that is kept down; ``sparse`` rounds it up.
            kept = max(1, int(self.k_ratio * self.hidden))
            ffn = Sparse(expand=self.hidden / self.dim, k_ratio=kept / self.hidden, mask=parts.mask)
        linear = GenesisGLA(
            rule=parts.rule,
            kv_heads=self.kv_heads,
            expand_k=self.expand_k,
            expand_v=self.expand_v,
            conv=self.conv,
            chunk=self.chunk,
        )
        full = GenesisFoX(kv_heads=self.kv_heads, conv=self.conv)
        return tile(((linear, ffn),) * (self.full_every - 1) + ((full, ffn),), self.depth)

    def params(self) -> dict[str, int]:
        """Parameters by component; the head is the embedding."""
        schedule, shape, dim, half = self.schedule("shipped-train"), self.shape, self.dim, self.dim // 2
        parts = {"embedding": self.vocab * dim}
        for name, kind in (("genesis_gla", GenesisGLA), ("genesis_fox", GenesisFoX), ("ffn", SwiGLU)):
            parts[name] = sum(b.params(shape) for layer in schedule for b in layer if isinstance(b, kind))
        parts["block norms"], parts["final norm"] = 2 * self.depth * dim, dim
        parts["ttt"] = 6 * dim * dim + 2 * dim * self.ttt_rank + 4 * dim
        parts["self model"] = dim * dim
        parts["confidence"] = half * (2 * dim + 1) + half + 1
        parts["reflection"] = 2 * dim * dim
        return parts


GENESIS_152M = GenesisConfig()
"""The released configuration: 151,757,837 parameters."""
GENESIS_147M = GenesisConfig(vocab=50_304, k_ratio=None)
"""The package's ``genesis_147m()``, 151,772,237 parameters whatever its name says."""
GENESIS_SWEETSPOT = GenesisConfig(
    vocab=50_304, dim=960, depth=32, heads=15, kv_heads=5, full_every=5, k_ratio=None, ttt_rank=12
)
"""The package's ``genesis_sweetspot()``; its ratio 0.1875 means every fifth layer."""
CONFIGS: dict[str, GenesisConfig] = {
    "genesis-152m": GENESIS_152M,
    "genesis-147m": GENESIS_147M,
    "genesis-sweetspot": GENESIS_SWEETSPOT,
}


PIECE = 256
"""Tokens whose scores with each other the per-token form holds at once."""
STRENGTH = 0.2
"""How far the metacognition may move the output; no released file can say otherwise."""


class Metacognition(nn.Module):
    """What runs once after the last layer: a fast weight, and a confidence that scales its effect.

    As shipped, the fast weight is a diagonal that reads h three times, and one confidence, the mean over
    batch and time, serves all: the output of a sequence depends on its own future and on its neighbours. That
    form is reproduced here for parity and is no block. The per-token form is what the model card describes.
    """

    def __init__(self, config: GenesisConfig) -> None:
        super().__init__()
        dim, rank = config.dim, config.ttt_rank
        self.lr_cap = config.ttt_lr
        self.norm = nn.LayerNorm(dim, eps=1e-5)
        self.w0 = nn.Parameter(0.1 * torch.eye(dim))
        self.a, self.b = nn.Parameter(0.01 * torch.randn(dim, rank)), nn.Parameter(torch.zeros(rank, dim))
        self.log_lr = nn.Parameter(torch.full((dim,), math.log(config.ttt_lr)))
        self.q, self.k, self.v, self.out, self.gate, self.self_model = (
            nn.Linear(dim, dim, bias=False) for _ in range(6)
        )
        self.scale = nn.Parameter(torch.full((dim,), 1e-4))
        self.confidence = nn.Sequential(nn.Linear(2 * dim, dim // 2), nn.SiLU(), nn.Linear(dim // 2, 1))
        self.reflection = nn.Linear(2 * dim, dim, bias=False)

    @property
    def rate_D(self) -> Tensor:
        return self.log_lr.exp().clamp(max=self.lr_cap)

    def forward(
        self, x_BTD: Tensor, state: State | None = None, per_token: bool = True
    ) -> tuple[Tensor, State]:
        """x moved towards what the fast weight makes of it. ``per_token=False`` is the shipped form."""
        h_BTD = self.norm(x_BTD)
        y_BTD, after = self._documented(h_BTD, state) if per_token else (self._shipped(h_BTD), {})
        adapted = x_BTD + self.scale * self.out(y_BTD * self.gate(x_BTD).sigmoid())
        trust = self.confidence(torch.cat([self.self_model(x_BTD), adapted], dim=-1)).sigmoid()
        if not per_token:
            trust = trust.detach().mean()
        weight = STRENGTH * trust
        return weight * adapted + (1 - weight) * x_BTD, after

    def _shipped(self, h_BTD: Tensor) -> Tensor:
        """y_t = y0_t - h_t r c_t / (1 + 0.1 ln t), c_t = sum_{i<t} h_i (y0_i - h_i), all per channel."""
        diagonal = self.w0.diagonal().diag()
        lone = (self.w0 - diagonal).abs().amax() < 1e-6
        y0_BTD = h_BTD @ torch.where(lone, diagonal, self.w0) + h_BTD @ self.a @ self.b
        wide = at_least_fp32(h_BTD)
        error = wide * (at_least_fp32(y0_BTD) - wide)
        past_BTD = F.pad(error.cumsum(1)[:, :-1], (0, 0, 1, 0))
        at = torch.arange(1, h_BTD.shape[1] + 1, device=h_BTD.device, dtype=wide.dtype)
        moved = wide * self.rate_D * past_BTD / (1 + 0.1 * at.log())[:, None]
        return y0_BTD - moved.to(h_BTD.dtype)

    def _documented(self, h_BTD: Tensor, state: State | None) -> tuple[Tensor, State]:
        """y_t = q_t W_t, W_t = W - r sum_{i<t} k_i^T (k_i W - v_i), W = W0 + A B: the card's dual form.

        The gradients are all taken at W, as the card writes them, so that the sum is one of outer products:
        linear attention with a state of D x D.
        """
        w_DD = self.w0 + self.a @ self.b
        q_BTD, k_BTD = self.q(h_BTD), self.k(h_BTD)
        error_BTD = k_BTD @ w_DD - self.v(h_BTD)
        base_BTD = q_BTD @ w_DD
        q_BTD, k_BTD, error_BTD = (at_least_fp32(x) for x in (q_BTD, k_BTD, error_BTD))
        before: Mapping[str, Any] = state or {}
        sum_BDD = before.get("sum")
        if sum_BDD is None:
            sum_BDD = q_BTD.new_zeros(len(q_BTD), w_DD.shape[0], w_DD.shape[1])
        moved = []
        for q, k, error in zip(*(x.split(PIECE, dim=1) for x in (q_BTD, k_BTD, error_BTD)), strict=True):
            moved.append(q @ sum_BDD + (q @ k.mT).tril(-1) @ error)
            sum_BDD = sum_BDD + k.mT @ error
        y_BTD = base_BTD - (self.rate_D * torch.cat(moved, dim=1)).to(h_BTD.dtype)
        return y_BTD, {"sum": sum_BDD}


class GenesisModel(nn.Module):
    """Genesis in one mode: embedding, stack, metacognition, norm, tied head, logits scaled.

    It starts as the released package really starts (``initialise``), which is not what its comments say.
    ``mode`` is one of the five by name, or ``ModeParts`` that no name stands for.
    """

    def __init__(
        self,
        config: GenesisConfig = GENESIS_152M,
        mode: Mode | ModeParts = "documented",
        kernel: Kernel = "torch",
    ) -> None:
        super().__init__()
        if not isinstance(mode, ModeParts) and mode not in MODES:
            raise ModeError(f"mode is {mode!r}; known are {', '.join(MODES)}")
        self.config = config
        self.kernel: Kernel = kernel
        self.parts = mode if isinstance(mode, ModeParts) else MODES[mode]
        self.embedding = nn.Embedding(config.vocab, config.dim)
        self.stack = Stack(config.schedule(self.parts), config.shape, kernel)
        self.metacognition = Metacognition(config)
        self.norm = make_norm(config.shape, config.dim)
        self.initialise()

    @property
    def mode(self) -> Mode:
        """The name of its function. Raises ModeError where it is none of the five."""
        if self.parts not in NAMES:
            raise ModeError(f"{self.parts.what} has no name of its own; known are {', '.join(MODES)}")
        return NAMES[self.parts]

    def in_mode(self, mode: Mode | ModeParts) -> GenesisModel:
        """The same weights, not copied, under another function."""
        with torch.device("meta"):
            other = GenesisModel(self.config, mode, self.kernel)
        for name, parameter in self.named_parameters():
            holder, _, last = name.rpartition(".")
            setattr(other.get_submodule(holder), last, parameter)
        return other.train(self.training)

    @torch.no_grad()
    def initialise(self) -> None:
        """Every matrix N(0, init_std^2 base_width / D), biases 0, taps U(-1/2, 1/2), gains 1."""
        std = self.config.start_std
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=std)
                if isinstance(module, nn.Linear) and module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, ShortConv):
                nn.init.uniform_(module.weight, -(module.width**-0.5), module.width**-0.5)
            elif isinstance(module, RMSNorm):
                nn.init.constant_(module.weight, 0.0 if module.zero_centred else 1.0)

    def forward(
        self,
        tokens_BT: Tensor,
        state: ModelState | None = None,
        context: Context | None = None,
        last_only: bool = False,
    ) -> tuple[Tensor, ModelState]:
        """Logits [B, T, V] and the state after the last token; ``last_only`` gives [B, 1, V].

        Raises ModeError where the mode's function of a sequence is not made of functions of its pieces, be
        they continued from a state or documents of a packed row.
        """
        if 0 in tokens_BT.shape:
            raise ModeError(
                f"tokens are {list(tokens_BT.shape)}; at least one sequence of one token is wanted"
            )
        form = self.parts.metacognition
        if state is not None and form == "batch mean":
            name = NAMES.get(self.parts, self.parts.what)
            raise ModeError(
                f"{name} averages one number over the whole input, so it cannot go on from a state; "
                "give the whole sequence, or generate with shipped-cache or documented"
            )
        if form is not None and context is not None and SEGMENTS in context:
            raise ModeError("segments of packed documents are given, and metacognition reads across them")
        layers = None if state is None else state[:-1]
        # The head gives the same weight a dense gradient; a sparse one is added to it row by row.
        x_BTD = F.embedding(tokens_BT, self.embedding.weight, sparse=True)
        x_BTD, after = self.stack(x_BTD, layers, {} if context is None else context)
        kept: State = {}
        if form is not None:
            past = state[-1][0] if state else None
            x_BTD, kept = self.metacognition(x_BTD, past, per_token=form == "per token")
        if last_only:
            x_BTD = x_BTD[:, -1:]
        x_BTD = self.norm(x_BTD) * self.config.logit_scale
        return linear(x_BTD, self.embedding.weight), [*after, [kept]]
