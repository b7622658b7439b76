"""Genesis-152M: its released files, read and written, and what can be said of them.

``load(path, mode)`` gives the model of a released file, ``read(path)`` its tensors, ``save(model, path)``
writes one that genesis-llm's own loader reads. They are imported when asked for: ``lab --help`` loads this.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab.genesis.released import GenesisFileError, Released
    from lab.genesis.weights import Weights, load, read, save

__all__ = ["GenesisFileError", "Released", "Weights", "load", "read", "save"]

_HOMES = {"GenesisFileError": "released", "Released": "released"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'weights')}"), name)
