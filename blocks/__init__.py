"""Primitives of hybrid language models, and the notation that composes them.

``BLOCKS`` is the registry: one word of a schedule -> the dataclass it builds. Adding a block is one file
and one line here; the contract tests, the command line and the recipes pick it up.
"""

from __future__ import annotations

from blocks.base import Block

BLOCKS: dict[str, type[Block]] = {}

__all__ = ["BLOCKS"]
