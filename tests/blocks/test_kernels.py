"""The C kernels: each is its plain torch form at any width, to the last bits; and how they are built.

The block contract holds whole blocks that use them to the reference; here are the functions one by one.
"""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.attention import attention_reference
from blocks.base import Shape
from blocks.fox import FoX, forgetting_attention_reference
from blocks.gdn import gated_delta_reference
from blocks.gla import gla_reference
from blocks.kernels import ops
from blocks.kernels.layers import NARROW
from blocks.kernels.native import SEGMENT, SIGNATURES, SOURCES, TYPES, KernelError, compiler
from blocks.linear import linear_reference
from blocks.parts import l2_normalise
from blocks.schedule import parse
from tests.blocks.conftest import NEEDS_COMPILER
from tests.blocks.harness import build, noise, tensors

pytestmark = NEEDS_COMPILER

EXACT = {"atol": 1e-12, "rtol": 1e-12}
B, T, H = 2, 37, 3
WIDTHS = (1, 7, 8, 16, 17, 33, 70)
"""Around the lanes of a vector (8 in float64, 16 in float32) and beyond a panel of four."""

Tensors = tuple[Tensor, ...]


def conv(width: int, taps: int = 4) -> tuple[Callable[..., Tensor], Callable[..., Tensor], Tensors]:
    def torchs(x: Tensor, tail: Tensor, weight: Tensor) -> Tensor:
        padded = torch.cat([tail, x], dim=1).transpose(1, 2)
        return F.silu(F.conv1d(padded, weight[:, None], groups=width)).transpose(1, 2)

    inputs = noise(B, T, width), noise(B, taps - 1, width, seed=2), noise(width, taps, seed=3)
    return lambda x, tail, weight: ops.short_conv(x, tail, weight, act=True), torchs, inputs


def norm(width: int) -> tuple[Callable[..., Tensor], Callable[..., Tensor], Tensors]:
    return (
        lambda x, gain: ops.rms_norm(x, gain, 1e-5, 1.0),
        lambda x, gain: F.rms_norm(x, (width,), gain + 1, 1e-5),
        (noise(B, T, H, width), noise(width, seed=2)),
    )


def unit(width: int) -> tuple[Callable[..., Tensors], Callable[..., Tensors], Tensors]:
    def torchs(x: Tensor) -> Tensors:
        q, k = l2_normalise(x.unflatten(-1, (2, H, width))).unbind(2)
        return q * width**-0.5, k

    return lambda x: ops.unit_heads(x, H), torchs, (noise(B, T, 2 * H * width),)


def gate(width: int) -> tuple[Callable[..., Tensor], Callable[..., Tensor], Tensors]:
    return ops.gated, lambda g, x: F.silu(g) * x, (noise(B, T, width), noise(B, T, width, seed=2))


def delta(width: int) -> tuple[Callable[..., Tensors], Callable[..., Tensors], Tensors]:
    keys = 5 if width > 8 else width
    q, k = (l2_normalise(noise(B, T, H, keys, seed=i)) for i in (1, 2))
    gates = F.logsigmoid(noise(B, T, H, seed=4)), noise(B, T, H, seed=5).sigmoid()
    inputs = (q, k, noise(B, T, H, width, seed=3), *gates, noise(B, H, keys, width, seed=6))
    return ops.gated_delta, gated_delta_reference, inputs


def linear(width: int) -> tuple[Callable[..., Tensors], Callable[..., Tensors], Tensors]:
    inputs = [noise(B, T, H, n, seed=i) for i, n in enumerate((width, width, 5))]
    return ops.linear_memory, linear_reference, (*inputs, noise(B, H, width, 5, seed=6))


def gla(width: int) -> tuple[Callable[..., Tensors], Callable[..., Tensors], Tensors]:
    keys = 19 if width > 8 else width
    inputs = [noise(B, T, H, n, seed=i) for i, n in enumerate((keys, keys, width))]
    decay = F.logsigmoid(noise(B, T, H, keys, seed=4))
    return ops.gated_linear, gla_reference, (*inputs, decay, noise(B, H, keys, width, seed=6))


def softmax(width: int) -> tuple[Callable[..., Tensor], Callable[..., Tensor], Tensors]:
    q, k, v = noise(B, T, 4, width), noise(B, T + 40, 2, width, seed=2), noise(B, T + 40, 2, width, seed=3)
    return ops.attention, lambda q, k, v: attention_reference(q, k, v, None), (q, k, v)


def forgetting(width: int) -> tuple[Callable[..., Tensor], Callable[..., Tensor], Tensors]:
    _, _, (q, k, v) = softmax(width)
    gates = F.logsigmoid(noise(B, T, 4, seed=4)), F.logsigmoid(noise(B, 40, 4, seed=5)).cumsum(1)
    return ops.attention, lambda *x: forgetting_attention_reference(*x)[0], (q, k, v, *gates)


FUNCTIONS = {f.__name__: f for f in (conv, norm, unit, gate, delta, linear, gla, softmax, forgetting)}


def found(function: Callable[..., Tensor | Tensors], inputs: Tensors) -> list[Tensor]:
    """Outputs, and gradients of a random function of them by all inputs."""
    inputs = tuple(x.clone().requires_grad_() for x in inputs)
    out = function(*inputs)
    outs = [out] if isinstance(out, Tensor) else list(out)
    loss = torch.stack([(y * noise(*y.shape, seed=9 + i)).sum() for i, y in enumerate(outs)]).sum()
    return [*outs, *torch.autograd.grad(loss, inputs)]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_kernel_is_its_torch_form_gradients_included(name: str, width: int) -> None:
    ours, torchs, inputs = FUNCTIONS[name](width)
    for got, expected in zip(found(ours, inputs), found(torchs, inputs), strict=True):
        torch.testing.assert_close(got, expected, **EXACT)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_kernel_reads_rows_that_lie_apart_and_tensors_in_any_order(name: str) -> None:
    ours, _, inputs = FUNCTIONS[name](7)
    wide = tuple(torch.cat([x, x, x], dim=-1)[..., x.shape[-1] : 2 * x.shape[-1]] for x in inputs)
    turned = tuple(x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs)
    for others in (wide, turned):
        assert not all(x.is_contiguous() for x in others)
        for got, expected in zip(ours_of(ours, others), ours_of(ours, inputs), strict=True):
            assert torch.equal(got, expected)


def ours_of(function: Callable[..., Tensor | Tensors], inputs: Tensors) -> list[Tensor]:
    """As ``found``, without making the inputs contiguous."""
    inputs = tuple(x.detach().requires_grad_() for x in inputs)
    out = function(*inputs)
    outs = [out] if isinstance(out, Tensor) else list(out)
    loss = torch.stack([(y * noise(*y.shape, seed=9 + i)).sum() for i, y in enumerate(outs)]).sum()
    return [*outs, *torch.autograd.grad(loss, inputs)]


def test_every_kernel_is_listed_here() -> None:
    called = {"attention", "conv", "gate", "gated_delta", "gated_linear", "norm", "unit"}
    called |= {"gates", "linear"}  # by the whole layers below
    assert {name.rpartition("_")[0] for name in SIGNATURES} == called


def test_the_exponential_is_right_in_float32_over_its_whole_range() -> None:
    """silu(x) / x is a sigmoid, so 1 / it - 1 is e^-x; beyond the range it is exactly 0 or infinite."""
    x = torch.linspace(-87, 87, 200_001)
    ones = torch.ones_like(x)
    got, expected = ops.gated(x, ones), F.silu(x.double())
    assert ((got - expected).abs() <= 4e-7 * expected.abs() + 1e-37).all()
    beyond = torch.tensor([-1e4, -200.0, 200.0, 1e30])
    assert ops.gated(beyond, ones[:4]).tolist() == [0.0, 0.0, 200.0, torch.tensor(1e30).item()]
    edge = ops.gated(torch.tensor([torch.inf, -torch.inf, torch.nan]), ones[:3])
    assert edge[0] == torch.inf and edge[1:].isnan().all()


@pytest.mark.parametrize("name", ["norm", "gate", "delta", "linear", "gla", "softmax", "forgetting"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_shows_and_stays_in_its_sequence(name: str, bad: float) -> None:
    """No kernel may assume that numbers are finite: a broken run has to look broken."""
    ours, _, inputs = FUNCTIONS[name](16)
    clean, broken = tuple(x.float() for x in inputs), tuple(x.float() for x in inputs)
    broken[0][0, 5] = bad
    out, expected = (ours(*x) if isinstance(ours(*x), Tensor) else ours(*x)[0] for x in (broken, clean))
    assert not out[0, 5].isfinite().all()
    assert torch.equal(out[1], expected[1])


def test_the_same_call_gives_the_same_bits() -> None:
    for name in FUNCTIONS:
        ours, _, inputs = FUNCTIONS[name](33)
        narrow = tuple(x.float() for x in inputs)
        for one, two in zip(ours_of(ours, narrow), ours_of(ours, narrow), strict=True):
            assert torch.equal(one, two), name


def test_tensors_elsewhere_are_refused_in_a_sentence() -> None:
    with pytest.raises(KernelError, match='kernel "c" runs on CPU and was given a tensor on meta'):
        FoX(conv=4).build(Shape(dim=8, heads=2), "c").to("meta")(torch.zeros(1, 3, 8, device="meta"))


# How they are built.

USE = """
import torch
from blocks.kernels import ops
from blocks.kernels.native import KernelError
try:
    print(float(ops.gated(torch.ones(1).double(), torch.ones(1))))
except KernelError as exc:
    print(exc)
"""


def use(cache: Path, **environment: str) -> subprocess.Popen[str]:
    """A fresh process that calls a kernel, its compiled kernels in ``cache``."""
    return subprocess.Popen(
        [sys.executable, "-c", USE],
        env={
            **os.environ,
            "XDG_CACHE_HOME": str(cache),
            "PYTHONPATH": os.pathsep.join(sys.path),
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out.strip()


@pytest.mark.slow
def test_processes_that_build_at_once_do_not_meet_and_leave_one_file(tmp_path: Path) -> None:
    together = [use(tmp_path) for _ in range(3)]
    assert {said(process)[:6] for process in together} == {"0.7310"}
    assert [path.suffix for path in (tmp_path / "hybrid-architecture-lab").iterdir()] == [".so"]


def test_what_cannot_be_built_is_said_in_a_sentence(tmp_path: Path) -> None:
    assert "needs a C compiler" in said(use(tmp_path, CC="no-such-compiler"))
    assert 'choose kernel "torch"' in said(use(tmp_path, CC="no-such-compiler"))
    assert "does not compile kernels.c" in said(use(tmp_path, CC="false"))
    assert not [*(tmp_path / "hybrid-architecture-lab").iterdir()], "a failed build leaves something"
    taken = tmp_path / "taken"
    taken.write_text("a file where a folder is wanted")
    assert "XDG_CACHE_HOME" in said(use(taken))


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_the_sources_compile_without_a_warning_for_any_processor(tmp_path: Path, kind: torch.dtype) -> None:
    source = next(path for path in SOURCES if path.suffix == ".c")
    flags = [
        "-O1",
        f"-DSEGMENT={SEGMENT}",
        "-fopenmp-simd",
        "-Wall",
        "-Wextra",
        "-Wno-psabi",
        "-shared",
        "-fPIC",
        *TYPES[kind][2:],
    ]
    told = subprocess.run(
        [compiler() or "", *flags, str(source), "-o", str(tmp_path / "k.so"), "-lm"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (told.returncode, told.stderr) == (0, "")


# Whole layers, which narrow models are made of, and the single functions that wide ones are.


WIDTHS_OF_LAYERS = [
    *itertools.product(
        [8, 40, NARROW, NARROW + 8],
        [
            "gdn",
            "gdn(conv=0, gate=False, norm=False, beta_max=2)",
            "gdn(expand_k=1, expand_v=1, conv=1)",
            "swiglu",
            "swiglu(expand=0.3)",
        ],
    ),
    # And widths that fill no vector.
    *itertools.product([10, 22], ["gdn(expand_k=1, expand_v=1, conv=1)", "swiglu"]),
]


@pytest.mark.parametrize(("dim", "text"), WIDTHS_OF_LAYERS)
@pytest.mark.parametrize("norm", ["rms", "rms_zero"])
@pytest.mark.parametrize("length", [1, 2, 37])
def test_a_layer_is_its_reference_at_any_width(dim: int, text: str, norm: Any, length: int) -> None:
    ((block,),), shape = parse(text), Shape(dim=dim, heads=2, norm=norm, eps=1e-3)
    modules = [build(block, kernel, shape) for kernel in ("c", "reference")]
    x, before = noise(2, length, dim, seed=5), noise(2, 5, dim, seed=6)
    start = dict(modules[1](before)[1])
    results = []
    for module in modules:
        given = x.clone().requires_grad_()
        came = {name: t.detach().clone().requires_grad_() for name, t in start.items()}
        y, after = module(given, came)
        outs = [y, *tensors(after).values()]
        loss = torch.stack([(t * noise(*t.shape, seed=i)).sum() for i, t in enumerate(outs)]).sum()
        inputs = [given, *module.parameters(), *came.values()]
        results.append([*outs, *torch.autograd.grad(loss, inputs, materialize_grads=True)])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("text", ["gdn", "swiglu"])
def test_a_layer_whose_weights_are_partly_frozen_learns_the_rest(text: str) -> None:
    ((block,),) = parse(text)
    module = build(block, "c", Shape(dim=16, heads=2))
    whole = torch.autograd.grad(module(noise(2, 5, 16))[0].sum(), [module.out.weight])
    for parameter in module.parameters():
        parameter.requires_grad_(parameter is module.out.weight)
    module(noise(2, 5, 16))[0].sum().backward()
    assert torch.equal(module.out.weight.grad, whole[0])


# What does not fit is refused, before an address is read that is not there.


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "unit"])
def test_shapes_that_do_not_fit_are_refused(name: str) -> None:
    ours, _, inputs = FUNCTIONS[name](7)
    for i, x in enumerate(inputs):
        wrong = (*inputs[:i], torch.cat([x, x], dim=-1), *inputs[i + 1 :])
        if (name, i) == ("norm", 0):
            wrong = (x[..., :3], inputs[1])
        with pytest.raises(KernelError, match=r"fit|gated"):
            ours(*wrong)
    if len(inputs) > 2:  # and batches, which a state may bring from elsewhere
        with pytest.raises(KernelError, match="fit"):
            ours(*inputs[:-1], torch.cat([inputs[-1], inputs[-1]]))


def test_a_state_of_another_batch_is_refused_by_a_block() -> None:
    for text in ("gdn", "gla", "linear", "fox"):
        ((block,),) = parse(text)
        module = build(block, "c")
        _, state = module(noise(1, 5, 32))
        with pytest.raises((KernelError, RuntimeError)):
            module(noise(3, 5, 32), state)


@pytest.mark.parametrize("name", ["delta", "linear", "gla"])
def test_no_tokens_leave_the_state_as_it_was(name: str) -> None:
    ours, _, inputs = FUNCTIONS[name](7)
    at = {"delta": 5, "linear": 3, "gla": 4}[name]
    given = [x if i == at else x[:, :0] for i, x in enumerate(inputs)]
    given[at] = given[at].clone().requires_grad_()
    out, last = ours(*given)
    assert out.shape[1] == 0 and torch.equal(last, given[at])
    upstream = noise(*last.shape)
    assert torch.equal(torch.autograd.grad(last, given[at], upstream)[0], upstream)


def test_forgetting_without_cached_keys_needs_no_word_about_them() -> None:
    q, k, v = (noise(1, 9, 2, 4, seed=i) for i in range(3))
    log_f = F.logsigmoid(noise(1, 9, 2, seed=4))
    assert torch.equal(ops.attention(q, k, v, log_f), ops.attention(q, k, v, log_f, log_f[:, :0]))
    assert not torch.allclose(ops.attention(q, k, v, log_f), ops.attention(q, k, v))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_tensors_that_are_stored_elsewhere_meanwhile_come_back_in_any_layout(name: str) -> None:
    ours, _, inputs = FUNCTIONS[name](7)
    wide = tuple(torch.cat([x, x, x], dim=-1)[..., x.shape[-1] : 2 * x.shape[-1]] for x in inputs)
    expected = ours_of(ours, wide)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.contiguous().clone(), lambda t: t):
        got = ours_of(ours, wide)
    for one, two in zip(got, expected, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("text", ["gdn", "swiglu"])
def test_a_layer_is_taken_whole_only_in_one_type_and_without_autocast(text: str) -> None:
    ((block,),) = parse(text)
    module = build(block, "c", Shape(dim=16, heads=2)).float()
    with torch.autocast("cpu", torch.bfloat16):
        assert module(noise(2, 5, 16).float())[0].dtype == torch.bfloat16
    with pytest.raises(RuntimeError, match="dtype"):
        module(noise(2, 5, 16))
