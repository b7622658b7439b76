"""The configuration in the header of a released file: ``genesis_config_json``, field by field.

The package's configuration has fields that change what it computes, fields that change nothing at all, and
fields whose other values no released model has. The first become a ``GenesisConfig``, the second are checked
for their type and left aside (``save`` writes defaults in their place), the third are refused by name.
"""

from __future__ import annotations

import difflib
import json
import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from blocks.genesis_model import GenesisConfig

__all__ = ["GenesisFileError", "Released", "parse_released", "printable"]


class GenesisFileError(ValueError):
    """A file of weights or its header cannot be used; the sentence names the file and what is wrong."""


class Released(BaseModel):
    """The package's configuration as it stands in a file, with the package's defaults for what is absent.

    Upper bounds lie far beyond any model of this kind. They keep a header that says anything at all from
    costing memory or time before the tensors are looked at.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    # Fields with an effect.
    vocab_size: int = Field(50_304, ge=1, le=2**24)
    n_embd: int = Field(768, ge=2, le=2**16)
    n_layer: int = Field(12, ge=1, le=1024)
    n_head: int = Field(12, ge=1, le=2**16)
    n_kv_head: int = Field(4, ge=1, le=2**16)
    gla_expand_k: float = Field(1.0, gt=0, le=64)
    gla_expand_v: float = Field(1.0, gt=0, le=64)
    gla_conv_size: int = Field(4, ge=1, le=2**16)
    gla_chunk_size: int = Field(64, ge=1, le=2**24)
    hybrid_full_attn_ratio: float = Field(0.25, ge=2**-11, le=1)
    ttt_inner_lr: float = Field(0.01, gt=0, le=1000)
    ttt_rank: int = Field(8, ge=1, le=2**16)
    init_std: float = Field(0.02, gt=0, le=1000)
    use_selective_activation: bool = True
    selective_k_ratio: float = Field(0.5, gt=0, le=1)
    use_mup: bool = False
    mup_base_width: int = Field(256, ge=1, le=2**16)
    mup_output_mult: float = 1.0

    # Fields of which only this value is known to have been released.
    use_gla: Literal[True] = True
    gla_use_short_conv: Literal[True] = True
    gla_use_delta_rule: Literal[True] = True
    gla_qk_norm: Literal["l2"] = "l2"
    gla_use_mamba_gate: Literal[True] = True
    gla_fuse_norm_gate: Literal[True] = True
    use_hybrid_layout: Literal[True] = True
    use_fox: Literal[True] = True
    use_fox_pro: Literal[True] = True
    use_ttt: Literal[True] = True
    ttt_mode: Literal["dual"] = "dual"
    use_zero_centered_norm: Literal[True] = True
    use_segment_recurrence: Literal[False] = False
    tie_word_embeddings: Literal[True] = True
    norm_eps: float = Field(default=1e-6, ge=1e-6, le=1e-6)
    dropout: float = Field(default=0.0, ge=0, le=0)

    # Fields without any effect on what a checkpoint computes.
    head_dim: int = 64
    block_size: int = 1024
    gla_gate_fn: str = "swish"
    gla_gate_logit_normalizer: int = 16
    gla_use_dynamic_lr: bool = True
    ttt_chunk_size: int = 64
    use_gradient_checkpointing: bool = False
    use_fused_norm: bool = True
    segment_state_detach: bool = True
    selective_use_soft_mask: bool = True
    selective_mask_temperature: float = 0.1
    selective_warmup_steps: int = 1000
    selective_sparsify_steps: int = 10_000
    selective_schedule: str = "cubic"
    mup_embed_mult: float = 1.0

    def config(self) -> GenesisConfig:
        """What of it has an effect."""
        return GenesisConfig(
            vocab=self.vocab_size,
            dim=self.n_embd,
            depth=self.n_layer,
            heads=self.n_head,
            kv_heads=self.n_kv_head,
            expand_k=self.gla_expand_k,
            expand_v=self.gla_expand_v,
            conv=self.gla_conv_size,
            chunk=self.gla_chunk_size,
            full_every=int(1 / self.hybrid_full_attn_ratio),
            k_ratio=self.selective_k_ratio if self.use_selective_activation else None,
            ttt_rank=self.ttt_rank,
            ttt_lr=self.ttt_inner_lr,
            base_width=self.mup_base_width if self.use_mup else None,
            output_mult=self.mup_output_mult,
            init_std=self.init_std,
        )

    @classmethod
    def of(cls, config: GenesisConfig) -> Released:
        """The header that describes ``config``."""
        return cls(
            vocab_size=config.vocab,
            n_embd=config.dim,
            n_layer=config.depth,
            n_head=config.heads,
            n_kv_head=config.kv_heads,
            head_dim=config.dim // config.heads,
            block_size=2048,
            gla_expand_k=config.expand_k,
            gla_expand_v=config.expand_v,
            gla_conv_size=config.conv,
            gla_chunk_size=config.chunk,
            hybrid_full_attn_ratio=_ratio(config.full_every),
            ttt_inner_lr=config.ttt_lr,
            ttt_rank=config.ttt_rank,
            init_std=config.init_std,
            use_selective_activation=config.k_ratio is not None,
            selective_k_ratio=0.85 if config.k_ratio is None else config.k_ratio,
            use_mup=config.base_width is not None,
            mup_base_width=config.base_width or 256,
            mup_output_mult=config.output_mult,
        )


def _ratio(full_every: int) -> float:
    """A share of full layers that the package reads as every ``full_every``-th: it takes int(1 / ratio)."""
    ratio = 1 / full_every
    return ratio if int(1 / ratio) == full_every else math.nextafter(ratio, 0)


def printable(text: str, most: int = 120) -> str:
    """Text out of a file, fit for one line of a message: what does not print is ?, what is long is cut."""
    cut = text if len(text) <= most else f"{text[:most]}..."
    return "".join(c if c.isprintable() else "?" for c in cut)


def parse_released(text: str, where: str) -> Released:
    """The header's JSON, checked whole. Raises GenesisFileError, one sentence that starts with ``where``."""
    try:
        document: Any = json.loads(text)
    except (ValueError, RecursionError) as exc:  # a number of thousands of digits is a ValueError too
        raise GenesisFileError(f"{where}: genesis_config_json is no JSON ({printable(str(exc))})") from exc
    if not isinstance(document, dict):
        raise GenesisFileError(
            f"{where}: genesis_config_json is {type(document).__name__}; an object of fields is wanted"
        )
    try:
        released = Released.model_validate(document)
    except ValidationError as exc:
        raise GenesisFileError(f"{where}: {_told(exc)}") from exc
    config = released.config()
    if config.dim % config.heads or config.heads % config.kv_heads:
        raise GenesisFileError(
            f"{where}: n_head is {config.heads} at n_embd {config.dim} and n_kv_head {config.kv_heads}; "
            "n_head must divide n_embd, and n_kv_head n_head"
        )
    return released


def _told(exc: ValidationError) -> str:
    """The first problem: the field, what it holds, and what is allowed."""
    first = exc.errors()[0]
    field = ".".join(map(str, first["loc"])) or "the name of a field"
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(field, Released.model_fields, n=1)
        hint = f"; did you mean {near[0]}?" if near else "; no release of the package has it"
        return f"genesis_config_json has an unknown field {printable(field)}{hint}"
    message = first["msg"][:1].lower() + first["msg"][1:]
    return f"genesis_config_json: {field} is {printable(repr(first['input']))}; {message}"
