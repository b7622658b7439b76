"""The ranking in plain English: a sentence with the answer, a second with what to know before using it."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.stats import Interval, Ranking, Row, TaskNote
from analysis.tables import natural, one_number

__all__ = [
    "amount",
    "answer",
    "listed",
    "margin_text",
    "notes",
    "saving",
    "score_name",
    "sentence",
    "sizes",
    "unit",
    "value_text",
    "where",
]

NO_ROUND = "No round is complete yet, so there is no ranking."


def sentence(ranking: Ranking | None) -> str:
    """What the ranking says, no more than the seeds carry; names only labels and tasks that are in it."""
    return " ".join(part for part in (answer(ranking), notes(ranking)) if part)


def answer(ranking: Ranking | None) -> str:
    """The first sentence: what is best, what cannot be told from it, and what is cheapest."""
    if ranking is None:
        return NO_ROUND
    if len(ranking.rows) == 1:
        return _alone(ranking)
    if all(task.verdict != "open" for task in ranking.tasks):
        return _stuck(ranking)
    return _compared(ranking) if len(ranking.seeds) > 1 else _one_seed(ranking)


def notes(ranking: Ranking | None) -> str:
    """The second sentence: what to know before using the first; empty when there is nothing."""
    found = [] if ranking is None else _notes(ranking)
    return f"Note: {'; '.join(found)}." if found else ""


def score_name(ranking: Ranking) -> str:
    """The score in words, for sentences, headings and axes."""
    if ranking.score == "steps":
        return f"steps to {100 * ranking.threshold:.0f} % accuracy"
    return {"accuracy": "test accuracy", "auc": "area under the learning curve"}[ranking.score]


def sizes(ranking: Ranking) -> dict[str, str]:
    """What tables show of the shape: column -> field of a row, for what is not the same in all schedules."""
    fields = {"depth": "depth", "width": "dim", "heads": "heads"}
    return {
        column: name
        for column, name in fields.items()
        if len({getattr(row, name) for row in ranking.rows}) > 1
    }


def value_text(ranking: Ranking, value: float, digits: int = 2) -> str:
    """A score as the reader sees it: two decimals of accuracy or area (tables: three), whole steps."""
    return f"{value:.0f}" if ranking.score == "steps" else f"{value:.{digits}f}"


def amount(ranking: Ranking, gap: float) -> str:
    """A difference without its unit: points (hundredths) of accuracy or area, or steps."""
    text = f"{gap:z.0f}" if ranking.score == "steps" else f"{100 * gap:z.1f}"
    return text.replace("-", "\N{MINUS SIGN}")


def margin_text(ranking: Ranking) -> str:
    """The margin with its unit, ``2 points`` or ``20 steps``."""
    size = ranking.margin if ranking.score == "steps" else 100 * ranking.margin
    return f"{size:.3g} {unit(ranking)}{'' if size == 1 else 's'}"


def saving(row: Row, best: Row) -> str:
    """What the row saves against the best, in the first of state, FLOPs and parameters that differs."""
    for name, mine, other in (
        ("less state", row.state, best.state),
        ("fewer FLOPs", row.flops, best.flops),
        ("fewer parameters", row.params, best.params),
    ):
        if mine < other:
            share = 100 * (1 - mine / other)
            return f"{share:.0f} % {name}" if share >= 1 else f"{share:.1g} % {name}"
    return "the same costs"


def unit(ranking: Ranking) -> str:
    """What differences of the score are counted in."""
    return "step" if ranking.score == "steps" else "point"


def _seeds(ranking: Ranking) -> str:
    count = len(ranking.seeds)
    few = ", few enough to make intervals wide" if count == 2 else ""
    return "1 seed" if count == 1 else f"{count} seeds{few}"


def where(ranking: Ranking) -> str:
    """``on recall``, ``on the mean of 3 tasks``."""
    names = [task.task for task in ranking.tasks]
    return f"on {names[0]}" if len(names) == 1 else f"on the mean of {len(names)} tasks"


def _range(ranking: Ranking, interval: Interval | None) -> str:
    if interval is None:
        return ""
    return f", 95 % interval {value_text(ranking, interval[0])} to {value_text(ranking, interval[1])}"


def _score(ranking: Ranking, row: Row) -> str:
    return f"{score_name(ranking)} {value_text(ranking, row.score)}{_range(ranking, row.interval)}"


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _alone(ranking: Ranking) -> str:
    row = ranking.best
    return (
        f"Only {row.label} is ranked ({_score(ranking, row)}, {where(ranking)}, {_seeds(ranking)}); "
        "there is nothing to compare it with."
    )


def _stands(tasks: Sequence[TaskNote], ranking: Ranking) -> str:
    """Where the tasks that separate nothing stand."""
    if ranking.score == "steps":
        return f"no run reached the threshold on {listed([task.task for task in tasks])}"
    ends = [f"{task.task} is at {'its ceiling' if task.verdict == 'ceiling' else 'chance'}" for task in tasks]
    return f"{listed(ends)} for every schedule"


def _stuck(ranking: Ranking) -> str:
    these = "This task" if len(ranking.tasks) == 1 else f"These {len(ranking.tasks)} tasks"
    return f"{these} cannot separate the {len(ranking.rows)} schedules: {_stands(ranking.tasks, ranking)}."


def _one_seed(ranking: Ranking) -> str:
    return (
        f"{ranking.best.label} stands first {where(ranking)} ({_score(ranking, ranking.best)}), "
        "but one seed gives no interval: nothing shows yet that any two schedules differ."
    )


def _compared(ranking: Ranking) -> str:
    best = ranking.best
    head = f"{best.label} is best {where(ranking)} ({_score(ranking, best)})"
    return f"{head}{_told_apart(ranking)}; {_cheapest(ranking)}."


def _told_apart(ranking: Ranking) -> str:
    tied, others = ranking.tied, ranking.rows[1:]
    fewer = any(row.seeds < len(ranking.seeds) for row in ranking.pruned)
    at = f"at {'up to ' if fewer else ''}{_seeds(ranking)}"
    if len(tied) == len(others) and len(others) > 1:
        return f", but none of the {len(ranking.rows)} schedules can be told apart {at}"
    if tied:
        return f", but {_group(ranking, tied)} {at}"
    if len(others) == 1 and others[0].gap_interval is not None:
        low, high = (amount(ranking, edge) for edge in others[0].gap_interval)
        gap = f"{amount(ranking, others[0].gap)} {unit(ranking)}s (95 % interval {low} to {high})"
        return f", and {others[0].label} is worse by {gap} {at}"
    return f", and each of the other {len(others)} is shown to be worse {at}"


def _group(ranking: Ranking, tied: Sequence[str]) -> str:
    """The labels that go with the best: a stretch of an ordered row by its ends, anything else by name."""
    order = sorted((row.label for row in ranking.rows), key=natural)
    group = sorted([ranking.best.label, *tied], key=natural)
    first = order.index(group[0])
    if len(group) > 2 and one_number(order) and order[first : first + len(group)] == group:
        return f"{group[0]} to {group[-1]} cannot be told apart"
    return f"{listed(sorted(tied, key=natural))} cannot be told apart from it"


def _cheapest(ranking: Ranking) -> str:
    best = ranking.best
    cost = (best.state, best.flops, best.params)
    if all((row.state, row.flops, row.params) >= cost for row in ranking.rows):
        return "it is also the cheapest"
    if ranking.cheapest in (None, best.label):
        gone = any((row.state, row.flops, row.params) < cost for row in ranking.pruned)
        which = "no cheaper one that is still in the race" if gone else "no cheaper one"
        return f"{which} is shown to be within {margin_text(ranking)} of it"
    row = ranking.row(str(ranking.cheapest))
    return (
        f"the cheapest that is not worse than the best by more than {margin_text(ranking)} is {row.label}, "
        f"with {saving(row, best)}"
    )


def _notes(ranking: Ranking) -> list[str]:
    found: list[str] = []
    stuck = [task for task in ranking.tasks if task.verdict != "open"]
    if stuck and len(stuck) < len(ranking.tasks):
        found.append(f"{_stands(stuck, ranking)}, which separates nothing")
    rows = sorted(ranking.rows, key=lambda row: natural(row.label))
    if lost := [f"{row.label} diverged in {row.failed} of its {row.runs} runs" for row in rows if row.failed]:
        found.append(f"{listed(lost)}, counted as {'the budget' if ranking.score == 'steps' else 'chance'}")
    if missed := [row for row in rows if row.censored]:
        alike = len({row.runs for row in rows}) == 1
        each = [f"{row.label} in {row.censored}{'' if alike else f' of {row.runs}'}" for row in missed]
        of = f" of {rows[0].runs}" if alike else ""
        found.append(f"the threshold was missed by {listed(each)}{of} runs, which count their budget")
    if ranking.pruned:
        found.append(_left(ranking.pruned))
    if ranking.left_out:
        many = len(ranking.left_out)
        found.append(f"{many} round{'s are' if many > 1 else ' is'} not complete and left out")
    if ranking.waiting:
        has = "have" if len(ranking.waiting) > 1 else "has"
        found.append(f"{listed(ranking.waiting)} {has} no complete round")
    return found


def _left(rows: Sequence[Row]) -> str:
    """Who left the race, when, by which test, and what its comparison stands on."""
    rows = sorted(rows, key=lambda row: natural(row.label))
    told = [(row.label, row.left.round, row.left.rounds, row.left.p) for row in rows if row.left]
    names = listed([f"{label} after {after}" for label, after, _, _ in told])
    stands = "its comparison stands" if len(rows) == 1 else "their comparisons stand"
    seeds = listed([str(row.seeds) for row in rows])
    rule = f"by Wilcoxon's test at p {told[0][3]:g}"
    return f"{names} of {told[0][2]} rounds left the race, {rule}; {stands} on {seeds} seeds"
