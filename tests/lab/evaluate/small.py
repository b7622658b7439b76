"""A tiny model of bytes, and texts, for the tests of ``lab.evaluate``."""

import numpy as np
import torch

from blocks.model import LanguageModel
from blocks.schedule import Schedule
from lab.evaluate.text import Text, encode
from lab.model.spec import build, loads, schedule_of

SPEC = """\
kind: model
name: tiny
model:
  schedule: (gdn, swiglu(expand=2)) + (fox, swiglu(expand=2)) + (attn(window=8), swiglu(expand=2))
  shape: {dim: 16, heads: 2}
  vocab: 257
data: {train: [{data: corpus}], length: 32}
train: {steps: 10, batch: 8}
"""


class Bytes:
    """The embedded tokenizer: a byte is its own id, and 256 ends a document."""

    vocab, separator, name, digest = 257, 256, "bytes", ""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode(errors="replace")


def model_of(text: str = SPEC, seed: int = 0) -> tuple[LanguageModel, Schedule]:
    spec = loads(text)
    torch.manual_seed(seed)
    return build(spec), schedule_of(spec)


def random_text(length: int, seed: int, apart: bool = False, separator: bool = True) -> Text:
    """``length`` targets; where there is a separator, about one in nine ends a document."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 256, length)
    if separator:
        ids[rng.random(length) < 0.11] = 256
    return Text("noise", ids, max(1, int((ids < 256).sum())), 257, 256 if separator else None, apart)


def prose(documents: int = 3) -> Text:
    story = "the cat sat on the mat, and the dog sat on the cat. "
    return encode("prose", [story * 4 + str(i) for i in range(documents)], Bytes(), 257, closed=True)
