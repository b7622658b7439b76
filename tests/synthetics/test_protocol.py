"""Tasks as text, and the suites."""

from __future__ import annotations

from collections import Counter

import pytest

from synthetics import TASKS, TaskError
from synthetics.protocol import SUITES, parse_task, settings, show_task, stretch
from synthetics.recall import Recall

EVERY = [task for suite in SUITES for task in settings(suite)]


def test_mad_has_its_sixty_six_settings() -> None:
    mad = settings("mad")
    # Table of the suite's configuration files: one factor at a time from the baseline.
    counts = {
        "recall": 11,
        "noisy_recall": 14,
        "fuzzy_recall": 11,
        "memorization": 6,
        "compression": 11,
        "copying": 13,
    }
    assert Counter(task.name for task in mad) == counts
    assert len(mad) == len(set(mad)) == 66
    assert {show_task(task) for task in mad if task.name == "noisy_recall"} == {
        "noisy_recall",
        *(f"noisy_recall(vocab={v})" for v in (48, 80, 144)),
        *(f"noisy_recall(length={v})" for v in (256, 512, 1024)),
        *(f"noisy_recall(train_examples={v})" for v in (6400, 3200, 1600, 800)),
        *(f"noisy_recall(frac_noise={v})" for v in (0.4, 0.6, 0.8)),
    }


def test_the_baselines_are_mad_labs_and_what_is_stated_elsewhere() -> None:
    sizes = {name: (task().vocab, task().length, task().train_examples) for name, task in TASKS.items()}
    assert sizes == {
        "recall": (16, 128, 12_800),
        "noisy_recall": (32, 128, 12_800),
        "fuzzy_recall": (16, 128, 12_800),
        "copying": (16, 256, 12_800),
        "compression": (16, 32, 12_800),
        "memorization": (256, 32, 256),
        "mqar": (128, 64, 12_800),
        "multihop": (64, 64, 12_800),
        "overwrite": (16, 128, 12_800),
        "parity": (2, 64, 12_800),
        "permutation": (6, 32, 12_800),
        "compositional_mqar": (64, 64, 12_800),
        "majority": (2, 64, 12_800),
        "dyck": (16, 64, 12_800),
        "needle": (64, 64, 12_800),
        "ngram": (8, 128, 12_800),
    }


def test_every_task_belongs_to_a_suite() -> None:
    assert {task.name for task in EVERY} == set(TASKS)


def test_a_suite_has_no_setting_twice() -> None:
    assert all(len(set(settings(suite))) == len(settings(suite)) for suite in SUITES)


@pytest.mark.parametrize(
    ("text", "factor", "says"),
    [
        ("compression", 2, "compression cannot be stretched to 2 times its length: its decoder knows"),
        ("recall(length=65536)", 4, "length is 262,144; it must lie between 4 and 131,072"),
        ("multihop(length=31, hops=1, chains=3)", 2, r"links it is 53, which must be even"),
    ],
)
def test_what_cannot_be_stretched_says_why(text: str, factor: int, says: str) -> None:
    with pytest.raises(TaskError, match=says) as caught:
        stretch(parse_task(text), factor)
    assert f"{text} cannot be stretched to {factor} times its length: " in str(caught.value)


def test_a_task_whose_vocabulary_grows_cannot_be_stretched() -> None:
    class Growing(Recall):
        def __post_init__(self) -> None:
            object.__setattr__(self, "vocab", self.length)

    with pytest.raises(TaskError, match="its vocabulary grows with the length"):
        stretch(Growing(), 2)


@pytest.mark.parametrize("task", EVERY, ids=show_task)
def test_text_and_task_are_one_to_one(task) -> None:
    assert parse_task(show_task(task)) == task
    assert show_task(parse_task(show_task(task))) == show_task(task)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        (" recall( ) ", "recall"),
        ("recall(vocab=16)", "recall"),
        ("recall(length=64, vocab=32)", "recall(vocab=32, length=64)"),
        ("noisy_recall(frac_noise=0)", "noisy_recall(frac_noise=0.0)"),
        ("mqar(random_filler=False)", "mqar(random_filler=False)"),
    ],
)
def test_the_canonical_text(text: str, canonical: str) -> None:
    assert show_task(parse_task(text)) == canonical


def test_a_users_task_joins_by_name() -> None:
    assert parse_task("mine(vocab=32)", {**TASKS, "mine": TASKS["recall"]}).vocab == 32


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "an empty text is no expression"),
        ("recal", "no task is called 'recal'; did you mean 'recall'?"),
        ("recall(voca=2)", "recall has no option 'voca'; did you mean 'vocab'?"),
        ("recall(vocab=2.5)", "vocab is 2.5; it must be a whole number"),
        ("recall(vocab=True)", "vocab is True; it must be a whole number"),
        ("recall(vocab='x')", "vocab is 'x'; it must be a whole number"),
        ("recall(vocab=[1])", "vocab must be a number, True, False or a word in quotes"),
        ("recall(vocab=k)", "vocab must be a number, True, False or a word in quotes"),
        ("recall(vocab=__import__('os'))", "vocab must be a number, True, False or a word in quotes"),
        ("recall(16)", "options of recall are given by name"),
        ("recall(vocab=16, vocab=17)", "vocab is given twice"),
        ("recall(**x)", r"\*\* is not allowed"),
        ("recall + recall", r"a task is written name or name\(option=value, ...\)"),
        ("recall.x", r"a task is written name or name\(option=value, ...\)"),
        ("recall(", "this does not parse"),
        ("recall(vocab=3)", "vocab is 3; it must lie between 4 and 1,048,576"),
        ("recall(vocab=10**9)", "must be a number"),
        ("recall(length=2)", "length is 2; it must lie between 4 and 131,072"),
        ("recall(length=1000000000000)", "length is 1,000,000,000,000; it must lie between"),
        ("recall(train_examples=0)", "train_examples is 0; it must lie between 1"),
        ("recall(length=7)", "length is 7; it must be even"),
        ("noisy_recall(length=7)", "length is 7; it must be even"),
        ("noisy_recall(frac_noise=1.5)", "frac_noise is 1.5; it must lie between 0 and 1"),
        ("noisy_recall(frac_noise=1e999)", "frac_noise is inf; it must be a number"),
        ("noisy_recall(noise_vocab=30)", "noise_vocab is 30 of the 32 ids of vocab"),
        ("fuzzy_recall(key_motif=0)", "key_motif is 0; it must lie between 1 and 7"),
        ("fuzzy_recall(vocab=128, key_motif=9)", "key_motif is 9; it must lie between 1 and 8"),
        ("fuzzy_recall(vocab=4)", "key_motif is 3; it must lie between 1 and 1"),
        ("fuzzy_recall(vocab=1000000, key_motif=8)", "too many motifs to number in 62 bits"),
        ("fuzzy_recall(length=12)", "length is 12; it must be at least 13"),
        ("copying(copy=0)", "copy is 0; at length 256 it must lie between 1 and 127"),
        ("copying(length=16)", "copy is 16; at length 16 it must lie between 1 and 7"),
        ("memorization(vocab=4)", "vocab is 4; it must be at least 5"),
        ("memorization(length=31)", "length is 31; it must be even"),
        ("memorization(map_seed=-1)", "map_seed is -1; it must be at least 0"),
        ("mqar(length=63)", "length is 63; it must be even"),
        ("mqar(pairs=17)", "pairs is 17; at length 64 and vocab 128 it must lie between 1 and 16"),
        ("mqar(vocab=8, pairs=4)", "pairs is 4; at length 64 and vocab 8 it must lie between 1 and 3"),
        ("mqar(power=0)", "power is 0.0; it must be above 0"),
        ("mqar(gap=7)", "gap is 7; at length 64 and pairs 4 it must be even and lie between 0 and 48"),
        ("mqar(gap=50)", "gap is 50; at length 64 and pairs 4 it must be even and lie between 0 and 48"),
        ("mqar(gap=-2)", "gap is -2; at length 64 and pairs 4 it must be even and lie between 0 and 48"),
        ("multihop(vocab=5)", "vocab is 5; it must be at least 6"),
        ("multihop(hops=0)", "hops is 0; it must be at least 1"),
        ("multihop(chains=0)", "chains is 0; it must be at least 1"),
        ("multihop(vocab=16)", "hops 2 times chains 4 makes 8 keys; vocab 16 has 7"),
        ("multihop(length=63)", "less 3 tokens for each of 8 links it is 39, which must be even"),
        (
            "multihop(length=24)",
            "less 3 tokens for each of 8 links it is 0, which must be even and at least 2",
        ),
        ("overwrite(vocab=4)", "vocab is 4; it must be at least 5"),
        ("overwrite(length=31)", "length is 31; it must be even"),
        ("overwrite(reads=1.5)", "reads is 1.5; it must lie between 0 and 1"),
        ("parity(length=3)", "length is 3; it must lie between 4"),
        ("parity(vocab=2)", "parity has no option 'vocab'"),
        ("permutation(group=2)", "group is 2; it must be 3, 4 or 5"),
        ("permutation(group=6)", "group is 6; it must be 3, 4 or 5"),
        ("compositional_mqar(vocab=11)", "vocab is 11; it must be at least 12"),
        ("compositional_mqar(side=1)", "side is 1; at vocab 64 it must lie between 2 and 15"),
        ("compositional_mqar(side=16)", "side is 16; at vocab 64 it must lie between 2 and 15"),
        ("compositional_mqar(pairs=13)", "side 4 and vocab 64 it must lie between 1 and 12"),
        ("dyck(kinds=1)", "kinds is 1; it must lie between 2 and 524,288"),
        ("dyck(depth=1)", "depth is 1; at length 64 it must lie between 2 and 63"),
        ("dyck(length=8)", "depth is 8; at length 8 it must lie between 2 and 7"),
        ("needle(vocab=5)", "vocab is 5; it must be at least 6"),
        ("needle(needles=0)", "needles is 0; it must be at least 1"),
        ("needle(distractors=-1)", "distractors is -1; it must be at least 0"),
        ("needle(vocab=16)", "needles 2 and distractors 6 make 8 keys; vocab 16 has 7"),
        ("needle(length=27)", "length is 27; needles 2 and distractors 6 take 28"),
        ("ngram(order=1)", "order is 1; it must be at least 2"),
        ("ngram(vocab=32, order=3)", "vocab 32 to the power of order 3 is more than 16,384 transitions"),
        (
            "ngram(length=65, order=3)",
            "order 3 make 64 contexts, of which one is sure to come again in 67 tokens",
        ),
        ("ngram(alpha=0)", "alpha is 0.0; it must lie between 0.01 and 1,000"),
        ("compositional_mqar(side=2)", "side 2 and vocab 64 it must lie between 1 and 4"),
    ],
)
def test_what_bad_text_gets(text: str, says: str) -> None:
    with pytest.raises(TaskError, match=says) as caught:
        parse_task(text)
    assert text.strip() in str(caught.value)


def test_an_unknown_suite_is_refused() -> None:
    with pytest.raises(TaskError, match="'mda' is no suite; did you mean 'mad'"):
        settings("mda")


def test_a_task_made_in_python_is_held_to_the_same_types() -> None:
    with pytest.raises(TaskError, match="vocab is '16'; it must be a whole number"):
        Recall(vocab="16")  # type: ignore[arg-type]
