"""A long sweep as arrays: every schedule on every cell, cut at every evaluation; and cheaper protocols of it.

A *cell* is one task setting. A *protocol* is a cheap subset: which cells, cut at which step of the curve, at
how many seeds, over which trainings (learning rates). Whole curves are stored, so that a cheaper protocol can
be simulated by cutting: with x[i] the test accuracy at evaluation i of a run,

    score("auc", cut k)      = (x[1] + ... + x[k]) / k     (``synthetics.score.area``; at the end: auc)
    score("accuracy", cut k) = x[k]                        (at the end: acc)
    cost(cut k)              = seconds of training until evaluation k, one thread

A run that ended early because it had solved its task keeps its last value and spends nothing more; one that
has diverged counts as chance from the first evaluation that it did not reach. A cut run follows the
learning-rate schedule of the LONG run, whose decay comes later than that of a short run: a protocol chosen
this way must be confirmed by real short runs, which the same functions score from a second frame.

With halving (``sweeps.halving``) a schedule has some trainings at its first seeds only. Such a one stands at
LOST everywhere, so that it is never chosen, and costs what it cost. A protocol cut out of such a reference
takes over what the whole curves left.

Everything is a pure function of a frame with the columns of ``sweeps.results.SCHEMA``.
Shapes: A schedules, L trainings, S seeds, K cuts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from analysis.cells import LOST, Cell, CutScore, PanelError, Training, cell_of, comparable
from analysis.tables import natural
from sweeps.results import ResultsError, check_finished, frame_of, read, up_to_date

__all__ = [
    "Cell",
    "CutScore",
    "Panel",
    "PanelError",
    "Part",
    "Pick",
    "Protocol",
    "Sheet",
    "Training",
    "cost",
    "cut",
    "load",
    "panel",
    "whole",
]

_TRAINING = ("lr", "weight_decay", "batch")
_RUN = ("label", "task", "setting", *_TRAINING, "seed")
_NEEDED = (
    "run",
    *_RUN,
    "trainings",
    "arch",
    "strip",
    "roles",
    "chance",
    "steps",
    "status",
    "step",
    "seconds",
)
_CURVE = ("acc", "acc_valid", "final")


@dataclass(frozen=True, eq=False)
class Panel:
    """Every schedule on every cell that is complete.

    kinds: label -> (mixers of its layers, roles of its layers), for finding the schedules of one mixer;
    left_out: settings that are not complete for all schedules at two seeds.
    """

    score: CutScore
    labels: tuple[str, ...]
    trainings: tuple[Training, ...]
    cells: tuple[Cell, ...]
    kinds: Mapping[str, tuple[frozenset[str], frozenset[str]]]
    left_out: tuple[str, ...]

    @property
    def halved(self) -> bool:
        """Whether some trainings were left behind, so that only the grid as a whole can be asked about."""
        return any((cell.valid == LOST).any() for cell in self.cells)

    @property
    def seeds(self) -> int:
        """Seeds that every cell has."""
        return min(len(cell.seeds) for cell in self.cells)

    def cell(self, setting: str) -> Cell:
        """The cell of a setting. Raises PanelError."""
        for cell in self.cells:
            if cell.setting == setting:
                return cell
        raise PanelError(
            f"{setting} is no complete cell; there are {', '.join(c.setting for c in self.cells)}"
        )

    def places(self, labels: Sequence[str]) -> list[int]:
        """Where these schedules stand in the arrays. Raises PanelError."""
        if odd := [label for label in labels if label not in self.labels]:
            raise PanelError(f"there is no schedule {odd[0]!r}; there are {', '.join(self.labels)}")
        return [self.labels.index(label) for label in labels]


@dataclass(frozen=True)
class Pick:
    """A cell of a protocol: trained to ``step`` with ``seeds`` seeds."""

    setting: str
    step: int
    seeds: int


@dataclass(frozen=True)
class Protocol:
    """What is trained for each schedule: every pick with every training."""

    picks: tuple[Pick, ...]
    trainings: tuple[Training, ...]

    @property
    def runs(self) -> int:
        """Runs per schedule."""
        return len(self.trainings) * sum(pick.seeds for pick in self.picks)


@dataclass(frozen=True, eq=False)
class Part:
    """What a protocol saw on one cell: test score and validation score, [A, L, S]."""

    task: str
    value: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True, eq=False)
class Sheet:
    """What a protocol saw, cell by cell."""

    labels: tuple[str, ...]
    parts: tuple[Part, ...]

    @property
    def seeds(self) -> int:
        """Seeds that every cell has."""
        return min(part.value.shape[2] for part in self.parts)

    @property
    def weights(self) -> np.ndarray:
        """Of each cell in the score: tasks weigh alike, and so do the cells of a task."""
        tasks = [part.task for part in self.parts]
        return np.array([1.0 / (len(set(tasks)) * tasks.count(task)) for task in tasks])

    def only(self, places: Sequence[int]) -> Sheet:
        """The same for some of the schedules, in the order given."""
        at = list(places)
        parts = tuple(Part(part.task, part.value[at], part.valid[at]) for part in self.parts)
        return Sheet(tuple(self.labels[place] for place in at), parts)

    def take(self, seeds: Sequence[np.ndarray]) -> Sheet:
        """The same with some of the seeds, by place, given per cell."""
        pairs = zip(self.parts, seeds, strict=True)
        parts = tuple(Part(part.task, part.value[:, :, s], part.valid[:, :, s]) for part, s in pairs)
        return Sheet(self.labels, parts)


def load(path: Path) -> pl.DataFrame:
    """The rows of a run folder, or of one parquet file with the columns of the store.

    Raises PanelError for a path that is neither; ResultsError for a folder that is no run folder.
    """
    if not path.exists():
        raise PanelError(f"{path}: there is no such file or folder; a run folder or a parquet file is wanted")
    if path.is_dir():
        return read(path).frame
    try:
        frame = up_to_date(frame_of(path))
        check_finished(frame)
    except ResultsError as exc:
        raise PanelError(f"{path}: this is no parquet file of results ({exc})") from exc
    return frame


def panel(
    frame: pl.DataFrame, score: CutScore = "auc", least_seeds: int = 2, least_schedules: int = 2
) -> Panel:
    """Arrays of all finished runs. A cell counts when all schedules have it, all trainings, at common seeds.

    Raises PanelError when columns are missing, a label means two schedules, runs of a setting differ in
    budget or evaluations, or too few schedules or seeds are complete (it says how many are needed).
    """
    if missing := [name for name in (*_NEEDED, *_CURVE) if name not in frame.columns]:
        raise PanelError(f"this is no frame of results: it lacks the columns {', '.join(missing)}")
    runs = _runs(frame)
    labels = tuple(sorted(set(runs["label"].to_list()), key=natural))
    if len(labels) < least_schedules:
        known = f" ({', '.join(labels)})" if labels else ""
        raise PanelError(
            f"{len(labels)} schedules with finished runs are there{known}; {least_schedules} are needed"
        )
    trainings = _trainings(runs)
    if not trainings:
        raise PanelError("no learning rate is there for every schedule; run them all over one grid")
    cells: list[Cell] = []
    left_out: list[str] = []
    most = 0
    for key, part in runs.sort("task", "setting").group_by("task", "setting", maintain_order=True):
        seeds = _seeds(part, labels, trainings)
        most = max(most, len(seeds))
        if len(seeds) < least_seeds:
            left_out.append(str(key[1]))
        else:
            cells.append(cell_of(str(key[0]), str(key[1]), part, labels, trainings, seeds, score))
    if not cells:
        raise PanelError(
            f"no setting is complete for all {len(labels)} schedules at {least_seeds} seeds "
            f"(the fullest has {most}); run at least {least_seeds} seeds of every schedule"
        )
    comparable(cells, labels)
    return Panel(score, labels, trainings, tuple(cells), _kinds(runs), tuple(left_out))


def _runs(frame: pl.DataFrame) -> pl.DataFrame:
    """One row per finished run, its curve as lists. Raises PanelError when two are of the same thing."""
    done = frame.join(frame.filter(pl.col("final")).select("run"), on="run", how="semi")
    known = [name for name in _NEEDED if name not in ("step", "seconds", "run")]
    runs = (
        done.sort("run", "step", "final")
        .group_by("run", maintain_order=True)
        .agg(
            *(pl.col(name).last() for name in known),
            pl.col("step", "seconds"),
            *(pl.col(n).fill_nan(None).fill_null(pl.col("chance")) for n in ("acc", "acc_valid")),
        )
    )
    schedules = runs.group_by("label").agg(pl.col("arch").n_unique()).filter(pl.col("arch") > 1)
    if not schedules.is_empty():
        raise PanelError(
            f"the label {schedules['label'][0]!r} stands for several schedules; give each its own"
        )
    if (twice := runs.filter(pl.struct(_RUN).is_duplicated())).height:
        one = twice.row(0, named=True)
        raise PanelError(
            f"{one['label']} has two runs of {one['setting']} at lr {one['lr']:g} and seed {one['seed']}, as "
            "when sweeps that halve differently are packed together; sweep all in one recipe, "
            "which finds them finished"
        )
    return runs


def _trainings(runs: pl.DataFrame) -> tuple[Training, ...]:
    """Trainings that every schedule has been given."""
    of = [set(part.select(_TRAINING).iter_rows()) for part in runs.partition_by("label", include_key=False)]
    return tuple(sorted(set.intersection(*of))) if of else ()


def _seeds(part: pl.DataFrame, labels: Sequence[str], trainings: Sequence[Training]) -> tuple[int, ...]:
    """Seeds at which a setting has every schedule with every training that its round was given."""
    known = pl.DataFrame(list(trainings), {name: part.schema[name] for name in _TRAINING}, orient="row")
    asked = pl.col("trainings").min().fill_null(len(trainings)).clip(upper_bound=len(trainings))
    have = part.join(known, on=_TRAINING, how="semi").group_by("label", "seed").agg(pl.len(), asked)
    whole = set(have.filter(pl.col("len") >= pl.col("trainings")).select("label", "seed").iter_rows())
    return tuple(seed for seed in sorted(part["seed"].unique()) if all((a, seed) in whole for a in labels))


def _kinds(runs: pl.DataFrame) -> dict[str, tuple[frozenset[str], frozenset[str]]]:
    """The mixers and roles of each schedule's layers; the first word of a layer is its mixer."""
    first = runs.unique("label", keep="first", maintain_order=True)
    return {
        label: (frozenset(layer.split(" ")[0] for layer in strip or ()), frozenset(roles or ()))
        for label, strip, roles in first.select("label", "strip", "roles").iter_rows()
    }


def whole(reference: Panel) -> Protocol:
    """The reference itself: every cell, uncut, at all of its seeds, with every training."""
    picks = tuple(Pick(cell.setting, cell.steps[-1], len(cell.seeds)) for cell in reference.cells)
    return Protocol(picks, reference.trainings)


def _where(reference: Panel, pick: Pick) -> tuple[Cell, int]:
    cell = reference.cell(pick.setting)
    if pick.step not in cell.steps:
        raise PanelError(f"{pick.setting} has no evaluation at step {pick.step}; it has {cell.steps}")
    if not 1 <= pick.seeds <= len(cell.seeds):
        raise PanelError(f"{pick.setting} has {len(cell.seeds)} seeds; {pick.seeds} were asked for")
    return cell, cell.steps.index(pick.step)


def cut(reference: Panel, protocol: Protocol | None = None) -> Sheet:
    """What the protocol would have seen: the first seeds of each of its cells, cut at its step.

    Without a protocol, the whole reference. Raises PanelError for a cell, step or seed that is not there.
    """
    protocol = protocol or whole(reference)
    rates = [reference.trainings.index(training) for training in protocol.trainings]
    parts: list[Part] = []
    for pick in protocol.picks:
        cell, at = _where(reference, pick)
        value, valid = (a[..., at][:, rates, : pick.seeds] for a in (cell.value, cell.valid))
        parts.append(Part(cell.task, value, valid))
    return Sheet(reference.labels, tuple(parts))


def cost(reference: Panel, protocol: Protocol | None = None) -> dict[str, float]:
    """CPU-seconds of training that the protocol spends on each schedule: the sum of the stored seconds."""
    protocol = protocol or whole(reference)
    rates = [reference.trainings.index(training) for training in protocol.trainings]
    spent = np.zeros(len(reference.labels))
    for pick in protocol.picks:
        cell, at = _where(reference, pick)
        spent += cell.seconds[..., at][:, rates, : pick.seeds].sum(axis=(1, 2))
    return dict(zip(reference.labels, spent.tolist(), strict=True))
