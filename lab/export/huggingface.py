"""A folder that transformers loads: configuration, weights, the file with the model's class, the tokenizer.

Nothing of transformers is needed to write it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from blocks.model import LanguageModel
from lab.data.origin import Origin
from lab.data.tokens import END, START, JsonTokenizer, Tokenizer
from lab.model.form import Spec
from lab.model.spec import SpecError, dump, loads, schedule_of
from lab.terminal import CommandError

__all__ = ["write_folder"]

MODELING = Path(__file__).with_name("modeling_lab.py")
CLASS = "LabForCausalLM"

CHATML = (
    "{{ bos_token }}{% for message in messages %}"
    f"{START}{{{{ message['role'] + '\n' + message['content'] }}}}{END}{{{{ '\n' }}}}"
    "{% endfor %}{% if add_generation_prompt %}"
    f"{START}{{{{ 'assistant\n' }}}}"
    "{% endif %}"
)
"""Conversations as ``lab.data.chatml`` writes them, behind the separator, in transformers' Jinja."""


def write_folder(
    model: LanguageModel,
    spec: Spec,
    tokenizer: Tokenizer,
    folder: Path,
    learnt: Sequence[Origin],
    talks: bool = False,
) -> list[str]:
    """The folder, whole or not at all; the names of its files. Raises CommandError.

    learnt: the data that the weights were trained on, for config.json.
    talks: whether the model learnt from conversations. Then its tokenizer has their template, and the end of
    a turn ends what is generated.
    """
    if folder.exists():
        raise CommandError(f"--hf {folder} is there already; give another folder, or delete it")
    if not folder.parent.is_dir():
        raise CommandError(f"--hf {folder} lies in no folder that exists; make {folder.parent}")
    try:
        loads(dump(spec))
    except SpecError:
        raise CommandError(
            "--hf: the schedule has blocks of your own (--blocks), which transformers could not build; move "
            "them into the lab's registry first"
        ) from None
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write_json(made / "config.json", _config(spec, tokenizer, learnt))
        _write_json(made / "generation_config.json", _ends(tokenizer, talks))
        own = {name: one.detach().contiguous() for name, one in model.named_parameters(prefix="lab")}
        save_file(own, str(made / "model.safetensors"), {"format": "pt"})
        shutil.copyfile(MODELING, made / MODELING.name)
        if isinstance(tokenizer, JsonTokenizer):
            (made / "tokenizer.json").write_text(tokenizer.inner.to_str(), encoding="utf-8")
            _write_json(made / "tokenizer_config.json", _tokenizer_config(tokenizer, talks))
        made.chmod(0o755)
        made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return sorted(path.name for path in folder.iterdir())


def _config(spec: Spec, tokenizer: Tokenizer, learnt: Sequence[Origin]) -> dict[str, Any]:
    return {
        "model_type": "hybrid_architecture_lab",
        "architectures": [CLASS],
        "auto_map": {
            "AutoConfig": f"{MODELING.stem}.LabConfig",
            "AutoModelForCausalLM": f"{MODELING.stem}.{CLASS}",
        },
        "specification": dump(spec),
        "trained_on": [asdict(one) for one in learnt],
        "vocab_size": spec.model.vocab,
        "hidden_size": spec.model.shape.dim,
        "num_attention_heads": spec.model.shape.heads,
        "num_hidden_layers": len(schedule_of(spec)),
        "tie_word_embeddings": spec.model.tied,
        "dtype": "float32",
        **_ends(tokenizer),
    }


def _ends(tokenizer: Tokenizer, talks: bool = False) -> dict[str, Any]:
    """The id that a document begins behind and ends with; rows that have ended are filled up with it."""
    end = tokenizer.separator
    if end is None:
        return {}
    return {
        "bos_token_id": end,
        "eos_token_id": [end, tokenizer.id_of(END)] if talks else end,
        "pad_token_id": end,
    }


def _tokenizer_config(tokenizer: JsonTokenizer, talks: bool) -> dict[str, Any]:
    end = tokenizer.inner.id_to_token(tokenizer.separator) if tokenizer.separator is not None else None
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": end,
        "eos_token": end,
        "pad_token": end,
        "clean_up_tokenization_spaces": False,
        **({"chat_template": CHATML} if talks else {}),
    }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
