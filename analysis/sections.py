"""The parts of the report page, each a function from values to a Part; every text from users is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from analysis import heat, plots
from analysis.counts import short
from analysis.fragments import Part, cell, e, key, section, spot, strip, table, whisker
from analysis.stats import Ranking, Row
from analysis.tables import Board, curves, diverged, positions
from analysis.words import amount, answer, margin_text, notes, score_name, sizes, value_text
from sweeps.results import Failure, Results

__all__ = [
    "by_position",
    "by_task",
    "failed",
    "head",
    "learning",
    "listed",
    "machine",
    "ranking_table",
    "reading",
    "recipe",
    "verdict",
]

_TERMS = {
    "chance": "The accuracy of the best answer that ignores the input, known when the data are drawn.",
    "ceiling": "The accuracy of the task's own rule on the same data; below 1, some answers cannot be known.",
    "window share": "The share of answers that can be found within the last 32 tokens; a short window "
    "solves them and they say nothing of long memory.",
    "interval": "95 % over seeds by Student's t, with the tasks taken as given: how far another set of seeds "
    "might move the number.",
    "cannot be told apart": "The difference from the best, paired on the same tasks and seeds, is not "
    "significant at 5 % after Holm's correction for all pairs; it does not mean equal.",
    "within the margin": "The one-sided 95 % bound of the difference from the best is no more than the "
    "recipe's margin.",
    "state": "Numbers held per sequence while decoding; those of a full-attention layer grow with length, "
    "those of a linear layer do not.",
}


def head(name: str, question: str, ranking: Ranking | None, runs: int, kind: str) -> Part:
    """Name of the recipe, its question, and how much was run; ``kind`` says what page this is."""
    facts = [("runs finished", str(runs))]
    if ranking:
        settings = sum(task.settings for task in ranking.tasks)
        facts = [
            ("schedules", str(len(ranking.rows))),
            ("tasks", f"{len(ranking.tasks)} ({settings} setting{'' if settings == 1 else 's'})"),
            ("seeds", str(len(ranking.seeds))),
            *facts,
            ("ranked by", score_name(ranking)),
        ]
    listed = "".join(f"<li>{e(name)} <b>{e(value)}</b></li>" for name, value in facts)
    asked = f'<p class="question">{e(question)}</p>' if question else ""
    title = f'<p class="kind">Hybrid-architecture lab, {e(kind)}</p><h1>{e(name)}</h1>'
    return Part("head", f'<header>{title}{asked}<ul class="facts">{listed}</ul></header>')


def verdict(ranking: Ranking | None, front: str = "") -> Part:
    """The sentence, and below it the front of a recipe that weighs costs, and what to know before use."""
    below = "".join(f'<p class="note">{e(note)}</p>' for note in (front, notes(ranking)) if note)
    return Part("answer", f'<p class="answer">{e(answer(ranking))}</p>{below}')


def recipe(text: str) -> Part:
    return Part("recipe", f"<section><h2>Recipe</h2><pre>{e(text)}</pre></section>")


def listed(ranked: Board, ranking: Ranking) -> tuple[Board, Ranking]:
    """The first LISTED schedules and the cheapest: what is listed and drawn one by one."""
    first, rest = ranking.rows[: plots.LISTED], ranking.rows[plots.LISTED :]
    kept = (*first, *(row for row in rest if row.label == ranking.cheapest))
    mine = pl.col("arch").is_in([row.arch for row in kept])
    short = replace(ranked, cells=ranked.cells.filter(mine), runs=ranked.runs.filter(mine))
    return short, replace(ranking, rows=kept)


def _more(ranking: Ranking, of: int) -> str:
    """What a list of some schedules leaves out, as a further sentence of its note."""
    shown = len(ranking.rows)
    return f" {shown:,} of {of:,} schedules are listed; the data in this page has all." if shown < of else ""


def ranking_table(ranking: Ranking, ranked: Board, of: int) -> Part:
    """``ranking`` as a table; it may hold some of all ``of`` schedules."""
    facts = {row["arch"]: row for row in ranked.candidates.iter_rows(named=True)}
    edges = [edge for row in ranking.rows for edge in (*(row.interval or ()), row.score)]
    rows = [_ranking_row(ranking, row, facts[row.arch], (min(edges), max(edges))) for row in ranking.rows]
    roles = [role for row in ranking.rows for role in facts[row.arch]["roles"]]
    spread = (
        "Intervals are 95 % over seeds (Student's t); p is corrected for all pairs (Holm)."
        if len(ranking.seeds) > 1
        else "One seed: no interval can be given."
    )
    note = (
        f"Mean over tasks of {score_name(ranking)}. {spread} State and FLOPs are per sequence and per token, "
        f"at the length of the tasks.{_more(ranking, of)}"
    )
    listed = table(rows, "ranking cards", marked=0, schedules=[row.label for row in ranking.rows])
    return section("ranking", "Ranking", note, listed + key(roles))


def _ranking_row(
    ranking: Ranking, row: Row, facts: dict[str, object], span: tuple[float, float]
) -> list[tuple[str, str, str]]:
    def both(value: str, interval: tuple[str, str] | None) -> str:
        return value + (f'<span class="range">{interval[0]} to {interval[1]}</span>' if interval else "")

    shown = row.interval and (
        value_text(ranking, row.interval[0], 3),
        value_text(ranking, row.interval[1], 3),
    )
    behind = row.gap_interval and (amount(ranking, row.gap_interval[0]), amount(ranking, row.gap_interval[1]))
    written = "; ".join(str(text) for text in (facts["schedule"], facts["design"]) if text)
    name = (
        f'<span class="name">{e(row.label)}</span><code>{e(written)}</code>'
        f"{strip(list(facts['roles']), list(facts['strip']))}"  # pyright: ignore[reportArgumentType]
    )
    unit = "steps" if ranking.score == "steps" else "points"
    is_best = row is ranking.best
    counts = "\N{NO-BREAK SPACE}+ ".join(
        f"{count}\N{NO-BREAK SPACE}{role}"
        for role, count in (("full", row.n_full), ("window", row.n_window), ("linear", row.n_linear))
        if count
    )
    return [
        cell("schedule", name),
        cell(
            score_name(ranking),
            f"<div>{both(value_text(ranking, row.score, 3), shown)}"
            f"{whisker(row.score, row.interval, span)}</div>",
        ),
        cell(
            f"behind the best, {unit}",
            "" if is_best else f"<div>{both(amount(ranking, row.gap), behind)}</div>",
        ),
        cell("p", "" if row.p is None else "&lt;&thinsp;0.001" if row.p < 0.001 else f"{row.p:.3f}", "num"),
        cell("verdict", f"<div>{_verdict(ranking, row)}</div>"),
        cell("layers", e(counts)),
        *(cell(column, str(getattr(row, name)), "num") for column, name in sizes(ranking).items()),
        cell("state", e(short(row.state)), "num"),
        cell("FLOPs", e(short(row.flops)), "num"),
        cell("parameters", e(short(row.params)), "num"),
    ]


def _verdict(ranking: Ranking, row: Row) -> str:
    tags = []
    if row is ranking.best:
        tags.append(("best", "best" if len(ranking.seeds) > 1 else "highest, one seed"))
    elif row.tied is not None:
        apart = "not shown to be worse" if row.left else "cannot be told apart"
        tags.append(("", apart if row.tied else "worse"))
    if row.left:
        tags.append(("", f"left after round {row.left.round}"))
    if row.label == ranking.cheapest and row is not ranking.best:
        tags.append(("cheap", f"cheapest within {margin_text(ranking)}"))
    if row.failed:
        tags.append(("", f"{row.failed} diverged"))
    return " ".join(f'<span class="tag {css}">{e(text)}</span>' for css, text in tags)


def by_task(ranking: Ranking) -> Part:
    colour = (
        "Colour: the share of the budget that was not needed."
        if ranking.score == "steps"
        else "Colour: where the score stands between chance and ceiling of its task."
    )
    name = score_name(ranking).capitalize()
    over = "Intervals are 95 % over seeds. " if len(ranking.seeds) > 1 else ""
    note = f"{name}, mean over the difficulty settings of a task and over seeds. {over}{colour}"
    return section("by-task", "Schedule by task", note, heat.table(ranking))


def _greyed(named: int, labels: int) -> str:
    return f" Only the first {named} schedules are named." if labels > named else ""


def _grid(figures: str, named: Sequence[str]) -> str:
    """Figures side by side; two, where names as long as these beside the lines would leave three no room."""
    wide = " two" if max(map(len, named), default=0) > 9 else ""
    return f'<div class="grid{wide}">{figures}</div>'


def learning(frame: pl.DataFrame, ranked: Board, named: Sequence[str], note: str = "") -> Part:
    """Learning curves, one figure per task; the labels in ``named`` in colour, ``note`` before the legend."""
    data = curves(frame, ranked)
    tasks = dict(enumerate(ranked.tasks["task"].to_list()))
    drawn = "".join(
        spot(
            f"fig-curve-{place}",
            task,
            f"Test accuracy on {task} by training step, one line per schedule.",
            task=task,
        )
        for place, task in tasks.items()
    )
    figures = {
        f"fig-curve-{place}": plots.learning_curve(data, ranked, task, named) for place, task in tasks.items()
    }
    band = "Mean over difficulty settings and seeds; the band runs from the lowest to the highest seed."
    greyed = _greyed(len(named), len(ranked.labels))
    return section("learning", "How they learn", f"{note}{band}{greyed}", _grid(drawn, named), figures)


def by_position(ranked: Board, named: Sequence[str]) -> Part:
    data = positions(ranked)
    if data.is_empty():
        return Part("positions", "")
    settings = dict(data.select("task", "setting").unique().sort("task").iter_rows())
    drawn = "".join(
        spot(
            f"fig-position-{place}",
            setting,
            f"Final test accuracy on {setting} by position in the sequence, one line per schedule.",
            task=task,
        )
        for place, (task, setting) in enumerate(settings.items())
    )
    figures = {
        f"fig-position-{place}": plots.by_position(data, ranked, task, named)
        for place, task in enumerate(settings)
    }
    note = (
        "On the longest setting of each task, mean over seeds; positions that are never scored are left out."
    )
    greyed = _greyed(len(named), len(ranked.labels))
    return section("positions", "Accuracy by position", note + greyed, _grid(drawn, named), figures)


def failed(frame: pl.DataFrame, ranked: Board | None, failures: Sequence[Failure]) -> Part:
    names = [] if ranked is None else ranked.candidates.select("arch", "label").rows()
    lost = diverged(frame, names)
    parts = ["<section><h2>What failed</h2>"]
    if lost.is_empty() and not failures:
        parts.append("<p>Nothing: no run diverged and none was lost.</p>")
    if not lost.is_empty():
        rows = [
            [
                cell("schedule", e(row["label"])),
                cell("task", e(row["setting"])),
                cell("seed", e(row["seed"]), "num"),
                cell("learning rate", f"{row['lr']:g}", "num"),
                cell("at step", e(row["step"]), "num"),
                cell("what happened", e(row["reason"])),
            ]
            for row in lost.iter_rows(named=True)
        ]
        parts.append(f"<p>Diverged; counted as chance, never dropped.</p>{table(rows, 'cards wrap')}")
    if failures:
        rows = [
            [
                cell("schedule", e(failure.label)),
                cell("task", e(failure.setting)),
                cell("seed", e(failure.seed), "num"),
                cell("when", e(failure.when)),
                cell("what happened", e(failure.reason)),
            ]
            for failure in failures
        ]
        parts.append(
            "<p>Without a result; <code>lab sweep</code> with <code>--retry</code> tries them again.</p>"
        )
        parts.append(table(rows, "cards wrap"))
    return Part("failed", "".join([*parts, "</section>"]))


def reading(ranking: Ranking | None) -> Part:
    terms = _TERMS | _pruning_terms(ranking)
    listed = "".join(f"<dt>{e(term)}</dt><dd>{e(text)}</dd>" for term, text in terms.items())
    known = ""
    if ranking:
        rows = [
            [
                cell("task", e(task.task)),
                cell("settings", str(task.settings), "num"),
                cell("chance", f"{task.chance:.3f}", "num"),
                cell("ceiling", f"{task.ceiling:.3f}", "num"),
                cell(
                    "window share",
                    "no lag" if task.window_share is None else f"{task.window_share:.3f}",
                    "num",
                ),
                cell(
                    "all schedules at", {"open": "", "ceiling": "ceiling", "chance": "chance"}[task.verdict]
                ),
            ]
            for task in ranking.tasks
        ]
        known = f"<h3>Known before training</h3>{table(rows, 'cards')}"
    return Part("reading", f"<section><h2>How to read this</h2><dl>{listed}</dl>{known}</section>")


def _pruning_terms(ranking: Ranking | None) -> dict[str, str]:
    """The rule by which schedules left the race, if any did, and what it does to their figures."""
    left = [row.left for row in ranking.pruned if row.left] if ranking else []
    if not left:
        return {}
    return {
        "left the race": "After every complete round a schedule that lost to the leader by Wilcoxon's "
        f"signed-rank test at p {left[0].p:g}, over task settings and seeds, was trained no further. It is "
        "compared on the seeds that it has. Since it left because it looked bad, its gap is somewhat too "
        "large; it is called worse only if its p, times the rounds after which it could have left, is still "
        "significant after the correction for all pairs. It is not asked whether it is within the margin."
    }


def machine(results: Results) -> Part:
    found = [(name, value) for name, value in results.env.items() if isinstance(value, str | int | float)]
    for name in ("code", "torch", "python", "lab", "machine"):
        values = sorted(set(results.frame[name].drop_nulls().to_list()))
        found = [(n, v) for n, v in found if n != name] + ([(name, ", ".join(values))] if values else [])
    listed = "".join(f"<dt>{e(name)}</dt><dd>{e(value)}</dd>" for name, value in found)
    return Part("machine", f"<section><h2>Versions and machine</h2><dl>{listed}</dl></section>")
