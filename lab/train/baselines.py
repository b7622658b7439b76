"""What needs no model, on the held-out text: a bigram of bytes fitted on the training text; a compressor."""

from __future__ import annotations

import lzma
import math

import numpy as np

__all__ = ["bigram_bits", "xz_bits"]


def bigram_bits(train: bytes, held_out: bytes) -> float:
    """Bits per byte of ``held_out`` under a bigram of bytes fitted on ``train``.

    p(b | a) = (n(ab) + p(b)) / (n(a) + 1): the unigram weighs as one count, and its own counts start
    at one, so that nothing is impossible (MacKay & Peto 1995). The first byte is the unigram's.
    """
    x, y = np.frombuffer(train, np.uint8), np.frombuffer(held_out, np.uint8)
    unigram = np.bincount(x, minlength=256) + 1.0
    unigram /= unigram.sum()
    pairs = np.bincount(x[:-1].astype(np.int64) * 256 + x[1:], minlength=1 << 16).reshape(256, 256)
    given = (pairs + unigram) / (pairs.sum(axis=1, keepdims=True) + 1)
    bits = -math.log2(unigram[y[0]]) - float(np.log2(given[y[:-1], y[1:]]).sum())
    return bits / len(y)


def xz_bits(held_out: bytes) -> float:
    """Bits per byte of ``xz -9`` on ``held_out`` alone."""
    return 8 * len(lzma.compress(held_out, preset=9)) / len(held_out)
