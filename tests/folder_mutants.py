"""Run folders as disks, people and other programs leave them: every file of one cut, flipped or exchanged.

A mutation changes a folder in place and names what it touched; the rest of the folder must survive whatever
is done with it. Everything is drawn from the generator that is passed in.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from sweeps import results
from sweeps.results import Failure, Pruned
from tests.recipe_mutants import any_value, mutated_text

__all__ = ["damage", "mutated_bytes", "mutated_frame"]

UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException)

Touched = set[str]
"""Keys of the runs whose files are no longer what the sweep wrote; ``*`` for all."""


def damage(rng: random.Random, folder: Path) -> tuple[str, Touched]:
    """Break one to three things of a run folder; what was done, and which runs it touched."""
    steps: tuple[Callable[[random.Random, Path], tuple[str, Touched]], ...] = (
        _journal, _journal, _trial_bytes, _trial_frame, _trial_frame, _trial_frame, _trial_place, _env,
        _recipe, _failures, _pruned, _foreign, _replaced, _permissions,
    )  # fmt: skip
    story, touched = [], set[str]()
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        step = rng.choice(steps)
        try:
            told, keys = step(rng, folder)
        except (OSError, ValueError, IndexError, *UNREADABLE):  # an earlier step broke what this one wants
            continue
        story.append(told)
        touched |= keys
    return "; ".join(story), touched


def mutated_bytes(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    """Bytes flipped, cut, overwritten, repeated or put in."""
    at, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    match rng.randrange(7):
        case 0:
            changed = bytearray(content)
            for _ in range(rng.choice((1, 4, 100))):
                if changed:
                    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
            return bytes(changed), "flipped"
        case 1:
            return content[:at], f"cut at {at}"
        case 2:
            return content[:at] + content[end:], f"without {at} to {end}"
        case 3:
            return content[:at] + rng.randbytes(rng.choice((1, 30, 5000))) + content[at:], f"noise at {at}"
        case 4:
            return content[:at] + bytes(end - at) + content[end:], f"zeros from {at} to {end}"
        case 5:
            return rng.choice(
                (b"", b"\0", b"\n", b"PAR1", b"PAR1" * 4, b"[" * 200_000, b"{}", b"\xff\xfe")
            ), "other"
    return content + content[at:end], f"{at} to {end} once more"


def _rewrite(rng: random.Random, path: Path, content: bytes) -> str:
    new, story = mutated_bytes(rng, content)
    path.write_bytes(new)
    return f"{path.name} {story}"


def _line_by_line(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    """Lines of JSON removed, repeated, exchanged, or with other values in them."""
    lines = content.splitlines(keepends=True)
    i, j = (rng.randrange(len(lines)) for _ in range(2))
    match rng.randrange(6):
        case 0:
            del lines[i]
        case 1:
            lines.insert(j, lines[i])
        case 2:
            lines[i], lines[j] = lines[j], lines[i]
        case 3:
            lines[i] = rng.choice(
                (b"\n", b"null\n", b"[]\n", b"{}\n", b"1\n", b'"x"\n', rng.randbytes(40) + b"\n")
            )
        case _:
            lines[i] = json.dumps(_changed(rng, json.loads(lines[i]))).encode() + b"\n"
    return b"".join(lines), f"line {i + 1} changed"


def _changed(rng: random.Random, value: Any) -> Any:
    """JSON with one of its parts taken away or exchanged."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return any_value(rng)
    key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
    if rng.random() < 0.2:
        del value[key]
    elif rng.random() < 0.1 and isinstance(value, dict):
        value["more"] = value.pop(key)
    else:
        value[key] = _changed(rng, value[key]) if rng.random() < 0.6 else any_value(rng)
    return value


def _journal(rng: random.Random, folder: Path) -> tuple[str, Touched]:
    path = folder / "study.log"
    content = path.read_bytes()
    if rng.random() < 0.5:
        return _rewrite(rng, path, content), set()
    new, story = _line_by_line(rng, content)
    path.write_bytes(new)
    return f"study.log {story}", set()


# -- finished runs


def _a_trial(rng: random.Random, folder: Path) -> Path:
    return rng.choice(sorted((folder / "trials").glob("*.parquet")))


def _trial_bytes(rng: random.Random, folder: Path) -> tuple[str, Touched]:
    path = _a_trial(rng, folder)
    return _rewrite(rng, path, path.read_bytes()), {path.stem}


def _trial_frame(rng: random.Random, folder: Path) -> tuple[str, Touched]:
    path = _a_trial(rng, folder)
    frame, story = mutated_frame(rng, pl.read_parquet(path))
    frame.write_parquet(path)
    return f"{path.name} {story}", {path.stem}


def mutated_frame(rng: random.Random, frame: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """Rows or columns removed, repeated, or with values that no run has; still a parquet file of rows."""
    name = rng.choice(frame.columns)
    kind = frame.schema[name]
    some = pl.Series([rng.random() < rng.choice((0.3, 1.0)) for _ in range(frame.height)], dtype=pl.Boolean)
    match rng.randrange(11):
        case 0:
            return frame.drop(name), f"without {name}"
        case 1:
            other = rng.choice(
                (pl.String(), pl.Int8(), pl.Float32(), pl.Binary(), pl.List(pl.Int64()), pl.Null())
            )
            return frame.with_columns(pl.lit(None, other).alias(name)), f"{name} as {other}"
        case 2 | 3:
            return frame.with_columns(pl.when(~some).then(pl.col(name)).alias(name)), f"{name} null"
        case 4 | 5 | 6:
            value = _odd(rng, kind)
            new = pl.when(some).then(pl.lit(value, kind)).otherwise(pl.col(name)).alias(name)
            return frame.with_columns(new), f"{name} {str(value)[:40]!r}"
        case 7:
            return frame.filter(~some), "rows removed"
        case 8:
            return pl.concat([frame, frame.filter(some)]), "rows twice"
        case 9:
            return frame.with_columns(more=pl.lit(1)), "one column more"
    return frame.select(rng.sample(frame.columns, len(frame.columns))), "columns in another order"


def _odd(rng: random.Random, kind: pl.DataType) -> Any:
    if isinstance(kind, pl.List):
        few = [_odd(rng, kind.inner) for _ in range(rng.choice((0, 1, 3)))]  # type: ignore[arg-type]
        return rng.choice((few, [None], []))
    if kind in (pl.Null(), pl.Binary()):  # of an earlier mutation
        return None
    if kind == pl.Boolean():
        return rng.random() < 0.5
    if kind == pl.String():
        return rng.choice(
            ("", "x", "<script>alert(1)</script>", "é" * 3000, "\0", "{", "a\nb", "[deep]", "none", "1")
        )
    if kind.is_float():
        return rng.choice((float("nan"), float("inf"), -float("inf"), -1.0, 0.0, 2.0, 1e300, 5e-324))
    top = 2 ** (8 * {pl.Int16(): 2, pl.Int32(): 4}.get(kind, 8) - 1) - 1
    return rng.choice((0, -1, 1, 2, 99, top, -top - 1))


def _trial_place(rng: random.Random, folder: Path) -> tuple[str, Touched]:
    one, two = _a_trial(rng, folder), _a_trial(rng, folder)
    match rng.randrange(6):
        case 0:
            shutil.copyfile(one, two)
            return f"{two.name} holds what {one.name} does", {two.stem}
        case 1:
            name = rng.choice(("x", "0" * 32, two.stem, "é", "a b", ".tmp-1", "x" * 200))
            one.rename(one.with_name(f"{name}.parquet"))
            return f"{one.name} is called {name}", {one.stem, name}
        case 2:
            one.unlink()
            return f"{one.name} is gone", {one.stem}
        case 3:
            (folder / "earlier").mkdir(exist_ok=True)
            one.rename(folder / "earlier" / one.name)
            return f"{one.name} lies in earlier", {one.stem}
        case 4:
            (folder / "earlier").mkdir(exist_ok=True)
            story = _rewrite(rng, folder / "earlier" / one.name, one.read_bytes())
            return f"a broken copy in earlier: {story}", set()
    (folder / "trials" / "foreign.parquet").write_bytes(rng.choice((b"", b"x", one.read_bytes())))
    return "foreign.parquet among the trials", set()


# -- what stands beside them


def _document(rng: random.Random, path: Path, content: bytes) -> str:
    if rng.random() < 0.4:
        return _rewrite(rng, path, content)
    path.write_text(json.dumps(_changed(rng, json.loads(content))), encoding="utf-8")
    return f"{path.name} with another value"


def _env(rng: random.Random, folder: Path) -> tuple[str, Touched]:
    return _document(rng, folder / "env.json", (folder / "env.json").read_bytes()), set()


def _recipe(rng: random.Random, folder: Path) -> tuple[str, Touched]:
    path = folder / "recipe.yaml"
    content, story = mutated_text(rng, path.read_text(encoding="utf-8"))
    path.write_bytes(content)
    return f"recipe.yaml: {story}", set()


def _failures(rng: random.Random, folder: Path) -> tuple[str, Touched]:
    for number in range(3):
        run = rng.choice(("no such run", _a_trial(rng, folder).stem))
        results.record_failure(
            folder, Failure(run, "r=1:1", "recall()", number, "RuntimeError: no", "2026-01-01")
        )
    path = folder / "failures.jsonl"
    if rng.random() < 0.4:
        return _rewrite(rng, path, path.read_bytes()), set()
    content, story = _line_by_line(rng, path.read_bytes())
    path.write_bytes(content)
    return f"failures.jsonl {story}", set()


def _pruned(rng: random.Random, folder: Path) -> tuple[str, Touched]:
    frame = pl.read_parquet(_a_trial(rng, folder))
    left = Pruned(frame["arch"][0], frame["label"][0], 1, 2, "r=1:1", 3, 4, 0.001)
    results.write_pruned(folder, [left, left][: rng.randint(1, 2)])
    return _document(rng, folder / "pruned.json", (folder / "pruned.json").read_bytes()), set()


PARTS = (
    "study.log",
    "env.json",
    "recipe.yaml",
    "failures.jsonl",
    "pruned.json",
    "lock",
    "report.html",
    "earlier",
)


def _foreign(rng: random.Random, folder: Path) -> tuple[str, Touched]:
    """Things nobody asked for, in every corner."""
    corner = folder / rng.choice((".", "trials", "earlier", ".."))
    corner.mkdir(exist_ok=True)
    name = rng.choice(
        (
            "notes.txt",
            ".tmp-dead",
            "study.log.lock",
            "study.log.lock.x",
            "a.parquet",
            ".hidden",
            os.fsdecode(b"\xff\xfe"),
        )
    )
    return _put(rng, corner / name, folder), set()


def _replaced(rng: random.Random, folder: Path) -> tuple[str, Touched]:
    path = folder / rng.choice((*PARTS, *PARTS, "trials", "one"))
    touched: Touched = set()
    if path.name == "trials":
        touched = {"*"}
    elif path.name == "one":
        path = _a_trial(rng, folder)
        touched = {path.stem}
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    return _put(rng, path, folder), touched


def _put(rng: random.Random, path: Path, folder: Path) -> str:
    """Something at ``path`` that is not what is looked for there."""
    what = rng.choice(("nothing", "empty", "text", "folder", "full", "dangling", "loop", "out", "pipe"))
    match what:
        case "empty":
            path.touch()
        case "text":
            path.write_text("mine\n")
        case "folder":
            path.mkdir()
        case "full":
            (path / "below").mkdir(parents=True)
            (path / "below" / "thesis.tex").write_text("mine")
        case "dangling":
            path.symlink_to("nowhere")
        case "loop":
            path.symlink_to(path.name)
        case "out":
            path.symlink_to(folder.resolve().parent)
        case "pipe":
            os.mkfifo(path)
    return f"{what} at {path.name!r}"


def _permissions(rng: random.Random, folder: Path) -> tuple[str, Touched]:
    """Bits that a user who is not root has to respect."""
    every = [folder, *sorted(folder.rglob("*"))]
    path, bits = rng.choice(every), rng.choice((0o000, 0o200, 0o400, 0o500))
    path.chmod(bits)
    return f"{path.name} has the bits {bits:o}", set()
