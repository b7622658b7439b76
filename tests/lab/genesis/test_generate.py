"""Generation as a library: laws of the state that the caller holds, and how a token is chosen."""

import copy
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from blocks.genesis_model import GenesisModel, Mode, ModeError, ModeParts
from lab.generation.sampling import GenerateError, Sampling, distribution, draw, penalised
from lab.generation.steps import Past, Step
from lab.genesis.generate import GENERATING, generate, read_on
from lab.terminal import CommandError
from tests.lab.genesis.small import VOCAB, small, some_ids

GREEDY = Sampling(temperature=0)
EVEN = Sampling(temperature=3)
"""Hot enough that two different draws soon part."""


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tokens(steps: Iterator[Step], rows: int = 1) -> list[list[int]]:
    """What each row drew."""
    made: list[list[int]] = [[] for _ in range(rows)]
    for step in steps:
        for row, token in zip(step.rows, step.tokens, strict=True):
            made[row].append(token)
    return made


def same(one: object, other: object) -> bool:
    """Equal to the last bit, through dictionaries and lists."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def close(mine: Tensor, other: Tensor) -> bool:
    return torch.allclose(mine, other, rtol=1e-8, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("mode", GENERATING)
@pytest.mark.parametrize("split", [1, 7, 63, 64, 65, 129])
def test_prefill_plus_steps_is_the_full_forward(mode: Mode, split: int) -> None:
    model, ids_BT = small(mode), some_ids(2, 132)
    with torch.no_grad():
        full_BTV, _ = model(ids_BT)
    logits_BV, past = read_on(model, ids_BT[:, :split])
    assert close(logits_BV, full_BTV[:, split - 1])
    for t in range(split, ids_BT.shape[1]):
        logits_BV, past = read_on(model, ids_BT[:, t : t + 1], past)
        assert close(logits_BV, full_BTV[:, t]), t


@pytest.mark.slow
@pytest.mark.parametrize("mode", GENERATING)
@pytest.mark.parametrize("cuts", [(3, 8), (60, 70), (1, 64, 128), (5, 63, 66, 130)])
def test_many_tokens_on_a_state_are_as_one_by_one(mode: Mode, cuts: tuple[int, ...]) -> None:
    model, ids_BT = small(mode), some_ids(2, 131)
    many: Past | None = None
    single: Past | None = None
    for start, end in zip((0, *cuts), (*cuts, 131), strict=True):
        many_BV, many = read_on(model, ids_BT[:, start:end], many)
        single_BV = many_BV
        for t in range(start, end):
            single_BV, single = read_on(model, ids_BT[:, t : t + 1], single)
        assert close(many_BV, single_BV), (start, end)
        assert single is not None and torch.equal(many.seen_BV, single.seen_BV)


@pytest.mark.parametrize("mode", GENERATING)
def test_interleaved_generations_never_meet(mode: Mode) -> None:
    model, prompts = small(mode), (some_ids(1, 9, 1), some_ids(1, 70, 2))
    apart = [tokens(generate(model, p, steps=12, sampling=EVEN, rng=rng(i))) for i, p in enumerate(prompts)]
    running = [generate(model, p, steps=12, sampling=EVEN, rng=rng(i)) for i, p in enumerate(prompts)]
    together: tuple[list[int], list[int]] = ([], [])
    for first, second in zip(*running, strict=True):
        together[0].extend(first.tokens)
        together[1].extend(second.tokens)
    assert [[one] for one in together] == apart
    assert apart[0] != apart[1]


@pytest.mark.parametrize("mode", GENERATING)
def test_the_same_step_twice_gives_the_same(mode: Mode) -> None:
    model = small(mode)
    _, past = read_on(model, some_ids(2, 66))
    before = copy.deepcopy(past)
    for length in (1, 5):
        once, twice = (read_on(model, some_ids(2, length, 3), past) for _ in range(2))
        assert torch.equal(once[0], twice[0])
        assert same(once[1].state, twice[1].state) and torch.equal(once[1].seen_BV, twice[1].seen_BV)
    assert same(past.state, before.state) and torch.equal(past.seen_BV, before.seen_BV)


@pytest.mark.parametrize("mode", GENERATING)
def test_a_generation_goes_on_from_any_of_its_steps(mode: Mode) -> None:
    model, sampling = small(mode), Sampling(temperature=0, repetition_penalty=1.5)
    whole = list(generate(model, some_ids(1, 5), steps=9, sampling=sampling))
    for at in (0, 3):
        last = torch.tensor([whole[at].tokens])
        rest = generate(model, last, steps=8 - at, sampling=sampling, past=whole[at].past)
        assert [step.tokens for step in rest] == [step.tokens for step in whole[at + 1 :]]


def test_between_steps_gradients_are_as_the_caller_has_them() -> None:
    model = small()
    running = generate(model, some_ids(1, 3), steps=3, sampling=GREEDY)
    step = next(running)
    assert torch.is_grad_enabled()
    logits_B1V, _ = model(torch.tensor([step.tokens]), step.past.state)
    logits_B1V.sum().backward()
    assert model.embedding.weight.grad is not None


@pytest.mark.parametrize("mode", GENERATING)
def test_greedy_is_the_argmax_of_the_full_forward(mode: Mode) -> None:
    model, ids_BT = small(mode), some_ids(2, 62)
    made = tokens(generate(model, ids_BT, steps=6, sampling=GREEDY), rows=2)
    for _ in range(6):
        with torch.no_grad():
            logits_BTV, _ = model(ids_BT)
        ids_BT = torch.cat([ids_BT, logits_BTV[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert made == ids_BT[:, 62:].tolist()


def test_top_k_of_one_is_greedy() -> None:
    model, prompt = small(), some_ids(3, 5)
    greedy = tokens(generate(model, prompt, steps=10, sampling=GREEDY), rows=3)
    hot = Sampling(temperature=50, top_k=1)
    assert tokens(generate(model, prompt, steps=10, sampling=hot, rng=rng()), rows=3) == greedy
    tied = (torch.arange(50_000) % 7 == 3).float()[None]  # as many are, in bfloat16
    assert distribution(tied, hot).nonzero().tolist() == [[0, 3]] and tied.argmax() == 3


def test_the_smallest_temperature_and_penalty_give_no_nan() -> None:
    cold = Sampling(temperature=5e-324)
    assert distribution(torch.tensor([[1e4, -1e4, 3.0]]), cold).tolist() == [[1, 0, 0]]
    model, least = small(), Sampling(repetition_penalty=5e-324)
    prompt = torch.tensor([[5, 6]])
    drawn = tokens(generate(model, prompt, steps=4, sampling=least, rng=rng()))
    assert all(0 <= token < VOCAB for token in drawn[0])


def test_a_seed_repeats_and_another_does_not() -> None:
    model, prompt = small(), some_ids(2, 5)
    runs = [tokens(generate(model, prompt, steps=20, sampling=EVEN, rng=rng(s)), rows=2) for s in (4, 4, 5)]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("mode", GENERATING)
def test_a_stop_freezes_one_sequence_and_not_the_others(mode: Mode) -> None:
    model, prompt = small(mode), some_ids(3, 61)
    free = tokens(generate(model, prompt, steps=12, sampling=EVEN, rng=rng()), rows=3)
    stop = next(token for token in free[1][3:] if token not in free[0] + free[2])
    until = free[1].index(stop) + 1
    assert until < 12
    steps = list(generate(model, prompt, steps=12, sampling=EVEN, rng=rng(), stop=(stop,)))
    made = tokens(iter(steps), rows=3)
    assert made == [free[0], free[1][:until], free[2]]
    assert [step.rows for step in steps] == [(0, 1, 2)] * until + [(0, 2)] * (12 - until)
    # Its past, in the step where it stopped, is that of the same sequence alone.
    kept = steps[until - 1].past.of([1])
    alone = torch.tensor([[*prompt[1].tolist(), *made[1][:-1]]])
    mine, theirs = (
        read_on(model, torch.tensor([[stop]]), past)[0] for past in (kept, read_on(model, alone)[1])
    )
    assert close(mine, theirs)
    assert kept.seen_BV[0].nonzero()[:, 0].tolist() == sorted(set(alone[0].tolist()))


def test_all_stopped_is_the_end() -> None:
    model, prompt = small(), some_ids(1, 4)
    (free,) = tokens(generate(model, prompt, steps=8, sampling=GREEDY))
    (made,) = tokens(generate(model, prompt, steps=8, sampling=GREEDY, stop={free[0]}))
    assert made == free[:1]


def test_repetition_penalty_by_hand() -> None:
    logits = torch.tensor([[3.0, -2.0, 1.0, -1.0, 0.0]])
    seen = torch.tensor([[True, True, False, False, True]])
    assert penalised(logits, seen, 2.0).tolist() == [[1.5, -4.0, 1.0, -1.0, 0.0]]
    assert penalised(logits, seen, 0.5).tolist() == [[6.0, -1.0, 1.0, -1.0, 0.0]]
    assert torch.equal(penalised(logits, seen, 1.0), logits)


def test_repetition_penalty_is_over_the_prompt_and_what_was_generated() -> None:
    model, prompt = small(), some_ids(1, 6)
    sampling = Sampling(temperature=0, repetition_penalty=1e6)
    (made,) = tokens(generate(model, prompt, steps=30, sampling=sampling))
    ids = prompt[0].tolist()
    for token in made:
        with torch.no_grad():
            logits = model(torch.tensor([ids]))[0][0, -1]
        for old in set(ids):
            logits[old] *= 1e-6 if logits[old] > 0 else 1e6
        assert token == logits.argmax()
        ids.append(token)
    assert not set(made) & set(prompt[0].tolist()) and len(set(made)) == 30


P = [0.1, 0.4, 0.2, 0.3]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, P),
        ({"top_p": 1.0}, P),
        ({"top_p": 0.4 - 1e-9}, [0, 1, 0, 0]),
        ({"top_p": 0.5}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_p": 0.71}, [0, 4 / 9, 2 / 9, 3 / 9]),
        ({"top_p": 1e-300}, [0, 1, 0, 0]),
        ({"top_k": 2}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_k": 9}, P),
        # top-p counts what top-k has left: two of three are 7/9, of all four they would be 0.7
        ({"top_k": 3, "top_p": 0.77}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_k": 3, "top_p": 0.78}, [0, 4 / 9, 2 / 9, 3 / 9]),
        ({"temperature": 0.5}, [0.01 / 0.3, 0.16 / 0.3, 0.04 / 0.3, 0.09 / 0.3]),
    ],
    ids=str,
)
def test_top_p_top_k_and_temperature_by_hand(options: dict[str, float], wanted: list[float]) -> None:
    logits = torch.tensor([P], dtype=torch.float64).log() + 5
    found = distribution(logits, Sampling(**options))  # pyright: ignore[reportArgumentType]
    assert found[0].tolist() == pytest.approx(wanted, abs=1e-12)


def test_draws_follow_the_probabilities_and_never_take_an_excluded_token() -> None:
    p = torch.tensor([[0.0, 0.25, 0.0, 0.5, 0.25, 0.0]]).double()
    u = (torch.arange(400) / 400).double()
    counts = draw(p.expand(400, -1).contiguous(), u).bincount(minlength=6)
    assert counts.tolist() == [0, 100, 0, 200, 100, 0]
    assert draw(p, torch.tensor([1 - 2.0**-53], dtype=torch.float64)).tolist() == [4]


NAN = math.nan


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": NAN}, "temperature is nan"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"top_k": 0}, "top-k is 0; it must be at least 1"),
        ({"top_p": 0.0}, "top-p is 0; it must be above 0 and at most 1"),
        ({"top_p": 1.1}, "top-p is 1.1"),
        ({"top_p": NAN}, "top-p is nan"),
        ({"repetition_penalty": 0.0}, "repetition penalty is 0; it must be above 0"),
        ({"repetition_penalty": NAN}, "repetition penalty is nan"),
    ],
    ids=str,
)
def test_options_that_mean_nothing_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(GenerateError, match=words):
        Sampling(**options)  # pyright: ignore[reportArgumentType]


class Unrun(torch.nn.Module):
    """A model that must not be run."""

    def __init__(self, model: GenesisModel) -> None:
        super().__init__()
        self.config, self.parts = model.config, model.parts


@pytest.mark.parametrize(
    ("prompt", "options", "words"),
    [
        (some_ids(1, 3), {"steps": 0}, "steps is 0"),
        (some_ids(1, 3)[0], {}, r"\[3\]; int64 \[B, T\]"),
        (some_ids(1, 3)[:, :0], {}, r"\[1, 0\]"),
        (some_ids(1, 3)[:0], {}, r"\[0, 3\]"),
        (some_ids(1, 3).float(), {}, "float32"),
        (
            some_ids(1, 3),
            {"stop": (VOCAB,)},
            "stop is 97, outside .*ids 0 to 96",
        ),
        (some_ids(1, 3), {"sampling": Sampling()}, "temperature is 1, .*rng"),
        (some_ids(2, 3), {"past": Past([], torch.zeros(3, VOCAB).bool())}, "2 sequences and its past 3"),
    ],
    ids=str,
)
def test_what_cannot_be_generated_is_said_before_anything_runs(prompt, options, words) -> None:
    with pytest.raises(GenerateError, match=words):
        generate(Unrun(small()), prompt, **{"steps": 1, "sampling": GREEDY, **options})  # pyright: ignore


@pytest.mark.parametrize("bad", [-1, VOCAB])
def test_ids_outside_the_vocabulary_are_named_with_their_place(bad: int) -> None:
    prompt = some_ids(2, 3)
    prompt[1, 2] = bad
    with pytest.raises(CommandError, match=rf"id {bad} at \[1, 2\] is outside .* 0 to 96"):
        generate(small(), prompt, steps=1, sampling=GREEDY)


@pytest.mark.parametrize("mode", ["shipped-eval", "shipped-eval-delta"])
def test_a_mode_without_a_state_is_refused_at_once(mode: Mode) -> None:
    with pytest.raises(ModeError, match=f"{mode} averages .* use shipped-train, shipped-cache or documented"):
        generate(small(mode), some_ids(1, 3), steps=1, sampling=GREEDY)


def test_parts_without_a_name_generate_where_they_have_a_state() -> None:
    model = small()
    parts = ModeParts("decay", None, "per token", "decay, all of the FFN, TTT per token")
    made = tokens(generate(model.in_mode(parts), some_ids(1, 3), steps=2, sampling=GREEDY))
    assert len(made[0]) == 2
    with pytest.raises(ModeError, match="decay, all at once averages"):
        without = ModeParts("decay", None, "batch mean", "decay, all at once")
        generate(model.in_mode(without), some_ids(1, 3), steps=2, sampling=GREEDY)


def test_logits_that_are_no_numbers_are_said() -> None:
    model = small()
    with torch.no_grad():
        model.norm.weight.fill_(NAN)
    with pytest.raises(GenerateError, match="float64 logits are NaN"):
        next(generate(model, some_ids(1, 3), steps=1, sampling=GREEDY))
