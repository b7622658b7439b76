"""Our distributions against instances drawn by mad-lab itself.

``MADLAB`` holds summary figures of mad-lab's own generators at commit 0f49a45 (seed 12345, 512 rows each, its
baseline options unless the text says otherwise): per figure the mean over rows and the standard deviation
between rows. Ours must agree within 4.5 standard errors of the difference. Not compared: memorization's map
and compression's last target, which differ on purpose (see those modules).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from synthetics import IGNORE, Batch, Split
from synthetics.protocol import parse_task

SEED = 11
ROWS = 4096
MADLAB_ROWS = 512

Figures = Mapping[str, np.ndarray]


def recall_figures(batch: Batch, keys: int, content: int) -> Figures:
    """Per row: scored positions, mean lag from a scored key to its last occurrence, keys, noise."""
    inputs, scored = batch.inputs, batch.targets != IGNORE
    figures = {
        "scored": scored.sum(axis=1),
        "distinct keys": np.array([len(set(row[row < keys].tolist())) for row in inputs]),
        "distinct values": np.array(
            [len({i for i in row.tolist() if keys <= i < content}) for row in inputs]
        ),
        "noise": (inputs >= content).sum(axis=1),
        "noise in the last quarter": (inputs[:, -32:] >= content).sum(axis=1),
        "probe": inputs[:, -1],
        "earlier occurrences of the probe": (inputs[:, :-1] == inputs[:, -1:]).sum(axis=1),
    }
    if not scored.all():
        lags = [last_lags(row, where) for row, where in zip(inputs, scored, strict=True)]
        figures |= {"lag": np.array([np.mean(lag) for lag in lags])}
        figures |= {f"lag up to {w}": np.array([np.mean(lag <= w) for lag in lags]) for w in (2, 16, 32, 64)}
    return figures


def last_lags(row: np.ndarray, scored: np.ndarray) -> np.ndarray:
    return np.array([t - np.flatnonzero(row[:t] == row[t])[-1] for t in np.flatnonzero(scored)])


def fuzzy_figures(batch: Batch, keys: int, pad: int) -> Figures:
    """Per row: pads, scored positions, number and sizes of motifs, repeats, kind of token by position."""
    inputs, scored = batch.inputs, batch.targets != IGNORE
    is_key = inputs < keys
    whole = np.concatenate([inputs, batch.targets[:, -1:]], axis=1)
    pairs = [pairs_of(row, keys, pad) for row in whole]
    figures = {
        "pads": (inputs == pad).sum(axis=1),
        "scored": scored.sum(axis=1),
        "scored in the first half": scored[:, :64].sum(axis=1),
        "keys": is_key.sum(axis=1),
        "pairs": np.array([len(row) for row in pairs]),
        "repeated pairs": np.array([len(row) - len(set(row)) for row in pairs]),
        "key size": np.array([np.mean([len(key) for key, _ in row]) for row in pairs]),
        "value size": np.array([np.mean([len(value) for _, value in row]) for row in pairs]),
        "earlier occurrences of the probe": np.array([keys.count(keys[-1]) - 1 for keys in keys_of(pairs)]),
        "place of the probe": np.array([keys.index(keys[-1]) for keys in keys_of(pairs)]),
        "ids per key": np.array([np.mean([sum(key) for key, _ in row]) for row in pairs]),
    }
    return figures | {f"key at {t}": is_key[:, t] for t in (8, 64, 110, 120, 126)}


def pairs_of(row: np.ndarray, keys: int, pad: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    tokens = row[row != pad]
    runs = np.split(tokens, np.flatnonzero(np.diff((tokens < keys).astype(int))) + 1)
    motifs = [tuple(run.tolist()) for run in runs]
    return list(zip(motifs[::2], motifs[1::2], strict=True))


def keys_of(pairs: list[list[tuple[tuple[int, ...], tuple[int, ...]]]]) -> list[list[tuple[int, ...]]]:
    return [[key for key, _ in row] for row in pairs]


def copying_figures(batch: Batch, blank: int) -> Figures:
    """Per row: the gaps of blanks before content tokens, and the content."""
    where = np.nonzero(batch.inputs < blank)[1].reshape(len(batch), -1)
    gaps = np.diff(where, axis=1, prepend=-1) - 1
    return {
        "scored": (batch.targets != IGNORE).sum(axis=1),
        "first gap": gaps[:, 0],
        "last gap": gaps[:, -1],
        "smallest gap": gaps.min(axis=1),
        "largest gap": gaps.max(axis=1),
        "gap variance": gaps.var(axis=1),
        "last content position": where[:, -1],
        "distinct contents": np.array([len(set(row[-16:].tolist())) for row in batch.targets]),
    }


def flat_figures(batch: Batch) -> Figures:
    """Per row: how many different ids, and the ids of the first and the middle token."""
    inputs = batch.inputs
    return {
        "distinct ids": np.array([len(set(row.tolist())) for row in inputs]),
        "first token": inputs[:, 0],
        "middle token": inputs[:, 16],
        "last token": inputs[:, -1],
        "ids": inputs.mean(axis=1),
    }


def figures(text: str, batch: Batch) -> Figures:
    """The figures of the family of ``text``."""
    task = parse_task(text)
    match task.name:
        case "recall":
            return recall_figures(batch, task.vocab // 2, task.vocab)
        case "noisy_recall":
            return recall_figures(batch, 8, 16)
        case "fuzzy_recall":
            return fuzzy_figures(batch, 7, 15)
        case "copying":
            return copying_figures(batch, task.vocab - 2)
        case _:
            return flat_figures(batch)


MADLAB: Mapping[tuple[str, Split], Mapping[str, tuple[float, float]]] = {
    ("recall", "train"): {
        "scored": (127.0000, 0.0000),
        "distinct keys": (8.0000, 0.0000),
        "distinct values": (5.1719, 0.9045),
        "noise": (0.0000, 0.0000),
        "noise in the last quarter": (0.0000, 0.0000),
        "probe": (3.6895, 2.2315),
        "earlier occurrences of the probe": (7.9922, 2.5418),
    },
    ("recall", "test"): {
        "scored": (56.0059, 0.0763),
        "distinct keys": (7.9941, 0.0763),
        "distinct values": (5.2539, 0.8716),
        "noise": (0.0000, 0.0000),
        "noise in the last quarter": (0.0000, 0.0000),
        "probe": (3.5352, 2.3080),
        "earlier occurrences of the probe": (7.9414, 2.6296),
        "lag": (13.9147, 0.7972),
        "lag up to 2": (0.1402, 0.0460),
        "lag up to 16": (0.7060, 0.0444),
        "lag up to 32": (0.9176, 0.0281),
        "lag up to 64": (0.9943, 0.0092),
    },
    ("recall(vocab=128)", "train"): {
        "scored": (127.0000, 0.0000),
        "distinct keys": (40.3242, 2.5133),
        "distinct values": (29.9629, 2.4013),
        "noise": (0.0000, 0.0000),
        "noise in the last quarter": (0.0000, 0.0000),
        "probe": (31.5605, 18.5155),
        "earlier occurrences of the probe": (1.5879, 0.8173),
    },
    ("recall(vocab=128)", "test"): {
        "scored": (23.7520, 2.6337),
        "distinct keys": (40.2480, 2.6337),
        "distinct values": (30.0508, 2.5429),
        "noise": (0.0000, 0.0000),
        "noise in the last quarter": (0.0000, 0.0000),
        "probe": (30.4629, 18.1418),
        "earlier occurrences of the probe": (1.5449, 0.7743),
        "lag": (37.3751, 5.1671),
        "lag up to 2": (0.0420, 0.0415),
        "lag up to 16": (0.2984, 0.0960),
        "lag up to 32": (0.5262, 0.0993),
        "lag up to 64": (0.8194, 0.0734),
    },
    ("noisy_recall", "train"): {
        "scored": (127.0000, 0.0000),
        "distinct keys": (7.9883, 0.1076),
        "distinct values": (5.2793, 0.9386),
        "noise": (24.8789, 6.4215),
        "noise in the last quarter": (6.3281, 3.0920),
        "probe": (3.4863, 2.2604),
        "earlier occurrences of the probe": (6.2148, 2.3118),
    },
    ("noisy_recall", "test"): {
        "scored": (43.6660, 3.2331),
        "distinct keys": (7.9961, 0.0624),
        "distinct values": (5.2988, 0.8720),
        "noise": (24.6758, 6.4666),
        "noise in the last quarter": (5.9531, 3.1008),
        "probe": (3.5215, 2.3897),
        "earlier occurrences of the probe": (6.4277, 2.3541),
        "lag": (16.7089, 1.5380),
        "lag up to 2": (0.1139, 0.0496),
        "lag up to 16": (0.6308, 0.0596),
        "lag up to 32": (0.8696, 0.0429),
        "lag up to 64": (0.9878, 0.0156),
    },
    ("noisy_recall(frac_noise=0.8)", "train"): {
        "scored": (127.0000, 0.0000),
        "distinct keys": (6.5137, 1.0824),
        "distinct values": (4.6270, 1.0017),
        "noise": (99.2734, 6.0379),
        "noise in the last quarter": (24.5059, 3.0948),
        "probe": (3.3828, 2.2582),
        "earlier occurrences of the probe": (2.0703, 1.1123),
    },
    ("noisy_recall(frac_noise=0.8)", "test"): {
        "scored": (7.9336, 2.6596),
        "distinct keys": (6.5996, 1.0597),
        "distinct values": (4.6738, 0.8823),
        "noise": (98.9336, 6.2309),
        "noise in the last quarter": (24.2676, 3.1063),
        "probe": (3.4844, 2.2938),
        "earlier occurrences of the probe": (2.0977, 1.1085),
        "lag": (36.1027, 11.7593),
        "lag up to 2": (0.0435, 0.0768),
        "lag up to 16": (0.3107, 0.1641),
        "lag up to 32": (0.5494, 0.1869),
        "lag up to 64": (0.8373, 0.1578),
    },
    ("fuzzy_recall", "train"): {
        "pads": (5.3105, 1.4043),
        "scored": (128.0000, 0.0000),
        "scored in the first half": (64.0000, 0.0000),
        "keys": (62.3184, 3.5070),
        "pairs": (30.8789, 1.8278),
        "repeated pairs": (6.6094, 2.5155),
        "key size": (2.0239, 0.1486),
        "value size": (1.9952, 0.1742),
        "earlier occurrences of the probe": (1.3145, 0.7531),
        "place of the probe": (12.8613, 8.9736),
        "ids per key": (6.0523, 0.6326),
        "key at 8": (0.5137, 0.4998),
        "key at 64": (0.5215, 0.4995),
        "key at 110": (0.5078, 0.4999),
        "key at 120": (0.5273, 0.4993),
        "key at 126": (0.6328, 0.4820),
    },
    ("fuzzy_recall", "test"): {
        "pads": (4.9414, 1.5526),
        "scored": (4.4629, 2.4492),
        "scored in the first half": (0.6035, 1.1730),
        "keys": (74.2559, 2.7413),
        "pairs": (24.7520, 0.9138),
        "repeated pairs": (2.1504, 1.0111),
        "key size": (3.0000, 0.0000),
        "value size": (2.0184, 0.1809),
        "earlier occurrences of the probe": (1.0430, 0.2690),
        "place of the probe": (11.2578, 6.7933),
        "ids per key": (9.0157, 0.5706),
        "key at 8": (0.6504, 0.4768),
        "key at 64": (0.5938, 0.4911),
        "key at 110": (0.6094, 0.4879),
        "key at 120": (0.7402, 0.4385),
        "key at 126": (0.6582, 0.4743),
    },
    ("copying", "test"): {
        "scored": (16.0000, 0.0000),
        "first gap": (14.0723, 3.6966),
        "last gap": (13.7734, 3.7154),
        "smallest gap": (7.6289, 1.5547),
        "largest gap": (20.9023, 1.9511),
        "gap variance": (13.2507, 4.6282),
        "last content position": (238.0000, 0.0000),
        "distinct contents": (9.6875, 1.2231),
    },
    ("compression", "test"): {
        "distinct ids": (14.2441, 1.0519),
        "first token": (6.7520, 4.2522),
        "middle token": (6.8184, 4.2615),
        "last token": (15.0000, 0.0000),
        "ids": (7.1835, 0.7854),
    },
    ("memorization", "test"): {
        "distinct ids": (15.9980, 0.8894),
        "first token": (64.1250, 36.3342),
        "middle token": (62.2539, 36.9717),
        "last token": (255.0000, 0.0000),
        "ids": (159.3861, 4.3235),
    },
}


@pytest.mark.parametrize(("text", "split"), MADLAB, ids=map(" ".join, MADLAB))
def test_our_rows_are_distributed_as_mad_labs(text: str, split: Split) -> None:
    batch = parse_task(text).sample(np.random.default_rng(SEED), ROWS, split)
    stored, ours = MADLAB[text, split], figures(text, batch)
    assert set(stored) == set(ours)
    for name, values in ours.items():
        mean, deviation = stored[name]
        error = np.sqrt(deviation**2 / MADLAB_ROWS + values.var() / ROWS)
        assert abs(values.mean() - mean) <= 4.5 * error + 1e-9, (
            f"{name}: {values.mean():.3f}, mad-lab {mean:.3f}"
        )
