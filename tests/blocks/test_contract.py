"""The block contract: eleven laws over every block of the registry, its options, and awkward lengths.

Run it on your own blocks with ``pytest tests/blocks/test_contract.py --blocks my_blocks.py``.
Shapes: B batch, T time, D width.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from blocks import BLOCKS
from blocks.base import Block, Kernel, OptionError, Shape
from blocks.model import Stack
from blocks.segments import DOCUMENTS
from tests.blocks import tolerances
from tests.blocks.conftest import NEEDS_COMPILER
from tests.blocks.counting import multiply_adds
from tests.blocks.hard import CORES
from tests.blocks.harness import (
    BATCH,
    LENGTHS,
    SHAPE,
    assert_same,
    assert_same_state,
    block_of,
    build,
    noise,
    run,
    stored_names,
    tensors,
)
from tests.blocks.variants import VARIANTS

Blocks = Mapping[str, type[Block]]
lengths = pytest.mark.parametrize("length", LENGTHS)
SHAPES = (SHAPE, Shape(dim=8, heads=2, norm="rms_zero"))


@pytest.fixture
def block(block_text: str, known: Blocks) -> Block:
    return block_of(block_text, known)


def cut_points(length: int) -> list[int]:
    """Where a sequence is cut in two: after the first token, in the middle, before the last, around 64."""
    return sorted({t for t in (1, length // 2, length - 1, 63, 64, 65) if 0 < t < length})


# 1. Shape, dtype, finite values and gradients.


@lengths
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_dtype_and_finite_gradients(
    block: Block, kernel: Kernel, block_text: str, length: int, dtype: torch.dtype
) -> None:
    module = build(block, kernel).to(dtype)
    x = noise(BATCH, length, SHAPE.dim).to(dtype).requires_grad_()
    y, state = module(x)
    assert (y.shape, y.dtype) == (x.shape, dtype)
    assert y.isfinite().all()
    assert all(t.isfinite().all() for t in tensors(state).values())
    y.backward(noise(*y.shape, seed=2).to(dtype))
    assert x.grad is not None and x.grad.isfinite().all()
    for name, parameter in module.named_parameters():
        if name in tolerances.WITHOUT_GRADIENT.get(block_text, {}):
            continue
        assert parameter.grad is not None, f"{name} takes no part in the output"
        assert parameter.grad.isfinite().all(), f"{name}: its gradient is not finite"
        assert length < 63 or parameter.grad.any(), f"{name} is dead weight: its gradient is 0"


# 2. Causality.


@lengths
def test_the_future_has_no_gradient_and_no_effect(
    block_text: str, block: Block, kernel: Kernel, length: int
) -> None:
    module, allowed = build(block, kernel), tolerances.causality(block_text.split("(")[0])
    x = noise(BATCH, length, SHAPE.dim).requires_grad_()
    y, _ = module(x)
    for t in cut_points(length):
        (grad,) = torch.autograd.grad((y[:, :t] * noise(*y[:, :t].shape, seed=t)).sum(), x, retain_graph=True)
        assert (grad[:, t:].abs() <= allowed).all(), f"y[:{t}] has a gradient by x[{t}:]"
        assert grad[:, :t].any(), f"y[:{t}] has no gradient by its own past"
        other = torch.cat([x[:, :t], 3 * noise(*x[:, t:].shape, seed=3)], dim=1)
        assert_same(module(other)[0][:, :t], y[:, :t], f"noise from position {t} on")


# 3. Prefix.


@lengths
def test_a_prefix_gives_the_prefix(block: Block, kernel: Kernel, length: int) -> None:
    module, x = build(block, kernel), noise(BATCH, length, SHAPE.dim)
    with torch.no_grad():
        y, _ = module(x)
        for t in cut_points(length):
            assert_same(module(x[:, :t])[0], y[:, :t], f"the first {t} tokens alone")


# 4. State.


def splits(length: int) -> Iterator[list[int]]:
    """Token by token, in two at awkward places, in pieces of random lengths (the seed is printed)."""
    yield [1] * length
    yield from ([t, length - t] for t in cut_points(length))
    seed = random.randrange(2**32)
    print(f"random splits of {length}: seed {seed}")
    rng = random.Random(seed)
    for _ in range(2):
        marks = sorted(rng.sample(range(1, length), min(length - 1, rng.randint(1, 6))))
        yield [b - a for a, b in zip([0, *marks], [*marks, length], strict=True)]


@lengths
def test_any_split_gives_the_unsplit_output_and_state(block: Block, kernel: Kernel, length: int) -> None:
    module, x = build(block, kernel), noise(BATCH, length, SHAPE.dim)
    with torch.no_grad():
        y, state = module(x)
        for cuts in splits(length):
            got, last = run(module, x, cuts)
            assert_same(got, y, f"split {cuts}")
            assert_same_state(last, dict(state), f"split {cuts}")


def test_state_is_a_value(block: Block, kernel: Kernel) -> None:
    """Nothing stays on the module, nothing passed in is written to, training mode changes nothing."""
    module, x = build(block, kernel).eval(), noise(BATCH, 9, SHAPE.dim)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    kept = [dict(vars(part)) for part in module.modules()]
    with torch.no_grad():
        _, state = module(x)
        held = {k: v.clone() if isinstance(v, Tensor) else v for k, v in state.items()}
        first, _ = module(x, state)
        again, _ = module.train()(x, state)
        fresh, _ = module(x, {})
        assert_same_state(dict(state), held, "the state passed in")
        assert torch.equal(first, again), "the same call twice, training and evaluation, gives two answers"
        assert torch.equal(fresh, module(x)[0]), "state={} is not a fresh start"
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    for part, old in zip(module.eval().modules(), kept, strict=True):
        changed = [k for k, v in vars(part).items() if k not in old or old[k] is not v]
        assert not changed, f"a call leaves {changed} on {type(part).__name__}"


# 5. Fast = reference.


def gradients(module: nn.Module, x: Tensor, state: Mapping[str, Any] | None) -> dict[str, Tensor]:
    """Outputs, outgoing state, and gradients of a random function of both by everything that came in."""
    x = x.clone().requires_grad_()
    came = {k: t.clone().requires_grad_() for k, t in tensors(state or {}).items()}
    y, after = module(x, None if state is None else {**state, **came})
    found = {"y": y, **{f"state {k}": t for k, t in tensors(after).items()}}
    inputs = {"x": x, **dict(module.named_parameters()), **{f"state {k}": t for k, t in came.items()}}
    loss = sum((t * noise(*t.shape, seed=i)).sum() for i, t in enumerate(found.values()))
    assert isinstance(loss, Tensor)
    grads = torch.autograd.grad(loss, list(inputs.values()), materialize_grads=True)
    return {**found, **{f"gradient of {k}": g for k, g in zip(inputs, grads, strict=True)}}


@lengths
@pytest.mark.parametrize("before", [0, 7])
def test_the_fast_form_is_the_reference(block: Block, kernel: Kernel, length: int, before: int) -> None:
    fast, slow = build(block, kernel), build(block, "reference")
    x = noise(BATCH, length, SHAPE.dim)
    state = slow(noise(BATCH, before, SHAPE.dim, seed=4))[1] if before else None
    state = {k: v.detach() if isinstance(v, Tensor) else v for k, v in state.items()} if state else None
    got, expected = gradients(fast, x, state), gradients(slow, x, state)
    assert got.keys() == expected.keys()
    for what, value in expected.items():
        assert_same(got[what], value, what)


# 6. Costs by formula = costs measured.


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s.dim}x{s.heads}")
def test_stated_costs_are_the_measured_ones(block: Block, shape: Shape) -> None:
    module = build(block, "reference", shape)
    assert block.params(shape) == sum(p.numel() for p in module.parameters())
    for length in LENGTHS:
        x = noise(BATCH, length, shape.dim)
        with torch.no_grad():
            held = sum(t.numel() for t in tensors(module(x)[1]).values())
        assert block.state_size(shape, length) * BATCH == held, f"state after {length} tokens"
        counted = 2 * multiply_adds(module, x) / (BATCH * length)
        stated = block.flops(shape, length)
        assert isinstance(stated, int)
        assert abs(stated - counted) <= 0.5, (
            f"FLOPs per token at {length}: stated {stated}, counted {counted}"
        )


# 7. Same seed, same weights, same names.


def test_same_seed_same_weights(block: Block) -> None:
    one, two = build(block).state_dict(), build(block).state_dict()
    assert all(torch.equal(one[k], two[k]) for k in one)
    for kernel in get_args(Kernel):
        same = build(block, kernel).state_dict()
        assert list(one) == list(same), f"kernel {kernel} names its weights differently"
        assert all(torch.equal(one[k], same[k]) for k in one), f"kernel {kernel} starts from other weights"
    other = build(block, seed=1).state_dict()
    assert not all(torch.equal(one[k], other[k]) for k in one)


def test_weights_keep_their_names(block_text: str, block: Block) -> None:
    if type(block) not in BLOCKS.values():
        pytest.skip(f"{block_text} is a user's block: no names are stored for it")
    names = list(build(block).state_dict())
    stored = stored_names()
    assert block_text in stored, f"no names are stored for {block_text}; run python -m tests.blocks.harness"
    assert names == stored[block_text], "weights on disk carry the stored names; renaming one breaks them"


# 8. bf16.


@lengths
def test_bf16_is_within_its_tolerance(block_text: str, block: Block, kernel: Kernel, length: int) -> None:
    half = build(block, kernel).bfloat16()
    exact = build(block)
    exact.load_state_dict({k: v.double() for k, v in half.state_dict().items()})
    x = noise(BATCH, length, SHAPE.dim).bfloat16().requires_grad_()
    y, _ = half(x)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
    with torch.no_grad():
        expected = exact(x.double())[0]
        pieces, _ = run(half, x, [1] * min(length, 2) + [length - 2] * (length > 2))
    size = expected.norm()
    if getattr(block, "exclusive", False):
        # What is left of a read-out may be nothing, as it is at first; rounding is that of what was read.
        whole = build(replace(block, exclusive=False))  # pyright: ignore[reportCallIssue, reportArgumentType]
        whole.load_state_dict(exact.state_dict())
        size = whole(x.double())[0].norm()
    allowed = tolerances.bf16(block_text.split("(")[0]) * size
    assert (y.double() - expected).norm() <= allowed
    assert (pieces.double() - expected).norm() <= allowed, "in pieces"


# 9. Sequences of a batch do not meet.


@lengths
def test_sequences_do_not_meet(block: Block, kernel: Kernel, length: int) -> None:
    module = build(block, kernel)
    x = noise(3, length, SHAPE.dim).requires_grad_()
    y, state = module(x)
    (grad,) = torch.autograd.grad((y[1] * noise(*y[1].shape, seed=2)).sum(), x)
    assert not grad[[0, 2]].any(), "the output of one sequence has a gradient by another"
    with torch.no_grad():
        alone, kept = module(x[1:2])
    assert_same(alone, y[1:2].detach(), "a sequence alone")
    assert_same_state(
        kept, {k: v[1:2].detach() if isinstance(v, Tensor) else v for k, v in state.items()}, "alone"
    )


# 10. Hard inputs.

HARD = [
    pytest.param(core, case, form, marks=NEEDS_COMPILER if form == "c" else ())
    for core, entry in CORES.items()
    for case in entry.inputs
    for form in entry.forms
]


def core_gradients(function: Any, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Outputs of a core function and the gradients of a random function of them."""
    inputs = tuple(t.clone().requires_grad_() for t in inputs)
    out = function(*inputs)
    out = [out] if isinstance(out, Tensor) else list(out)
    loss = sum((t * noise(*t.shape, seed=i).to(t.dtype)).sum() for i, t in enumerate(out))
    assert isinstance(loss, Tensor)
    return [*out, *torch.autograd.grad(loss, inputs, materialize_grads=True)]


@pytest.mark.parametrize("core,case,form", HARD, ids=lambda x: x)
def test_hard_inputs_stay_finite_and_right(core: str, case: str, form: str) -> None:
    entry = CORES[core]
    fast = entry.forms[form]
    narrow = tuple(t.float() for t in entry.inputs[case](torch.Generator().manual_seed(0)))
    wide = tuple(t.double() for t in narrow)
    expected = core_gradients(entry.reference, wide)
    for i, (got, right) in enumerate(zip(core_gradients(fast, wide), expected, strict=True)):
        assert_same(got, right, f"result {i} in float64")
    allowed = tolerances.hard_float32(f"{core}/{case}", form)
    for i, (got, right) in enumerate(zip(core_gradients(fast, narrow), expected, strict=True)):
        assert got.isfinite().all(), f"result {i} in float32 is not finite"
        error, size = (got - right).abs().amax().item(), max(1.0, right.abs().amax().item())
        assert error <= allowed * size, f"result {i} in float32: off by {error:.1e} of {size:.1e}"


def test_every_mixer_declares_hard_inputs() -> None:
    mixers = {name for name, cls in BLOCKS.items() if cls().role != "channel"}
    assert mixers <= {entry.block for entry in CORES.values()}


# 11. Packed documents are what they are alone.

PACKED = ([1, 64, 65], [130], [3, 1, 1, 125], [17, 40, 8, 65])
"""Documents of each row: of one token, a row of one, lengths that no chunk divides, several in one bucket."""


def stack_of(block: Block, kernel: Kernel) -> Stack:
    """A block with its pre-norm and residual, which is where documents are kept apart."""
    torch.manual_seed(0)
    stack = Stack(((block,),), SHAPE, kernel).double()
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return stack


def test_packed_documents_are_what_they_are_alone(block: Block, kernel: Kernel) -> None:
    stack, x = stack_of(block, kernel), noise(len(PACKED), 130, SHAPE.dim).requires_grad_()
    inputs = [x, *stack.parameters()]
    numbers = [torch.arange(len(row)).repeat_interleave(torch.tensor(row)) for row in PACKED]
    packed, state = stack(x, context={"segments": torch.stack(numbers)})
    assert len(state) == 0, "packed documents end: nothing goes on from them"
    alone = torch.stack(
        [torch.cat([stack(one)[0][0] for one in row[None].split(PACKED[i], 1)]) for i, row in enumerate(x)]
    )
    assert_same(packed, alone, "outputs")
    weight = noise(*x.shape, seed=2)
    got, right = (
        torch.autograd.grad((y * weight).sum(), inputs, materialize_grads=True) for y in (packed, alone)
    )
    for name, one, other in zip(("x", *dict(stack.named_parameters())), got, right, strict=True):
        assert_same(one, other, f"gradient of {name}")


def test_rows_of_one_document_take_the_plain_path_bit_for_bit(block: Block, kernel: Kernel) -> None:
    stack, x = stack_of(block, kernel), noise(2, 65, SHAPE.dim)
    context = {"segments": torch.tensor([[0], [7]]).expand(2, 65)}
    packed, _ = stack(x, context=context)
    assert torch.equal(packed, stack(x)[0])
    assert DOCUMENTS not in context, "nothing is laid out"


# The tables themselves.


def test_tables_name_blocks_that_exist() -> None:
    exceptions = set(tolerances.BF16_EXCEPTIONS) | set(tolerances.CAUSALITY_EXCEPTIONS)
    listed = set(VARIANTS) | exceptions | {entry.block for entry in CORES.values()}
    assert listed <= set(BLOCKS)
    assert {text.split("(")[0] for text in stored_names()} <= set(BLOCKS)
    assert {text.split("(")[0] for text in tolerances.WITHOUT_GRADIENT} <= set(BLOCKS)
    known = {f"{core}/{case}/{form}" for core, case, form in (param.values for param in HARD)}
    assert set(tolerances.HARD_FLOAT32_EXCEPTIONS) <= known


def test_a_shape_that_does_not_fit_is_refused_in_one_sentence(block: Block) -> None:
    shape = Shape(dim=17, heads=2)
    ways: dict[str, Callable[[], object]] = {
        "build": lambda: block.build(shape),
        "params": lambda: block.params(shape),
        "state_size": lambda: block.state_size(shape, 3),
        "flops": lambda: block.flops(shape, 3),
    }
    told = {way: refusal(call) for way, call in ways.items()}
    # A schedule is sized by its costs before it is built: what cannot be built has none.
    assert len(set(told.values())) == 1, told
    if sentence := told["build"]:
        # What was given, and what to do about it.
        assert "2 heads" in sentence and "choose" in sentence and "\n" not in sentence
    else:  # it has no heads to split its width over, so it works
        assert block.build(shape)(torch.zeros(1, 3, 17))[0].shape == (1, 3, 17)


def refusal(call: Callable[[], object]) -> str:
    """What ``call`` raises as an OptionError, empty where it does not."""
    try:
        call()
    except OptionError as exc:
        return str(exc)
    return ""
