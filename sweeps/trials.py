"""The Optuna study behind a sweep: one trial per candidate, in a journal file beside the results.

Only the coordinator writes here, under the folder's lock. A trial stays RUNNING until the first complete
round of its candidate is told, so what a killed sweep leaves RUNNING is simply taken up again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from sweeps.candidate import Candidate
from sweeps.form import Recipe
from sweeps.journal import open_journal
from sweeps.objectives import directions
from sweeps.space import Choices, axes

__all__ = ["Trials"]

REPEATS = 10
"""Suggestions in a row that are known already, after which an unseen combination is drawn evenly."""


class Trials:
    """The candidates of one recipe as trials of one study.

    A study belongs to one search space: another set of values is another study in the same journal, since
    Optuna's categories never change; so are another match and other constraints, which decide what choices
    stand for and which of them may be tried, and other objectives.

    The sampler is TPE, which takes several objectives, too (MOTPE: Ozaki et al. 2022, J. Artif. Intell. Res.
    73): what it goes on with is the front of the trials so far. It is told of infeasible trials likewise.
    """

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        for stale in folder.glob("study.log.lock*"):
            stale.unlink()  # left by a killed sweep; ours is the only writer
        self._axes = axes(recipe)
        space = hashlib.sha256(json.dumps(_identity(recipe)).encode()).hexdigest()[:8]
        storage = open_journal(folder / "study.log")
        self._study = optuna.create_study(
            storage=storage,
            study_name=f"{recipe.name}-{space}",
            directions=directions(recipe),
            load_if_exists=True,
        )
        count = len(self._study.get_trials(deepcopy=False))
        seed = hashlib.sha256(f"{recipe.name}/{count}".encode()).digest()
        # Another seed at every start: with the same one, a sampler repeats its first suggestions.
        self._study.sampler = optuna.samplers.TPESampler(seed=int.from_bytes(seed[:4], "little"))
        self._random = random.Random(seed)
        self._distributions: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(list(values)) for name, values in self._axes.items()
        }
        self._told: set[int] = set()
        self._rejected: set[int] = set()
        self._numbers: dict[Choices, int] = {}
        self._asked: dict[int, Trial] = {}
        for trial in self._study.get_trials(deepcopy=False):
            self._adopt(trial)

    def _adopt(self, trial: FrozenTrial) -> None:
        params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        if trial.state.is_finished():
            self._told.add(trial.number)
        if set(params) != set(self._axes):
            # Killed while its values were being drawn: nothing can have been trained for it.
            if not trial.state.is_finished():
                self._study.tell(trial.number, state=TrialState.FAIL)
            return
        number = self._numbers.setdefault(self._choices(params), trial.number)
        # Infeasible trials end as pruned ones, of which the sampler reads the constraints.
        if trial.state in (TrialState.FAIL, TrialState.PRUNED) and number == trial.number:
            self._rejected.add(number)
        if trial.state == TrialState.WAITING:
            self._study.ask(self._distributions)

    def _choices(self, params: dict[str, Any]) -> Choices:
        return tuple((name, params[name]) for name in self._axes)

    @property
    def known(self) -> dict[Choices, int]:
        """Choices that stand for a schedule -> trial number, in the order of the numbers."""
        return {choices: number for choices, number in self._numbers.items() if number not in self._rejected}

    def enqueue(self, candidates: Iterable[Candidate]) -> dict[Choices, int]:
        """A trial for every candidate that has none yet; the numbers of all of them."""
        wanted = [candidate.choices for candidate in candidates]
        for choices in wanted:
            if choices not in self._numbers:
                self._numbers[choices] = self._enqueue(choices)
        return {choices: self._numbers[choices] for choices in wanted}

    def restore(self, found: Iterable[Choices]) -> None:
        """Make candidates of choices that are new here and of this space, such as those of stored runs."""
        for choices in found:
            own = [name for name, _ in choices] == list(self._axes)
            if own and choices not in self._numbers and all(v in self._axes[name] for name, v in choices):
                self._numbers[choices] = self._enqueue(choices)

    def suggest(self) -> tuple[int, Choices] | None:
        """A new candidate's number and choices; None if every combination is known."""
        if len(self._numbers) >= math.prod(map(len, self._axes.values())):
            return None
        for _ in range(REPEATS):
            trial = self._study.ask(self._distributions)
            choices = self._choices(trial.params)
            if choices not in self._numbers:
                self._numbers[choices] = trial.number
                self._asked[trial.number] = trial
                return trial.number, choices
            # A repeat tells the sampler nothing new; as a failed trial it is left out of its model.
            self._study.tell(trial.number, state=TrialState.FAIL)
        choices = self._unseen()
        self._numbers[choices] = self._enqueue(choices)
        return self._numbers[choices], choices

    def _enqueue(self, choices: Choices) -> int:
        self._study.enqueue_trial(dict(choices))
        trial = self._study.ask(self._distributions)
        self._asked[trial.number] = trial
        return trial.number

    def _unseen(self) -> Choices:
        names, values = list(self._axes), list(self._axes.values())
        for _ in range(1000):
            choices = tuple((name, self._random.choice(v)) for name, v in zip(names, values, strict=True))
            if choices not in self._numbers:
                return choices
        # Nearly all are known, so the space is small enough to walk through.
        every = (tuple(zip(names, combination, strict=True)) for combination in itertools.product(*values))
        return next(choices for choices in every if choices not in self._numbers)

    def tell(self, number: int, values: Sequence[float]) -> None:
        """What a candidate's first complete round reaches of each objective, once."""
        self._study.tell(number, values)
        self._told.add(number)

    def is_told(self, number: int) -> bool:
        """Whether the study has a trial's value, or knows that it has none."""
        return number in self._told

    def constrain(self, number: int, violations: Mapping[str, float]) -> None:
        """What a candidate makes of each constraint, at most 0 where it holds. One that breaks any is gone.

        A trial that has ended, or was told before, is left as it is.
        """
        known = self._study.get_trials(deepcopy=False)[number]
        if not known.state.is_finished():
            trial = self._asked.get(number) or Trial(self._study, known._trial_id)  # after a kill
            for name, value in violations.items():
                if name not in known.constraints:
                    trial.set_constraint(name, value)
        if any(value > 0 for value in violations.values()) and number not in self._told:
            self._study.tell(number, state=TrialState.PRUNED)
            self._told.add(number)
            self._rejected.add(number)

    def reject(self, number: int) -> None:
        """A candidate that cannot be realised: it never comes back."""
        self._study.tell(number, state=TrialState.FAIL)
        self._told.add(number)
        self._rejected.add(number)


def _identity(recipe: Recipe) -> Any:
    """What makes a study another one. One of choices and the score alone keeps the name it had."""
    comparisons = recipe.model_dump(include={"baseline", "match", "constraints"}, exclude_none=True)
    if recipe.objective != ("score",):
        comparisons["objective"] = recipe.objective
    return [axes(recipe), comparisons] if comparisons else axes(recipe)
