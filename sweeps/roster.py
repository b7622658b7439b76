"""Who takes part in a sweep: all candidates of a whole grid, or those that Optuna picks one by one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from blocks.base import Block
from sweeps import objectives, results, space
from sweeps.candidate import Candidate
from sweeps.form import Recipe, Value
from sweeps.space import Choices, SpaceError, Unmatched
from sweeps.trials import Trials
from sweeps.variables import idle

__all__ = ["Roster"]

IN_VAIN = 1000
"""Suggestions in a row of which none may be trained, after which there is taken to be none."""


class Roster:
    """The candidates by trial number, in the order in which they joined.

    wanted: how many the recipe asks for. A sampled recipe begins with those that earlier calls found.
    """

    def __init__(self, folder: Path, recipe: Recipe, table: Mapping[str, type[Block]]) -> None:
        self._recipe, self._table = recipe, table
        self._trials = Trials(folder, recipe)
        self.sampled = space.is_sampled(recipe)
        self._against = space.yardstick(recipe, table)
        self.candidates: dict[int, Candidate] = {}
        self._identities: set[tuple[Any, ...]] = set()
        if self.sampled:
            self.wanted = int(recipe.trials)
            if not self._trials.known:  # a new sweep, or one whose journal is lost: its runs know the choices
                self._trials.restore(_chosen(folder, recipe))
            for choices, number in self._trials.known.items():
                if not self.full:
                    self._join(number, choices)
            return
        every = space.candidates(recipe, table)
        numbers = self._trials.enqueue(every)
        self.wanted = len(every)
        self.candidates = {numbers[candidate.choices]: candidate for candidate in every}

    @property
    def full(self) -> bool:
        """Whether all candidates asked for are there."""
        return len(self.candidates) >= self.wanted

    def grow(self) -> int | None:
        """The number of one more candidate, chosen by Optuna; None if the roster is full.

        A space with fewer different schedules than asked for ends when every combination has been seen, one
        whose constraints nearly nothing meets after many that do not.
        """
        vain = 0
        while not self.full and vain < IN_VAIN and (suggestion := self._trials.suggest()):
            if self._join(*suggestion):
                return suggestion[0]
            vain += self._against is not None
        self.wanted = len(self.candidates)
        return None

    def is_told(self, number: int) -> bool:
        """Whether Optuna knows a candidate's score."""
        return self._trials.is_told(number)

    def tell(self, number: int, score: float) -> None:
        """The score of a candidate's first complete round, once; its costs, if asked for, are known."""
        reached = objectives.values(self._recipe, self.candidates[number], score, self._table)
        self._trials.tell(number, reached)

    def _join(self, number: int, choices: Choices) -> bool:
        try:
            new = space.candidate(self._recipe, choices, self._table, self._against)
            who = space.identity(new, self._table)
        except Unmatched as exc:
            self._trials.constrain(number, {"match": exc.miss})
            return False
        except SpaceError:
            self._trials.reject(number)
            return False
        if who in self._identities:
            self._trials.reject(number)
            return False
        self._trials.constrain(number, {one.cost: one.violation for one in new.held})
        if new.refusal:
            return False
        self._identities.add(who)
        self.candidates[number] = new
        return True


def _chosen(folder: Path, recipe: Recipe) -> list[Choices]:
    """The choices of all candidates that have finished runs in ``folder``, in the order of their numbers.

    Those of another space are left out.
    """
    frames = [
        results.read_run(path).select("trial", "choices").head(1) for path in results.stored(folder).values()
    ]
    if not frames:
        return []
    found = pl.concat(frames).unique().sort("trial", "choices")["choices"]
    whole = (_completed(recipe, json.loads(text)) for text in found)
    return [choices for choices in whole if choices is not None]


def _completed(recipe: Recipe, told: Mapping[str, Value]) -> Choices | None:
    """The combination of which ``told`` is all that has a say; None where this space has none."""
    whole = tuple((name, told.get(name, values[0])) for name, values in space.axes(recipe).items())
    unheard = idle(recipe, whole)
    return whole if [name for name, _ in whole if name not in unheard] == list(told) else None
