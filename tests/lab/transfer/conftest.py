"""Real tokens and a study on them."""

from pathlib import Path

import pytest

from lab.data.prepare import prepare
from lab.data.tokens import Bytes
from lab.transfer.form import Study
from tests.lab.transfer.small import load_study, write_study

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts, out = tmp_path_factory.mktemp("texts"), tmp_path_factory.mktemp("tokens") / "readme"
    for number, paragraph in enumerate((ROOT / "README.md").read_text(encoding="utf-8").split("\n\n")):
        (texts / f"{number:03}.txt").write_text(paragraph, encoding="utf-8")
    prepare([str(texts)], out, Bytes(), valid=0.2)
    return out


@pytest.fixture
def study(data: Path, tmp_path: Path) -> Study:
    return load_study(write_study(tmp_path, data))
