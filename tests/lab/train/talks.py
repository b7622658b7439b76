"""Conversations about real text: what functions of Python say that they do.

python -m tests.lab.train.talks OUT.jsonl writes them all, as lab data prepare --chat reads them.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from lab.data.corpus import corpus_files


def talks(files: int | None = None) -> Iterator[list[dict[str, str]]]:
    """A question and its answer for each public function that says what it does, of the first ``files``."""
    for name, path in corpus_files()[:files]:
        module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for node in ast.walk(ast.parse(path.read_bytes())):
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
                continue
            if said := (ast.get_docstring(node) or "").partition("\n")[0].strip():
                yield [
                    {"role": "user", "content": f"What does {module}.{node.name} do?"},
                    {"role": "assistant", "content": said},
                ]


def write(out: Path, files: int | None = None) -> None:
    with out.open("w", encoding="utf-8") as file:
        for talk in talks(files):
            file.write(json.dumps({"messages": talk}) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
