"""p of every pair of candidates at once, as ``stats`` says it pair by pair: a thousand have half a million.

N candidates, T tasks, S seeds.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import t as student

__all__ = ["p_of_pairs"]


def p_of_pairs(value_NTS: np.ndarray, left_N: np.ndarray, least: float) -> np.ndarray | None:
    """p of the first candidate with each later one, then of the second, and so on; None where it has none.

    value_NTS: NaN at a seed that a candidate lacks, on all tasks alike. left_N: whether it left the race, so
    that p is taken times the rounds after which it could have. least: the variance of a difference is taken
    as no less. A pair has no p where it shares fewer than two seeds.
    """
    found = [np.empty(0)]
    for i in range(len(value_NTS) - 1):
        apart_NTS = value_NTS[i] - value_NTS[i + 1 :]
        shared_N = np.isfinite(apart_NTS[:, 0]).sum(axis=-1)
        if shared_N.min() < 2:
            return None
        looks_N = np.where(left_N[i] | left_N[i + 1 :], shared_N - 1, 1)
        found.append(np.minimum(1.0, _p_values(apart_NTS, shared_N, least) * looks_N))
    return np.concatenate(found)


def _p_values(apart_NTS: np.ndarray, shared_N: np.ndarray, least: float) -> np.ndarray:
    """``stats.estimate(...).p_value()`` of N differences over the ``shared_N`` seeds that are not NaN."""
    mean_N = np.nanmean(apart_NTS, axis=-1).mean(axis=-1)
    part_NT = np.maximum(np.nanvar(apart_NTS, axis=-1, ddof=1), least) / shared_N[:, None]
    total_N = part_NT.sum(axis=-1)
    certain_N = total_N == 0
    total_N[certain_N] = 1.0  # a number to divide by
    df_N = (shared_N - 1) / np.where(certain_N, 1.0, ((part_NT / total_N[:, None]) ** 2).sum(axis=-1))
    t_N = np.abs(mean_N) * part_NT.shape[1] / np.sqrt(total_N)
    return np.where(certain_N, mean_N == 0, 2 * student.sf(t_N, df_N))
