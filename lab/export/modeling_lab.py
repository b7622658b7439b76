"""A model of the hybrid-architecture lab for transformers; ``lab export --hf`` copies this file as it stands.

    AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)

The model itself is the lab's own, so the lab has to be importable: run from its checkout, with its
environment. B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.utils.generic import ModelOutput

from blocks.model import ModelState
from lab.model.spec import build, loads


class LabConfig(PretrainedConfig):
    """The specification of the model, as YAML; the other keys are what transformers asks for by name."""

    model_type = "hybrid_architecture_lab"

    def __init__(self, specification: str = "", **rest: Any) -> None:
        self.specification = specification
        super().__init__(**rest)


@dataclass(frozen=True)
class Read:
    """What has been read: ids [B, T] and the state after them."""

    tokens_BT: Tensor
    state: ModelState


@dataclass
class LabOutput(ModelOutput):
    """Logits [B, T, V] of what was read now, the mean loss where labels were given, all that was read."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    read: Any = None


class LabForCausalLM(PreTrainedModel, GenerationMixin):
    """The lab's LanguageModel. Rows of a batch are of one length: no mixer here knows of padding."""

    config_class = LabConfig
    base_model_prefix = "lab"
    main_input_name = "input_ids"
    # A state cannot be cut back to fewer tokens, as assisted generation would have it.
    _is_stateful = True
    _tied_weights_keys = {"lab.head.weight": "lab.embedding.weight"}  # noqa: RUF012

    def __init__(self, config: LabConfig) -> None:
        super().__init__(config)
        self.lab = build(loads(config.specification, "config.json (specification)"))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: all weights are in the file."""

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """No: what has been read is a ``Read``, handed out and in as a value."""
        return False

    def get_input_embeddings(self) -> nn.Module:
        return self.lab.embedding

    def get_output_embeddings(self) -> nn.Module:
        return self.lab.head

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        read: Read | None = None,
        use_cache: bool | None = None,
        **_: Any,
    ) -> LabOutput:
        """Logits after each of ``input_ids`` [B, T]; ``read`` is what stands before them.

        labels: ids [B, T], each to be predicted from what precedes it, -100 for none. Raises ValueError for a
        mask that leaves out anything.
        """
        if attention_mask is not None and not bool(attention_mask.all()):
            raise ValueError(
                "attention_mask leaves tokens out, and this model knows no padding; give rows of one "
                "length, or one row at a time"
            )
        logits_BTV, state = self.lab(input_ids, None if read is None else read.state)
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(
                logits_BTV[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100
            )
        before = input_ids if read is None else torch.cat([read.tokens_BT, input_ids], dim=1)
        return LabOutput(loss=loss, logits=logits_BTV, read=Read(before, state) if use_cache else None)

    def prepare_inputs_for_generation(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input_ids: Tensor,
        read: Read | None = None,
        attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """What is new since ``read``; all of it where beams changed places, for which no state stands."""
        use_cache = use_cache is not False
        if read is not None:
            length = read.tokens_BT.shape[1]
            if not torch.equal(input_ids[:, :length], read.tokens_BT):
                read, length = None, 0
            input_ids = input_ids[:, length:]
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "read": read,
            "use_cache": use_cache,
        }

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], *rest: Any, **more: Any
    ) -> dict[str, Any]:
        kept = super()._update_model_kwargs_for_generation(outputs, model_kwargs, *rest, **more)
        return {**kept, "read": outputs.read}
