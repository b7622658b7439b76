"""What a task is: a frozen dataclass that draws instances and knows the rule that solves them.

Shape suffixes: N rows, T tokens of an input row, S slots of a layout (pairs of a recall row, and the like).

A task knows nothing of models. Everything random comes from the generator passed to ``sample``; whatever has
to be the same in all splits (memorization's map) is a field of the task.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, cast, runtime_checkable

import numpy as np

from blocks.notation import NotationError, check_option

__all__ = [
    "IGNORE",
    "Batch",
    "Head",
    "Split",
    "Task",
    "TaskError",
    "check_fields",
    "distinct",
    "distinct_columns",
    "draw_text",
    "first_same",
    "last_same",
    "need",
    "octaves",
    "take_rows",
]

IGNORE = -100
"""The target where nothing is scored; torch's ``cross_entropy`` skips it by default."""

Split = Literal["train", "valid", "test"]
"""``valid`` is drawn like ``test``; ``train`` may be supervised at more positions."""

Head = Literal["lm", "autoencoder"]
"""``lm``: one answer per position, causally. ``autoencoder``: all answers from the last position's vector."""

MAX_VOCAB = 2**20
MAX_LENGTH = 2**17
MAX_EXAMPLES = 10**8

FEW = 16
"""Distinct numbers that are drawn one by one; more are the start of a shuffle."""

TABLE = 2**21
"""Entries of the largest table that finding equal numbers or shuffling fills; beyond, they do without."""


class TaskError(NotationError):
    """A task is unknown, an option of it is impossible, or it cannot fill a split."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Instances: ``inputs`` token ids, ``targets`` the answer at each position, or IGNORE; int64, [N, T]."""

    inputs: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.inputs)


@runtime_checkable
class Task(Protocol):
    """The protocol of a registry entry; implementations are ``@dataclass(frozen=True, kw_only=True)``.

    ``length`` is the suites' own size of a row; ``tokens`` is what a model sees (recall shifts one away).
    ``LADDER`` lists the harder or easier values of each factor, varied one at a time from the defaults.
    ``lagged``: the answer stands in the row itself, some tokens back; a window may or may not hold it.
    ``LEVEL`` says in a few words what ``levels`` counts.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    name: ClassVar[str]
    head: ClassVar[Head]
    lagged: ClassVar[bool]
    LEVEL: ClassVar[str]
    LADDER: ClassVar[Mapping[str, tuple[int | float, ...]]]

    @property
    def vocab(self) -> int:
        """Number of token ids: the size of the embedding and of the output."""
        ...

    @property
    def length(self) -> int:
        """Size of a row as the suite that defined the task counts it."""
        ...

    @property
    def train_examples(self) -> int:
        """Size of the training set."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens per input row, T."""
        ...

    def sample(self, rng: np.random.Generator, n: int, split: Split = "test") -> Batch:
        """``n`` instances, all randomness from ``rng``."""
        ...

    def solve(self, inputs_NT: np.ndarray) -> np.ndarray:
        """The rule: the answer at each position from the tokens up to it, -1 where it says nothing.

        Rows may be any piece of a whole row (a window): the rule then uses what the piece shows.
        """
        ...

    def levels(self, batch: Batch) -> np.ndarray:
        """How difficult each scored position of valid or test rows is, 0 or above; IGNORE elsewhere; [N, T].

        One run is scored at all of its levels at once.
        """
        ...


def need(task: Task, ok: bool, message: str) -> None:
    """Raise TaskError ``"<task>: <message>"`` unless ``ok``."""
    if not ok:
        raise TaskError(f"{task.name}: {message}")


def check_fields(task: Task) -> None:
    """Hold every field of ``task`` to its annotation and the common sizes to their bounds.

    A whole number given for a float becomes one, so that equal tasks print, seed and hash the same.
    Raises TaskError.
    """
    for field in dataclasses.fields(task):
        value = getattr(task, field.name)
        try:
            checked = check_option(task.name, type(task), field.name, value)
        except NotationError as exc:
            raise TaskError(str(exc)) from None
        if checked is not value:
            object.__setattr__(task, field.name, checked)
    bounds = {"vocab": (4, MAX_VOCAB), "length": (4, MAX_LENGTH), "train_examples": (1, MAX_EXAMPLES)}
    for name in bounds.keys() & {field.name for field in dataclasses.fields(task)}:
        low, high = bounds[name]
        value = cast(int, getattr(task, name))
        need(task, low <= value <= high, f"{name} is {value:,}; it must lie between {low:,} and {high:,}")


def first_same(ids_NS: np.ndarray) -> np.ndarray:
    """For each entry the index of the first equal entry of its row (its own index if it is new); [N, S]."""
    rows, slots = ids_NS.shape
    if not ids_NS.size:
        return np.empty((rows, slots), dtype=np.int64)
    low, high = int(ids_NS.min()), int(ids_NS.max())
    if low >= 0 and rows * (high + 1) <= TABLE:
        return _first_by_table(ids_NS, high + 1)
    if low >= 0 and high < 2**16:
        ids_NS = ids_NS.astype(np.uint16)  # numpy sorts 16-bit numbers by radix, several times faster
    order_NS = np.argsort(ids_NS, axis=1, kind="stable")
    sorted_NS = np.take_along_axis(ids_NS, order_NS, axis=1)
    starts_NS = np.zeros((rows, slots), dtype=np.int64)
    starts_NS[:, 1:] = np.where(sorted_NS[:, 1:] != sorted_NS[:, :-1], np.arange(1, slots), 0)
    np.maximum.accumulate(starts_NS, axis=1, out=starts_NS)
    first_NS = np.empty_like(order_NS)
    np.put_along_axis(first_NS, order_NS, np.take_along_axis(order_NS, starts_NS, axis=1), axis=1)
    return first_NS


def _first_by_table(ids_NS: np.ndarray, ids: int) -> np.ndarray:
    """``first_same`` of numbers below ``ids``: a table of where each stands, written from the last slot."""
    rows, slots = ids_NS.shape
    place_NS = ids_NS + ids * np.arange(rows)[:, None]
    table = np.empty(rows * ids, dtype=np.int64)  # only what is written below is read
    # Of equal indices the last one assigned stays, so the slots go in from last to first; in flat arrays,
    # as numpy walks through others in an order of its own.
    table[place_NS[:, ::-1].ravel()] = np.tile(np.arange(slots)[::-1], rows)
    return table.take(place_NS)


def last_same(ids_NS: np.ndarray) -> np.ndarray:
    """For each entry the index of the last equal entry before it (its own index if it is new); [N, S]."""
    order_NS = np.argsort(ids_NS, axis=1, kind="stable")
    sorted_NS = np.take_along_axis(ids_NS, order_NS, axis=1)
    before_NS = order_NS.copy()
    np.copyto(before_NS[:, 1:], order_NS[:, :-1], where=sorted_NS[:, 1:] == sorted_NS[:, :-1])
    last_NS = np.empty_like(order_NS)
    np.put_along_axis(last_NS, order_NS, before_NS, axis=1)
    return last_NS


def octaves(count_NT: np.ndarray, targets_NT: np.ndarray) -> np.ndarray:
    """Levels by doublings of a count of 1 or more: level 3 is 8 to 15; IGNORE where no target is scored."""
    exponent_NT = np.frexp(np.maximum(count_NT, 1).astype(np.float64))[1].astype(np.int64)
    return np.where(targets_NT != IGNORE, exponent_NT - 1, IGNORE)


def take_rows(values_NK: np.ndarray, index_NS: np.ndarray) -> np.ndarray:
    """``values[n, index[n, s]]``; [N, S]. What ``take_along_axis`` does, in half the time."""
    return values_NK.ravel().take(index_NS + values_NK.shape[1] * np.arange(len(values_NK))[:, None])


def distinct(rng: np.random.Generator, shape: tuple[int, ...], k: int, ids: int) -> np.ndarray:
    """Ordered draws of ``k`` distinct numbers below ``ids``, uniform over all such tuples; ``[*shape, k]``.

    The j-th number is uniform among those not taken: a rank below ids - j, moved up past each taken number.
    That takes k**2 steps; more than FEW are the first k of a shuffle, unless that would fill the memory.
    """
    if k > FEW and math.prod(shape) * ids <= TABLE:
        return _shuffle(rng, math.prod(shape), k, ids).reshape(*shape, k)
    drawn = np.empty((*shape, k), dtype=np.int64)
    for j, column in enumerate(distinct_columns(rng, shape, k, ids)):
        drawn[..., j] = column
    return drawn


def _shuffle(rng: np.random.Generator, n: int, k: int, ids: int) -> np.ndarray:
    """The first ``k`` places of ``n`` shuffles of the numbers below ``ids`` (Fisher and Yates); [N, k]."""
    row, deck_NI = np.arange(n), np.tile(np.arange(ids), (n, 1))
    for j in range(k):
        pick_N = rng.integers(j, ids, size=n)
        drawn_N = deck_NI[row, pick_N]
        deck_NI[row, pick_N] = deck_NI[:, j]
        deck_NI[:, j] = drawn_N
    return deck_NI[:, :k]


def distinct_columns(
    rng: np.random.Generator, shape: tuple[int, ...], k: int, ids: int, dtype: type = np.int64
) -> list[np.ndarray]:
    """``distinct`` as ``k`` arrays of ``shape``."""
    drawn: list[np.ndarray] = []
    taken: list[np.ndarray] = []  # the same, in each place from smallest to largest
    for j in range(k):
        number = rng.integers(0, ids - j, size=shape, dtype=dtype)
        for low in taken:
            number += number >= low
        drawn.append(number)
        if j == k - 1:
            break
        rising, taken = number, [*taken, number]
        for i in range(j - 1, -1, -1):
            taken[i + 1] = np.maximum(taken[i], rising)
            rising = np.minimum(taken[i], rising)
            taken[i] = rising
    return drawn


def draw_text(batch: Batch, row: int = 0) -> str:
    """Row ``row`` as two aligned lines: the input, and below it the scored answers (a dot where none is)."""
    inputs, targets = batch.inputs[row], batch.targets[row]
    answers = ["." if target == IGNORE else str(target) for target in targets.tolist()]
    width = max(len(str(inputs.max())), *map(len, answers))
    lines = (("input ", map(str, inputs.tolist())), ("target", answers))
    return "\n".join(f"{label} {' '.join(word.rjust(width) for word in words)}" for label, words in lines)
