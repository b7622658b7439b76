"""A specification as YAML that says where its values come from: documented, or chosen here, and why."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from lab.model.form import Spec
from lab.model.spec import dump

__all__ = ["CHOSEN", "commented"]

CHOSEN: Mapping[str, str] = {
    "model.tied": "as Genesis-152M",
    "model.mup": "chosen: one rate for all; Genesis names muP with base 256, but not which groups it meant",
    "data.tokenizer": "chosen; Genesis: that of GPT-NeoX with the two marks of ChatML, 50,279 ids",
    "data.train": """\
documented for Genesis, in % of the tokens:
  FineWeb-Edu 51, DCLM 22, FineMath 12, Stack-Edu 8, Cosmopedia 5, Synth 2
chosen: what stands here in their place (corpus is the embedded text that ships with Python)
six folders of lab data prepare by weight:
  train: [{data: fineweb, weight: 51}, {data: dclm, weight: 22}, {data: finemath, weight: 12},
    {data: stack, weight: 8}, {data: cosmopedia, weight: 5}, {data: synth, weight: 2}]""",
    "data.documents": "chosen: how Genesis packs texts into rows is said nowhere",
    "data.length": "documented",
    "train.steps": "tokens / (batch x length); Genesis: 2,000,000,000 tokens",
    "train.batch": "documented as 128; that it counts rows follows from nothing else",
    "train.micro": "null: all rows of a process at once; lab plan says how many a device holds",
    "train.seed": "chosen",
    "train.optimiser": "name, lr, weight_decay, betas documented; eps, clip chosen; muon_lr is not used here",
    "train.rate": "documented: 5 % warm-up, 85 % constant, 10 % cosine; the last rate (final) is chosen",
    "train.average": "chosen: none is documented",
    "train.precision": "chosen",
    "train.z_loss": "chosen: none is documented",
    "train.balance": "of moe blocks alone; chosen",
}
"""By key: what a file of ``lab scale`` says above it, in lines. Facts of ``lab genesis recipe``."""

KEY = re.compile(r"^( *)(\w+):")


def commented(spec: Spec, head: Sequence[str] = (), notes: Mapping[str, str] = CHOSEN) -> str:
    """YAML that loads as ``spec``: ``head`` as comments on top, each of ``notes`` above its key."""
    return "\n".join((*(f"# {line}" for line in head), *_lines(dump(spec), notes))) + "\n"


def _lines(text: str, notes: Mapping[str, str]) -> Iterator[str]:
    """A comment goes on a line of its own: behind a long text that goes on below, it would end it."""
    path: list[str] = []
    for line in text.splitlines():
        if found := KEY.match(line):
            path = [*path[: len(found[1]) // 2], found[2]]
            if note := notes.get(".".join(path)):
                yield from (f"{found[1]}# {said}" for said in note.splitlines())
        yield line
