"""Recipes as nobody should write them: the shipped ones mutated as text, as data, and by overrides.

Everything is drawn from the generator that is passed in; the same state of it gives the same mutant.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml

from sweeps import yamlmarks
from sweeps.recipe import shipped

__all__ = ["RecipeMutant", "any_value", "mutated_text", "recipe_mutant"]

_SIZED = """\
name: sized
pattern: r*(gdn(expand_k=0.5), swiglu(expand=e)) + (fox(conv=4), swiglu(expand=e))
depth: 6
shape: {dim: 32, heads: 2}
tasks: [{task: "recall(length=32)", steps: 20, batch: 8, eval_every: 10}, "copying(length=32, copy=4)"]
search: {r: [1:1, 2:1, 5:1], e: [1, 2.0]}
baseline: r=2:1,e=1
match: {params: baseline, by: [swiglu.expand, dim], within: 0.02}
constraints: {state: <= 64 KiB, flops: <= 150% of baseline, params: within 5% of baseline}
train: {lr: {r: {1:1: 1e-3, 2:1: 2e-3, 5:1: 3e-3}}, steps: 40, eval_every: 10}
halving: false
trials: 4
seeds: 2
pruning: 0.01
"""
_LISTED = """\
# Two that are written out.
name: listed
schedules: {a: "2*[2*(gdn, sparse) + (attn(window=8), mlp)]", b: "3*(gla, ttt, linear)", c: "fox"}
tasks: lite
train: {lr: [1e-3, 1e-2], extrapolate: [2, 4], precision: bf16, kernel: torch}
halving: true
score: steps
objective: [score, flops]
"""

_VARIED = """\
name: varied
pattern: p
depth: d
shape: {dim: w, heads: h}
tasks: ["recall(length=32)"]
search: {p: [3*g + f, f + r*g], g: ["(gdn, m)"], f: ["(fox, m)"], m: [swiglu, sparse(k_ratio=k)],
  k: [0.1, 0.3], r: [1, 2], d: [4, 8], w: [16, 32], h: [2]}
trials: 5
"""

BASES: dict[str, str] = {
    **{name: path.read_text(encoding="utf-8") for name, path in shipped().items()},
    "sized": _SIZED,
    "listed": _LISTED,
    "varied": _VARIED,
}

_WORDS = (
    "name pattern schedules depth shape tasks search baseline match constraints train seeds first_seed "
    "halving trials objective score margin pruning dim heads norm task steps batch eval_every lr "
    "weight_decay warmup clip precision kernel eval_examples stop threshold extrapolate params state flops "
    "by within length auc attn fox gdn gla linear ttt swiglu mlp sparse window expand_k expand_v conv expand "
    "k_ratio recall noisy_recall fuzzy_recall copying compression memorization mqar multihop overwrite "
    "parity permutation compositional_mqar majority dyck needle ngram lite mad hybrids skills "
    "vocab train_examples gap null true false .inf -.inf .nan ~ "
    "1e-4 1e400 -1 0 1 2 3:1 1:0 0:1 3:2 -1:1 99999:1 0x10 0o17 0b1 1_000 2026-01-01 <= >= baseline "
    "'dim' << !!python/object !!binary !x &a *a | > ? - : , [ ] { } ( ) * + # @ ` % \" ' \\ == = --- "
    "... %YAML \ufeff \u2028 \x85 \x07 \xe9 \uff20 \U0001d7d9 __class__ lambda import 1j b'x' f'{1}' "
    "... None True -(1) 1.0 2**9 []*9 9*gdn 1000*attn 99999999*gdn "
)
WORDS = tuple(_WORDS.split(" ")[:-1])
"""Words that stand in recipes, in YAML, or in the way."""

NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 2, 3, 5, 7, 255, 1023, 1024, 4096, 16_384, 65_536, 10_000_000, 2**31, 2**63, -(2**63), 2**64,
    10**39, 10**60, 0.0, -0.0, 0.5, 1.0, 1e-4, 1e-320, 1e18, 1e308, float("inf"), float("nan"),
)  # fmt: skip
TEXTS: tuple[str, ...] = (
    "", " ", "x", "all", "3:1", "0:1", "9999999999:1", "\0", "\ud800", "é", "\u202e", "a" * 20_000,
    "(" * 300 + "gdn" + ")" * 300, "[" * 90 + "gdn" + "]" * 90, "-" * 400 + "1", "2*" * 60 + "gdn",
    "1000*(1000*(1000*(1000*gdn)))", "gdn + " * 900 + "gdn", "gdn(expand_k=" + "9" * 5000 + ")",
    "gdn(expand_k=1e999)", "gdn(conv=-1)", "attn(window=10**9)", "attn(window=99999999999999999999)", "gdn()",
    "(gdn,)", "()", "", "0*gdn", "-3*gdn", "True*gdn", "1.5*gdn", "r*r*gdn", "gdn.x", "gdn[0]", "gdn(*r)",
    "gdn(**r)", "gdn(conv=gdn)", "recall(vocab=99999999)", "recall(length=100000000)", "recall(length=0)",
    "recall(vocab=2)", "recall(train_examples=1)", "mqar(gap=99999)", "parity(length=1)", "recall()",
    "permutation(n=9)", "copying(copy=9999999)", "recall(vocab=1e9)", "recall(vocab=nan)", "lite()", "mad",
    "recall(", "recall(vocab=[1])", "<= 1e999", "<= 0", ">= 0", "<= 1e18 GiB", "within 0% of baseline",
    "within 1e18% of baseline", "<= 0% of baseline", "1", "<= 64 KiB\n", "\u0663", "\uff11\uff12",
    "1e5", "null", "r=1:1",
    "../../etc/passwd", "--set", "{reason}", "%s", "swiglu.expand", "gdn.conv", "gdn.", ".", "dim", "heads",
)  # fmt: skip


@dataclass(frozen=True)
class RecipeMutant:
    """``content`` of a recipe file, the overrides beside it, and how they came about."""

    content: bytes
    overrides: tuple[str, ...]
    story: str


def recipe_mutant(rng: random.Random) -> RecipeMutant:
    """One mutant of one of BASES."""
    base = rng.choice(list(BASES))
    kind = rng.choice(("text", "text", "data", "data", "data", "set"))
    if kind == "text":
        content, story = mutated_text(rng, BASES[base])
        return RecipeMutant(content, (), f"{base} as text: {story}")
    if kind == "data":
        content, story = _of_data(rng, yamlmarks.read(BASES[base]).value)
        return RecipeMutant(content, (), f"{base} as data: {story}")
    overrides = tuple(_override(rng, base) for _ in range(rng.randint(1, 3)))
    return RecipeMutant(BASES[base].encode(), overrides, f"{base} with overrides")


# -- as text


def _flip(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(rng: random.Random, content: bytes) -> bytes:
    begin, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    return rng.choice((content[:end], content[begin:], content[:begin] + content[end:]))


def _bytes(rng: random.Random, content: bytes) -> bytes:
    at = rng.randrange(len(content) + 1)
    noise = rng.choice(
        (b"\0", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\r", b"\x1b[31m", b"\t", rng.randbytes(9))
    )
    return content[:at] + noise * rng.choice((1, 1, 50)) + content[at:]


def _lines(rng: random.Random, content: bytes) -> bytes:
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
            lines[i] = b" " * rng.randint(1, 9) + lines[i]
        case 4:
            lines[i] = lines[i].lstrip()
        case _:
            lines[i] = lines[i].rstrip(b"\n") * rng.choice((2, 500))
    return b"".join(lines)


def _tokens(rng: random.Random, content: bytes) -> bytes:
    text = content.decode(errors="replace")
    for _ in range(rng.choice((1, 1, 2, 5))):
        spans = _spans(text)
        begin, end = rng.choice(spans) if spans else (0, 0)
        new = rng.choice((rng.choice(WORDS), rng.choice(WORDS), repr(rng.choice(NUMBERS)), rng.choice(TEXTS)))
        text = text[:begin] + new + text[end:]
    return text.encode(errors="surrogatepass")


_ALIKE = tuple(
    words.split()
    for words in (
        "attn fox gdn gla linear ttt",
        "swiglu mlp sparse",
        "recall noisy_recall fuzzy_recall copying compression memorization mqar multihop overwrite parity",
        "accuracy auc steps",
        "true false null",
        "fp32 bf16 torch c auto",
        "params state flops dim heads length vocab",
    )
)


def _alike(rng: random.Random, content: bytes) -> bytes:
    """Words for others of their kind and numbers for their neighbours, so that much is still a recipe."""
    text = content.decode(errors="replace")
    for _ in range(rng.choice((1, 2, 4))):
        spans = [
            (b, e)
            for b, e in _spans(text, "_.")
            if text[b:e].isdigit() or any(text[b:e] in k for k in _ALIKE)
        ]
        if spans:
            begin, end = rng.choice(spans)
            old = text[begin:end]
            kind = next((kind for kind in _ALIKE if old in kind), None)
            new = (
                rng.choice(kind)
                if kind
                else str(max(0, rng.choice((int(old[:9]) + 1, int(old[:9]) - 1, 2 * int(old[:9])))))
            )
            text = text[:begin] + new + text[end:]
    return text.encode(errors="surrogatepass")


def _spans(text: str, inner: str = "_.-:") -> list[tuple[int, int]]:
    spans, begin = [], None
    for at, letter in enumerate(text + " "):
        word = letter.isalnum() or letter in inner
        if word and begin is None:
            begin = at
        elif not word and begin is not None:
            spans.append((begin, at))
            begin = None
    return spans


def _attack(rng: random.Random, content: bytes) -> bytes:
    """What only attacks: laughs, merges, tags, depth, length."""
    n = rng.choice((3, 40, 3000, 60_000))
    laughs = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
    more = rng.choice(
        (
            laughs,
            "tasks: &t [recall]\nsearch: {r: *t}\n",
            "<<: {name: x}\n",
            "<<: [{a: 1}, {b: 2}]\n",
            "x: !!python/object/apply:os.system ['true']\n",
            "seeds: !!int '3'\n",
            "x: " + "[" * n + "]" * n + "\n",
            "x: " + "{a: " * n + "1" + "}" * n + "\n",
            "".join("  " * i + "a:\n" for i in range(min(n, 300))),
            "x: " + "- " * n + "1\n",
            "? " * n + "x\n",
            "y: '" + "é" * n + "'\n",
            f"seeds: {'9' * n}\n",
            f"margin: 0.{'1' * n}e-{'9' * min(n, 30)}\n",
            f"depth: 0x{'f' * n}\n",
            "".join(f"k{i}: {i}\n" for i in range(n // 5)),
            "#" * n + "\n",
            "\n" * n,
            "---\n" * n,
            "x: |\n" + "  y\n" * n,
            "search: {r: [" + ", ".join(map(str, range(1, n))) + "]}\n",
            "search: {" + ", ".join(f"v{i}: [1, 2, 3]" for i in range(min(n, 4000))) + "}\n",
            "x: {" + ", ".join(f"? [{i}] : 1" for i in range(min(n, 100))) + "}\n",
        )
    ).encode()
    return content + more if rng.random() < 0.5 else more + content


def mutated_text(rng: random.Random, text: str) -> tuple[bytes, str]:
    """``text`` changed in one to three ways, and the names of these."""
    content, story = text.encode(), []
    steps: tuple[Callable[[random.Random, bytes], bytes], ...] = (
        _flip, _cut, _bytes, _lines, _lines, _tokens, _tokens, _alike, _alike, _alike, _attack,
    )  # fmt: skip
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        step = rng.choice(steps)
        content = step(rng, content or b"x")
        story.append(step.__name__.strip("_"))
    return content, ", ".join(story)


# -- as data


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(*path, key) for key, _ in inside] + [p for key, one in inside for p in _paths(one, (*path, key))]


def any_value(rng: random.Random, deep: int = 3) -> Any:
    """A value that hardly any key wants."""
    match rng.randrange(8 if deep else 6):
        case 0 | 1:
            return rng.choice(NUMBERS)
        case 2 | 3:
            return rng.choice(TEXTS)
        case 4:
            return rng.choice(WORDS)
        case 5:
            return rng.choice((None, True, False, [], {}))
        case 6:
            return [any_value(rng, deep - 1) for _ in range(rng.randint(0, 4))]
    return {str(rng.choice(WORDS)): any_value(rng, deep - 1) for _ in range(rng.randint(0, 3))}


def _of_data(rng: random.Random, data: Any) -> tuple[bytes, str]:
    story = []
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        paths = _paths(data)
        if not paths:
            break
        *way, last = rng.choice(paths)
        parent = data
        for key in way:
            parent = parent[key]
        what = rng.choice(
            ("drop", "value", "value", "value", "near", "near", "rename", "other", "add", "wrap")
        )
        story.append(f"{what} {'.'.join(map(str, (*way, last)))}")
        _change(rng, what, parent, last, data)
    try:
        return yamlmarks.dump(data).encode(errors="surrogatepass"), "; ".join(story)
    except (yaml.YAMLError, UnicodeEncodeError, RecursionError):
        return json.dumps(data).encode(errors="surrogatepass"), "; ".join(story)


def _change(rng: random.Random, what: str, parent: Any, last: Any, data: Any) -> None:
    old = parent[last]
    if what == "drop":
        del parent[last]
    elif what == "value":
        parent[last] = any_value(rng)
    elif what == "near" and type(old) in (int, float):
        parent[last] = rng.choice((old + 1, old - 1, -old, 10 * old, old / 3, float(old), str(old), [old], 0))
    elif what == "rename" and isinstance(parent, dict):
        parent[rng.choice((*WORDS, f"{last}s", 3, 2.5, True))] = parent.pop(last)
    elif what == "other":
        *way, key = rng.choice(_paths(data))
        other = data
        for step in way:
            other = other[step]
        parent[last] = copy.deepcopy(other[key])
    elif what == "add" and isinstance(parent, dict):
        parent[rng.choice(WORDS)] = any_value(rng)
    elif isinstance(parent, list):
        parent.extend([copy.deepcopy(old)] * rng.choice((1, 3, 2000)) if what == "wrap" else [any_value(rng)])
    else:
        parent[last] = [old] if rng.random() < 0.5 else {str(last): old}


# -- overrides


def _override(rng: random.Random, base: str) -> str:
    path = rng.choice(_paths(yamlmarks.read(BASES[base]).value))
    key = ".".join(map(str, path))
    if rng.random() < 0.3:
        key = rng.choice(
            (f"{key}.x", "", ".", "..", "x", "train", "search", "a." * 500 + "b", "name.x", "\0", " = ")
        )
    value = rng.choice((any_value(rng), rng.choice(NUMBERS), rng.choice(TEXTS), rng.choice(WORDS)))
    if not isinstance(value, str):
        value = json.dumps(value)
    return rng.choice((f"{key}={value}", f"{key}={value}", f"{key}={value}", key, f"{key}=[{value}]"))
