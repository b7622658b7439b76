"""Tasks asked in characters of the model's own: the rule is the task's, training begins at its logits."""

import numpy as np
import pytest
import torch

from blocks.model import LanguageModel
from lab.evaluate.symbols import GROUPS, _begin_with, ask, check, fit_both, symbols, unasked
from lab.model.spec import loads, shape_of
from synthetics.base import TaskError
from synthetics.fit import Trainer, Training
from synthetics.protocol import SUITES, parse_task
from synthetics.splits import draw
from tests.lab.evaluate.small import SPEC, Bytes, model_of

RECALL = parse_task("recall(vocab=8, length=16, train_examples=64)")


def test_symbols_are_distinct_printable_characters() -> None:
    for text in {one for group in GROUPS.values() for one in group}:
        task = parse_task(text)
        ids = symbols(task, Bytes(), 257)
        assert len(set(ids.tolist())) == task.vocab
        assert all(chr(one).isprintable() and not chr(one).isspace() for one in ids)
    with pytest.raises(TaskError, match=r"has 128 symbols.* writes 94 printable"):
        symbols(parse_task("mqar"), Bytes(), 257)


class Oracle(LanguageModel):
    """A language model that gives all of its belief to what ``answer`` says of its input."""

    def __init__(self, answer) -> None:  # type: ignore[no-untyped-def]
        torch.nn.Module.__init__(self)
        self.embedding = torch.nn.Embedding(257, 1)
        self.answer = answer

    def forward(self, tokens_BT, state=None, context=None):  # type: ignore[no-untyped-def]
        assert (tokens_BT[:, 0] == 256).all(), "a row begins after a separator"
        return torch.nn.functional.one_hot(self.answer(tokens_BT), 257).float(), []


def test_who_knows_the_rule_is_always_right_and_who_does_not_is_at_chance() -> None:
    ids = symbols(RECALL, Bytes(), 257)
    back = np.zeros(257, dtype=np.int64)
    back[ids] = np.arange(len(ids))

    def solve(tokens_BT: torch.Tensor) -> torch.Tensor:
        said = RECALL.solve(back[tokens_BT[:, 1:].numpy()])
        known = np.where(said < 0, 0, ids[np.maximum(said, 0)])
        return torch.from_numpy(np.concatenate([np.zeros((len(said), 1), dtype=np.int64), known], 1))

    found = ask(Oracle(solve), Bytes(), RECALL, 64)
    assert (found.acc, found.acc_among) == (1.0, 1.0)
    other = ask(Oracle(lambda tokens: torch.full_like(tokens, ord("a"))), Bytes(), RECALL, 64)
    assert other.acc == 0.0  # 'a' is a key and never an answer
    assert 0.1 < other.chance < 0.5


@pytest.mark.parametrize(("mup", "factor"), [(None, 1.0), (8, 0.5)])
def test_training_begins_with_the_logits_of_the_trained_model(mup: int | None, factor: float) -> None:
    model, schedule = model_of()
    torch.nn.init.normal_(model.get_parameter("norm.weight"))  # as after a training, and not all ones
    ids = symbols(RECALL, Bytes(), 257)
    ours = Trainer(schedule, shape_of(loads(SPEC)), RECALL, Training(steps=1, eval_every=1), 0).model
    assert isinstance(ours, LanguageModel)
    _begin_with(ours, model, ids, mup)
    rows = torch.from_numpy(draw(RECALL, "test", 0, 4).inputs)
    with torch.no_grad():
        said = model(torch.from_numpy(ids)[rows])[0][..., ids]
        # A model of base width 8 multiplies its logits by 8/16; a task's has none of that.
        torch.testing.assert_close(ours(rows)[0], factor * said)


def test_a_trunk_that_has_learnt_the_task_keeps_what_it_knows() -> None:
    model, schedule = model_of()
    training = Training(steps=2, eval_every=1, eval_examples=16, lr=1e-6)
    with torch.no_grad():
        model.head.weight[symbols(RECALL, Bytes(), 257)[7]] *= 0
    before = {name: one.clone() for name, one in model.state_dict().items()}
    trained, scratch = fit_both(model, schedule, loads(SPEC), Bytes(), RECALL, training, 0)
    again, _ = fit_both(model, schedule, loads(SPEC), Bytes(), RECALL, training, 0)
    assert trained.acc == again.acc and len(trained.curve) == len(scratch.curve) == 2
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())


@pytest.mark.parametrize("training", [False, True])
def test_every_family_of_mad_is_asked_or_it_is_said_why_not(training: bool) -> None:
    tasks = [parse_task(text) for text in GROUPS["mad"]]
    assert [task.name for task in tasks] == list(SUITES["mad"])
    model, _ = model_of()
    asked = []
    for task in tasks:
        assert task.vocab <= 94, "a character for every id"
        if (reason := unasked(task, training)) is None:
            check(task, training)
            asked.append(task.name)
        else:
            assert reason.startswith(task.name)
            with pytest.raises(TaskError, match=r"auto-encoder|--fit STEPS"):
                check(task, training)
        if not training and reason is None:
            assert ask(model, Bytes(), task, 2).examples == 2
    # All but the one with another head; learnt by heart is only what is trained.
    left_out = {"compression"} if training else {"compression", "memorization"}
    assert set(asked) == set(SUITES["mad"]) - left_out


def test_what_a_language_model_cannot_be_asked() -> None:
    with pytest.raises(TaskError, match="auto-encoder"):
        check(parse_task("compression"), training=True)
    with pytest.raises(TaskError, match="add --fit STEPS"):
        check(parse_task("parity"), training=False)
    check(parse_task("parity"), training=True)
