"""Real tokens: the paragraphs of the README, each a document, as bytes."""

from pathlib import Path

import pytest

from lab.data.prepare import prepare
from lab.data.tokens import Bytes

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts, out = tmp_path_factory.mktemp("texts"), tmp_path_factory.mktemp("tokens") / "readme"
    paragraphs = (ROOT / "README.md").read_text(encoding="utf-8").split("\n\n")
    for number, paragraph in enumerate(paragraphs):
        (texts / f"{number:03}.txt").write_text(paragraph, encoding="utf-8")
    prepare([str(texts)], out, Bytes(), valid=0.2)
    return out
