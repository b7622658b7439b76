"""Which candidates a sweep goes on with: after every complete round those clearly behind leave the race.

Behind is who loses to the leader by Wilcoxon's signed-rank test (Wilcoxon 1945, Biometrics Bulletin 1) over
(task setting, seed) instances, as Optuna's ``WilcoxonPruner`` has it. The rows decide and nothing else does:
nothing is kept between calls, so that a sweep that was killed, or that finds its runs finished, comes to the
same decisions by going through its rounds again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import optuna
import polars as pl
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeps.form import Recipe
from sweeps.results import Pruned
from sweeps.scores import instances

__all__ = ["LEAST_ROUNDS", "Loser", "Race", "losers"]

LEAST_ROUNDS = 2
"""Complete rounds before anybody may leave."""


@dataclass(frozen=True)
class Loser:
    """A candidate that loses to ``leader`` (a label), worse in ``behind`` of ``comparisons`` instances."""

    arch: str
    label: str
    leader: str
    behind: int
    comparisons: int


def losers(finals: pl.DataFrame, score: str, p: float) -> tuple[Loser, ...]:
    """Who loses to the leader at ``p``, in the order of ``arch``; never the leader itself.

    finals: the final rows of the complete rounds, of the candidates in the race. The leader has the best mean
    score: over instances of a task, then over tasks. Nobody loses before ``LEAST_ROUNDS`` rounds.
    """
    if finals["seed"].n_unique() < LEAST_ROUNDS:
        return ()
    values = instances(finals, score)
    by_task = values.group_by("arch", "task", maintain_order=True).agg(pl.col("value").mean())
    means = by_task.group_by("arch", maintain_order=True).agg(pl.col("value").mean())
    sign = -1.0 if score == "steps" else 1.0
    leader, best = max(means.sort("arch").iter_rows(), key=lambda row: sign * row[1])
    labels: dict[str, str] = {}
    of: dict[str, dict[tuple[str, int], float]] = {}
    for arch, label, setting, seed, value in values.drop("task").iter_rows():
        labels.setdefault(arch, label)
        of.setdefault(arch, {})[setting, seed] = value
    place = {instance: step for step, instance in enumerate(sorted(of[leader]))}

    def trial(arch: str, mean: float | None = None) -> FrozenTrial:
        """More is better for Optuna; without a mean it is a trial under way."""
        reported = {place[instance]: sign * value for instance, value in of[arch].items()}
        state = TrialState.RUNNING if mean is None else TrialState.COMPLETE
        return create_trial(state=state, value=mean, intermediate_values=reported)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        pruner = optuna.pruners.WilcoxonPruner(p_threshold=p)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    study.add_trial(trial(leader, sign * best))
    found = []
    for arch in sorted(set(of) - {leader}):
        if pruner.prune(study, trial(arch)):
            behind = sum(sign * value < sign * of[leader][instance] for instance, value in of[arch].items())
            found.append(Loser(arch, labels[arch], labels[leader], behind, len(of[arch])))
    return tuple(found)


class Race:
    """Who of a recipe's candidates takes part in which round.

    left: by arch, who has left, in the order of leaving. over: the round after which one candidate alone was
    left, None while there are more; winner: its label. A recipe without pruning lets nobody go.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._clear()

    def _clear(self) -> None:
        self.left: dict[str, Pruned] = {}
        self.over: int | None = None
        self.winner = ""
        self._decided: list[int] = []  # seeds of the complete rounds gone through
        self._finals: list[pl.DataFrame] = []

    def rounds_of(self, arch: str) -> int:
        """How many of the rounds, from the first on, a candidate takes part in."""
        if arch in self.left:
            return self.left[arch].round
        return self._recipe.seeds if self.over is None else self.over

    def takes_part(self, arch: str, seed: int) -> bool:
        """Whether a candidate runs in the round of ``seed``."""
        return seed - self._recipe.first_seed < self.rounds_of(arch)

    def go_on(
        self, complete: Callable[[int], bool], finals: Callable[[int], pl.DataFrame], upto: int
    ) -> tuple[Pruned, ...]:
        """Go through the complete rounds up to the one of seed ``upto``; who leaves that had not left before.

        complete: whether the round of a seed is, with the runs that the race then asks for. finals: its final
        rows. A round that is not complete is passed over. One that became complete after later rounds had
        been gone through changes what those rounds say, so all are gone through again.
        """
        if self._recipe.pruning is None:
            return ()
        before = dict(self.left)
        rounds: Iterable[int] = [upto]
        if self._decided and upto <= self._decided[-1]:
            if upto in self._decided:
                return ()
            rounds = range(self._recipe.first_seed, self._decided[-1] + 1)
            self._clear()
        for seed in rounds:
            if self.over is None and complete(seed):
                self._decide(seed, finals(seed), self._recipe.pruning)
        return tuple(one for arch, one in self.left.items() if before.get(arch) != one)

    def _decide(self, seed: int, finals: pl.DataFrame, p: float) -> None:
        recipe, number = self._recipe, seed - self._recipe.first_seed + 1
        self._decided.append(seed)
        self._finals.append(finals)
        rows = pl.concat(self._finals).filter(~pl.col("arch").is_in(list(self.left)))
        for one in losers(rows, recipe.score, p):
            self.left[one.arch] = Pruned(round=number, rounds=recipe.seeds, p=p, **vars(one))
        still = rows.filter(~pl.col("arch").is_in(list(self.left))).unique("arch")
        if self.left and still.height == 1:
            self.over, self.winner = number, str(still["label"][0])
