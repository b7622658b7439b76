"""One self-contained HTML page about a sweep: open it anywhere, mail it, print it; it never calls home.

plotly.js is embedded once. Its cloud address and every other one in it are blanked, and a content security
policy forbids the page any connection, so that no figure can be uploaded from it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import yaml
from plotly.offline import get_plotlyjs

from analysis import sections
from analysis.fragments import e, embedded_json
from analysis.marginal import Importance, marginals
from analysis.marginal_section import effects
from analysis.stats import Ranking, rank
from analysis.tables import SCORES, Board, Score, board
from analysis.words import answer, notes, sentence
from sweeps.results import Results, ResultsError, read, write_text

__all__ = ["Asked", "asked", "document", "render", "write"]

_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


@dataclass(frozen=True)
class Asked:
    """What a recipe asks for, as far as the answer needs it."""

    name: str
    question: str
    score: Score
    margin: float


def write(folder: Path, out: Path | None = None, importance: Importance | None = None) -> Path:
    """Write the report of a run folder and return its path: ``out``, else ``report.html`` in the folder.

    importance: of the variables, shown beside their marginal effects; whoever has Optuna can give it.

    Raises ResultsError if the folder is no run folder, or ``out`` cannot be a file.
    """
    folder = Path(folder)
    path = folder / "report.html" if out is None else Path(out)
    results = read(folder)
    if path.is_dir() or not path.parent.is_dir():
        raise ResultsError(
            f"{path}: the report needs a file name in a folder that exists; choose another --out"
        )
    write_text(path, render(results, asked(results, folder), importance))
    return path


def asked(results: Results, folder: Path) -> Asked:
    """Name, question (the comment on top), score and margin of the recipe that was run.

    Raises ResultsError if the folder's recipe is no longer a recipe.
    """
    where = folder / "recipe.yaml"
    try:
        recipe = yaml.load(results.recipe_text, Loader=yaml.BaseLoader) or {}  # all values stay text
    except (yaml.YAMLError, RecursionError) as exc:
        raise ResultsError(f"{where}: this cannot be read as YAML; run the sweep again to renew it") from exc
    if not isinstance(recipe, dict):
        raise ResultsError(f"{where}: this is no recipe; run the sweep again to renew it")
    wanted, text = recipe.get("score", "accuracy"), recipe.get("margin", "0.02")
    known: dict[str, Score] = {score: score for score in SCORES}
    score = known.get(str(wanted))
    try:
        margin = float(text)
    except (ValueError, TypeError):
        margin = math.nan
    if score is None or not 0 <= margin <= 1:
        raise ResultsError(f"{where}: score {wanted!r} with margin {text!r} is unknown; run the sweep again")
    name = str(recipe.get("name", folder.resolve().name))
    return Asked(name, _question(results.recipe_text), score, margin)


def render(results: Results, about: Asked, importance: Importance | None = None) -> str:
    """The whole page as text."""
    frame = results.frame
    ranked = board(frame, about.score, results.pruned) if frame["final"].any() else None
    ranking = rank(ranked, about.margin) if ranked else None
    parts = [
        sections.head(about.name, about.question, ranking, int(frame["final"].sum())),
        f'<p class="answer">{e(answer(ranking))}</p>',
    ]
    if note := notes(ranking):
        parts.append(f'<p class="note">{e(note)}</p>')
    if ranked and ranking:
        parts += [
            sections.ranking_table(ranking, ranked),
            sections.by_task(ranking),
            effects(found, importance, ranking) if (found := marginals(ranked)) else "",
            sections.learning(frame, ranked, ranking),
            sections.costs(ranking),
            sections.by_position(ranked, ranking),
        ]
    parts += [
        sections.failed(frame, ranked, results.failures),
        sections.reading(ranking),
        f"<section><h2>Recipe</h2><pre>{e(results.recipe_text)}</pre></section>",
        sections.machine(results),
        embedded_json(_summary(about, ranking, ranked), "summary"),
    ]
    return document(f"{about.name}: which schedule?", parts)


def document(title: str, parts: Sequence[str]) -> str:
    """One HTML file out of the parts of its body: style and plotly.js inside, and no way to the network."""
    css = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{e(title)}</title>\n<style>\n{css}</style>\n"
        f"<script>{_plotly_js()}</script></head>\n<body><main>\n"
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )


@cache
def _plotly_js() -> str:
    """plotly.js with no address left in it but the names of XML languages, which nothing fetches."""
    quoted = re.compile(r"""(["'`])https?://(?!www\.w3\.org/)(?=[A-Za-z0-9$])""")
    rest = re.compile(r"https?://(?!www\.w3\.org/)(?=[A-Za-z0-9$])")
    return rest.sub("", quoted.sub(r"\1about:invalid#", get_plotlyjs()))


def _question(recipe_text: str) -> str:
    """The first paragraph of the comment on top of a recipe."""
    lines: list[str] = []
    for line in recipe_text.splitlines():
        words = line.lstrip("#").strip()
        if not line.startswith("#") or (lines and not words):
            break
        lines += [words] if words else []
    return " ".join(lines)


def _summary(about: Asked, ranking: Ranking | None, ranked: Board | None) -> dict[str, object]:
    """The answer for programs: the ranking with every interval, and the training that was chosen."""
    return {
        "name": about.name,
        "sentence": sentence(ranking),
        "ranking": None if ranking is None else asdict(ranking),
        "chosen": [] if ranked is None else ranked.chosen.drop("valid").to_dicts(),
    }
