"""What was made from data says which: every such document, page and file has the sha256 of what was read."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from lab.data.corpus import corpus_digest, corpus_source, corpus_texts
from lab.data.manifest import MANIFEST
from lab.data.origin import Origin, origin_of, origins_of
from lab.data.prepare import prepare
from lab.data.tokens import Bytes
from lab.model.spec import read_model, trained_on
from lab.mup.rates import text
from tests.lab.train.small import TEXT
from tests.lab.transfer.small import TEXT as STUDY

ROOT = Path(__file__).parents[2]
WORDS = {
    "train": ("train small.yaml --peak 1", "data"),
    "eval": ("eval models/small", "data"),
    "eval of a file": ("eval models/small/model.safetensors --text text.txt", "text.txt"),
    "eval with training": ("eval models/small --text text.txt --ttt --set chunk=64", "text.txt"),
    "export": ("export models/small --int8 --no-score", None),
    "export, scored": ("export models/small --int6 --text text.txt", "text.txt"),
    "mup": ("mup swiglu --widths 16,32 --base 16 --seeds 1 --rates 1", "modules"),
    "transfer": ("transfer show toy.yaml", "data"),
}
"""Command lines, and the data that their pages name."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a file of text, a specification and a study of them."""
    folder = tmp_path_factory.mktemp("origin")
    (folder / "texts").mkdir()
    for number, paragraph in enumerate((ROOT / "README.md").read_text(encoding="utf-8").split("\n\n")):
        (folder / "texts" / f"{number}.txt").write_text(paragraph, encoding="utf-8")
    prepare([str(folder / "texts")], folder / "data", Bytes(), valid=0.2)
    (folder / "text.txt").write_bytes("\ufeffOne line,\r\nand äö another one. ".encode() * 8)
    (folder / "small.yaml").write_text(TEXT.format(data="data"), encoding="utf-8")
    (folder / "toy.yaml").write_text(STUDY.format(data="data", first=256, last=512), encoding="utf-8")
    return folder


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch, answer) -> Path:
    """The current folder, with a trained model."""
    monkeypatch.chdir(place)
    if not (place / "models").exists():
        answer("train", "small.yaml", "--peak", "1")
    return place


def digests(place: Path) -> dict[str, str]:
    """By the name that a document gives."""
    return {
        "data": json.loads((place / "data" / MANIFEST).read_text())["digest"],
        "text.txt": hashlib.sha256((place / "text.txt").read_bytes()).hexdigest(),
        "modules": hashlib.sha256(bytes(text().tolist())).hexdigest(),
    }


def named(value: object) -> set[tuple[str, str]]:
    """All names with their sha256, however deep in a document."""
    if isinstance(value, list):
        return set().union(*map(named, value))
    if not isinstance(value, dict):
        return set()
    own = {(value["name"], value["sha256"])} if "sha256" in value else set()
    return own.union(*map(named, value.values()))


@pytest.mark.parametrize("case", WORDS)
def test_a_result_names_what_it_was_made_from_by_the_digest_of_what_was_read(
    case: str, here: Path, answer
) -> None:
    line, shown = WORDS[case]
    known = digests(here)
    for path in here.glob("models/small/*.zst"):
        path.unlink()
    found = named(json.loads(answer(*line.split(), "--json")))
    model = {"data"} if "models/small" in line else set()
    assert found == {(name, known[name]) for name in model | ({shown} if shown else set())}
    for path in here.glob("models/small/*.zst"):
        path.unlink()
    page = answer(*line.split())
    assert shown is None or f"sha256 {known[shown]}" in page


def test_a_model_keeps_the_digest_in_whatever_file_it_is_written_to(here: Path, answer) -> None:
    wanted = [Origin("data", "prepared tokens", digests(here)["data"])]
    env = json.loads(Path("models/small/env.json").read_text())
    assert [Origin(**one) for one in env["origins"]] == wanted
    answer("export", "models/small", "--out", "whole.safetensors")
    answer("export", "whole.safetensors", "--int6", "--no-score", "--out", "six.zst")
    for path in ("models/small/model.safetensors", "whole.safetensors", "six.zst"):
        assert trained_on(Path(path)) == wanted, path
        assert read_model(Path(path))[1].name == "small"
    said = json.loads(answer("export", "six.zst", "--hf", "folder", "--json"))
    config = json.loads(Path("folder/config.json").read_text())
    assert [[Origin(**one) for one in found["trained_on"]] for found in (said, config)] == [wanted] * 2


def test_a_model_was_trained_on_what_its_start_was_and_not_on_what_was_held_out(here: Path, answer) -> None:
    for name in ("more", "held"):
        prepare([str(here / "texts")], here / name, Bytes(), valid=0.3 if name == "more" else 0.4)
    start = "models/small/model.safetensors"
    sets = ("data.train=[{data: more}]", "data.valid=held", f"train.start={start}", "name=second")
    found = json.loads(
        answer(
            "train", "small.yaml", "--peak", "1", "--json", *(word for one in sets for word in ("--set", one))
        )
    )
    assert {one["name"] for one in found["data"]} == {"more", "held"}
    assert [one.name for one in trained_on(Path("models/second/model.safetensors"))] == ["data", "more"]


def test_the_corpus_is_named_by_its_texts_and_a_folder_of_it_by_both(tmp_path: Path) -> None:
    whole = hashlib.sha256()
    for name, one in corpus_texts():
        whole.update(f"{name}\0{len(one.encode())}\0".encode() + one.encode())
    found = origin_of("corpus")
    assert asdict(found) == {"name": "corpus", "what": corpus_source(), "sha256": whole.hexdigest()}
    assert origins_of(["corpus", "corpus"]) == [found]
    (tmp_path / "few.txt").write_text("a text")
    prepare(["corpus", str(tmp_path / "few.txt")], tmp_path / "mixed", Bytes())
    mixed = origin_of(str(tmp_path / "mixed"))
    assert corpus_digest() in mixed.what and mixed.sha256 not in (found.sha256, "")
