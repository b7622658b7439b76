"""A byte-level BPE trained on given text, as the JSON that ``tokenizers`` reads."""

from __future__ import annotations

from collections.abc import Iterable

from lab.data.tokens import MARKS, DataError

__all__ = ["SMALLEST", "train_bpe"]

SMALLEST = 256 + len(MARKS)
"""Ids without any merge: one for each byte, and the marks."""


def train_bpe(texts: Iterable[str], vocab: int) -> str:
    """The tokenizer.json of ``vocab`` ids at most, marks included: they are the first three.

    Any text goes in and comes out as it was. Words are split as GPT-2 splits them; what is counted are words,
    so that memory grows with the different words, not with the text. The same texts give the same file.
    Raises DataError.
    """
    if vocab < SMALLEST:
        raise DataError(
            f"--vocab is {vocab}; at least {SMALLEST} ids are needed: 256 bytes and {len(MARKS)} marks"
        )
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    except ImportError as exc:
        raise DataError(
            "a tokenizer is trained by the package tokenizers; install it with "
            'pip install "hybrid-architecture-lab[tokenizers]"'
        ) from exc
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore
    trainer = trainers.BpeTrainer(  # pyright: ignore
        vocab_size=vocab,
        special_tokens=list(MARKS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str()
