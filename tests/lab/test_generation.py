"""Generation by models of the lab: state instead of the past, prompts of any length, memory that stays."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from blocks import BLOCKS
from blocks.model import LanguageModel
from lab.generation.language import PIECE, Language, bytes_by_role
from lab.generation.sampling import GenerateError, Sampling
from lab.generation.steps import generate, generate_ragged, read_on
from lab.model.spec import build, loads, schedule_of, write_model

TEXT = """\
kind: model
name: tiny
model: {schedule: "2*(gdn, swiglu) + (fox, mlp) + attn(window=3)", shape: {dim: 16, heads: 2}, vocab: 257}
data: {train: [{data: corpus}], length: 32}
train: {steps: 10, batch: 8}
"""
SPEC = loads(TEXT)
GREEDY, EVEN = Sampling(temperature=0), Sampling(temperature=2)
PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11], [9, 9]]


def model(spec=SPEC) -> LanguageModel:
    torch.manual_seed(0)
    return build(spec).double().eval()


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows_of(steps, number: int) -> list[list[int]]:
    made: list[list[int]] = [[] for _ in range(number)]
    for step in steps:
        for row, token in zip(step.rows, step.tokens, strict=True):
            made[row].append(token)
    return made


@pytest.mark.parametrize("name", [name for name in BLOCKS if not name.startswith("genesis")])
def test_on_a_state_it_is_as_without(name: str) -> None:
    spec = loads(TEXT, overrides=[f"model.schedule=2*({name}, swiglu)"])
    made, prompt = model(spec), torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
    on_state = rows_of(generate(Language(made), prompt, steps=6, sampling=GREEDY), 2)
    for _ in range(6):
        with torch.no_grad():
            prompt = torch.cat([prompt, made(prompt)[0][:, -1].argmax(-1, keepdim=True)], dim=1)
    assert on_state == prompt[:, 5:].tolist()


@pytest.mark.parametrize("sampling", [GREEDY, EVEN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("stops", [False, True])
def test_prompts_of_all_lengths_are_each_as_alone(sampling: Sampling, stops: bool) -> None:
    reader = Language(model())
    alone = [
        rows_of(generate(reader, torch.tensor([p]), steps=9, sampling=sampling, rng=rng(i)), 1)[0]
        for i, p in enumerate(PROMPTS)
    ]
    stop = (alone[0][4],) if stops else ()
    wanted = [row[: row.index(stop[0]) + 1] if stops and stop[0] in row else row for row in alone]
    rngs = [rng(i) for i in range(len(PROMPTS))]
    together = generate_ragged(reader, PROMPTS, steps=9, sampling=sampling, stop=stop, rngs=rngs)
    assert rows_of(together, len(PROMPTS)) == wanted


def test_a_step_has_the_past_of_its_rows() -> None:
    reader = Language(model())
    for step in generate_ragged(reader, PROMPTS, steps=2, sampling=GREEDY):
        for at, row in enumerate(step.rows):
            if step.tokens[at] and row == 2:
                logits_BV, _ = read_on(reader, torch.tensor([[step.tokens[at]]]), step.past.of([at]))
                whole, _ = read_on(reader, torch.tensor([[*PROMPTS[2], step.tokens[at]]]))
                assert torch.allclose(logits_BV, whole)
                return
    pytest.fail("row 2 has never drawn")


def test_a_long_prompt_goes_piece_by_piece() -> None:
    made = model()
    ids = torch.randint(0, 257, (1, 2 * PIECE + 3), generator=rng(1))
    logits_BV, _ = Language(made).read(ids, None)
    assert torch.allclose(logits_BV, made(ids)[0][:, -1])


def test_linear_and_windowed_memory_stays_and_a_full_one_grows() -> None:
    reader, layers = Language(model()), schedule_of(SPEC)
    held = [
        bytes_by_role(layers, step.past.state)
        for step in generate(reader, torch.tensor([[1] * 8]), steps=5, sampling=GREEDY)
    ]
    for role, size in held[0].items():
        growth = [after[role] - before[role] for before, after in pairwise(held)]
        assert growth == [growth[0]] * 4 and (growth[0] > 0) == (role == "full")
        assert size > 0
    assert set(held[0]) == {"linear", "full", "window"}


@pytest.mark.parametrize(
    ("prompts", "options", "said"),
    [
        ([], {}, "no token"),
        ([[1], []], {}, "no token"),
        ([[1], [257]], {}, "prompt 2 has id 257.*ids 0 to 256"),
        ([[1]], {"steps": 0}, "steps is 0"),
        ([[1]], {"sampling": EVEN}, "rng is wanted"),
        ([[1]], {"stop": (300,)}, "stop is 300"),
    ],
)
def test_what_cannot_be_generated_is_said(prompts, options, said: str) -> None:
    with pytest.raises(GenerateError, match=said):
        generate_ragged(Language(model()), prompts, **{"steps": 1, "sampling": GREEDY, **options})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    write_model(build(SPEC), SPEC, tmp_path / "model.safetensors")
    return tmp_path


def test_the_command_tells_text_ids_and_state(lab, folder: Path) -> None:
    pytest.importorskip("lab.data.tokens", reason="the tokenizers of lab data are not here")
    words = ("generate", folder, "--steps", "6", "--temperature", "0")
    found = json.loads(lab(*words, "--prompt", "ab", "--prompt", "abcdef", "--json").out)
    assert [one["prompt"] for one in found["sequences"]] == [[256, 97, 98], [256, *range(97, 103)]]
    growth = {one["role"]: one["bytes_per_token"] for one in found["state"]}
    assert growth["linear"] == growth["window"] == 0 < growth["full"]
    alone = lab(*words, "--prompt", "abcdef", "--stats")
    assert alone.out.rstrip("\n") == found["sequences"][1]["text"] and "each token more" in alone.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere",), "nowhere: there is no such file"),
        (("nowhere", "--temperature", "-1"), "temperature is -1"),
        (("nowhere", "--steps", "0"), "--steps"),
    ],
    ids=str,
)
def test_bad_input_is_one_sentence(lab, words: tuple[str, ...], said: str) -> None:
    outcome = lab("generate", *words)
    assert (outcome.code, outcome.out) == (2, "") and said in outcome.err
