"""Released files taken apart and put together otherwise."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

from lab.genesis.released import GenesisFileError
from lab.genesis.weights import read


def header(path: Path) -> dict[str, Any]:
    """The file's configuration."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(json.loads(raw[8 : 8 + length])["__metadata__"]["genesis_config_json"])


def rewrite(path: Path, tensors: Mapping[str, Tensor] | None = None, **metadata: str) -> None:
    """The same file with other tensors or other metadata."""
    given = metadata or {"genesis_config_json": json.dumps(header(path))}
    save_file(dict(tensors or load_file(path)), path, metadata=given)


def configured(path: Path, **fields: Any) -> None:
    rewrite(path, genesis_config_json=json.dumps({**header(path), **fields}))


def refusal(path: Path) -> str:
    """The one sentence that refuses the file."""
    with pytest.raises(GenesisFileError) as caught:
        read(path)
    told = str(caught.value)
    assert told.startswith(str(path)) and told.isprintable() and len(told) < 600, told
    return told
