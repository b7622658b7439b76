"""What lm-eval-harness asks of a model, and the harness itself on a local task where it is installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lab.evaluate.harness import (
    CARD,
    CAVEAT,
    HarnessError,
    _figures,
    check_installed,
    continuations,
    document,
    go_on,
    task_names,
)
from lab.evaluate.page import page
from lab.model.spec import loads, write_model
from tests.lab.evaluate.small import SPEC, Bytes, model_of

TASK = """\
task: local_colours
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/colours.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}]
"""
QUESTIONS = [
    {
        "question": f"What is the colour of {thing}? It is",
        "choices": [" red", " green", " dark blue"],
        "answer": i % 3,
    }
    for i, thing in enumerate(("blood", "grass", "the sea", "a rose", "a leaf", "ink", "wine"))
]


def nats(model: torch.nn.Module, context: list[int], after: list[int]) -> float:
    """The plain way: one sequence, one forward pass, a sum."""
    with torch.no_grad():
        logits = model(torch.tensor([[*context, *after]]))[0][0]
    said = logits[len(context) - 1 : -1]
    return float(F.cross_entropy(said, torch.tensor(after), reduction="sum"))


def test_a_continuation_costs_what_it_costs_alone_whatever_stands_beside_it() -> None:
    model, _ = model_of()
    rng = np.random.default_rng(20261127)
    pairs = [
        (rng.integers(0, 257, size=a).tolist(), rng.integers(0, 257, size=b).tolist())
        for a, b in ((1, 1), (30, 2), (3, 9), (1, 20), (12, 1))
    ]
    for (context, after), (found, greedy) in zip(pairs, continuations(model, pairs, 100), strict=True):
        assert found == pytest.approx(-nats(model, context, after), abs=1e-4)
        assert not greedy
    # Of a long context what fits the window is read, and no more; a continuation is read whole.
    (long, _), (short, _) = continuations(model, [pairs[1], (pairs[1][0][-7:], pairs[1][1])], 8)
    assert long == pytest.approx(short, abs=1e-4)
    assert continuations(model, [pairs[3]], 5)[0][0] == pytest.approx(-nats(model, *pairs[3]), abs=1e-4)


def test_what_the_model_goes_on_with_is_greedy_and_ends_at_a_stop() -> None:
    model, _ = model_of(SPEC.replace("vocab: 257", "vocab: 257\n  tied: false"))
    with torch.no_grad():  # a token is followed by the next number, of 16 at a time
        model.embedding.weight.copy_(F.one_hot(torch.arange(257) % 16, 16).float())
        model.head.weight.copy_(model.embedding.weight.roll(1, 0))
        for parameter in model.stack.parameters():
            parameter.zero_()
    assert go_on(model, Bytes(), [0x61], [], 3) == "\x02\x03\x04"
    assert go_on(model, Bytes(), [0x61], ["\x03\x04", "\x04"], 10) == "\x02"
    (_, greedy), (_, other) = continuations(model, [([0x61], [2, 3, 4]), ([0x61], [2, 3, 5])], 8)
    assert greedy and not other


def test_the_preset_is_the_eight_tasks_of_the_card() -> None:
    assert task_names("genesis") == list(CARD) and len(CARD) == 8
    assert task_names("sciq, genesis,my_task") == ["sciq", *[t for t in CARD if t != "sciq"], "my_task"]
    with pytest.raises(HarnessError, match="--tasks is empty"):
        task_names(" ,")


def test_what_the_card_states_stands_beside_it_in_the_document_and_on_the_page() -> None:
    values = {"acc,none": 0.5, "acc_stderr,none": 0.01, "acc_norm,none": 0.25}
    tasks = [*CARD, "my_task"]
    found = list(_figures({"results": dict.fromkeys(tasks, values), "n-samples": {}}))
    told = document(found)
    assert told["card"] == CAVEAT and "LightEval" in CAVEAT
    cards = {(one["task"], one["metric"]): one["card"] for one in told["tasks"]}
    assert cards == {
        (task, metric): CARD[task] / 100 if metric == "acc" and task in CARD else None
        for task in tasks
        for metric in ("acc", "acc_norm")
    }
    shown = page({"name": "a", "model": "b", **told})
    assert all(f"{share / 100:.4f}" in shown for share in CARD.values()) and CAVEAT in shown
    alone = document([one for one in found if one.task == "my_task"])
    assert "card" not in alone and "card" not in page({"name": "a", "model": "b", **alone}).lower()


def test_without_the_package_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.evaluate.harness.find_spec", lambda name: None)
    with pytest.raises(HarnessError, match=r'pip install "hybrid-architecture-lab\[eval\]"'):
        check_installed()


@pytest.mark.slow
def test_a_local_task_through_the_harness_scores_what_the_model_says(tmp_path: Path) -> None:
    model, _ = model_of()
    write_model(model, loads(SPEC), tmp_path / "model.safetensors")
    (tmp_path / "colours.jsonl").write_text("".join(json.dumps(one) + "\n" for one in QUESTIONS))
    (tmp_path / "colours.yaml").write_text(TASK.replace("FOLDER", str(tmp_path)))
    right = 0
    for one in QUESTIONS:
        context = list(one["question"].encode())
        costs = [nats(model, context, list(choice.encode())) for choice in one["choices"]]
        right += int(np.argmin(costs)) == one["answer"]
    arguments = ["eval", "model.safetensors", "--tasks", "local_colours", "--include", ".", "--json"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub"), "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", "from lab.cli import main; main()", *arguments],
        cwd=tmp_path,
        env={**os.environ, **offline},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    (figure,) = json.loads(done.stdout)["tasks"]
    assert (figure["task"], figure["metric"], figure["examples"]) == ("local_colours", "acc", len(QUESTIONS))
    assert figure["value"] == pytest.approx(right / len(QUESTIONS))
