"""The embedded corpus: the standard library of this very Python, some 500 files and 10 MB, a document each.

Text that is on every machine that can run the lab, of known licence (PSF), English and Python in one, and
never downloaded. It depends on the version of Python, so the version and a sha256 go with everything made
from it.
"""

from __future__ import annotations

import hashlib
import platform
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from lab.data.tokens import DataError

__all__ = ["NAME", "corpus_digest", "corpus_files", "corpus_origin", "corpus_source", "corpus_texts"]

NAME = "corpus"
"""The word that stands for it wherever data are named."""

LEFT_OUT = frozenset(
    {
        "test",
        "tests",
        "idle_test",
        "idlelib",
        "tkinter",
        "turtle",
        "turtledemo",
        "lib2to3",
        "ensurepip",
        "distutils",
    }
)
"""What some systems ship apart from Python, or not at all; and tests, for their size and odd bytes."""


def corpus_files() -> list[tuple[str, Path]]:
    """Name and path of each file, by name: the modules that this version of Python lists as its own.

    Nothing that is installed beside them (site-packages), built here or written when it runs. Raises
    DataError.
    """
    library = Path(sysconfig.get_path("stdlib"))
    found = []
    for module in sys.stdlib_module_names - LEFT_OUT:
        single, package = library / f"{module}.py", library / module
        paths = [single] if single.is_file() else package.rglob("*.py")
        found += [(path.relative_to(library).as_posix(), path) for path in paths]
    kept = sorted((name, path) for name, path in found if not LEFT_OUT.intersection(name.split("/")))
    if not kept:
        raise DataError(
            f"this Python keeps no sources of its standard library in {library}; the corpus is made of them: "
            "use one that does, or prepare a text of your own by lab data prepare"
        )
    return kept


def corpus_texts() -> Iterator[tuple[str, str]]:
    """Name and text of each document."""
    for name, path in corpus_files():
        yield name, path.read_bytes().decode()


def corpus_digest() -> str:
    """sha256 of all names and contents, in order."""
    digest = hashlib.sha256()
    for name, path in corpus_files():
        content = path.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def corpus_source() -> str:
    """What it is taken from."""
    return f"standard library of {platform.python_implementation()} {platform.python_version()}"


def corpus_origin() -> str:
    """What it was taken from, with its sha256."""
    return f"{corpus_source()}, sha256 {corpus_digest()}"
