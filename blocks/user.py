"""A user's own blocks, from one Python file: they join the registry without a fork.

The file is a program and is run; a recipe is data and never names one, so a file of blocks is always
given by hand (``--blocks my_blocks.py``).
"""

from __future__ import annotations

import dataclasses
import hashlib
import keyword
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from blocks import BLOCKS
from blocks.base import Block

__all__ = ["UserBlocksError", "load_blocks"]

_METHODS = ("build", "params", "state_size", "flops")


class UserBlocksError(ValueError):
    """A file of blocks cannot be read or run, or what it defines is no block."""


def load_blocks(path: str | Path, known: Mapping[str, type[Block]] = BLOCKS) -> dict[str, type[Block]]:
    """The blocks that the Python file ``path`` defines, by their word in a schedule.

    These are the entries of its ``BLOCKS = {"mine": Mine}`` if it has one, else every public dataclass with
    a ``build`` method that the file itself defines, under its name in lower case. Loading the same content
    twice gives the same classes. Join them with ``BLOCKS | load_blocks(path)``.

    Raises UserBlocksError, also where a word is taken by ``known``; OSError where the file cannot be read.
    """
    module = _run(Path(path))
    listed = vars(module).get("BLOCKS")
    found: dict[str, type[Block]] = {}
    # `from blocks import BLOCKS` in a user's file is an import, not a list of what the file offers.
    own = _public_blocks(module) if listed is None or listed is BLOCKS else _listed_blocks(path, listed)
    for name, cls in own:
        _check_name(path, name, known)
        if name in found:
            raise UserBlocksError(
                f"{path}: two blocks are called {name!r}; give them different names, or list them as "
                'BLOCKS = {"one": One, "two": Two}'
            )
        _check_block(path, name, cls)
        found[name] = cls
    if not found:
        raise UserBlocksError(
            f"{path}: defines no block; a block is a public @dataclass(frozen=True, kw_only=True) "
            f"with role and the methods {', '.join(_METHODS)}"
        )
    return found


def _run(path: Path) -> ModuleType:
    """The module of ``path``, run once per content."""
    source = path.read_bytes()
    # The name depends on the place alone, so that the classes of one file are found again in every process.
    name = f"user_blocks_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    loaded = sys.modules.get(name)
    if loaded is not None and vars(loaded).get("__source__") == source:
        return loaded
    module = ModuleType(name)
    module.__file__ = str(path)
    vars(module)["__source__"] = source
    try:
        code = compile(source, str(path), "exec")
    except (SyntaxError, ValueError) as exc:
        where = f":{exc.lineno}" if isinstance(exc, SyntaxError) and exc.lineno else ""
        said = exc.msg if isinstance(exc, SyntaxError) else str(exc)
        raise UserBlocksError(f"{path}{where}: this is not Python: {said}") from exc
    sys.modules[name] = module  # before it runs: dataclasses look their module up to resolve annotations
    try:
        exec(code, vars(module))
    except (Exception, SystemExit) as exc:  # whatever a user's file does, the answer says where it was
        del sys.modules[name]
        raise UserBlocksError(
            f"{path}:{_line(exc, path)}: running this file raised {type(exc).__name__}: {_first_line(exc)}"
        ) from exc
    return module


def _line(exc: BaseException, path: Path) -> int:
    """The last line of ``path`` itself on the way to ``exc``."""
    line, step = 1, exc.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == str(path):
            line = step.tb_lineno
        step = step.tb_next
    return line


def _first_line(exc: BaseException) -> str:
    return (str(exc).splitlines() or ["no message"])[0]


def _public_blocks(module: ModuleType) -> Iterator[tuple[str, type[Any]]]:
    for name, cls in list(vars(module).items()):
        own = isinstance(cls, type) and cls.__module__ == module.__name__ and not name.startswith("_")
        if own and hasattr(cls, "build") and cls.__name__ == name:
            yield name.lower(), cls


def _listed_blocks(path: str | Path, listed: object) -> Iterator[tuple[str, type[Any]]]:
    if not isinstance(listed, Mapping):
        raise UserBlocksError(
            f'{path}: BLOCKS is a {type(listed).__name__}; it must be a dict such as {{"mine": Mine}}'
        )
    for name, cls in listed.items():
        # A file may list the built-in table with its own entries added; only the additions are its own.
        if BLOCKS.get(name) is not cls:
            yield name, cls


def _check_name(path: str | Path, name: object, known: Mapping[str, type[Block]]) -> None:
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise UserBlocksError(f"{path}: {name!r} is no word for a schedule; use letters, digits and _")
    if name in known:
        raise UserBlocksError(f"{path}: {name!r} is the name of a built-in block; call yours something else")


def _check_block(path: str | Path, name: str, cls: object) -> None:
    """Refuse what the contract could not even be tried on."""
    if not isinstance(cls, type) or not dataclasses.is_dataclass(cls):
        raise UserBlocksError(f"{path}: {name} is no dataclass; write @dataclass(frozen=True, kw_only=True)")
    missing = [part for part in ("role", *_METHODS) if not hasattr(cls, part)]
    if missing:
        raise UserBlocksError(
            f"{path}: the block {name} has no {', '.join(missing)}; every block states them"
        )
    fields = [f for f in dataclasses.fields(cls) if f.init]
    parameters: Any = vars(cls).get("__dataclass_params__")
    if parameters is None or not parameters.frozen or not all(f.kw_only for f in fields):
        raise UserBlocksError(f"{path}: the block {name} must be a @dataclass(frozen=True, kw_only=True)")
    for field in fields:
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserBlocksError(f"{path}: the option {field.name} of {name} has no default; give it one")
