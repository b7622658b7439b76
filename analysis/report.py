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

import plotly.graph_objects as go
import yaml
from plotly.offline import get_plotlyjs

from analysis import front, plots, ratio, rows, sections
from analysis.fragments import Part, e, embedded, embedded_json
from analysis.heat import heatmap
from analysis.marginal import Importance, marginals
from analysis.marginal_section import effects
from analysis.methods import methods
from analysis.stats import Ranking, rank
from analysis.tables import SCORES, Board, Score, board
from analysis.words import sentence
from sweeps.results import Results, ResultsError, read, write_text

__all__ = [
    "Asked",
    "Judged",
    "asked",
    "beside",
    "body",
    "document",
    "figures",
    "judged",
    "plotly_js",
    "render",
    "write",
]

OBJECTIVES = ("score", *front.NAMES)
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


@dataclass(frozen=True)
class Asked:
    """What a recipe asks for, as far as the answer needs it."""

    name: str
    question: str
    score: Score
    margin: float
    objectives: tuple[str, ...] = ("score",)


def write(folder: Path, out: Path | None = None, importance: Importance | None = None) -> Path:
    """Write the report of a run folder and return its path: ``out``, else ``report.html`` in the folder.

    Its rows are written beside it (``rows.beside``).

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
    write_text(path, render(results, asked(results, folder), importance, path.name))
    rows.write_parquet(results, path)
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
    weighed = recipe.get("objective", "score")
    objectives = tuple(weighed) if isinstance(weighed, list) else (weighed,)
    if not all(one in OBJECTIVES for one in objectives):
        raise ResultsError(f"{where}: objective {weighed!r} is unknown; run the sweep again")
    name = str(recipe.get("name", folder.resolve().name))
    return Asked(name, _question(results.recipe_text), score, margin, objectives)


@dataclass(frozen=True)
class Judged:
    """Results, what their recipe asks for, and what can be said; there is no board before a run has ended."""

    results: Results
    about: Asked
    board: Board | None
    ranking: Ranking | None

    @property
    def finished(self) -> int:
        return int(self.results.frame["final"].sum())


def judged(results: Results, about: Asked) -> Judged:
    """Rank what there is; the ranking is None before the first complete round."""
    ended = results.frame["final"].any()
    ranked = board(results.frame, about.score, results.pruned) if ended else None
    return Judged(results, about, ranked, rank(ranked, about.margin) if ranked else None)


def render(
    results: Results, about: Asked, importance: Importance | None = None, page: str | None = None
) -> str:
    """The whole page as text. page: the name of its file, if it has one."""
    found = judged(results, about)
    parts = [
        sections.head(about.name, about.question, found.ranking, found.finished, "report of a sweep"),
        *body(found, importance),
        rows.section_of(results, about.name, page),
    ]
    summary = embedded_json(_summary(found), "summary")
    return document(f"{about.name}: which schedule?", [*parts, Part("summary", summary)])


def body(found: Judged, importance: Importance | None = None) -> tuple[Part, ...]:
    """All parts below the head, in the order in which they are read."""
    ranked, ranking = found.board, found.ranking
    told: tuple[Part, ...] = ()
    if ranked and ranking:
        named = [row.label for row in ranking.rows[: plots.NAMED]]
        some, first = sections.listed(ranked, ranking)
        variables = marginals(ranked)
        by_ratio = ratio.section_of(ranked, ranking)
        told = (
            sections.ranking_table(first, ranked, len(ranking.rows)),
            sections.by_task(first),
            *([by_ratio] if by_ratio else []),
            *([effects(variables, importance, ranking)] if variables else []),
            sections.learning(found.results.frame, some, named),
            front.section_of(ranked, ranking, found.about.objectives),
            sections.by_position(some, named),
            methods(found.results, ranking),
        )
    return (
        sections.verdict(ranking, front.sentence(ranking, found.about.objectives)),
        *told,
        sections.failed(found.results.frame, ranked, found.results.failures),
        sections.reading(ranking),
        sections.recipe(found.results.recipe_text),
        sections.machine(found.results),
    )


def figures(results: Results, about: Asked) -> dict[str, go.Figure]:
    """Every figure of the page by a name for its file: ``heatmap``, ``curve-recall``, ``front-state``."""
    seen = judged(results, about)
    found: dict[str, go.Figure] = {}
    for part in body(seen):
        if part.name == "by-task" and seen.board and seen.ranking:
            found["heatmap"] = heatmap(sections.listed(seen.board, seen.ranking)[1])  # a table in the page
        if part.name == "front" and seen.board and seen.ranking:
            found |= front.figures(seen.board, seen.ranking)  # a file has no choice of axis
            continue
        for name, figure in part.figures.items():
            kind = name.removeprefix("fig-")
            if of := (figure.layout.meta or {}).get("of"):
                kind = f"{kind.partition('-')[0]}-{re.sub(r'[^A-Za-z0-9_.-]+', '-', of).strip('-.')}"
            found[kind if kind not in found else f"{kind}-{len(found)}"] = figure
    return found


def document(title: str, parts: Sequence[Part]) -> str:
    """One HTML file out of the parts of its body: style and plotly.js inside, and no way to the network.

    The words come first, then the figures as data and plotly.js, so that there is something to read at once;
    a figure is drawn when it comes into view or nothing else is to do (report.js).
    """
    figures = (embedded(name, figure) for part in parts for name, figure in part.figures.items())
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{e(title)}</title>\n<style>\n{beside('report.css')}</style>\n"
        "</head>\n<body><main>\n"
        + "\n".join(part.html for part in parts)
        + "\n</main>\n"
        + "\n".join(figures)
        + f"\n<script>{plotly_js()}</script>\n"
        f"<script>\n{beside('page.js')}{beside('report.js')}</script>\n</body></html>\n"
    )


def beside(name: str) -> str:
    """A style sheet or script that lies beside this file."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


@cache
def plotly_js() -> str:
    """plotly.js with no address left in it but the names of XML languages, which nothing fetches.

    Its one outer function is put in parentheses, by which V8 knows that it is called at once and parses the
    4.7 MB once instead of twice: 0.3 s less until a page has loaded.
    """
    quoted = re.compile(r"""(["'`])https?://(?!www\.w3\.org/)(?=[A-Za-z0-9$])""")
    rest = re.compile(r"https?://(?!www\.w3\.org/)(?=[A-Za-z0-9$])")
    text = rest.sub("", quoted.sub(r"\1about:invalid#", get_plotlyjs()))
    return re.sub(r"( : this, )(\(\) => \{\n.*\n\})(\)\);\s*)\Z", r"\1(\2)\3", text, flags=re.DOTALL)


def _question(recipe_text: str) -> str:
    """The first paragraph of the comment on top of a recipe."""
    lines: list[str] = []
    for line in recipe_text.splitlines():
        words = line.lstrip("#").strip()
        if not line.startswith("#") or (lines and not words):
            break
        lines += [words] if words else []
    return " ".join(lines)


def _summary(found: Judged) -> dict[str, object]:
    """The answer for programs: the ranking with every interval, and the training that was chosen."""
    return {
        "name": found.about.name,
        "sentence": sentence(found.ranking),
        "ranking": None if found.ranking is None else asdict(found.ranking),
        "chosen": [] if found.board is None else found.board.chosen.drop("valid").to_dicts(),
    }
