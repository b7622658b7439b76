"""The embedded corpus: the standard library of this Python and nothing that is installed beside it."""

import hashlib
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.data.corpus import LEFT_OUT, corpus_digest, corpus_files, corpus_texts
from lab.data.shards import open_tokens


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_it_holds_modules_that_python_lists_and_no_others() -> None:
    names = [name for name, _ in corpus_files()]
    assert names == sorted(set(names)) and 400 < len(names) < 700
    assert {name.partition("/")[0].removesuffix(".py") for name in names} <= set(sys.stdlib_module_names)
    assert not any(LEFT_OUT & set(name.split("/")) for name in names)
    assert {"this.py", "pydoc_data/topics.py", "json/decoder.py"} <= set(names)
    assert not any("site-packages" in str(path) for _, path in corpus_files())


def test_its_digest_is_that_of_its_names_and_texts() -> None:
    found = hashlib.sha256()
    for name, text in corpus_texts():
        found.update(f"{name}\0{len(text.encode())}\0".encode() + text.encode())
    assert found.hexdigest() == corpus_digest()


def test_it_is_prepared_on_first_use_by_whoever_is_first(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(open_tokens, ["corpus"] * 2)
    assert one.digest == other.digest and one.folder == other.folder
    assert [path.name for path in one.folder.parent.iterdir()] == [one.folder.name], "no other's is left"
    assert one.bytes("train") + one.bytes("valid") == sum(len(text.encode()) for _, text in corpus_texts())
    assert one.documents("valid") > 5 and one.tokenizer_name == "bytes"
    [origin] = [one.origin for one in one.manifest.inputs]
    assert origin and platform.python_version() in origin and corpus_digest() in origin
    before = one.folder.stat().st_mtime_ns
    assert open_tokens("corpus").folder.stat().st_mtime_ns == before, "and read from then on"
