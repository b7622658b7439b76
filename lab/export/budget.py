"""What a file may weigh, counted as in OpenAI's parameter golf: the packed weights and the code together."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.terminal import CommandError

__all__ = ["Budget", "bytes_of", "code_of"]

UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
"""16 MB are 16,000,000 bytes, as in the rules of the competition."""

ROOT = Path(__file__).parents[2]
ROOTS = ("lab.train.run", "lab.evaluate.measure", "lab.evaluate.sources")
"""What trains and what evaluates, as the one script of an entry does."""


@dataclass(frozen=True)
class Budget:
    """Bytes allowed, and of what there is: the weights as a file, and the code that trains and evaluates."""

    allowed: int
    weights: int
    code: int

    @property
    def left(self) -> int:
        """Below 0 where it is over."""
        return self.allowed - self.weights - self.code

    def check(self) -> None:
        """Raises CommandError where the file is over."""
        if self.left < 0:
            raise CommandError(
                f"--budget is {self.allowed:,} bytes, and the weights are {self.weights:,} and the code "
                f"{self.code:,}: {-self.left:,} over, so nothing is written; round to fewer bits or longer "
                "steps (--int6, --finest 0.03), or train a smaller model"
            )


def bytes_of(text: str) -> int:
    """``16MB``, ``15.5 MiB`` or ``16000000`` in bytes. Raises CommandError."""
    found = re.fullmatch(r"(\d[\d_,]*(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    if not found or (found[2] or "B") not in UNITS or not float(re.sub("[_,]", "", found[1])):
        raise CommandError(
            f"--budget is {text!r}; write a number of bytes, alone or with {', '.join(UNITS)}, such as 16MB"
        )
    return round(float(re.sub("[_,]", "", found[1])) * UNITS[found[2] or "B"])


def code_of() -> dict[str, int]:
    """Bytes of every source of the lab that training and evaluation import, by path, C sources included.

    Imports are read off the sources and not run. Packages of others are free, as in the competition.
    """
    found: dict[str, Path] = {}
    waiting = list(ROOTS)
    while waiting:
        name = waiting.pop()
        path = _file(name)
        if path is None or name in found:
            continue
        found[name] = path
        waiting += [name.rpartition(".")[0], *_imports(path)]
    kernels = (ROOT / "blocks" / "kernels").glob("*.[ch]")
    return {str(path.relative_to(ROOT)): path.stat().st_size for path in {*found.values(), *kernels}}


def _file(name: str) -> Path | None:
    """The source of a module of ours; None for what is none."""
    path = ROOT.joinpath(*name.split("."))
    both = (path.with_suffix(".py"), path / "__init__.py") if name else ()
    return next((one for one in both if one.is_file()), None)


def _imports(path: Path) -> Iterator[str]:
    """Names that may be modules: of ``from a import b`` both ``a`` and ``a.b``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
