"""Sources of which it was shown that they train as earlier ones did; their runs share a key.

``known/same.json`` maps the hash of such sources (``run.source_hash``) to that of the earlier ones. A line
comes there by ``python -m tests.same COMMIT --adopt`` alone, which trains with both and compares all bits.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

__all__ = ["FILE", "canonical", "earlier"]

FILE = Path(__file__).parent / "known" / "same.json"


@cache
def earlier() -> dict[str, str]:
    """Hash of sources -> hash of the earlier ones that they stand for."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def canonical(digest: str) -> str:
    """The hash under which runs of the sources ``digest`` are kept."""
    return earlier().get(digest, digest)
