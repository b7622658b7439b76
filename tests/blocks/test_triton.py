"""The Triton kernels without a GPU: interpreted against the paper's loops, compiled, refused elsewhere.

Each runs in a process of its own (``tests.blocks.interpreted``, ``tests.blocks.compile_table``), whose tables
are printed at the end; each is also given a kernel that is broken on purpose, and has to find it.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from blocks.base import Cores, Kernel, Shape, core_of
from blocks.kernels.native import KernelError
from blocks.schedule import parse

pytest.importorskip("triton", reason="Triton is for Linux alone")

KERNELS = ("rms_norm", "fox", "gated_delta", "gated_linear", "ttt", "gated_largest", "skipping_product")

WRONG = [
    (
        "rms_norm",
        "triton_norm",
        "along = tl.sum(d_unit * unit, axis=1) / D",
        "along = tl.sum(d_unit * unit, axis=1)",
    ),
    (
        "rms_norm",
        "triton_norm",
        "mask=seen, other=0.0).to(tl.float32) * rate[:, None]",
        "mask=seen, other=0.0).to(tl.float32)",
    ),
    ("fox", "triton_fox", "tl.load(totals_ptr + bh * N + m, mask=m > n, other=0.0)", "0.0"),
    ("fox", "triton_fox", "total = total * shrink + tl.sum(p, axis=1)", "total += tl.sum(p, axis=1)"),
    (
        "gated_delta",
        "triton_delta",
        "for level in tl.static_range(1, 5)",
        "for level in tl.static_range(1, 4)",
    ),
    ("gated_delta", "triton_delta", "d_k += dot(tl.trans(d_scores), q) +", "d_k +="),
    ("gated_largest", "triton_sparse", "tl.cumsum(tied, axis=0) <= room", "tl.cumsum(tied, axis=0) < room"),
    ("gated_largest", "triton_sparse", "for bit in range(0, 31)", "for bit in range(0, 20)"),
    ("skipping_product", "triton_sparse", "(y != 0)[None, :]", "(y > 0)[None, :]"),
    ("gated_linear", "triton_gla", "s * keep[:, None] + dot", "s + dot"),
    ("gated_linear", "triton_gla", "d_q * q - d_k * k", "d_q * q"),
    ("ttt", "triton_ttt", "if n > 0:", "if n > 1:"),
    ("ttt", "triton_ttt", "pull = d_inverse * inverse + tl.sum(d_unit * unit, axis=0)", "pull = d_inverse"),
    ("ttt", "triton_ttt", "d_step, d_step_b = -d_w, -d_b", "d_step, d_step_b = -d_w, d_step_b"),
]
"""Kernel, module, what stands in it, and what is wrong in its place: found by the interpreter."""

WASTEFUL = [
    ("rms_norm", "triton_norm", "TILE = 2048", "TILE = 8192"),
    ("fox", "triton_fox", "BLOCK = 32", "BLOCK = 64"),
    ("gated_delta", "triton_delta", "64 if width <= 64 else 32", "128"),
    ("gated_largest", "triton_sparse", "max(1, block // 512)", "1"),
    ("skipping_product", "triton_sparse", "BD=16, BF=128", "BD=128, BF=512"),
    ("gated_linear", "triton_gla", "min(64, columns(values))", "512"),
    ("ttt", "triton_ttt", '"R": ROWS', '"R": 64'),
]
"""Kernel, module, what stands in it, and what does not fit a processor in its place: found by compiling."""


def process(module: str, *words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A fresh Python that runs ``module``; what it says is printed."""
    known = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, words)],
        env={**known, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
    )
    print(done.stdout)
    return done


def interpret(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return process("tests.blocks.interpreted", *words, TRITON_INTERPRET="1")


def compile_(cache: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return process("tests.blocks.compile_table", *words, TRITON_CACHE_DIR=str(cache))


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
def test_an_interpreted_kernel_is_its_reference_gradients_included(name: str, record_property: Any) -> None:
    done = interpret(name)
    record_property("table", done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_compiles_for_gpus_within_its_bounds(
    name: str, tmp_path: Path, record_property: Any
) -> None:
    done = compile_(tmp_path, name)
    record_property("table", done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("name", "module", "old", "new"), WRONG)
def test_a_kernel_that_computes_something_else_is_found(
    name: str, module: str, old: str, new: str, tmp_path: Path
) -> None:
    done = interpret(name, module, old, new, tmp_path)
    assert done.returncode == 1 and "OFF" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("name", "module", "old", "new"), WASTEFUL)
def test_a_kernel_that_does_not_fit_is_found(
    name: str, module: str, old: str, new: str, tmp_path: Path
) -> None:
    done = compile_(tmp_path, name, module, old, new, tmp_path)
    assert done.returncode == 1 and "OFF" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("backend", ["triton", "fla"])
def test_a_tensor_in_main_memory_is_refused_in_a_sentence(backend: Kernel) -> None:
    ((block,),) = parse("gdn")
    module = block.build(Shape(dim=16, heads=2), backend)
    with pytest.raises(KernelError, match=f'kernel "{backend}" runs on a GPU and was given a tensor on cpu'):
        module(torch.zeros(1, 3, 16))


def test_a_kernel_without_a_form_takes_the_nearest_one() -> None:
    full: Cores = {"torch": max, "c": min, "triton": sum, "fla": any, "reference": all}
    without: Cores = {name: full[name] for name in full if name != "fla"}
    assert all(core_of(full, kernel) is full[kernel] for kernel in full)
    assert core_of(without, "fla") is sum
    assert {core_of({"torch": max}, kernel) for kernel in full if kernel != "reference"} == {max}
    with pytest.raises(KeyError, match="no form for kernel 'reference' among torch"):
        core_of({"torch": max}, "reference")


def test_triton_is_imported_by_none_that_does_not_ask_for_it() -> None:
    """It takes a second and more, and reads TRITON_INTERPRET as it is imported."""
    code = "import sys, blocks, blocks.model; sys.exit('triton' in sys.modules)"
    assert process_of(code).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fox", "gated_delta", "gated_linear"])
def test_kernels_of_fla_give_the_same(name: str, record_property: Any) -> None:
    done = process("tests.blocks.fla_peer", name, TRITON_INTERPRET="1")
    record_property("table", done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fox", "gated_delta", "gated_linear"])
def test_kernels_of_fla_are_in_a_table_of_their_own(name: str, tmp_path: Path, record_property: Any) -> None:
    """Beside ours: what a target's compiler makes of kernels that run on it every day."""
    done = process("tests.blocks.fla_peer", name, TRITON_CACHE_DIR=str(tmp_path))
    record_property("table", done.stdout)
    assert done.returncode == 0 and "gfx942" in done.stdout, done.stdout + done.stderr


LAYER = """
import torch
from blocks.base import Shape
from blocks.kernels import gpu
from blocks.kernels.native import KernelError
from blocks.schedule import parse
from tests.blocks.breaking import break_kernel
torch.manual_seed(0)
if {kernel!r} == "fla":
    from tests.blocks.fla_peer import load_fla
    load_fla()
((block,),), shape = parse({text!r}), Shape(dim=32, heads=2, norm="rms_zero")
if {broken!r}:
    from pathlib import Path
    break_kernel(*{broken!r}[:-1], Path({broken!r}[-1]))
ours, plain = (block.build(shape, kernel) for kernel in ({kernel!r}, "torch"))
ours.load_state_dict(plain.state_dict())
x = torch.randn(2, 37, 32)
try:
    y, state = [], None
    for piece in x.split([20, 16, 1], 1):
        out, state = ours(piece, state)
        y.append(out)
    y = torch.cat(y, 1)
except KernelError as exc:
    raise SystemExit(str(exc))
loss = [(z * torch.linspace(-1, 1, 37)[:, None]).sum() for z in (y, plain(x)[0])]
got, right = (torch.autograd.grad(a, m.parameters()) for a, m in zip(loss, (ours, plain)))
torch.testing.assert_close(y, plain(x)[0], atol=1e-5, rtol=1e-4)
for one, other in zip(got, right):
    torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-3)
"""


def process_of(code: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
    )


UNREAD = """
import torch
from blocks.kernels import gpu
y, weight = torch.zeros(3, 1, 200), torch.full((40, 200), float("nan"))
y[:, :, 5::7] = 1.0
weight[:, 5::7] = torch.arange(28.0)
assert torch.equal(gpu.skipping_product(y, weight), torch.full((3, 1, 40), 27 * 28 / 2))
"""
"""A column in seven is wanted, of which there are 28; what the others hold would spoil every sum."""


@pytest.mark.slow
def test_columns_that_meet_zeros_are_not_read() -> None:
    done = process_of(UNREAD, TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stderr


LAYERS = (
    "sparse(k_ratio=0.3)",
    "sparse(expand=2, k_ratio=0.2, block=16)",
    "gdn",
    "gla(conv=4)",
    "ttt(mini_batch=12)",
    "deltanet(beta_max=2)",
    "fox(kv_heads=1, conv=4, output_norm=True, qk_norm=True)",
)


@pytest.mark.slow
@pytest.mark.parametrize("text", LAYERS)
def test_a_layer_of_interpreted_kernels_is_the_layer(text: str) -> None:
    done = process_of(LAYER.format(text=text, kernel="triton", broken=()), TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("text", ["gdn", "gla(conv=4)", "deltanet(beta_max=2)"])
def test_a_layer_with_kernels_of_fla_is_the_layer(text: str) -> None:
    done = process_of(LAYER.format(text=text, kernel="fla", broken=()), TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_attention_of_fla_refuses_cached_keys_in_a_sentence() -> None:
    done = process_of(LAYER.format(text="fox", kernel="fla", broken=()), TRITON_INTERPRET="1")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert 'kernel "fla" has no forgetting attention over cached keys, and here are 20' in done.stderr


@pytest.mark.slow
def test_a_kernel_that_computes_wrong_where_it_is_first_used_is_refused(tmp_path: Path) -> None:
    broken = (*WRONG[0][1:], str(tmp_path))
    done = process_of(LAYER.format(text="gdn", kernel="triton", broken=broken), TRITON_INTERPRET="1")
    assert 'kernel "triton" computes rms_norm wrong on the interpreter: its gradient 0' in done.stderr
    assert 'choose kernel "torch"' in done.stderr and "Traceback" not in done.stderr


REPORT = """
import sys, torch
from pathlib import Path
from tests.blocks.breaking import break_kernel
break_kernel(*sys.argv[1:4], Path(sys.argv[4]))
from blocks.kernels import check
from lab import gpu
shown = {f"triton {name}": check.OPS[name] for name in ("rms_norm", "gated_largest")}
gpu.kernels = lambda: shown
gpu.LENGTHS, gpu.BATCH, gpu.HEADS, cpu = (9,), 1, 1, torch.device("cpu")
found = [*gpu.compared(cpu, (torch.float32, torch.float16)), *gpu.timed(cpu, torch.float16, 4, 1)]
print(*(f"{check.status} {check.name}: {check.detail}" for check in found), sep="\\n")
"""


@pytest.mark.slow
def test_the_report_of_a_gpu_has_kernels_in_each_type_and_names_the_one_that_is_wrong(tmp_path: Path) -> None:
    """By the interpreter in the place of the GPU, of two kernels, of which one is broken on purpose."""
    done = process_of(REPORT, *WRONG[0][1:], str(tmp_path), TRITON_INTERPRET="1")
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    for status, name in (("broken", "rms_norm"), ("ok", "gated_largest")):
        for kind in ("float32", "float16"):
            assert f"{status} triton {name} {kind}: off by " in done.stdout
        assert f"ok time triton {name}: " in done.stdout and "forward and backward, torch" in done.stdout
