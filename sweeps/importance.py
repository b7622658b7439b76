"""How much each variable of a search decides, by Optuna's PED-ANOVA on the finished candidates.

Here and not in ``analysis``, which knows nothing of Optuna. It is worked out anew wherever it is shown and
not kept in the run folder, where it could fall behind the rows that it stands on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import create_trial

__all__ = ["TOP", "evaluator_name", "importance"]

TOP = 0.1
"""The share of candidates that counts as the best."""


def evaluator_name(candidates: int) -> str:
    """The evaluator and what it asks, for ``candidates`` finished ones."""
    best = _best(candidates)
    return f"Optuna's PED-ANOVA (what decides whether a schedule is among the best {best} of {candidates})"


def importance(choices: Sequence[Mapping[str, str]], scores: Sequence[float]) -> dict[str, float]:
    """The importance of each variable, the greatest first, adding up to 1 (Watanabe et al. 2023, IJCAI).

    choices: of every candidate, variable -> value as text, the same variables for all. scores: more is
    better. Empty where the best tenth cannot be told from the rest by score.
    """
    if not scores or sorted(scores, reverse=True)[_best(len(scores)) - 1] == min(scores):
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    values = {name: dict.fromkeys(row[name] for row in choices) for name in choices[0]}
    known = {name: CategoricalDistribution(list(every)) for name, every in values.items()}
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        create_trial(params=dict(row), distributions=dict(known), value=score)
        for row, score in zip(choices, scores, strict=True)
    )
    found = optuna.importance.get_param_importances(
        study, evaluator=PedAnovaImportanceEvaluator(target_quantile=TOP)
    )
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _best(candidates: int) -> int:
    return math.ceil(TOP * candidates)
