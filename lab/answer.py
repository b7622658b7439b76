"""The answer of a sweep for the terminal: a ranking table, the scores by task, and the sentence."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.terminal import plural, short, table

if TYPE_CHECKING:
    from analysis.stats import Interval, Ranking, Row

__all__ = ["document", "page", "ranking_of"]


def ranking_of(folder: Path) -> Ranking | None:
    """The ranking of a run folder by its recipe's score and margin; None before the first complete round.

    Raises ResultsError where the folder is not ours.
    """
    from analysis.report import asked
    from analysis.stats import rank
    from analysis.tables import board
    from sweeps.results import read

    results = read(folder)
    if not results.frame["final"].any():
        return None
    about = asked(results, folder)
    return rank(board(results.frame, about.score, results.pruned), about.margin)


def page(ranking: Ranking | None) -> str:
    """Ranking, scores by task, sentence: what stands on stdout after a round."""
    from analysis.words import score_name, sentence

    if ranking is None:
        return sentence(ranking)
    seeds, runs = plural(len(ranking.seeds), "seed"), plural(ranking.runs, "run")
    title = f"{score_name(ranking)}, mean over {plural(len(ranking.tasks), 'task')}; {seeds}, {runs}"
    return "\n\n".join((title[0].upper() + title[1:], _rows(ranking), _tasks(ranking), sentence(ranking)))


def document(ranking: Ranking | None) -> dict[str, Any]:
    """The same for ``--json``; ``ranking`` is null before the first complete round."""
    from analysis.words import sentence

    return {"sentence": sentence(ranking), "ranking": None if ranking is None else asdict(ranking)}


def _rows(ranking: Ranking) -> str:
    kinds = [kind for kind in ("full", "window", "linear") if any(_layers(row, kind) for row in ranking.rows)]
    header = ("", "schedule", "score", "95 % interval", "behind", *kinds, "state", "FLOPs", "params", "")
    rows = [
        (
            place,
            row.label,
            _value(ranking, row.score),
            _range(ranking, row.interval),
            "-" if row is ranking.best else _gap(ranking, row),
            *(_layers(row, kind) for kind in kinds),
            short(row.state),
            short(row.flops),
            short(row.params),
            _verdict(ranking, row),
        )
        for place, row in enumerate(ranking.rows, start=1)
    ]
    return table(header, rows)


def _tasks(ranking: Ranking) -> str:
    """Schedule by task, with what chance, the data and a 32-token window allow (accuracies)."""
    from analysis.words import value_text

    names = [task.task for task in ranking.tasks]
    rows = [
        (row.label, *(value_text(ranking, row.tasks[name].mean) for name in names)) for row in ranking.rows
    ]
    if ranking.score != "steps":
        levels = (
            ("chance", [task.chance for task in ranking.tasks]),
            ("ceiling", [task.ceiling for task in ranking.tasks]),
            ("32-token window", [task.window_share for task in ranking.tasks]),
        )
        rows += [(name, *("-" if v is None else f"{v:.2f}" for v in values)) for name, values in levels]
    return table(("by task", *names), rows)


def _value(ranking: Ranking, value: float) -> str:
    from analysis.words import value_text

    return value_text(ranking, value)


def _range(ranking: Ranking, interval: Interval | None) -> str:
    return f"{_value(ranking, interval[0])} to {_value(ranking, interval[1])}" if interval else "one seed"


def _gap(ranking: Ranking, row: Row) -> str:
    from analysis.words import amount

    return amount(ranking, row.gap)


def _verdict(ranking: Ranking, row: Row) -> str:
    from analysis.words import margin_text

    words = []
    if row is ranking.best:
        words.append("best" if len(ranking.seeds) > 1 else "highest")
    elif row.tied is not None:
        apart = "not shown to be worse" if row.left else "cannot be told apart"
        words.append(apart if row.tied else "worse")
    if row.left:
        words.append(f"left after round {row.left.round}")
    if row.label == ranking.cheapest and len(ranking.rows) > 1:
        words.append(f"cheapest within {margin_text(ranking)}")
    if row.failed:
        words.append(f"{row.failed} diverged")
    return ", ".join(words)


def _layers(row: Row, kind: str) -> int:
    return {"full": row.n_full, "window": row.n_window, "linear": row.n_linear}[kind]
