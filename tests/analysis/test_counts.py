"""A count is written in three figures, near to what it is, and in the largest unit that leaves it above 1."""

from __future__ import annotations

import re

import numpy as np

from analysis.counts import short

SEED = 4_117
UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def test_a_count_reads_back_within_half_of_its_third_figure() -> None:
    rng = np.random.default_rng(SEED)
    edges = [size * near for size in list(UNITS.values())[1:] for near in (0.9994, 0.9996, 1.0, 1.004)]
    for number in [*edges, *10 ** rng.uniform(0, 14.5, 2000)]:
        text = short(number)
        found = re.fullmatch(r"([\d.]+)([kMGT]?)", text)
        assert found, text
        figures, unit = found.groups()
        assert len(figures.replace(".", "")) <= 3 and 1 <= float(figures) < 1000, text
        assert abs(float(figures) * UNITS[unit] - number) <= 0.00501 * number, text
    for count in range(1000):
        assert short(count) == str(count)
