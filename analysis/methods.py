"""The report's methods paragraph: what was done, in words that a paper can take as they stand.

Every figure in it is read off the stored runs and the ranking, so that it can tell no other story.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from analysis.fragments import Part, e
from analysis.stats import Ranking
from analysis.words import margin_text, score_name
from sweeps.results import Results

__all__ = ["methods", "paragraph"]


def methods(results: Results, ranking: Ranking) -> Part:
    """The section with the paragraph."""
    note = '<p class="note">For a paper, as it stands.</p>'
    text = f'<p class="prose">{e(paragraph(results, ranking))}</p>'
    return Part("methods", f"<section><h2>Methods</h2>{note}{text}</section>")


def paragraph(results: Results, ranking: Ranking) -> str:
    """What was trained and how it was scored, ranked and compared; plain text."""
    ends = results.frame.filter("final")

    def values(name: str) -> list[Any]:
        return sorted(set(ends[name].drop_nulls().to_list()))  # the first schema had no precision but fp32

    tasks = values("task")
    settings = ends["setting"].n_unique()
    many = f"{settings} settings of " if settings > len(tasks) else ""
    trainings = ends.select("lr", "weight_decay").n_unique()
    size = (
        f"width {_span(values('dim'))}, {_span(values('heads'))} heads; {_span(values('params'))} parameters"
    )
    batch, precision = _span(values("batch")), ", ".join(values("precision") or ["fp32"])
    said = [
        f"We trained {_counted(len(ranking.rows), 'schedule')} of {_span(values('depth'))} layers ({size}, "
        f"embedding and head included) on {many}{_counted(len(tasks), 'synthetic task')} "
        f"({', '.join(tasks)}).",
        f"A run was at most {_span(values('steps'))} steps of {batch} sequences with AdamW at learning rate "
        f"{_listed(values('lr'))} and weight decay {_listed(values('weight_decay'))} ({precision}), and "
        "ended early where its task was solved; a run that diverged counted as chance.",
    ]
    if trainings > 1:
        said.append(
            "Of the optimiser settings of a schedule the one with the best validation score per task counted."
        )
    said += [
        f"The score is the {score_name(ranking)} on held-out test data, averaged over settings, then tasks.",
        f"Intervals are 95 % Student intervals over {_counted(len(ranking.seeds), 'seed')}, tasks fixed; "
        "schedules were compared by paired differences per task and seed (Welch-Satterthwaite degrees of "
        "freedom), corrected for all pairs (Holm).",
        "A schedule was taken as not worse than the best where the one-sided 95 % bound of their difference "
        f"was within {margin_text(ranking)}.",
    ]
    if ranking.pruned:
        said.append(
            f"{_counted(len(ranking.pruned), 'schedule')} fell behind by Wilcoxon's signed-rank test over "
            "tasks and seeds and took part in no further round; these p-values were multiplied by the looks."
        )
    versions = ", ".join(f"torch {one}" for one in values("torch"))
    labs = ", ".join(values("lab"))
    said.append(
        f"Hybrid-architecture lab {labs}, {versions}, {ends.height:,} runs; {'; '.join(values('machine'))}."
    )
    return " ".join(said)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _span(values: Iterable[float]) -> str:
    low, *_, high = [*values] * 2
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _listed(values: Iterable[float]) -> str:
    *others, last = (f"{value:g}" for value in values)
    return f"{', '.join(others)} or {last}" if others else last
