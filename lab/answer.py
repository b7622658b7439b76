"""The answer of a sweep for the terminal: a ranking table, the scores by task, and the sentence."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.counts import short
from lab.terminal import plural, table

if TYPE_CHECKING:
    from analysis.marginal import Importance, Marginals
    from analysis.stats import Interval, Ranking, Row
    from analysis.tables import Board

__all__ = ["Answer", "answer_of", "document", "effects_document", "effects_page", "page", "ranking_of"]


@dataclass(frozen=True)
class Answer:
    """What a run folder says; None before the first complete round.

    effects and importance: None, too, where fewer than two variables take several values. front: a sentence,
    empty where the recipe weighs nothing against the score.
    """

    ranking: Ranking | None
    effects: Marginals | None
    importance: Importance | None
    front: str = ""


def ranking_of(folder: Path) -> Ranking | None:
    """The ranking of a run folder by its recipe's score and margin; None before the first complete round.

    Raises ResultsError where the folder is not ours.
    """
    from analysis.stats import rank

    found = _board_of(folder)
    return None if found is None else rank(*found[:2])


def answer_of(folder: Path) -> Answer:
    """The ranking, and what each variable does. Raises ResultsError where the folder is not ours."""
    from analysis.front import sentence
    from analysis.marginal import marginals
    from analysis.stats import rank

    found = _board_of(folder)
    ranking = None if found is None else rank(*found[:2])
    if found is None or ranking is None:
        return Answer(None, None, None)
    said = sentence(ranking, found[2])
    return Answer(ranking, marginals(found[0]), _importance(found[0], ranking), said)


def _board_of(folder: Path) -> tuple[Board, float, tuple[str, ...]] | None:
    """The board, the recipe's margin and its objectives, None before the first finished run."""
    from analysis.report import asked
    from analysis.tables import board
    from sweeps.results import read

    results = read(folder)
    if not results.frame["final"].any():
        return None
    about = asked(results, folder)
    return board(results.frame, about.score, results.pruned), about.margin, about.objectives


def _importance(ranked: Board, ranking: Ranking) -> Importance | None:
    """By Optuna, which ``analysis`` does not know; None where there is nothing to share out."""
    from analysis.marginal import Importance, choices_of

    chosen = choices_of(ranked)
    if not chosen:
        return None
    from sweeps.importance import evaluator_name, importance

    sign = -1 if ranked.lower_is_better else 1
    rows = sorted((row for row in ranking.rows if row.arch in chosen), key=lambda row: row.arch)
    shares = importance([chosen[row.arch] for row in rows], [sign * row.score for row in rows])
    return Importance(evaluator_name(len(rows)), shares) if shares else None


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


def effects_page(answer: Answer) -> str:
    """Marginal means and effects of the variables; empty where there are none to show."""
    from analysis.marginal import defined, named
    from analysis.words import amount, unit

    ranking, found = answer.ranking, answer.effects
    if ranking is None or found is None:
        return ""

    def effect_of(value: float | None, interval: Interval | None) -> tuple[str, str]:
        edges = f"{amount(ranking, interval[0])} to {amount(ranking, interval[1])}" if interval else "-"
        return ("-" if value is None else amount(ranking, value)), edges

    rows = [
        (
            f"{variable.name}={one.value}",
            one.candidates,
            "-" if one.mean is None else _value(ranking, one.mean),
            "-" if one.interval is None else _range(ranking, one.interval),
            *effect_of(one.effect, one.effect_interval),
        )
        for variable in found.variables
        for one in variable.effects
    ]
    effect = f"effect, {unit(ranking)}s"
    header = ("by variable", "schedules", "mean score", "95 % interval", effect, "95 % interval")
    told = [defined(found), *([named(answer.importance)] if answer.importance else [])]
    return f"{table(header, rows)}\n\n{' '.join(told)}"


def effects_document(answer: Answer) -> dict[str, Any] | None:
    """The same for ``--json``; null where there are none to show."""
    if answer.effects is None:
        return None
    importance = None if answer.importance is None else asdict(answer.importance)
    return {**asdict(answer.effects), "importance": importance}


def _rows(ranking: Ranking) -> str:
    from analysis.words import sizes

    kinds = [kind for kind in ("full", "window", "linear") if any(_layers(row, kind) for row in ranking.rows)]
    header = (
        "",
        "schedule",
        "score",
        "95 % interval",
        "behind",
        *sizes(ranking),
        *kinds,
        "state",
        "FLOPs",
        "params",
        "",
    )
    rows = [
        (
            place,
            row.label,
            _value(ranking, row.score),
            _range(ranking, row.interval),
            "-" if row is ranking.best else _gap(ranking, row),
            *(getattr(row, name) for name in sizes(ranking).values()),
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
